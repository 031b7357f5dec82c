"""A stand-in for generate.py of SCAIL's wan branch: the same arguments, under torchrun too. It paints a square, not a person."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import faults


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--model", "--ckpt_dir", "--scail_path", "--image", "--pose", "--prompt", "--save_file"):
        parser.add_argument(name, required=True)
    for name in ("--target_h", "--target_w", "--base_seed"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--sample_steps", type=int, default=40)
    parser.add_argument("--sample_shift", type=float, default=3.0)
    parser.add_argument("--sample_guide_scale", type=float, default=5.0)
    parser.add_argument("--ulysses_size", type=int, default=1)
    parser.add_argument("--dit_fsdp", action="store_true")
    parser.add_argument("--t5_fsdp", action="store_true")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    rank, size = int(os.getenv("RANK", "0")), int(os.getenv("WORLD_SIZE", "1"))
    assert given.ulysses_size == size
    assert given.dit_fsdp == given.t5_fsdp == (size > 1)
    assert Path(given.ckpt_dir).is_dir()
    assert Path(given.scail_path).is_file()
    if rank:
        return
    Path("asked.json").write_text(json.dumps(vars(given)))
    what = faults.fault()
    faults.process(what)
    assert faults.size_of(Path(given.image)) == (given.target_h, given.target_w)
    frames = faults.moving(faults.frames_in(Path(given.pose))[0], given.target_h, given.target_w, given.base_seed)
    frames, fps = faults.disturbed(frames, 16.0, what)
    out = Path(given.save_file)
    print(f"Saving generated video to {out}", file=sys.stderr)
    faults.write(out, frames, fps)
    faults.spoil(out, what)


if __name__ == "__main__":
    main()
