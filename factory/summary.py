"""What commands tell when they are done, and the picture of a pair."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from factory.index import Index
from factory.plan import Plan
from factory.remaking import Remaking
from factory.run import RunResult
from manifests import media
from manifests.errors import BadRecipe
from manifests.recipe import Recipe
from manifests.records import PREFERENCE
from manifests.release import PairRow, Release

GENERATING = ("generate_image", "generate_video")
SHEET_FRAMES = 6
KINDS = ("pictures", "videos", "inspections", "other")


def tell_result(result: RunResult, console: Console) -> None:
    """The end of a run."""
    for name, quota in result.quotas.items():
        console.print(Text(f"{name}: {result.accepted.get(name, 0)} of {quota} pairs"))
    if result.left_out:
        console.print(Text("left out: " + ", ".join(f"{reason} {n}" for reason, n in sorted(result.left_out.items()))))
    for job in result.unmade:
        console.print(Text(f"{job.state}: {job.slice} {job.job[:12]}: {job.message.splitlines()[0]}", style="red"))
    for name in result.spent:
        console.print(Text(f"budget.{name} is spent: no new job was begun. Raise it and run again to go on.", style="red"))
    ran, reused = sum(result.ran.values()), sum(result.reused.values())
    made = sum(result.ran[name] for name in GENERATING)
    taken = f", {sum(result.taken.values())} taken over" if result.taken else ""
    console.print(Text(f"steps: {ran} run ({made} by generators), {reused} reused from earlier runs{taken}"))
    if result.spoilt:
        console.print(Text(f"{result.spoilt} steps could not be taken over: their outcomes are damaged, or files of them are gone"))
    if not ran:
        console.print("no generator work was needed: everything was there already")
    if result.release is None:
        console.print("nothing was sealed: no pair was accepted", style="red")
    else:
        kind = "sealed" if result.new_revision else "unchanged"
        console.print(Text(f"release {kind}: {result.release}"))
        console.print(
            Text(f"look at it: motionpair show {result.release.parent} {Release.open(result.release).rows()[0].key} --sheet pair.png")
        )
    if not result.complete:
        short = [f"{n} {result.accepted.get(n, 0)}/{q}" for n, q in result.quotas.items() if result.accepted.get(n, 0) < q]
        advice = "" if result.spent else " Add clips or characters, raise repeats, or lower the quota, and run again."
        console.print(Text(f"incomplete: {', '.join(short)}.{advice}"))


def tell_index(index: Index, path: Path, console: Console) -> None:
    """A line a clip."""
    table = Table("clip", "group", "seconds", "spans", "people", "framing", "yaw°", "motion", box=None, pad_edge=False)
    for file, clip in index.clips:
        first = clip.spans[0]
        person = first.main
        table.add_row(
            Text(file.path.name), Text(file.group[:12]), f"{clip.frames / clip.fps:.1f}", str(len(clip.spans)), str(first.people),
            person.framing, f"{abs(person.yaw_deg):.0f}", f"{person.motion:.2f}",
        )  # fmt: skip
    console.print(table)
    reasons = Counter(b.reason for b in index.bad)
    left_out = f"; left out: {', '.join(f'{r} {n}' for r, n in sorted(reasons.items()))}" if reasons else ""
    console.print(Text(f"{len(index.spans)} spans in {len(index.clips)} clips{left_out}. Written to {path}"))


def tell_plan(recipe: Recipe, plan: Plan, note: str, console: Console) -> None:
    """A line a slice."""
    table = Table(box=None, pad_edge=False)
    for column in ("slice", "task", "generator", "quota", "acceptance", "attempts", "jobs: train", "validation", "GPU-hours"):
        table.add_column(column, justify="left" if column in ("slice", "task", "generator") else "right")
    for part in plan.slices:
        splits = Counter(job.split for job in part.jobs)
        hours = "unknown" if part.gpu_hours is None else f"{part.gpu_hours:,.0f}"
        jobs = [f"{splits['train']:,}", f"{splits['validation']:,}"] if not note else ["–", "–"]
        table.add_row(
            part.name,
            part.spec.task,
            part.spec.generator,
            f"{part.spec.quota:,}",
            f"{part.spec.acceptance:.2f}",
            f"{part.attempts:,}",
            *jobs,
            hours,
        )
    console.print(table)
    known = sum(part.gpu_hours or 0 for part in plan.slices)
    unknown = [part.spec.generator for part in plan.slices if part.gpu_hours is None]
    pairs, attempts = sum(p.spec.quota for p in plan.slices), sum(p.attempts for p in plan.slices)
    total = f"total: {pairs:,} pairs, {attempts:,} attempts, {known:,.0f} GPU-hours"
    console.print(Text(total + (f" without {', '.join(dict.fromkeys(unknown))}: give seconds_per_pair" if unknown else "")))
    console.print(Text("acceptance rates are the recipe's assumptions; image generation is not part of the estimate"))
    if note:
        console.print(Text(note))
    for part in plan.slices:
        if not note and len(part.jobs) < part.spec.quota:
            console.print(Text(f"{part.name}: only {len(part.jobs)} jobs for a quota of {part.spec.quota}; add clips or raise repeats"))
        if part.without_character:
            console.print(Text(f"{part.name}: {part.without_character} spans have no character on their side of the split"))


def tell_remaking(found: Remaking, console: Console) -> None:
    """A line a slice: what of an earlier run is made again."""
    columns = ("slice", "jobs needed", "unchanged", *(f"again from: {KINDS[0]}", *KINDS[1:]), "GPU-hours")
    table = Table(*columns, box=None, pad_edge=False)
    for part in found.slices:
        hours = "unknown" if part.gpu_seconds is None else f"{part.gpu_seconds / 3600:,.1f}"
        table.add_row(Text(part.name), f"{part.jobs:,}", f"{part.unchanged:,}", *(f"{part.from_the(kind):,}" for kind in KINDS), hours)
    console.print(table)
    steps = Counter(step for part in found.slices for step in part.missing.values())
    runs = ", ".join(f"{name} {count:,}" for name, count in sorted(steps.items())) or "nothing"
    console.print(Text(f"has to run, at least: {runs}. A job stands where its first such step is; what follows depends on the answer"))
    kept = f"{found.steps_kept:,} steps, {found.gpu_seconds_kept / 3600:,.1f} GPU-hours"
    console.print(Text(f"taken over: {kept} that are not spent again"))


def draw_pair(release: Path, key: str, sheet: Path) -> PairRow:
    """Write a contact sheet of the pair: rows for driving, driving mask and target (or winner and loser), and the reference beside its
    mask."""
    opened = Release.open(release)
    rows = [row for row in opened.rows() if row.key.startswith(key)]
    if len(rows) != 1:
        some = ", ".join(row.key for row in opened.rows()[:3])
        raise BadRecipe(f"{len(rows)} pairs have a key that begins with {key!r}; keys are like {some}.")
    row = rows[0]
    pictures: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for member in row.members:
            if not member.name.endswith((".mp4", ".png")):
                continue
            file = Path(folder) / member.name
            file.write_bytes(opened.read_member(row, member.name))
            if member.name.endswith(".mp4"):
                frames, _ = media.read_frames(file)
                picked = np.unique(np.linspace(0, len(frames) - 1, SHEET_FRAMES).astype(int))
                pictures[member.name] = [frames[i] for i in picked]
            else:
                pictures[member.name] = [media.read_image(file)]
    stills = [image for name in pictures if name.endswith(".png") for image in pictures[name]]
    if row.task == PREFERENCE:
        shown = {"driving": "driving (real)", "driving_mask": "driving mask", "winner": f"winner ({row.generator})", "loser": "loser"}
    else:
        shown = {"driving": f"driving ({row.generator})", "driving_mask": "driving mask", "target": "target (real)"}
    lines, labels = [*(pictures[f"{name}.mp4"] for name in shown), stills], [*shown.values(), "reference and mask"]
    media.write_png(sheet, media.contact_sheet(lines, labels, 320))
    return row
