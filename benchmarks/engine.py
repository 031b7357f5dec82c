"""The engine beside Ray Data: sleeping workers, so that nothing but dispatch, memory and accounting is measured.

    python benchmarks/engine.py            # about twenty minutes: five alternating rounds, Ray Data in each of them
    python benchmarks/engine.py --quick    # under 50 s: one round of small cases, without Ray Data
    python benchmarks/engine.py --ledger FOLDER   # also a ledger of a million steps (some minutes to fill)

Utilisation is the workers' sleep over the time that all of them had. `steady`: 400 naps of 0.2 s on 8 workers, between the 5th and the 95th
of a hundred ends. `whole`: 160 naps of 1 s in the mean, 20 % of them slow (0.75 and 2 s), from the first call to the last end, workers
standing; `rejecting`: the same with 30 % of the attempts looping back. `no_length`: milliseconds a job that does nothing in three pools.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine_parts import bad_days, ours, raydata
from engine_parts import ledger as big_ledger
from engine_parts.naps import Nap

WORKERS = 8
ROUNDS = 5
NO_LENGTH_WORKERS = 2
"""in each of three pools"""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="under 50 s, without Ray Data")
    parser.add_argument("--ledger", type=Path, help="a folder for a ledger of a million steps")
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # for the workers
    cases = quick() if asked.quick else whole()
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(1 if asked.quick else ROUNDS):
        for name, case in cases.items():
            found[name].append(round(case(), 4))
            print(f"{name}: {found[name][-1]}", flush=True)
    told: dict[str, Any] = {name: spread(values) for name, values in found.items()}
    with tempfile.TemporaryDirectory() as folder:
        told["killer"] = asyncio.run(ours.with_a_killer(Path(folder), 40 if asked.quick else 200, WORKERS))
    if not asked.quick:
        told |= {case.__name__: in_folder(case) for case in (bad_days.resumed, bad_days.halved, bad_days.preempted)}
    if asked.ledger:
        told["ledger"] = big_ledger.measure(asked.ledger)
    print(json.dumps(told))


def quick() -> dict[str, Callable[[], float]]:
    """Small forms of our own cases."""
    return {
        "steady": lambda: steady(*ours_of([0.2] * 80)),
        "no_length_ms": lambda: in_folder(lambda folder: asyncio.run(ours.of_no_length(folder, 200, NO_LENGTH_WORKERS))),
    }


def whole() -> dict[str, Callable[[], float]]:
    """Ours and Ray Data's, turn by turn."""
    return {
        "steady": lambda: steady(*ours_of([0.2] * 400)),
        "steady_ray_data": lambda: steady(*raydata.of_lengths([0.2] * 400, WORKERS)),
        "whole": lambda: used(*ours_of(lengths_s())),
        "whole_ray_data": lambda: used(*raydata.of_lengths(lengths_s(), WORKERS)),
        "rejecting": lambda: used(*ours_of(lengths_s(), rejecting=True)),
        "no_length_ms": lambda: in_folder(lambda folder: asyncio.run(ours.of_no_length(folder, 1000, NO_LENGTH_WORKERS))),
        "no_length_ray_data_ms": lambda: raydata.of_no_length(400, NO_LENGTH_WORKERS),
    }


def lengths_s() -> list[float]:
    """160 naps of 1 s in the mean, every fifth a slow one, in an order that is always the same."""
    made = [0.75] * 128 + [2.0] * 32
    random.Random(3).shuffle(made)
    return made


def ours_of(lengths: Sequence[float], rejecting: bool = False) -> tuple[list[Nap], float, float]:
    return in_folder(lambda folder: asyncio.run(ours.of_lengths(folder, lengths, WORKERS, rejecting)))


def in_folder(work: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="motionpair-bench-") as folder:
        return work(Path(folder))


def used(naps: Sequence[Nap], from_s: float, to_s: float) -> float:
    """Share of the workers' time in which they slept."""
    asleep = sum(max(0.0, min(n.ended_s, to_s) - max(n.began_s, from_s)) for n in naps)
    return asleep / (WORKERS * (to_s - from_s))


def steady(naps: Sequence[Nap], from_s: float, to_s: float) -> float:
    """The same between the 5th and the 95th of a hundred ends, while every worker has a next nap to come."""
    ends = sorted(n.ended_s for n in naps)
    return used(naps, ends[len(ends) // 20], ends[-len(ends) // 20 - WORKERS])


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 4), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    main()
