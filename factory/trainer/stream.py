"""The trainer's sample stream: position k of the global stream is a pair, whatever the number of ranks, threads and restarts.

It imports `manifests` and numpy only. Samples are megabytes, so there is no shuffle buffer: the order is computed, and a few threads
read and decode the next samples ahead of time.

    with Stream("out/release", rank=rank, world_size=world_size) as stream:
        for sample in stream:
            ...
            checkpoint["stream"] = stream.state()
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.trainer.mix import Mix, position_of, shuffled
from manifests import media
from manifests.errors import BadInput, Damaged, MotionpairError
from manifests.records import TASKS, Split
from manifests.release import PairRow, Release

U8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sample:
    """One pair, decoded. All pictures are RGB."""

    position: int
    """in the global stream"""
    task: str
    key: str
    driving_THWC: U8
    target_THWC: U8
    driving_mask_THWC: U8
    references: tuple[U8, ...]
    """each H, W, C"""
    reference_masks: tuple[U8, ...]
    """each H, W, C, of its reference's size"""
    caption: str
    meta: dict[str, Any]
    """the pair's KEY.json"""


class Order:
    """Position → pair, for one split of a release."""

    def __init__(self, release: Release, split: Split, seed: int, tasks: Sequence[str] | None = None) -> None:
        self.seed = seed
        by_task: dict[str, list[PairRow]] = {}
        for row in release.rows():
            if row.split == split:
                by_task.setdefault(row.task, []).append(row)
        self.mix = Mix(_weights(release.info.mix, {t: len(rows) for t, rows in by_task.items()}, split, tasks))
        self._rows = {task: sorted(by_task[task], key=lambda row: row.key) for task in self.mix.tasks}
        self._permutation = lru_cache(maxsize=2 * len(self._rows))(self._shuffled)

    def at(self, position: int) -> PairRow:
        """The pair at a position. Each epoch of a task has each of its pairs once, in its own order."""
        task, n = self.mix.at(position)
        epoch, place = divmod(n, len(self._rows[task]))
        return self._rows[task][int(self._permutation(task, epoch)[place])]

    def _shuffled(self, task: str, epoch: int) -> NDArray[np.intp]:
        return shuffled(self.seed, task, epoch, len(self._rows[task]))


