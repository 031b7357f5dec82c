"""One sample as the model sees it: noisy video, references, driving, masks, positions, text and loss mask. docs/conditioning.md has the
shapes.

    Stream("out/latents", decode=FromLatents())          # a latent release, or published latent shards: gives Conditioned
    Stream("out/release", decode=FromPixels(vae))        # a pixel release, with the autoencoder in the loop: the same

Everything random comes from draws that belong to the run's seed, the sample's key and how often it was drawn before, and to nothing else.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from factory.trainer import augment
from factory.trainer.augment import Augmentation
from factory.trainer.catalog import Entry
from factory.trainer.decode import Pixels, PreferenceSample, Raw
from factory.trainer.draws import Draws
from factory.trainer.encoders import ImageEncoder, TextEncoder
from factory.trainer.encoding import DecodedPair, encode, task_of
from factory.trainer.latent_sample import HISTORY_KEY, Latents, unpack
from factory.trainer.positions import Positions, layout_of, positions
from factory.trainer.vae import Vae
from manifests.errors import BadInput
from manifests.latents import FIRST, FRAMES, ID, META
from manifests.records import Task

HISTORY_FRAMES = 2
"""latent frames: 5 pixel frames of the chunk before"""
MARKS = 4
"""channels behind the latents' 16 that say whether they are clean"""
UNUSED = (FIRST, FRAMES, ID, META, "json")
"""members of a latent shard that are not read"""


@dataclass(frozen=True)
class Conditioning:
    """What is drawn, and how often. Defaults: SCAIL-2's published figures."""

    text_drop: float = 0.1
    history: float = 0.15
    """probability of two clean latent frames at the beginning"""
    history_of_chunks: float = 0.5
    """the same for a sample whose key says that it goes on where another one ends"""
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, eq=False)
class Conditioned:
    """The tensors of one training sample, float32. T latent frames, H × W latent cells, h = H/2, w = W/2, A additional references."""

    key: str
    task: Task
    video_16THW: Tensor
    """the target, clean: x₀"""
    noise_16THW: Tensor
    """ε; standard normal"""
    sigma: float
    """between 0 and 1"""
    noisy_20THW: Tensor
    """(1 − σ) x₀ + σ ε, history frames clean; then four marks: 1 over history frames, else 0"""
    references_20RHW: Tensor
    """R = A + 1: additional references, then the reference; marks 1"""
    driving_20Thw: Tensor
    """marks 1"""
    reference_mask_28SHW: Tensor
    """S = A + 1 + T, in the order of references and video; 0 over the video"""
    driving_mask_28Thw: Tensor
    loss_mask_16THW: Tensor
    """1 where the loss counts: not in history frames, not where the target has lettering"""
    hands_T16HW: Tensor
    faces_T16HW: Tensor
    positions: Positions
    history_frames: int
    augmented: bool
    caption: str
    """empty when it was dropped"""
    words_LC: Tensor | None
    """its features, without padding; those of the empty caption when it was dropped"""
    picture_LC: Tensor | None
    """the reference's features"""
    reference_pixels_3HW: Tensor


def condition(sample: Latents, draws: Draws, how: Conditioning | None = None) -> Conditioned:
    """Draw augmentation, history, text drop, noise and σ for a sample of latents."""
    how = how or Conditioning()
    moved = sample.augmented is not None and augment.applies(draws, sample.task, how.augmentation)
    return _conditioned(sample, draws, how, moved)


def condition_pixels(
    sample: DecodedPair,
    vae: Vae,
    draws: Draws,
    how: Conditioning | None = None,
    text: TextEncoder | None = None,
    image: ImageEncoder | None = None,
) -> Conditioned:
    """The same for a decoded pair; its warp is another one in every epoch."""
    how, task = how or Conditioning(), task_of(sample)
    moved = augment.movable(task, how.augmentation) and augment.applies(draws, task, how.augmentation)
    warp = augment.drawn(draws, how.augmentation) if moved else None
    return _conditioned(encode(sample, vae, warp, text, image, clean=not moved), draws, how, moved)


