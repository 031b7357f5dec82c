"""Ranks that read the stream, are killed at random, and go on with another number of ranks: what did the training see in the end?

    python tests/trainer/kills.py --kills 100

Each rank is a process that writes down every sample (position, key, digest of all its arrays) and the stream's state after it. One of them
is killed with SIGKILL at a random moment, then the others, as a launcher does. The checkpoint is the last state that all ranks had
reached; what was read after it counts as not seen, and is read again by the next attempt. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import tiny

from factory.trainer.stream import Sample, Stream
from manifests.sealing import write_release
from manifests.store import Store

WORLDS = (1, 2, 4, 8, 4, 2)
FORK = multiprocessing.get_context("fork")


def build(folder: Path, pairs: int = 28) -> Path:
    """A tiny release."""
    store = Store(folder / "store")
    return write_release(folder / "release", tiny.pairs(tiny.parts(store, folder / "parts"), pairs), store, tiny.meta())


def digest(sample: Sample) -> str:
    """Of everything that was decoded."""
    seen = hashlib.sha256(json.dumps([sample.key, sample.seed, sample.epoch, sample.caption]).encode())
    for array in (sample.driving_THWC, sample.target_THWC, sample.driving_mask_THWC, *sample.references, *sample.reference_masks):
        seen.update(np.ascontiguousarray(array))
    return seen.hexdigest()[:20]


def read_as_rank(release: Path, state: dict[str, Any] | None, rank: int, world_size: int, log: Path) -> None:
    """Read and write down until killed."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Stream(release, rank=rank, world_size=world_size) as stream:
        if state:
            stream.load_state_dict(state)
        for sample in stream:
            line = {"position": sample.position, "key": sample.key, "digest": digest(sample), "state": stream.state_dict()}
            os.write(fd, json.dumps(line).encode() + b"\n")


def whole_lines(log: Path) -> list[dict[str, Any]]:
    """What a rank wrote down, but for a line that was cut by the kill."""
    return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]] if log.exists() else []


def attempt(
    release: Path, state: dict[str, Any] | None, world_size: int, folder: Path, after: int, chance: random.Random
) -> list[list[dict[str, Any]]]:
    """Start ranks, kill one when `after` samples were seen, then the others; returns what each wrote down."""
    logs = [folder / f"{rank}.jsonl" for rank in range(world_size)]
    folder.mkdir()
    ranks = [FORK.Process(target=read_as_rank, args=(release, state, rank, world_size, log)) for rank, log in enumerate(logs)]
    for process in ranks:
        process.start()
    try:
        deadline = time.monotonic() + 120
        while sum(log.read_bytes().count(b"\n") for log in logs if log.exists()) < after:
            if time.monotonic() > deadline or not all(process.is_alive() for process in ranks):
                raise RuntimeError("a rank ended by itself, or nothing was read for two minutes")
            time.sleep(0.002)
    finally:
        chance.shuffle(ranks)
        for process in ranks:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    return [whole_lines(log) for log in logs]


def run(release: Path, folder: Path, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill so often; returns how many samples were seen, and how many of them twice, never, or elsewhere than they should be."""
    chance = random.Random(seed)
    state: dict[str, Any] | None = None
    seen: list[tuple[int, str, str]] = []
    for number in range(kills):
        world_size = WORLDS[number % len(WORLDS)]
        ranks = attempt(release, state, world_size, folder / str(number), chance.randint(1, 6 * world_size), chance)
        steps = min(map(len, ranks))
        for step in range(steps):
            assert all(lines[step]["state"] == ranks[0][step]["state"] for lines in ranks), "states of ranks differ"
            seen += sorted((lines[step]["position"], lines[step]["key"], lines[step]["digest"]) for lines in ranks)
        state = ranks[0][steps - 1]["state"] if steps else state
    with Stream(release) as stream:
        wanted = [(s.position, s.key, digest(s)) for s in itertools.islice(stream, len(seen))]
    positions = [position for position, _, _ in seen]
    return {
        "kills": kills,
        "worlds": sorted(set(WORLDS[:kills])),
        "samples": len(seen),
        "repeated": len(positions) - len(set(positions)),
        "lost": len(set(range(len(seen))) - set(positions)),
        "reordered": sum(mine != other for mine, other in zip(seen, wanted, strict=True)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="motionpair-kills-") as folder:
        found = run(build(Path(folder)), Path(folder), asked.kills, asked.seed)
    print(json.dumps(found))
    return int(bool(found["repeated"] or found["lost"] or found["reordered"]))


if __name__ == "__main__":
    sys.exit(main())
