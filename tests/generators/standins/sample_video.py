"""A stand-in for sample_video.py of SCAIL's sat branch: the same arguments, lines, files and names. It paints a square, not a person."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import faults

ASKS = "Please input in format like <prompt>@@<example_dir>, e.g. the girl is dancing@@examples/001 (Ctrl-D quit): "


def first(folder: Path, *names: str) -> Path:
    found = next((folder / name for name in names if (folder / name).exists()), None)
    if found is None:
        raise FileNotFoundError(f"none of {names} in {folder}")
    return found


def sample(text: str, count: int, seed: int) -> None:
    what = faults.fault()
    _, folder = text.split("@@")
    case = Path(folder)
    height, width = faults.size_of(first(case, "ref.jpg", "ref.png"))
    frames, fps = faults.frames_in(first(case, "rendered_aligned.mp4", "rendered.mp4"))
    out = Path("samples") / case.name
    out.mkdir(parents=True)  # the real one takes an old folder too; ours must never be one
    (out / "text.txt").write_text(text)
    if what == "dies_between":
        what = ""
        os.environ["STANDIN_DIES"] = "1"
    faults.process(what)
    print("sampling 50/50", file=sys.stderr)
    video, fps = faults.disturbed(faults.moving(frames, height, width, 1000 * count + seed % 1000), fps, what)
    path = out / f"{case.name}_output_000000.mp4"
    faults.write(path, video, fps)
    faults.spoil(path, what)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", nargs="+", required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    for path in given.base:
        Path(path).read_text()
    assert os.environ["WORLD_SIZE"] == "1"
    if os.environ.get("STANDIN_FAULT") == "never_loads":
        faults.process("hangs_at_once")
    with open("starts.txt", "a") as starts:
        starts.write(f"{given.seed}\n")
    count = 0
    while True:
        try:
            text = input(ASKS)
        except EOFError:
            return
        print(count, ": ", text)
        sample(text.strip(), count, given.seed)
        count += 1
        if os.environ.get("STANDIN_DIES"):
            input(ASKS)
            os._exit(3)


if __name__ == "__main__":
    main()
