"""The trainer's sample stream: position k of the global stream is a pair, whatever the number of ranks, threads and restarts.

It imports `manifests` and numpy, neither ray nor torch. Samples are megabytes, so there is no shuffle buffer: the order is computed, and a
few threads read and decode the next samples ahead of time.

    with Stream("out/release", rank=rank, world_size=world_size) as stream:
        for sample in stream:
            ...
            checkpoint["stream"] = stream.state_dict()

docs/streaming.md is the guide.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from factory.trainer.cache import Cache
from factory.trainer.catalog import PATIENCE_S, Entry, identity_of, open_catalog
from factory.trainer.decode import Bytes, Decoder, Pixels, PreferenceSample, Raw, Sample
from factory.trainer.order import Source, schedule_of
from factory.trainer.reading import Allocate, Buffers, Plan, plain_memory, plan
from factory.trainer.report import Replaced, Report, report_of
from manifests.errors import BadInput, Damaged
from manifests.records import Split
from manifests.release import Release

__all__ = ["Bytes", "Pixels", "PreferenceSample", "Raw", "Replaced", "Report", "Sample", "Source", "Stream"]

AHEAD = 64
"""samples whose places are computed at once"""
PER_THREAD = 2
"""samples asked for ahead of time, at most, where they are small"""
FORGIVEN = 100
"""replaced samples that are always let pass; from there on their share counts"""
TOLD = 1000
"""replaced samples that are told by name"""


class Ticket(NamedTuple):
    """A sample that is to come."""

    position: int
    source: int
    cell: int
    draw: int
    epoch: int
    seed: int
    entry: Entry


class Loaded(NamedTuple):
    sample: Any
    replaced: Replaced | None


class Stream(Iterator[Any]):
    """Endless iterator over the samples of one rank. Close it, or use it as a context manager.

    The order depends on `release`, `split`, `seed`, `mix`, `tasks`, `shapes` and `shape_block`; on nothing else.
    """

    def __init__(
        self,
        release: str | Path | Release | Sequence[Source],
        split: Split = "train",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        position: int = 0,
        micro_batch: int = 1,
        *,
        mix: Mapping[str, int] | None = None,
        tasks: Sequence[str] | None = None,
        shapes: Mapping[str, int] | None = None,
        shape_block: int | None = None,
        decode: Decoder[Any] | None = None,
        check: bool = True,
        threads: int = 2,
        prefetch_bytes: int = 2 << 30,
        cache: str | Path | None = None,
        cache_bytes: int = 64 << 30,
        allocate: Allocate = plain_memory,
        patience_s: float = PATIENCE_S,
        bad_share: float = 0.1,
    ) -> None:
        """Open releases; nothing but their manifests is read until the first sample is asked for.

        release: a path or fsspec address (s3://…) of a revision or a folder of them, or several `Source`s.
        position: where the global stream starts, as a state told. micro_batch: so many samples in a row of a rank have one shape. mix:
        weights of tasks (default: the release's). tasks: only these; the mix is shared out among them; preference pairs stand outside
        it and come when they alone are asked for. shapes: weights of shapes,
        "81x512x896" (frames, height, width); pairs of others are left out. Default: for micro-batches of several, the data's own.
        shape_block: so many positions in a row have one shape (default: micro_batch, which must divide it). decode: default Pixels().
        check: hold every byte against its digest. prefetch_bytes: read and decoded bytes that wait, at most (one sample is always read).
        threads: 0 reads and decodes when a sample is asked for, and nothing ahead of time. cache, cache_bytes: a folder for samples of
        remote releases. allocate: where bytes are read to. bad_share: above this share of samples that can't be read the stream stops, once
        it had to replace 100.
        Raises BadInput for options that can't be.
        """
        self._options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.split, self.seed, self.rank, self.world_size = split, seed, rank, world_size
        self.micro_batch, self._block = micro_batch, shape_block or micro_batch
        self._decode: Decoder[Any] = decode or Pixels()
        self._check, self._threads, self._prefetch_bytes, self._bad_share = check, threads, prefetch_bytes, bad_share
        self._validate()
        store = Cache(cache, cache_bytes) if cache is not None else None
        sources = [Source(release)] if isinstance(release, str | Path | Release) else list(release)
        self.catalogs = [open_catalog(source.release, store, patience_s) for source in sources]
        self.schedule = schedule_of(self.catalogs, sources, split, seed, mix, tasks, shapes, self._block)
        self._buffers = Buffers(allocate, prefetch_bytes)
        self.replaced: deque[Replaced] = deque(maxlen=TOLD)
        """samples that this rank got in place of others, the last ones"""
        self.replaced_count = 0
        self._pool: Executor | None = None
        self._ahead: deque[tuple[Future[Loaded], int]] = deque()
        self._closed = False
        self._worker, self._workers = 0, 1
        self._start(position)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._options, self.state_dict())

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- iterating

    def __next__(self) -> Any:
        """The next sample of this rank. Raises Transient when the data can't be reached now (the same sample comes next time), Damaged when
        too much of it is broken."""
        if self._closed:
            raise StopIteration
        if self._pool is None or self._pid != os.getpid():
            self._begin()
        self._fill()
        future, size = self._ahead.popleft()
        try:
            loaded = future.result()
            self._count(loaded.replaced)
        except BaseException:
            self._drop()  # what was read ahead belongs to later places; the failed one is tried again first
            raise
        self._waiting -= size
        self._given += 1
        return loaded.sample

    def batches(self) -> Iterator[list[Any]]:
        """Micro-batches: lists of samples of one shape."""
        while not self._closed:
            yield [next(self) for _ in range(self.micro_batch - self._given % self.micro_batch)]

    def close(self) -> None:
        """Stop the threads; what they were decoding is finished and dropped."""
        self._closed = True
        self._drop()
        if self._pool is not None and self._pid == os.getpid():
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        for catalog in self.catalogs:
            catalog.shards.close()

    # --- state

    def state_dict(self) -> dict[str, Any]:
        """Where the global stream stands after what this rank has been given; equal on all ranks after equally many samples.

        It may be loaded with another world size: the order of the global stream stays. At most 4 KB as JSON.
        """
        steps, within = divmod(self._given, self.micro_batch)
        progress = {"position": self._base + steps * self._unit * self.world_size, "within": within}
        if self._workers > 1:
            progress = {"position": self._base, "within": self._given, "worker": self._worker, "workers": self._workers}
        return {**progress, **self._shape_of_ranks(), **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken. Raises BadInput for a state of another release, split, seed, mix or shapes, and for one that was
        taken within a micro-batch when ranks or micro-batches are others now."""
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise BadInput(f"the state was taken with {name} {state.get(name)!r}, this stream has {own!r}; open what the state names")
        position, within = state.get("position"), state.get("within")
        if not isinstance(position, int) or not isinstance(within, int) or position < 0 or within < 0:
            raise BadInput(f"a state's position and within must be whole numbers of at least 0, got {position!r} and {within!r}")
        self._adopt_worker()
        taken = {name: state.get(name) for name in self._shape_of_ranks()}
        if within and taken != self._shape_of_ranks():
            raise BadInput(f"the state was taken in the middle of a step with {taken}, now {self._shape_of_ranks()}; take it between steps")
        if (state.get("worker", 0), state.get("workers", 1)) != (self._worker, self._workers):
            raise BadInput(
                f"the state is of worker {state.get('worker', 0)} of {state.get('workers', 1)}, this is {self._worker} of {self._workers}; "
                "use as many worker processes as before, or none (threads read faster)"
            )
        self._start(position)
        self._given = within

    def report(self) -> Report:
        """Draws, epochs and repeats by task, release and shape up to where the global stream stands, and what this rank had replaced."""
        return report_of(self.schedule, self.state_dict()["position"], self.replaced, self.replaced_count)

    def _identity(self) -> dict[str, Any]:
        mix = self.schedule.mix
        words = {
            "mix": ", ".join(f"{weight} {task}" for task, weight in mix.weights.items()),
            "shapes": ", ".join(map(str, self.schedule.shapes)) or "any",
        }
        order = [mix.cells.tolist(), self.schedule.pattern.per_period.tolist(), self.schedule.block if self.schedule.shapes else 1]
        return {
            "release": identity_of(self.catalogs),
            "split": self.split,
            "seed": self.seed,
            **{name: text if len(text) <= 400 else f"{text[:400]}…" for name, text in words.items()},
            "order": hashlib.sha256(str(order).encode()).hexdigest(),
        }

    def _shape_of_ranks(self) -> dict[str, int]:
        return {"world_size": self.world_size, "micro_batch": self.micro_batch}

    # --- places

    def _start(self, position: int) -> None:
        self._drop()
        self._base, self._given, self._unit = position, 0, self.micro_batch
        units, rest = divmod(position, self._unit)
        if rest:
            raise BadInput(f"position {position} lies within a micro-batch of {self._unit}; start at a multiple, or with a divisor of it")
        self._first_step, self._offset = divmod(units, self.world_size)
        self._tickets: Iterator[Ticket] = iter(())

    def _places(self) -> Iterator[Ticket]:
        """What this rank (and worker process) is to be given from here on."""
        for first in itertools.count(self._given, AHEAD):
            numbers = range(first, first + AHEAD)
            steps = [self._first_step + self._worker + number // self._unit * self._workers for number in numbers]
            units = self._offset + self.schedule.unit_of(steps, self.rank, self.world_size, self._unit)
            positions = units * self._unit + [number % self._unit for number in numbers]
            places = self.schedule.at(positions)
            columns = (a.tolist() for a in (positions, places.source, places.cell, places.draw, places.epoch, places.seed))
            yield from map(Ticket, *columns, self.schedule.entries(places))

    def _begin(self) -> None:
        """Threads, in the process that iterates: one that was forked off has none of its parent's."""
        self._ahead.clear()
        self._waiting = 0
        self._pid = os.getpid()
        self._adopt_worker()
        self._tickets = self._places()
        self._next_ticket: tuple[Ticket, Plan, int] | None = None
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="stream") if self._threads else _Here()

    def _adopt_worker(self) -> None:
        """In a worker process of torch's DataLoader, take every n-th step: the loader takes batches from its workers in turn."""
        data = sys.modules.get("torch.utils.data")
        info = data.get_worker_info() if data else None
        self._worker, self._workers = (info.id, info.num_workers) if info else (0, 1)

    def _fill(self) -> None:
        """Ask for the next samples while they fit into the prefetch."""
        assert self._pool is not None
        while True:
            if self._next_ticket is None:
                ticket = next(self._tickets)
                reads = self._plan(ticket.entry)
                self._next_ticket = ticket, reads, reads.size + self._decode.size(ticket.entry)
            ticket, reads, size = self._next_ticket
            if self._ahead and (self._waiting + size > self._prefetch_bytes or len(self._ahead) >= max(1, PER_THREAD * self._threads)):
                return
            self._ahead.append((self._pool.submit(self._load, ticket, reads), size))
            self._waiting += size
            self._next_ticket = None

    def _drop(self) -> None:
        """Forget what was read ahead, so that it is asked for anew from what was given."""
        while self._ahead:
            self._ahead.popleft()[0].cancel()
        if self._pool is not None and self._pid == os.getpid():
            self._tickets, self._next_ticket, self._waiting = self._places(), None, 0

    # --- in the threads

    def _load(self, ticket: Ticket, reads: Plan) -> Loaded:
        entry = ticket.entry
        try:
            return Loaded(self._read(ticket, entry, reads), None)
        except (Damaged, BadInput) as error:
            why = str(error)
        for number in self.schedule.after(ticket.cell, ticket.draw):
            other = self.schedule.entry(ticket.source, number)
            try:
                sample = self._read(ticket, other, self._plan(other), entry.key)
            except (Damaged, BadInput):
                continue
            return Loaded(sample, Replaced(ticket.position, entry.key, other.key, why))
        raise Damaged(f"no pair of {entry.task} with {entry.shape} can be read, the first: {why}")

    def _plan(self, entry: Entry) -> Plan:
        there = {member.name: member for member in entry.members}
        return plan([there[name] for name in self._decode.members(entry) if name in there])

    def _read(self, ticket: Ticket, entry: Entry, reads: Plan, replaces: str = "") -> Any:
        shards = self.schedule.shelves[ticket.source].catalog.shards
        for again in (True, False):
            buffer = self._buffers.take(reads.size)
            shards.read(entry.shard, reads.runs, buffer)
            members = {name: buffer[start:end] for name, (start, end) in reads.places.items()}
            bad = _wrong(entry, members) if self._check else None
            if bad is None:
                return self._decode(Raw(ticket.position, ticket.epoch, ticket.seed, entry, members, replaces))
            if not (again and shards.forget(entry.shard, reads.runs)):
                break
        raise Damaged(f"{entry.key}.{bad} in shard {entry.shard} is damaged; run verify on the release and restore the shard")

    def _count(self, replaced: Replaced | None) -> None:
        if replaced is None:
            return
        if self.replaced_count >= FORGIVEN and self.replaced_count + 1 > self._bad_share * (self._given + 1):
            raise Damaged(
                f"{self.replaced_count + 1} of {self._given + 1} samples could not be read, the last: {replaced.why}; "
                f"mend the release, or raise bad_share above {self._bad_share}"
            )
        self.replaced.append(replaced)
        self.replaced_count += 1

    def _validate(self) -> None:
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise BadInput(f"rank {self.rank} of world size {self.world_size}: the rank must be between 0 and the world size less one")
        position = self._options["position"]
        if min(self._prefetch_bytes, self.micro_batch) < 1 or min(self._threads, position) < 0:
            raise BadInput(
                f"prefetch_bytes {self._prefetch_bytes} and micro_batch {self.micro_batch} must be at least 1, "
                f"threads {self._threads} and position {position} at least 0"
            )
        if self._block < 1 or self._block % self.micro_batch:
            raise BadInput(f"micro_batch {self.micro_batch} must divide shape_block {self._block}, so that a batch has one shape")


class _Here(Executor):
    """No thread: what is submitted is done at once, by the caller."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def _wrong(entry: Entry, members: Mapping[str, memoryview]) -> str | None:
    """The first member whose bytes are not what the manifest says."""
    return next((name for name, data in members.items() if hashlib.sha256(data).hexdigest() != entry.member(name).sha256), None)


def _rebuilt(options: dict[str, Any], state: dict[str, Any]) -> Stream:
    made = Stream(**options)
    made.load_state_dict(state)
    return made


if __name__ == "__main__":
    from factory.trainer.show import main

    sys.exit(main())
