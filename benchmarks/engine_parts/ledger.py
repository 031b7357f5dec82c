"""A large ledger: how long until a run that goes on with it can admit jobs, and how much memory its process takes.

The ledger holds 1,000,000 steps and 100,000 finished jobs of which 60 % were accepted; a pair has boxes in all of its 81 frames. A process
of its own has the plan of these jobs and of one more in memory (that is counted, making it is not timed), opens the folder as a run does,
asks for what the budgets need, and takes every decision, looking for duplicates, until only the one job is left to do.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from factory.asked import Asked
from factory.choice import Choice
from factory.plan import Job, SlicePlan
from factory.progress import Progress
from factory.run import Run, recipe_digest
from factory.workplace import Workplace
from manifests.ledger import JobState, pack_pair, sketch_pair
from manifests.recipe import Slice, load_recipe
from manifests.records import Artifact, Candidate, FrameBoxes, Geometry, Lineage, Pair, Person, PicturePrint, Prints, Span, VideoPrint
from manifests.store import Cost, Outcome

STEPS, JOBS = 1_000_000, 100_000
SLICES, CANDIDATES = 6, 12
RECIPE = load_recipe("quickstart")
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
        asked = Asked(RECIPE, recipe_digest(RECIPE))
        for part in _plan(jobs):
            for start in range(0, len(part.jobs), _BATCH):
                ledger.set_job(*(_state(job, asked.of(job)) for job in part.jobs[start : start + _BATCH] if job.span.start_frame < jobs))


def _sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def _outcome(number: int, jobs: int) -> Outcome:
    step, job = _STEPS_OF_A_JOB[number % len(_STEPS_OF_A_JOB)], number % jobs
    made = Artifact(digest=_sha(f"made{number}"), size=400_000, suffix=".mp4")
    request = {"clip": made.model_dump(), "words": "a person walks through a park, seen from the front " * 8, "seed": number}
    cost = Cost(
        seconds=0.1 * (number % 77), pool="gpu", gpu_seconds=0.1 * (number % 77), accelerator="H100", bytes_in=1, bytes_out=400_000,
        job=_sha(f"job{job}"), slice=f"slice{job % SLICES}",
    )  # fmt: skip
    answer = {"video": made.model_dump(), "scores": {f"score_{i}": 0.1234 for i in range(12)}}
    return Outcome(
        key=_sha(f"step{number}"), step=step, status="ok", answer=answer, artifacts=(made,), request=request, cost=cost
    )  # fmt: skip


def _state(job: Job, asked: str) -> JobState:
    number = job.span.start_frame
    accepted, pair = number % 5 < 3, _pair(number, job.id)
    return JobState(
        job=job.id, slice=job.slice, task="animation", split="train", state="accepted" if accepted else "rejected",
        reason="" if accepted else "identity", message="" if accepted else "no attempt passed: the face is another person's", asked=asked,
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
        key=job[:20], job=job, slice=f"slice{number % SLICES}", task="animation", split="train", group="scene", generator="puppet",
        geometry=Geometry(frames=81, height=512, width=896), driving=video, target=video, driving_mask=video, references=(picture,),
        reference_masks=(picture,), reference_in_target=False, slots=1, caption="a person walks through a park " * 20,
        boxes=boxes, lineage=Lineage(source=_sha(number), start_frame=number, crop=(0, 0, 512, 896)),
        prints=Prints(
            target=VideoPrint(scene=_sha(number)[:16], looks=_sha(number)[:16] * 81, moves=_sha(number)[:16] * 81),
            painted=(PicturePrint(shape=_sha(number)[16:32], colours=_sha(number)[:48] * 8),),
        ),
    )  # fmt: skip


def _plan(jobs: int) -> list[SlicePlan]:
    """Plans of six slices: each job has its span and a shortlist of pictures of a gallery."""
    person = Person(
        track=0, box=(0, 0, 100, 400), presence=1.0, framing="full", visible_joints=("nose", "hip"), yaw_deg=0.0, yaw_spread_deg=3.0,
        height=400.0, motion=0.2, arms_crossed=False, confidence=0.9,
    )  # fmt: skip
    gallery = [Candidate(picture=_sha(f"c{i}"), role="character", group=f"g{i}", split="train", person=person) for i in range(500)]
    size = Geometry(frames=81, height=512, width=896)
    spec = Slice.model_validate({"task": "animation", "generator": "puppet", "quota": jobs})
    parts, groups = [], [f"scene{i}" for i in range(977)]
    for n in range(SLICES):
        made = [
            Job(
                id=_sha(f"job{i}"), slice=f"slice{n}", task="animation", split="train", group=groups[i % 977], licence="cc0",
                span=Span(source=_sha(i), start_frame=i, geometry=size, crop=(0, 0, 512, 896)), shot=(0, 999), repeat=0, people=(1, 1),
                shortlist=tuple(gallery[(i + k) % 500] for k in range(CANDIDATES)), rank=_sha(f"rank{i}"),
            )
            for i in range(n, jobs + 1, SLICES)
        ]  # fmt: skip
        parts.append(SlicePlan(f"slice{n}", spec, tuple(made), jobs, 0.0, 0))
    return parts


def _memory_mb() -> float:
    """The most that this process has had so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _opened(folder: Path, jobs: int) -> dict[str, Any]:
    imports_mb = _memory_mb()
    plan = _plan(jobs)
    plan_mb = _memory_mb()
    began, began_cpu = time.perf_counter(), time.process_time()
    place = Workplace(folder)
    with place.opened() as ledger:
        run = Run(RECIPE, place, ledger, Progress())
        budgets = run.gpu_hours(), run.money()
        open_s = time.perf_counter() - began
        choices = [Choice(part, 0.5, RECIPE.duplicates) for part in plan]
        run.jobs.take_finished(choices)
        all_s, all_cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    left = sum(not choice.knows(place) for choice in choices for place in range(len(choice.part.jobs)))
    assert left == 1, f"{left} jobs are left to do"
    size_mb = sum(p.stat().st_size for p in folder.glob("ledger.sqlite*")) / 1e6
    return {
        "open_s": round(open_s, 3), "ready_s": round(all_s, 3), "ready_cpu_s": round(all_cpu_s, 3),
        "accepted": sum(len(choice.pairs) for choice in choices), "gpu_hours": round(budgets[0], 1), "rss_mb": round(_memory_mb(), 1),
        "rss_plan_mb": round(plan_mb, 1), "rss_imports_mb": round(imports_mb, 1), "file_mb": round(size_mb, 1),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_opened(Path(sys.argv[1]), int(sys.argv[2]))))
