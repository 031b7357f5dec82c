"""From pairs to the model's tensors: shapes, sources, what is drawn, and that nothing of the target gets where it must not."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pairs import FRAMES, HEIGHT, WIDTH, figure, made

from factory.trainer import augment
from factory.trainer.augment import Augmentation, Warp
from factory.trainer.conditioning import Conditioned, Conditioning, condition, condition_pixels, sigma_of, tokens_per_frame
from factory.trainer.decode import Sample
from factory.trainer.draws import Draws
from factory.trainer.encoders import HashedWordsStandIn
from factory.trainer.encoding import encode, encode_driving, encode_references, fitted
from factory.trainer.latent_sample import Latents
from factory.trainer.positions import grid, layout_of, positions
from factory.trainer.vae import BlockTransformStandIn, to_pixels
from manifests import masks
from manifests.errors import BadInput
from manifests.records import MODES, Task

VAE = BlockTransformStandIn()
NEVER = Conditioning(text_drop=0, history=0, history_of_chunks=0, augmentation=Augmentation(end_to_end=0, pose=0))
ALWAYS = Conditioning(text_drop=1, history=1, history_of_chunks=1, augmentation=Augmentation(end_to_end=1, pose=1))


def tensors(of: Conditioned) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(of).items() if isinstance(value, torch.Tensor)}


def latents(pair: Sample, warp: Warp | None = None) -> Latents:
    return encode(pair, VAE, warp, HashedWordsStandIn())


@pytest.mark.parametrize("task", MODES)
@pytest.mark.parametrize("references", [1, 3])
def test_shapes(task: Task, references: int) -> None:
    got = condition_pixels(made(task, people=2, references=references), VAE, Draws(0, "x"), NEVER, HashedWordsStandIn())
    t, h, w = 3, HEIGHT // 8, WIDTH // 8
    assert {name: tuple(value.shape) for name, value in tensors(got).items()} == {
        "video_16THW": (16, t, h, w), "noise_16THW": (16, t, h, w), "noisy_20THW": (20, t, h, w),
        "references_20RHW": (20, references, h, w), "driving_20Thw": (20, t, h // 2, w // 2),
        "reference_mask_28SHW": (28, references + t, h, w), "driving_mask_28Thw": (28, t, h // 2, w // 2), "loss_mask_16THW": (16, t, h, w),
        "hands_T16HW": (t, 16, h, w), "faces_T16HW": (t, 16, h, w), "words_LC": (6, 64), "reference_pixels_3HW": (3, HEIGHT, WIDTH),
    }  # fmt: skip
    assert all(value.dtype == torch.float32 for value in tensors(got).values())
    assert got.references_20RHW[16:].eq(1).all()
    assert got.driving_20Thw[16:].eq(1).all()
    assert got.noisy_20THW[16:].eq(0).all()
    assert got.reference_mask_28SHW[:, references:].eq(0).all()
    assert got.reference_mask_28SHW[:, :references].amax((0, 2, 3)).eq(1).all()


def test_the_driving_video_is_halved_before_it_is_encoded() -> None:
    pair = made()
    got = condition_pixels(pair, VAE, Draws(0, "x"), NEVER)
    quads = pair.driving_THWC.reshape(FRAMES, HEIGHT // 2, 2, WIDTH // 2, 2, 3).astype(np.float32).mean((2, 4))
    assert torch.allclose(got.driving_20Thw[:16], VAE.encode(to_pixels(torch.from_numpy(quads))), atol=1e-5)


# --- nothing of the target where it must not be


@pytest.mark.parametrize("task", MODES)
def test_noise_for_a_target_changes_nothing_but_the_video(task: Task) -> None:
    pair = made(task, people=2, references=2)
    noise = np.random.default_rng(0).integers(0, 256, pair.target_THWC.shape, np.uint8)
    draws = Draws(0, "x")
    one, other = (condition_pixels(p, VAE, draws, ALWAYS) for p in (pair, dataclasses.replace(pair, target_THWC=noise)))
    changed = {name for name, value in tensors(one).items() if not torch.equal(value, tensors(other)[name])}
    assert changed == {"video_16THW", "noisy_20THW"}


@pytest.mark.parametrize("task", MODES)
def test_another_driving_video_changes_driving_and_its_mask_alone(task: Task) -> None:
    one, other = (condition_pixels(made(task, shift=shift), VAE, Draws(0, "x"), NEVER) for shift in (0, 16))
    changed = {name for name, value in tensors(one).items() if not torch.equal(value, tensors(other)[name])}
    assert changed == {"driving_20Thw", "driving_mask_28Thw"}


@pytest.mark.parametrize("task", MODES)
def test_a_pair_that_is_driven_by_its_target_is_refused(task: Task) -> None:
    """By the record, by the pixels, and when the target was only encoded once more, which changes every pixel a little."""
    pair = made(task)
    noise = np.random.default_rng(0).integers(-5, 6, pair.target_THWC.shape)
    again = (pair.target_THWC + noise).clip(0, 255).astype(np.uint8)
    for wrong in (
        dataclasses.replace(pair, driving_THWC=pair.target_THWC.copy()),
        dataclasses.replace(pair, driving_THWC=again),
        dataclasses.replace(pair, meta={**pair.meta, "members": {"driving.mp4": {"sha256": "b"}, "target.mp4": {"sha256": "b"}}}),
    ):
        with pytest.raises(BadInput, match="synthetic video drives") as caught:
            condition_pixels(wrong, VAE, Draws(0, "x"))
        assert caught.value.code == "not_reverse_driven"


def test_in_a_replacement_only_the_people_have_to_differ() -> None:
    """Its scene is the target's own, so most pixels are equal."""
    pair = made("replacement")
    driving_THWC = pair.target_THWC.copy()
    people_THW = ~(pair.driving_mask_THWC == 255).all(-1)
    driving_THWC[people_THW] = 255 - driving_THWC[people_THW]
    got = condition_pixels(dataclasses.replace(pair, driving_THWC=driving_THWC), VAE, Draws(0, "x"), NEVER)
    assert got.task == "replacement"


