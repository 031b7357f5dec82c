"""The command behind `python -m factory.trainer.stream`: what a trainer would see."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence

from factory.trainer.decode import U8, PreferenceSample, Sample
from factory.trainer.stream import Stream
from manifests.errors import BadInput, MotionpairError
from manifests.records import TASKS


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m factory.trainer.stream", description="Print the first samples of a release's stream.")
    parser.add_argument("release", help="a revision or a folder of revisions, on a disk or at an address (s3://…)")
    parser.add_argument("--take", type=int, default=20, help="how many samples (default 20)")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--tasks", type=lambda text: tuple(text.split(",")), help="only these, by comma; the mix is shared out among them")
    for name, default in (("seed", 0), ("rank", 0), ("world-size", 1), ("position", 0), ("micro-batch", 1), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--report", action="store_true", help="then draws and repeats by task and shape")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the data failed, 2 the request can't be met."""
    asked = arguments().parse_args(argv)
    options = {k: v for k, v in vars(asked).items() if k not in ("release", "take", "report")}
    seen: Counter[str] = Counter()
    try:
        with Stream(asked.release, **options) as stream:
            for _ in range(asked.take):
                sample = next(stream)
                seen[sample.task] += 1
                print(_line(sample, seen), flush=True)
            if asked.report:
                print(stream.report())
            for replaced in stream.replaced:
                print(f"position {replaced.position}: {replaced.by} instead of {replaced.key}: {replaced.why}", file=sys.stderr)
    except BrokenPipeError:  # the reader has seen enough, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MotionpairError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    return 0


def _line(sample: Sample | PreferenceSample, seen: Counter[str]) -> str:
    def size(array: U8) -> str:
        return "×".join(map(str, array.shape))

    mix = " ".join(f"{task} {100 * seen[task] / seen.total():.1f}%" for task in TASKS if seen[task])
    references = " ".join(map(size, sample.references))
    if isinstance(sample, PreferenceSample):
        made = f"winner {size(sample.winner_THWC)}  loser {size(sample.loser_THWC)}"
    else:
        made = f"target {size(sample.target_THWC)}"
    return (
        f"{sample.position:>8}  {sample.task:<11}  {sample.key}  driving {size(sample.driving_THWC)}  {made}"
        f"  mask {size(sample.driving_mask_THWC)}  reference {references}  mix {mix}"
    )
