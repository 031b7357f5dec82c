"""A large ledger: how long until a run that goes on with it can admit jobs, and how much memory its process takes.

The ledger holds 1,000,000 steps and 100,000 finished jobs of which 60 % were accepted; a pair has boxes in all of its 81 frames. A process
of its own opens the folder as a run does, asks for what the budgets need, and holds the decision on every finished job with a sketch of its
pair.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory.workplace import Workplace
from manifests.ledger import JobState, Ledger, PairSketch, pack_pair, sketch_pair, unpack_sketch
from manifests.records import Artifact, FrameBoxes, Geometry, Lineage, Pair, Prints, VideoPrint
from manifests.store import Cost, Outcome

STEPS, JOBS = 1_000_000, 100_000
ASKED = "a" * 64
_BATCH = 10_000
_STEPS_OF_A_JOB = ("analyze", "select", "weave", "generate_image", "measure_picture", "generate_video", "measure_video", "draw_masks")


def measure(folder: Path, steps: int = STEPS, jobs: int = JOBS) -> dict[str, float]:
    """Fill a ledger in an empty folder and open it: seconds (wall and of the processor), MB of memory, sizes."""
    began = time.perf_counter()
    fill(folder, steps, jobs)
    filled_s = time.perf_counter() - began
    done = subprocess.run([sys.executable, __file__, folder, str(jobs)], capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {"steps": steps, "jobs": jobs, "fill_s": round(filled_s, 1), **found}


def fill(folder: Path, steps: int, jobs: int) -> None:
    """Write the ledger through its own methods, many rows a transaction."""
    with Workplace(folder).opened() as ledger:
        for start in range(0, steps, _BATCH):
            ledger.record(*(_outcome(i, jobs) for i in range(start, min(start + _BATCH, steps))))
        for start in range(0, jobs, _BATCH):
            ledger.set_job(*(_job(i) for i in range(start, min(start + _BATCH, jobs))))


def _sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def _outcome(number: int, jobs: int) -> Outcome:
    step, job = _STEPS_OF_A_JOB[number % len(_STEPS_OF_A_JOB)], number % jobs
    made = Artifact(digest=_sha(f"made{number}"), size=400_000, suffix=".mp4")
    request = {"clip": made.model_dump(), "words": "a person walks through a park, seen from the front " * 8, "seed": number}
    cost = Cost(
        seconds=0.1 * (number % 77), pool="gpu", gpu_seconds=0.1 * (number % 77), accelerator="H100", bytes_in=1, bytes_out=400_000,
        job=_sha(f"job{job}"), slice=f"slice{job % 6}",
    )  # fmt: skip
    answer = {"video": made.model_dump(), "scores": {f"score_{i}": 0.1234 for i in range(12)}}
    return Outcome(
        key=_sha(f"step{number}"), step=step, status="ok", answer=answer, artifacts=(made,), request=request, cost=cost
    )  # fmt: skip


def _job(number: int) -> JobState:
    job, accepted = _sha(f"job{number}"), number % 5 < 3
    pair = _pair(number, job)
    return JobState(
        job=job, slice=f"slice{number % 6}", task="animation", split="train", state="accepted" if accepted else "rejected",
        reason="" if accepted else "identity", message="" if accepted else "no attempt passed: the face is another person's", asked=ASKED,
        pair=pack_pair(pair) if accepted else None, sketch=sketch_pair(pair) if accepted else b"",
    )  # fmt: skip


def _pair(number: int, job: str) -> Pair:
    draw = random.Random(number)
    boxes = tuple(
        FrameBoxes(
            hands=tuple(tuple(round(draw.uniform(0, 800), 1) for _ in range(4)) for _ in range(2)),  # type: ignore[misc]
            faces=(tuple(round(draw.uniform(0, 800), 1) for _ in range(4)),),  # type: ignore[arg-type]
        )
        for _ in range(81)
    )
    video, picture = (Artifact(digest=_sha(f"{kind}{number}"), size=400_000, suffix=kind) for kind in (".mp4", ".png"))
    return Pair(
        key=job[:20], job=job, slice=f"slice{number % 6}", task="animation", split="train", group="scene", generator="puppet",
        geometry=Geometry(frames=81, height=512, width=896), driving=video, target=video, driving_mask=video, references=(picture,),
        reference_masks=(picture,), reference_in_target=False, slots=1, caption="a person walks through a park " * 20,
        boxes=boxes, lineage=Lineage(source=_sha(number), start_frame=number, crop=(0, 0, 512, 896)),
        prints=Prints(target=VideoPrint(scene=_sha(number)[:16], looks=_sha(number)[:16] * 81, moves=_sha(number)[:16] * 81)),
    )  # fmt: skip


def _decisions(ledger: Ledger, jobs: int) -> Iterator[PairSketch | None]:
    """What a run learns of the finished jobs when it goes on, in plan order."""
    for number in range(jobs):
        state = ledger.finished(_sha(f"job{number}"), ASKED, with_pair=False)
        assert state is not None
        yield unpack_sketch(state.sketch) if state.state == "accepted" else None


def _memory_mb() -> float:
    """The most that this process has had so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _opened(folder: Path, jobs: int) -> dict[str, Any]:
    imports_mb = _memory_mb()
    began, began_cpu = time.perf_counter(), time.process_time()
    with Workplace(folder).opened() as ledger:
        budgets = ledger.gpu_seconds(), ledger.money_nano(), ledger.job_counts()
        open_s = time.perf_counter() - began
        pairs = list(_decisions(ledger, jobs))
        all_s, all_cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    size_mb = sum(p.stat().st_size for p in folder.glob("ledger.sqlite*")) / 1e6
    return {
        "open_s": round(open_s, 3), "ready_s": round(all_s, 3), "ready_cpu_s": round(all_cpu_s, 3),
        "accepted": sum(pair is not None for pair in pairs), "gpu_hours": round(budgets[0] / 3600, 1), "rss_mb": round(_memory_mb(), 1),
        "rss_imports_mb": round(imports_mb, 1), "file_mb": round(size_mb, 1),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_opened(Path(sys.argv[1]), int(sys.argv[2]))))