@pytest.mark.parametrize("task", MODES)
def test_masks_are_made_without_a_look_at_the_target(task: Task) -> None:
    """Everything but the video's own latents, from a sample that has no target to look at."""

    class NoTarget:
        def __init__(self, of: Sample) -> None:
            self._of = of

        def __getattr__(self, name: str) -> object:
            assert name not in ("target_THWC", "meta"), "looked at the target"
            return getattr(self._of, name)

    pair = made(task, people=2, references=2)
    whole = latents(pair, augment.drawn(Draws(0, "x"), Augmentation()))
    blind = NoTarget(pair)
    warp = augment.drawn(Draws(0, "x"), Augmentation())
    for made_of, expected in ((encode_driving(blind, VAE), whole.driving), (encode_driving(blind, VAE, warp), whole.augmented)):
        assert expected is not None
        assert torch.equal(made_of.mask_28Thw, expected.mask_28Thw)
        assert torch.equal(made_of.latents_16Thw, expected.latents_16Thw)
    references, shown, _ = encode_references(blind.references, blind.reference_masks, task, HEIGHT, WIDTH, VAE)
    assert torch.equal(references[:, 0], whole.reference_16HW)
    assert torch.equal(shown[:, 1:], whole.more_masks_28AHW)


@pytest.mark.parametrize(("change", "code"), [
    ({"driving_mask_THWC": made("replacement").driving_mask_THWC}, "stray_colours"),
    ({"reference_masks": made("replacement").reference_masks}, "stray_colours"),
    ({"reference_masks": ()}, "size_mismatch"),
    ({"reference_masks": (made().reference_masks[0][:, 8:],)}, "size_mismatch"),
    ({"driving_mask_THWC": made().driving_mask_THWC | np.uint8(7)}, "stray_colours"),
    ({"driving_mask_THWC": made().driving_mask_THWC[:5]}, "size_mismatch"),
    ({"meta": {"task": "pose"}}, "wrong_task"),
    ({"task": "preference", "meta": {}}, "wrong_task"),
    ({"meta": {"boxes": [{}] * 3}}, "bad_boxes"),
    ({"meta": {"boxes": [{"hands": [[1, 2]]}] * 9}}, "bad_boxes"),
])  # fmt: skip
def test_pairs_that_are_none_are_refused(change: dict[str, object], code: str) -> None:
    with pytest.raises(BadInput) as caught:
        latents(dataclasses.replace(made(), **change))
    assert caught.value.code == code


def test_the_reference_of_a_replacement_is_matted() -> None:
    pair = made("replacement")
    unmatted = dataclasses.replace(pair, references=(np.full((HEIGHT, WIDTH, 3), 200, np.uint8),))
    pixels = latents(unmatted).reference_pixels_3HW
    inside = torch.from_numpy(figure(1, frames=1)[0, 0])
    assert pixels[:, ~inside].eq(-1).all()
    assert pixels[:, inside].gt(0).all()


def test_references_of_another_size_are_fitted_like_their_masks() -> None:
    pair = made()
    large = dataclasses.replace(
        pair,
        references=(np.repeat(np.repeat(pair.references[0], 2, 0), 2, 1),),
        reference_masks=(np.repeat(np.repeat(pair.reference_masks[0], 2, 0), 2, 1),),
    )
    assert torch.equal(latents(pair).reference_mask_28HW, latents(large).reference_mask_28HW)
    assert torch.allclose(latents(pair).reference_pixels_3HW, latents(large).reference_pixels_3HW, atol=0.01)
    wide = fitted(np.zeros((64, 200, 3), np.uint8), HEIGHT, WIDTH)
    assert wide.shape == (HEIGHT, WIDTH, 3)
    assert masks.stray_colours(fitted(large.reference_masks[0][:, 7:], HEIGHT, WIDTH, mask=True)) == []


