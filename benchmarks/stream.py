"""How fast the trainer's stream hands out decoded samples, and how well it keeps the mix.

    python benchmarks/stream.py            # about two minutes
    python benchmarks/stream.py --quick    # under 50 s

A synthetic release of 24 pairs (17 frames of 288×512) is built in a temporary folder and read in three ways: by the stream on one and on
two threads, and by plain `webdataset` with the same decoding in one thread. The ways take turns, so that whatever else the machine does
falls on all of them alike. The last line is one JSON object; rates are samples per second, mix errors percentage points.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import webdataset

from factory.trainer.mix import Mix, position_of
from factory.trainer.stream import Stream
from manifests import masks, media
from manifests.records import TASKS, FrameBoxes, Geometry, Lineage, Pair, Task
from manifests.release import Release, ReleaseMeta
from manifests.sealing import write_release
from manifests.store import Store

GEOMETRY = Geometry(frames=17, height=288, width=512)
MIX: dict[Task, int] = {"animation": 60, "replacement": 20, "pose": 20}
PAIRS = 24
BLOCK_PAIRS = 6
WINDOWS = (100, 8)
"""samples in a row over which the mix is held against its weights: the plain question, and a small batch"""
POSITIONS = 20_000
WARM_UP = 4
"""samples before the clock starts: as many as the stream reads ahead"""


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer samples a run")
    parser.add_argument("--runs", type=int, default=None, help="runs of each way; default 9, with --quick 5")
    asked = parser.parse_args()
    runs, count = asked.runs or (5 if asked.quick else 9), 24 if asked.quick else 72
    with tempfile.TemporaryDirectory(prefix="motionpair-bench-") as folder:
        release = Release.open(build(Path(folder)))
        ways: dict[str, Callable[[], float]] = {
            "stream_1_thread": lambda: streamed(release, 1, count),
            "stream_2_threads": lambda: streamed(release, 2, count),
            "webdataset": lambda: plain(release, count),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(runs):
            for name, way in ways.items():
                rates[name].append(way())
            print(f"run {number + 1} of {runs}: " + ", ".join(f"{name} {found[-1]:.1f}/s" for name, found in rates.items()), flush=True)
        pair_mb = sum(shard.size for shard in release.info.shards) / release.info.pairs / 1e6
    figures = {
        "pairs": PAIRS,
        "pair_mb": round(pair_mb, 2),
        "samples_per_run": count,
        "runs": runs,
        "samples_per_s": {name: spread(found) for name, found in rates.items()},
        "worst_mix_error_points": {f"any_{window}": mix_errors(window, runs) for window in WINDOWS},
    }
    print(json.dumps(figures))


def spread(found: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of several measurements."""
    return {"median": round(statistics.median(found), 2), "min": round(min(found), 2), "max": round(max(found), 2)}


# --- speed


def streamed(release: Release, threads: int, count: int) -> float:
    """Samples per second of the trainer's stream."""
    with Stream(release, threads=threads) as stream:
        return rate(stream, count)


def plain(release: Release, count: int) -> float:
    """Samples per second of `webdataset` reading the same shards, with the same decoding behind it."""
    shards = [str(release.shard_path(shard.name)) for shard in release.info.shards]
    endless = itertools.chain.from_iterable(webdataset.WebDataset(shards, shardshuffle=False) for _ in itertools.count())
    return rate(map(decoded, endless), count)


def rate(samples: Iterator[Any], count: int) -> float:
    """Samples per second after the first few."""
    for _ in itertools.islice(samples, WARM_UP):
        pass
    began = time.perf_counter()
    for _ in itertools.islice(samples, count):
        pass
    return count / (time.perf_counter() - began)


def decoded(raw: dict[str, Any]) -> dict[str, Any]:
    """A webdataset sample with videos and pictures as arrays, decoded as the stream does it: through a file, by the same functions."""
    out: dict[str, Any] = {"json": json.loads(raw["json"])}
    for name, data in raw.items():
        if name.endswith((".mp4", ".png")):
            with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
                file.write(data)
                file.flush()
                path = Path(file.name)
                out[name] = media.read_frames(path)[0] if name.endswith(".mp4") else media.read_image(path)
    return out


# --- mix


