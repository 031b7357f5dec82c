"""The trainer's stream beside other loaders, on the same samples in the same run: mix, speed, resuming, damage.

    python benchmarks/stream.py            # about ten minutes
    python benchmarks/stream.py --quick    # under 50 s; what is not installed is left out

webdataset, MosaicML streaming, Energon and litdata each read in the form they want; of 0, 1 and 2 worker processes (threads, for the
stream) the fastest is taken. Then all take turns, so that whatever else the machine does falls on all of them alike. The bounds,
an indexed `preadv` (handed over to the caller as a loader has to, and looked at where it was read, in the cache) and the decoders alone,
take turns with them. Files are in the page cache. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stream_parts import damage, made, mixing, reading, rivals

WORKERS = (0, 1, 2)
THREADS = (0, 1, 2)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer samples")
    parser.add_argument("--rounds", type=int, help="rounds of each way; default 9, with --quick 3")
    parser.add_argument("--folder", type=Path, help="where the data is made and removed again; default: the folder for temporary files")
    asked = parser.parse_args()
    rounds = asked.rounds or (3 if asked.quick else 9)
    with tempfile.TemporaryDirectory(prefix="motionpair-bench-", dir=asked.folder) as name:
        folder = Path(name)
        figures = {"mix": mixes(folder / "mix", asked.quick), "damage": damage.injected(folder / "damage")}
        figures["bytes"] = bytes_read(folder / "bytes", rounds, 48 if asked.quick else 120, 1_600_000 if asked.quick else 6_400_000)
        figures["pixels"] = pixels(folder / "pixels", rounds, 24 if asked.quick else 72)
    print(json.dumps(figures))
    sys.stdout.flush()
    os._exit(0)  # some loaders leave threads behind that would keep the process


def mixes(folder: Path, quick: bool) -> dict[str, Any]:
    """Errors of the shares: of a million draws of ours, of 5,000 of each rival, in one process."""
    release = made.random_bytes(folder, 60, 2048)
    found: dict[str, Any] = {"stream": mixing.ours(release, (1, 2, 3, 5, 8, 64) if quick else mixing.WORLDS)}
    for name, start in rivals.available(release, _made(folder / "rivals")).items():
        with closing(start, 0) as samples:
            found[name] = mixing.of_draws(map(rivals.task_of, itertools.islice(samples, 1000 if quick else 5000)))
        if name == "mosaicml_streaming":
            with start(0, 8) as samples:
                found[f"{name}_batch_8"] = mixing.of_draws(map(rivals.task_of, itertools.islice(samples, 5000)))
        print(f"mix: {name} {found[name]}", flush=True)
    return found


def bytes_read(folder: Path, rounds: int, count: int, sample_bytes: int) -> dict[str, Any]:
    """Samples per second, undecoded."""
    release = made.random_bytes(folder, 60, sample_bytes)
    ways = {
        "stream": {f"threads={n}": _partial(reading.streamed, release, count, n) for n in THREADS},
        "stream_checked": {f"threads={n}": _partial(reading.streamed, release, count, n, True) for n in THREADS},
        "preadv_bound": {f"threads={n}": _partial(reading.preadv_bound, release, count, n) for n in THREADS},
        "preadv_in_cache": {f"threads={n}": _partial(reading.preadv_in_cache, release, count, n) for n in THREADS},
    }
    for name, start in rivals.available(release, _made(folder / "rivals")).items():
        ways[name] = {f"workers={n}": _partial(of_rival, start, n, count) for n in WORKERS}
    found = turns(ways, rounds)
    best = max((name for name in found if not name.startswith(("stream", "preadv"))), key=lambda name: found[name]["median"], default=None)
    told: dict[str, Any] = {"sample_mb": sample_bytes / 1e6, "samples_per_run": count, "rounds": rounds, "samples_per_s": found}
    told["of_the_bound"] = round(found["stream"]["median"] / found["preadv_bound"]["median"], 3)
    told["of_reading_in_cache"] = round(found["stream"]["median"] / found["preadv_in_cache"]["median"], 3)
    if best:
        told["of_the_best_rival"] = {best: round(found["stream"]["median"] / found[best]["median"], 2)}
    return told


def pixels(folder: Path, rounds: int, count: int) -> dict[str, Any]:
    """Samples per second, decoded, and the time to the first one after resuming."""
    release = made.videos(folder, 24)
    ways = {
        "stream": {f"threads={n}": _partial(reading.streamed_pixels, release, count, n) for n in THREADS[1:]},
        "decoder_bound": {f"threads={n}": _partial(reading.decoder_bound, release, count, n) for n in THREADS[1:]},
    }
    found = turns(ways, rounds)
    resumed = [reading.first_after_resume(release) for _ in range(rounds)]
    return {
        "pair_mb": round(sum(shard.size for shard in release.info.shards) / release.info.pairs / 1e6, 2),
        "samples_per_s": found,
        "of_the_decoder": round(found["stream"]["median"] / found["decoder_bound"]["median"], 3),
        "first_sample_after_resume_s": spread(resumed),
    }


def turns(ways: dict[str, dict[str, Callable[[], float]]], rounds: int) -> dict[str, Any]:
    """Each way at its best setting, in turn."""
    chosen: dict[str, tuple[str, Callable[[], float]]] = {}
    for name, settings in ways.items():
        print(name, flush=True)
        chosen[name] = reading.fastest(settings)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, (_, run) in chosen.items():
            rates[name].append(run())
        print(f"round {number + 1} of {rounds}: " + ", ".join(f"{name} {found[-1]:.1f}/s" for name, found in rates.items()), flush=True)
    return {name: {"setting": chosen[name][0], **spread(found)} for name, found in rates.items()}


def of_rival(start: Callable[[int], Any], workers: int, count: int) -> float:
    """Samples per second of another loader."""
    with closing(start, workers) as samples:
        return reading.rate(samples, count)


@contextlib.contextmanager
def closing(start: Callable[[int], Any], workers: int) -> Iterator[Iterator[Any]]:
    """A loader's samples; afterwards its processes are gone."""
    with start(workers) as samples:
        yield samples
    del samples
    gc.collect()


def spread(found: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of several measurements."""
    return {"median": round(statistics.median(found), 3), "min": round(min(found), 3), "max": round(max(found), 3)}


def _partial(function: Callable[..., float], *arguments: Any) -> Callable[[], float]:
    return lambda: function(*arguments)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