# --- positions, by hand from the published figures


@pytest.mark.parametrize(("task", "more", "additional", "reference", "video", "driving"), [
    ("animation", 0, (), (0, 0, 0), (1, 0, 0), (1, 0, 120)),
    ("pose", 0, (), (0, 0, 0), (1, 0, 0), (1, 0, 120)),
    ("animation", 2, ((0, 0, 0), (1, 0, 0)), (2, 0, 0), (3, 0, 0), (3, 0, 120)),
    ("replacement", 0, (), (0, 120, 0), (0, 0, 0), (0, 0, 120)),
    ("replacement", 1, ((0, 120, 0),), (1, 120, 0), (1, 0, 0), (1, 0, 120)),
])  # fmt: skip
def test_positions(task: Task, more: int, additional: object, reference: object, video: object, driving: object) -> None:
    got = positions(layout_of(task), more)
    assert (got.additional, got.reference, got.video, got.driving) == (additional, reference, video, driving)
    assert condition_pixels(made(task, references=1 + more), VAE, Draws(0, "x"), NEVER).positions == got


def test_a_grid_counts_in_row_order() -> None:
    assert grid((3, 0, 120), 1, 2, 2).tolist() == [[3, 0, 120], [3, 0, 121], [3, 1, 120], [3, 1, 121]]
    assert grid((0, 0, 0), 21, 32, 56).shape == (37_632, 3)


# --- what is drawn


def test_noise_and_history() -> None:
    pair = made()
    plain, clean = (condition_pixels(pair, VAE, Draws(3, "x"), how) for how in (NEVER, ALWAYS))
    assert torch.allclose(plain.noisy_20THW[:16], (1 - plain.sigma) * plain.video_16THW + plain.sigma * plain.noise_16THW)
    assert torch.equal(clean.noise_16THW, plain.noise_16THW)
    assert clean.sigma == plain.sigma
    assert clean.history_frames == 2
    assert torch.equal(clean.noisy_20THW[:16, :2], clean.video_16THW[:, :2])
    assert torch.equal(clean.noisy_20THW[:, 2:], plain.noisy_20THW[:, 2:])
    assert clean.noisy_20THW[16:, :2].eq(1).all()
    assert clean.loss_mask_16THW[:, :2].eq(0).all()


def test_lettering_is_left_out_of_the_loss() -> None:
    got = condition_pixels(made(), VAE, Draws(0, "x"), NEVER)
    assert got.loss_mask_16THW[0, 1].tolist() == [[1.0] * 8 + [0.0] * 4] * 2 + [[1.0] * 12] * 6  # text from x 64 to 90, y 0 to 9
    assert got.hands_T16HW[0, 0].nonzero().tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]


def test_a_dropped_caption_leaves_the_features_of_the_empty_one() -> None:
    got = condition_pixels(made(), VAE, Draws(0, "x"), ALWAYS, HashedWordsStandIn())
    assert got.caption == ""
    assert got.words_LC is not None
    assert torch.equal(got.words_LC, HashedWordsStandIn().encode(""))
    featureless = dataclasses.replace(latents(made()), no_words_LC=None)
    assert condition(featureless, Draws(0, "x"), NEVER).caption == "somebody walks to the right"
    with pytest.raises(BadInput, match="empty"):
        condition(featureless, Draws(0, "x"), ALWAYS)


def test_history_comes_as_often_as_the_key_says() -> None:
    small = latents(made())
    found = {}
    for key in ("0a1b", "clip_1_00042", "part1_0_00007", "part1_1_0007"):
        some = [condition(dataclasses.replace(small, key=key), Draws(0, key, epoch)).history_frames for epoch in range(400)]
        assert set(some) <= {0, 2}
        found[key] = sum(map(bool, some)) / 400
    assert [round(share, 1) for share in found.values()] == pytest.approx([0.15, 0.5, 0.5, 0.15], abs=0.075)