def mix_errors(window: int, seeds: int) -> dict[str, float]:
    """Largest difference between a task's share of any `window` samples in a row and its weight, in percentage points.

    The stream's order is computed, not sampled, so its figures are exact. `webdataset.RandomMix` draws; its figures are the median and
    the largest over several seeds. Of ranks the worst one of all is told.
    """
    mix = Mix({str(task): weight for task, weight in MIX.items()})

    def of_rank(rank: int, size: int) -> float:
        return worst((mix.at(position_of(cycle, rank, size, mix.period)).task for cycle in range(POSITIONS // size)), window)

    drawn = [worst(random_mix(seed), window) for seed in range(seeds)]
    ranks = {f"stream_one_of_{size}_ranks": max(of_rank(rank, size) for rank in range(size)) for size in (2, 5, 8)}
    return {
        "stream": of_rank(0, 1),
        **ranks,
        "webdataset_random_mix_median": statistics.median(drawn),
        "webdataset_random_mix_max": max(drawn),
    }


def random_mix(seed: int) -> Iterator[str]:
    """Tasks as `webdataset` mixes them at the same weights."""
    random.seed(seed)
    total = sum(MIX.values())
    mixed = webdataset.RandomMix([itertools.repeat(task) for task in MIX], probs=[weight / total for weight in MIX.values()])
    return itertools.islice(iter(mixed), POSITIONS)


def worst(tasks: Iterable[str], window: int) -> float:
    """Largest error of any task's share over all windows, percentage points."""
    drawn, total = np.array(list(tasks)), sum(MIX.values())
    errors = []
    for task, weight in MIX.items():
        before = np.concatenate([[0], np.cumsum(drawn == task)])
        errors.append(np.abs((before[window:] - before[:-window]) / window - weight / total).max())
    return round(100 * float(max(errors)), 2)


# --- the release


def build(folder: Path) -> Path:
    """A sealed release whose pairs have the size and make-up of real ones: noise over moving shapes, lossless masks."""
    store = Store(folder / "store")
    pairs = [(pair(number, store, folder), number // BLOCK_PAIRS) for number in range(PAIRS)]
    meta = ReleaseMeta(name="bench", recipe=sha("recipe"), mix=MIX)
    return write_release(folder / "release", pairs, store, meta)


def pair(number: int, store: Store, folder: Path) -> Pair:
    """Of five pairs in a row three are animation, one replacement and one pose."""
    task: Task = (TASKS[0], TASKS[0], TASKS[1], TASKS[0], TASKS[2])[number % 5]
    path = folder / "part.mp4"
    videos = []
    for which in range(2):
        media.write_video(path, scene(2 * number + which), GEOMETRY.fps)
        videos.append(store.put(path, ".mp4"))
    inside_PTHW = figure(2 * number)  # the driving video's
    media.write_lossless(path, masks.paint(inside_PTHW, (0,), task, "driving"), GEOMETRY.fps)
    driving_mask = store.put(path, ".mp4")
    reference_mask_HWC = masks.paint(inside_PTHW[:, :1], (0,), task, "reference")[0]
    return Pair(
        key=sha(number)[:24],
        job=sha(number),
        slice=task,
        task=task,
        split="train",
        group=f"scene{number}",
        generator="bench",
        geometry=GEOMETRY,
        driving=videos[0],
        target=videos[1],
        driving_mask=driving_mask,
        references=(store.put(media.encode_png(scene(2 * number + 1)[0]), ".png"),),
        reference_masks=(store.put(media.encode_png(reference_mask_HWC), ".png"),),
        reference_in_target=False,
        slots=1,
        caption=f"Synthetic pair {number}.",
        boxes=(FrameBoxes(hands=((1.0, 2.0, 30.0, 40.0),)),) * GEOMETRY.frames,
        lineage=Lineage(source=sha(f"source{number}"), start_frame=0, crop=(0, 0, GEOMETRY.width, GEOMETRY.height)),
    )


def scene(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """frames_THWC: a soft random backdrop with grain, before it two shapes that move."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (9, 16, 3)).astype(np.uint8)
    backdrop = cv2.resize(coarse, (GEOMETRY.width, GEOMETRY.height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = rng.integers(-6, 7, backdrop.shape, np.int16)
    frames_THWC = np.empty((GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width, 3), np.uint8)
    for t, inside_HW in enumerate(figure(seed)[0]):
        frames_THWC[t] = np.clip(backdrop + grain, 0, 255)
        frames_THWC[t][inside_HW] = rng.integers(0, 256, 3)
    return frames_THWC


def figure(seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """masks_PTHW of one "person": a body and a swinging limb."""
    inside_PTHW = np.zeros((1, GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width), np.uint8)
    for t in range(GEOMETRY.frames):
        centre = (160 + (seed * 37) % 190 + t, 150)
        swing = float(np.sin(0.5 * t + seed))
        cv2.ellipse(inside_PTHW[0, t], centre, (38, 110), 0, 0, 360, 1, -1)
        cv2.line(inside_PTHW[0, t], centre, (centre[0] + int(90 * swing), 60 + int(40 * abs(swing))), 1, 18)
    return inside_PTHW.astype(bool)


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


if __name__ == "__main__":
    main()