class Stream(Iterator[Sample]):
    """Endless iterator over the samples of one rank. Close it, or use it as a context manager.

    `tasks` keeps only some tasks and shares the mix out among them. `position` is where the global stream starts, as `state` told.
    """

    def __init__(
        self,
        release: str | Path | Release,
        split: Split = "train",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        position: int = 0,
        threads: int = 2,
        prefetch: int = 4,
        tasks: Sequence[str] | None = None,
    ) -> None:
        if world_size < 1 or not 0 <= rank < world_size:
            raise BadInput(f"rank {rank} of world size {world_size}: the rank must be between 0 and the world size less one")
        if threads < 1 or prefetch < 1 or position < 0:
            raise BadInput(f"threads {threads} and prefetch {prefetch} must be at least 1, position {position} at least 0")
        self.release = release if isinstance(release, Release) else Release.open(release)
        self.split, self.rank, self.world_size = split, rank, world_size
        self.order = Order(self.release, split, seed, tasks)
        self._threads, self._prefetch = threads, prefetch
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: deque[Future[Sample]] = deque()
        self._closed = False
        self._start(position)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Sample:
        if self._closed:
            raise StopIteration
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="stream")
        while len(self._ahead) < self._prefetch:
            self._ahead.append(self._pool.submit(self._load, self._place(self._cycle + len(self._ahead))))
        future = self._ahead.popleft()
        try:
            sample = future.result()
        except BaseException:
            self._drop()  # what was read ahead belongs to later cycles; the failed one is tried again first
            raise
        self._cycle += 1
        return sample

    def close(self) -> None:
        """Stop the threads; what they were decoding is finished and dropped."""
        self._closed = True
        self._drop()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def state(self) -> dict[str, Any]:
        """Where the global stream stands after what this rank has been given; equal on all ranks after equally many samples.

        It may be loaded with another world size: the order of the global stream stays.
        """
        return {"position": self._offset + self._cycle * self.world_size, **self._identity()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken. Raises BadInput for a state of another release, split, seed or mix."""
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise BadInput(f"the state was taken with {name} {state.get(name)!r}, this stream has {own!r}; open what the state names")
        position = state.get("position")
        if not isinstance(position, int) or position < 0:
            raise BadInput(f"a state's position must be a whole number of at least 0, got {position!r}")
        self._start(position)

    def _identity(self) -> dict[str, Any]:
        info = self.release.info
        return {"release": info.content, "split": self.split, "seed": self.order.seed, "mix": dict(self.order.mix.weights)}

    def _start(self, position: int) -> None:
        self._drop()
        self._cycle, self._offset = divmod(position, self.world_size)

    def _place(self, cycle: int) -> int:
        return self._offset + position_of(cycle, self.rank, self.world_size, self.order.mix.period)

    def _drop(self) -> None:
        while self._ahead:
            self._ahead.popleft().cancel()

    def _load(self, position: int) -> Sample:
        return load(self.release, self.order.at(position), position)


def load(release: Release, row: PairRow, position: int = -1) -> Sample:
    """Read and decode one pair. Raises Damaged, naming pair and member, when its bytes can't be read or decoded."""
    return Sample(
        position=position,
        task=row.task,
        key=row.key,
        driving_THWC=_decoded(release, row, "driving.mp4"),
        target_THWC=_decoded(release, row, "target.mp4"),
        driving_mask_THWC=_decoded(release, row, "driving_mask.mp4"),
        references=tuple(_decoded(release, row, name) for name in row.references),
        reference_masks=tuple(_decoded(release, row, name) for name in row.reference_masks),
        caption=row.caption,
        meta=json.loads(release.read_member(row, "json", check=True)),
    )


def _decoded(release: Release, row: PairRow, name: str) -> U8:
    """A video's frames (T, H, W, C) or a picture (H, W, C). Decoders want a file, so the member becomes one for a moment."""
    with tempfile.NamedTemporaryFile(prefix="motionpair-", suffix=Path(name).suffix) as file:
        file.write(release.read_member(row, name, check=True))
        file.flush()
        try:
            return media.read_frames(Path(file.name))[0] if name.endswith(".mp4") else media.read_image(Path(file.name))
        except BadInput as error:
            raise Damaged(
                f"{row.key}.{name} in shard {row.shard} can't be decoded ({error.code}); run verify on {release.folder}"
            ) from error


def _weights(mix: Mapping[Any, int], there: Mapping[str, int], split: str, tasks: Sequence[str] | None) -> dict[str, int]:
    """The mix over the asked tasks; each must have pairs to draw."""
    asked = {task: weight for task, weight in mix.items() if weight and (tasks is None or task in tasks)}
    unknown = sorted(set(tasks or ()) - set(asked))
    have = ", ".join(f"{task} ({count})" for task, count in sorted(there.items())) or "none"
    if unknown:
        raise BadInput(f"no task {', '.join(unknown)} in the release's mix {dict(mix)}; split {split!r} has pairs of: {have}")
    empty = [task for task in asked if not there.get(task)]
    if empty or not asked:
        kept = ",".join(task for task in asked if there.get(task))
        hint = f"; give tasks= (--tasks {kept}) to share the mix out among those" if kept else "; choose another split"
        raise BadInput(f"split {split!r} has no pairs of {', '.join(empty) or 'any task'}, it has: {have}{hint}")
    return {task: asked[task] for task in TASKS if task in asked}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m factory.trainer.stream", description="Print the first samples of a release's stream.")
    parser.add_argument("release", type=Path, help="a folder of revisions, or one revision")
    parser.add_argument("--take", type=int, default=20, help="how many samples (default 20)")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--tasks", type=lambda text: tuple(text.split(",")), help="only these, by comma; the mix is shared out among them")
    for name, default in (("seed", 0), ("rank", 0), ("world-size", 1), ("position", 0), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the data failed, 2 the request can't be met."""
    asked = _arguments().parse_args(argv)
    options = {k: v for k, v in vars(asked).items() if k not in ("release", "take")}
    seen: Counter[str] = Counter()
    try:
        with Stream(asked.release, **options) as stream:
            for _ in range(asked.take):
                sample = next(stream)
                seen[sample.task] += 1
                print(_line(sample, seen), flush=True)
    except BrokenPipeError:  # the reader has seen enough, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MotionpairError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    return 0


def _line(sample: Sample, seen: Counter[str]) -> str:
    def size(array: U8) -> str:
        return "×".join(map(str, array.shape))

    mix = " ".join(f"{task} {100 * seen[task] / seen.total():.1f}%" for task in TASKS if seen[task])
    references = " ".join(map(size, sample.references))
    return (
        f"{sample.position:>8}  {sample.task:<11}  {sample.key}  driving {size(sample.driving_THWC)}  target {size(sample.target_THWC)}"
        f"  mask {size(sample.driving_mask_THWC)}  reference {references}  mix {mix}"
    )


if __name__ == "__main__":
    sys.exit(main())