def test_augmentation_comes_as_often_as_the_task_says() -> None:
    hits: Counter[str] = Counter()
    for task in MODES:
        hits[task] = sum(augment.applies(Draws(0, f"{i}"), task, Augmentation()) for i in range(2000))
    assert hits["animation"] / 2000 == hits["replacement"] / 2000 == pytest.approx(0.56, abs=0.04)  # the same draws
    assert hits["pose"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_a_replacement_keeps_its_driving_scene_unless_asked_or_stored_otherwise() -> None:
    pair = made("replacement")
    clean = condition_pixels(pair, VAE, Draws(0, "x"), NEVER)
    always = condition_pixels(pair, VAE, Draws(0, "x"), ALWAYS)
    assert not always.augmented
    assert torch.equal(always.driving_20Thw, clean.driving_20Thw)
    asked = Conditioning(augmentation=Augmentation(end_to_end=1, replacement=True))
    moved = condition_pixels(pair, VAE, Draws(0, "x"), asked)
    assert moved.augmented
    assert not torch.equal(moved.driving_20Thw, clean.driving_20Thw)
    stored = condition(latents(pair, augment.drawn(Draws(0, "x"), Augmentation())), Draws(0, "x"), ALWAYS)
    assert stored.augmented


@given(st.floats(0.8, 1.25), st.floats(0.9, 1.12), st.floats(-0.08, 0.08), st.floats(-0.08, 0.08))
@settings(max_examples=25, deadline=None)
def test_driving_and_mask_move_together(scale: float, stretch: float, right: float, down: float) -> None:
    """The silhouette is white on black in the driving video, so it can be read off again."""
    inside_PTHW = figure(1)
    driving_THWC = np.where(inside_PTHW[0][..., None], 255, 0).astype(np.uint8).repeat(3, 3)
    mask_THWC = masks.paint(inside_PTHW, (3,), "animation", "driving")
    moved, coloured = augment.warped(driving_THWC, mask_THWC, "pose", Warp(scale, stretch, (right, down)))
    masks.validate_colours(coloured, "pose", "driving")
    bright, slot = moved[..., 0] > 127, masks.slot_mask(coloured, 3)
    assert (bright != slot).sum() <= 0.05 * slot.sum()  # edges
    if scale > 1.05:
        assert slot.sum() > inside_PTHW.sum()


def test_each_epoch_has_its_own_warp_and_repeats_it() -> None:
    pair, how = made(), Conditioning(augmentation=Augmentation(end_to_end=1))
    one, again, later = (condition_pixels(pair, VAE, Draws(0, pair.key, epoch), how) for epoch in (0, 0, 1))
    assert all(torch.equal(value, tensors(again)[name]) for name, value in tensors(one).items())
    assert not torch.equal(one.driving_20Thw, later.driving_20Thw)
    assert not torch.equal(one.driving_mask_28Thw, later.driving_mask_28Thw)
    assert one.augmented
    assert later.augmented


def test_another_process_makes_the_same_tensors() -> None:
    """Whatever it drew before: what a resumed run on other ranks does."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_conditioning as t\n"
        "for key in ('first', 'x'): digest = t.digest_of_a_sample(key)\n"
        "print(digest)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == digest_of_a_sample("x")


def digest_of_a_sample(key: str) -> str:
    got = condition_pixels(made(), VAE, Draws(5, key, 7), Conditioning(augmentation=Augmentation(end_to_end=1)), HashedWordsStandIn())
    facts = f"{got.sigma!r} {got.caption} {got.history_frames}"
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in tensors(got).values()) + facts.encode()).hexdigest()


@pytest.mark.parametrize(("height", "width", "shift"), [(512, 896, 2.14), (704, 1280, 2.86)])
def test_sigma_is_shifted_as_published(height: int, width: int, shift: float) -> None:
    tokens = tokens_per_frame(height // 8, width // 8)
    half = sigma_of(0.0, tokens)  # u = 1/2: σ = s / (1 + s)
    assert half / (1 - half) == pytest.approx(shift, abs=0.005)
    drawn = [sigma_of(float(Draws(0, f"{i}").normal("sigma", (1,))[0]), tokens) for i in range(500)]
    assert 0 < min(drawn) < max(drawn) < 1
    assert math.isclose(float(np.median(drawn)), half, abs_tol=0.03)


def test_latents_condition_like_the_pixels_that_they_were_made_of() -> None:
    pair = made(references=2)
    stored, decoded = (
        condition(latents(pair), Draws(0, "x"), NEVER),
        condition_pixels(pair, VAE, Draws(0, "x"), NEVER, HashedWordsStandIn()),
    )
    for name, value in tensors(stored).items():
        assert torch.equal(value, tensors(decoded)[name]), name
    warp = augment.drawn(Draws(0, "x"), Augmentation())
    stored = condition(latents(pair, warp), Draws(0, "x"), ALWAYS)
    decoded = condition_pixels(pair, VAE, Draws(0, "x"), ALWAYS, HashedWordsStandIn())
    assert torch.equal(stored.driving_20Thw, decoded.driving_20Thw)
    assert torch.equal(stored.driving_mask_28Thw, decoded.driving_mask_28Thw)
