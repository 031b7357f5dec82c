"""A stand-in for generate.py of the Wan2.2 repository, `--task animate-14B`: the same arguments, files and traps, under torchrun too.

It paints a square, not a person. faults.py has to lie beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import faults
import numpy as np

TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
HEADS = 40


def boolean(text: str) -> bool:
    if text.lower() not in (*TRUE, *FALSE):
        raise argparse.ArgumentTypeError("Boolean value expected (True/False)")
    return text.lower() in TRUE


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="t2v-A14B")
    parser.add_argument("--size", default="1280*720")
    parser.add_argument("--frame_num", type=int)
    parser.add_argument("--ckpt_dir")
    parser.add_argument("--offload_model", type=boolean)
    parser.add_argument("--ulysses_size", type=int, default=1)
    parser.add_argument("--save_file")
    parser.add_argument("--prompt")
    parser.add_argument("--base_seed", type=int, default=-1)
    parser.add_argument("--sample_solver", default="unipc", choices=("unipc", "dpm++"))
    parser.add_argument("--sample_steps", type=int)
    parser.add_argument("--sample_shift", type=float)
    parser.add_argument("--sample_guide_scale", type=float)
    parser.add_argument("--src_root_path")
    parser.add_argument("--refert_num", type=int, default=77)
    for flag in ("--t5_fsdp", "--t5_cpu", "--dit_fsdp", "--convert_model_dtype", "--replace_flag", "--use_relighting_lora"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def inputs(given: argparse.Namespace) -> tuple[int, int, int]:
    """Frames, height and width, by the pose video, after all that the real one reads has been looked at."""
    source = Path(given.src_root_path)
    faults.size_of(source / "src_ref.png")
    names = ["src_pose", "src_face"] + (["src_bg", "src_mask"] if given.replace_flag else [])
    seen = {name: faults.frames_in(source / f"{name}.mp4") for name in names}
    assert len(set(seen.values())) == 1, seen  # the real one repeats what is too short, and says nothing
    assert faults.size_in(source / "src_face.mp4") == (512, 512)
    return seen["src_pose"][0], *faults.size_in(source / "src_pose.mp4")


def save(path: Path, frames: np.ndarray, fps: float, what: str) -> None:
    """As the real one does: what goes wrong here is told in the log, and the program ends well."""
    try:
        if what == "not_saved":
            raise OSError(f"[Errno 13] Permission denied: '{path}'")
        faults.write(path, frames, fps)
        faults.spoil(path, what)
        if what == "partly_saved":
            faults.spoil(path, "half")
            raise RuntimeError("encoder broke off")
    except Exception as error:
        print(f"INFO: save_video failed, error: {error}")


def main() -> None:
    given = arguments()
    rank, size = int(os.getenv("RANK", "0")), int(os.getenv("WORLD_SIZE", "1"))
    assert given.task == "animate-14B"
    assert size > 1 or not (given.t5_fsdp or given.dit_fsdp), "not supported in non-distributed environments"
    assert given.ulysses_size == size, "The number of ulysses_size should be equal to the world size."
    assert HEADS % given.ulysses_size == 0
    assert Path(given.ckpt_dir).is_dir()
    assert given.refert_num in (1, 5), "refert_num should be 1 or 5."
    what = faults.fault()
    if what.startswith("rank_"):
        if rank:
            faults.process(what.removeprefix("rank_"))
        time.sleep(600)  # the other ranks wait for it in a collective call
    if rank:
        return
    Path("asked.json").write_text(json.dumps(vars(given)))
    faults.process(what)
    count, height, width = inputs(given)
    frames, fps = faults.disturbed(faults.moving(count, height, width, given.base_seed), 30.0, what)
    print(f"INFO: Saving generated video to {given.save_file}", file=sys.stderr)
    save(Path(given.save_file), frames, fps, what)
    print("INFO: Finished.")


if __name__ == "__main__":
    main()