class FromLatents:
    """A decoder of the stream (`factory.trainer.decode.Decoder`) for latent releases, ours and published ones: samples are `Conditioned`.

    Its draws are keyed by the sample's 64 bits of seed, which the stream makes of release, seed, pair and epoch.
    """

    def __init__(self, how: Conditioning | None = None) -> None:
        self._how = how or Conditioning()

    def members(self, entry: Entry) -> tuple[str, ...]:
        return tuple(member.name for member in entry.members if member.name not in UNUSED)

    def size(self, entry: Entry) -> int:
        frames, height, width = entry.shape
        cells = ((frames - 1) // 4 + 1) * (height // 8) * (width // 8)
        return 4 * (cells * 200 + 3 * height * width)

    def __call__(self, raw: Raw) -> Conditioned:
        latents = unpack(raw.key, {name: bytes(data) for name, data in raw.members.items()})
        return condition(latents, Draws(raw.seed, raw.key), self._how)


class FromPixels:
    """The same for pixel releases: decodes on the stream's threads, and encodes there, one sample at a time."""

    def __init__(
        self, vae: Vae, how: Conditioning | None = None, text: TextEncoder | None = None, image: ImageEncoder | None = None
    ) -> None:
        self._vae, self._how, self._text, self._image = vae, how or Conditioning(), text, image
        self._pixels = Pixels()
        self._lock = threading.Lock()

    def members(self, entry: Entry) -> tuple[str, ...]:
        return self._pixels.members(entry)

    def size(self, entry: Entry) -> int:
        return self._pixels.size(entry) + FromLatents().size(entry)

    def __call__(self, raw: Raw) -> Conditioned:
        sample = self._pixels(raw)
        if isinstance(sample, PreferenceSample):
            raise BadInput(f"{raw.key} is a preference pair: take its sides from Pixels, and condition each")
        with self._lock:
            return condition_pixels(sample, self._vae, Draws(raw.seed, raw.key), self._how, self._text, self._image)


def _conditioned(sample: Latents, draws: Draws, how: Conditioning, moved: bool) -> Conditioned:
    _, frames, height, width = sample.video_16THW.shape
    driving = sample.augmented if moved and sample.augmented else sample.driving
    more = sample.more_references_16AHW.shape[1]
    history = history_of(sample, draws, how)
    sigma = sigma_of(float(draws.normal("sigma", (1,))[0]), tokens_per_frame(height, width))
    noise_16THW = torch.from_numpy(draws.normal("noise", tuple(sample.video_16THW.shape)))
    dropped = draws.chance("text_drop", how.text_drop)
    if dropped and sample.words_LC is not None and sample.no_words_LC is None:
        raise BadInput(
            f"sample {sample.key} has features of its caption, but none of the empty one; make its latents again", "no_empty_text"
        )
    references_16RHW = torch.cat([sample.more_references_16AHW, sample.reference_16HW[:, None]], 1)
    shown_28RHW = torch.cat([sample.more_masks_28AHW, sample.reference_mask_28HW[:, None]], 1)
    return Conditioned(
        key=sample.key,
        task=sample.task,
        video_16THW=sample.video_16THW,
        noise_16THW=noise_16THW,
        sigma=sigma,
        noisy_20THW=noisy(sample.video_16THW, noise_16THW, sigma, history),
        references_20RHW=marked(references_16RHW, 1.0),
        driving_20Thw=marked(driving.latents_16Thw, 1.0),
        reference_mask_28SHW=torch.cat([shown_28RHW, torch.zeros(28, frames, height, width)], 1),
        driving_mask_28Thw=driving.mask_28Thw,
        loss_mask_16THW=loss_mask(sample.text_T16HW, history),
        hands_T16HW=sample.hands_T16HW,
        faces_T16HW=sample.faces_T16HW,
        positions=positions(layout_of(sample.task), more),
        history_frames=history,
        augmented=moved,
        caption="" if dropped else sample.caption,
        words_LC=sample.no_words_LC if dropped else sample.words_LC,
        picture_LC=sample.picture_LC,
        reference_pixels_3HW=sample.reference_pixels_3HW,
    )


def history_of(sample: Latents, draws: Draws, how: Conditioning) -> int:
    """How many latent frames at the beginning are given clean: 0 or 2, and none in a video that has no more than these."""
    likely = how.history_of_chunks if HISTORY_KEY.search(sample.key) else how.history
    drawn = draws.chance("history", likely)
    return HISTORY_FRAMES if drawn and sample.video_16THW.shape[1] > HISTORY_FRAMES else 0


def marked(latents_16THW: Tensor, mark: float) -> Tensor:
    """The latents with four channels behind them that are all `mark`: (20, T, H, W)."""
    return torch.cat([latents_16THW, torch.full((MARKS, *latents_16THW.shape[1:]), mark)])


def noisy(video_16THW: Tensor, noise_16THW: Tensor, sigma: float, history: int) -> Tensor:
    """The noisy video with its marks, (20, T, H, W); the first `history` latent frames stay clean and are marked."""
    out = marked((1 - sigma) * video_16THW + sigma * noise_16THW, 0.0)
    out[:16, :history] = video_16THW[:, :history]
    out[16:, :history] = 1
    return out


def loss_mask(text_T16HW: Tensor, history: int) -> Tensor:
    """(1 − history) (1 − lettering), (16, T, H, W)."""
    out = 1 - text_T16HW.transpose(0, 1)
    out[:, :history] = 0
    return out.contiguous()


def tokens_per_frame(height: int, width: int) -> int:
    """Tokens of a latent frame of so many cells: 2×2 cells each."""
    return (height // 2) * (width // 2)


def sigma_of(normal: float, tokens: int) -> float:
    """σ = s u / (1 + (s − 1) u), u = sigmoid of a standard normal number, s = e^μ, μ linear in the tokens per latent frame (256 → 0.5,
    4096 → 1.15): s = 2.14 at 512×896 and 2.86 at 704×1280."""
    shift = math.exp(0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256))
    u = 1 / (1 + math.exp(-normal))
    return shift * u / (1 + (shift - 1) * u)
