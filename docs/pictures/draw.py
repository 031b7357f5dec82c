"""Draws the pictures of docs/conditioning.md from a release that `motionpair run quickstart` made:

    python docs/pictures/draw.py out/quickstart/release

What is shown goes through the functions that training uses; nothing is retouched but for labels and scale.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from factory.trainer.augment import Augmentation, drawn, warped
from factory.trainer.conditioning import Conditioned, Conditioning, condition_pixels
from factory.trainer.decode import Sample
from factory.trainer.draws import Draws
from factory.trainer.encoding import task_of
from factory.trainer.masks28 import mask_28
from factory.trainer.stream import Stream
from factory.trainer.vae import BlockTransformStandIn, to_frames

Picture = NDArray[np.uint8]
HERE = Path(__file__).parent
PAPER, INK = (248, 248, 248), (30, 30, 30)
GAP, LINE = 6, 17
"""pixels between tiles, and of a line of text"""
PLANES = ("white", "red", "green", "blue", "yellow", "magenta", "cyan")
NEVER = Conditioning(text_drop=0, history=0, history_of_chunks=0, augmentation=Augmentation(end_to_end=0, pose=0))


def chosen(release: str) -> dict[str, Sample]:
    """The first upright sample of each task in the stream of seed 0."""
    found: dict[str, Sample] = {}
    with Stream(release) as stream:
        while len(found) < 3:
            sample = next(stream)
            if sample.target_THWC.shape[1] > sample.target_THWC.shape[2]:
                found.setdefault(sample.task, sample)
    return found


def scaled(picture_HWC: Picture, height: int, sharp: bool = False) -> Picture:
    width = round(picture_HWC.shape[1] * height / picture_HWC.shape[0])
    how = cv2.INTER_NEAREST if sharp else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture_HWC, (width, height), interpolation=how), np.uint8)


def written(text: str, width: int, height: int) -> Picture:
    """Text on paper, one line for each of its lines."""
    out = np.full((height, width, 3), PAPER, np.uint8)
    for i, line in enumerate(text.split("\n")):
        cv2.putText(out, line, (2, 12 + i * LINE), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
    return out


def table(rows: Sequence[Sequence[Picture]], heads: Sequence[str]) -> Picture:
    """Tiles in rows, those of a row equally high, columns as wide as their widest tile."""
    widths = [max(row[i].shape[1] for row in rows) + GAP for i in range(len(rows[0]))]
    tall = LINE * (1 + max(head.count("\n") for head in heads))
    lines = [np.hstack([written(head, width, tall) for head, width in zip(heads, widths, strict=True)])]
    for row in rows:
        height = max(tile.shape[0] for tile in row) + GAP
        line = np.full((height, sum(widths), 3), PAPER, np.uint8)
        for tile, left in zip(row, np.cumsum([0, *widths[:-1]]), strict=True):
            line[: tile.shape[0], left : left + tile.shape[1]] = tile
        lines.append(line)
    return np.vstack(lines)


def save(name: str, picture_HWC: Picture, quality: int = 82) -> None:
    framed = cv2.copyMakeBorder(picture_HWC, GAP, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=PAPER)
    cv2.imwrite(str(HERE / name), framed[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    print(f"{HERE / name}: {framed.shape[1]}×{framed.shape[0]}, {(HERE / name).stat().st_size} bytes")


def batch(samples: dict[str, Sample]) -> Picture:
    """One sample a task, two of its frames."""
    tall = 190
    rows: list[list[Picture]] = []
    for task, sample in samples.items():
        warp = drawn(Draws(sample.seed, sample.key), Augmentation())
        moved = warped(sample.driving_THWC, sample.driving_mask_THWC, task_of(sample), warp)
        videos: list[Picture | None] = [sample.driving_THWC, sample.driving_mask_THWC, *moved, sample.target_THWC]
        if task == "replacement":
            videos[2:4] = [None, None]
        stills = [scaled(sample.references[0], tall), scaled(sample.reference_masks[0], tall)]
        words = [written(f"{task}\nabove: frame 4\nhere: frame 12", stills[0].shape[1], tall), written("", 10, tall)]
        for t, left in ((4, stills), (12, words)):
            rows.append(left + [scaled(v[t], tall) if v is not None else written("not moved", 90, tall) for v in videos])
    heads = ("reference", "its mask", "driving", "its mask", "driving,\naugmented", "its mask,\nmoved alike", "target")
    return table(rows, heads)


def channels(samples: dict[str, Sample], group: int = 2) -> Picture:
    """The 28 channels of one latent frame, for a pose pair (driven as an animation is) and a replacement."""
    rows: list[list[Picture]] = []
    for task in ("pose", "replacement"):
        mask_28Thw = mask_28(samples[task].driving_mask_THWC, half=True)
        for k in range(4):
            t = 4 * (group - 1) + 1 + k
            cells = [(mask_28Thw[7 * k + plane, group].numpy() * 255).round().astype(np.uint8) for plane in range(7)]
            tiles = [scaled(np.repeat(cell[..., None], 3, 2), 128, sharp=True) for cell in cells]
            rows.append([written(f"{task}\nframe {t}", 80, 128), scaled(samples[task].driving_mask_THWC[t], 128), *map(framed, tiles)])
    return table(rows, ("", "mask", *(f"{i}: {name}" for i, name in enumerate(PLANES))))


def framed(tile: Picture) -> Picture:
    """With a thin line around, as most channels are black or white."""
    return np.asarray(cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(150, 150, 150)), np.uint8)


def targets(samples: dict[str, Sample], frame: int = 8) -> Picture:
    """What of the target is there: its latents, noise on them, and where hands, faces and lettering are."""
    tall, vae = 190, BlockTransformStandIn()
    rows: list[list[Picture]] = []
    for sample in samples.values():
        got = condition_pixels(sample, vae, Draws(sample.seed, sample.key), NEVER)
        tiles = [scaled(sample.target_THWC[frame], tall), scaled(to_frames(vae.decode(got.video_16THW))[frame], tall)]
        for sigma in (0.3, 0.7):
            noisy_16THW = (1 - sigma) * got.video_16THW + sigma * got.noise_16THW
            tiles.append(scaled(to_frames(vae.decode(noisy_16THW))[frame], tall))
        tiles += [scaled(lit(sample.target_THWC[frame], cells[frame // 4]), tall) for cells in boxes(got)]
        rows.append(tiles)
    return table(rows, ("target", "of stand-in\nlatents", "noisy, 0.3", "noisy, 0.7", "hands", "faces", "out of the\nloss (text)"))


def boxes(got: Conditioned) -> list[torch.Tensor]:
    """(T, H, W) each."""
    return [got.hands_T16HW[:, 0], got.faces_T16HW[:, 0], 1 - got.loss_mask_16THW[0]]


def lit(picture_HWC: Picture, cells_HW: torch.Tensor) -> Picture:
    """The picture, dark but for the cells that are marked."""
    mask_HW = cv2.resize(cells_HW.numpy(), picture_HWC.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return (picture_HWC * (0.25 + 0.75 * mask_HW[..., None])).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="a release of the quickstart recipe")
    samples = chosen(parser.parse_args().release)
    samples = {task: samples[task] for task in ("animation", "replacement", "pose")}
    save("batch.webp", batch(samples))
    save("channels.webp", channels(samples))
    save("target.webp", targets(samples))


if __name__ == "__main__":
    main()
