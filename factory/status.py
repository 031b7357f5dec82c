"""What `motionpair status` and `motionpair retry` tell of a run's folder, from its ledger. Nothing is read from the store."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from factory.progress import duration
from factory.workplace import ledger_of
from manifests.costs import Amounts, by_slice
from manifests.errors import BadRecipe
from manifests.ledger import JobState, Ledger, QuarantinedStep

HELD = ("quarantined", "undecided")
"""states of jobs that `retry` sets free"""


def tell_status(folder: Path, console: Console) -> None:
    """Where a run stands and what it cost."""
    with ledger_of(folder) as ledger:
        counts = ledger.job_counts()
        table = Table("slice", "done", "accepted", "rejected", "to review", "quarantined", "undecided", box=None, pad_edge=False)
        for name, states in counts.items():
            numbers = [states.get(s, 0) for s in ("accepted", "rejected", "review", "quarantined", "undecided")]
            table.add_row(Text(name), str(sum(numbers[:-1])), *map(str, numbers))
        console.print(table)
        reasons = Counter(job.reason for job in ledger.jobs("rejected"))
        console.print(Text("rejected: " + (", ".join(f"{r} {n}" for r, n in reasons.most_common()) or "none")))
        for job in (*ledger.jobs("review"), *ledger.jobs("quarantined")):
            what = "to review" if job.state == "review" else job.state
            console.print(Text(f"{what}: {job.slice} {job.job[:12]}: {_first(job.message)}"))
        if ledger.quarantined():
            console.print(Text(f"see why: motionpair status {folder} --quarantine; once mended: motionpair retry {folder} --all"))
        console.print(_steps(ledger))
        console.print(_slices(by_slice(ledger), {name: states.get("accepted", 0) for name, states in counts.items()}))
        console.print(Text("shared steps are charged to the job that had them run first; (no job) is the look at all clips and pictures"))


def _steps(ledger: Ledger) -> Table:
    table = Table("step", "pool", "calls", "lost tries", "worker time", "GPU time", "read", "written", box=None, pad_edge=False)
    for cost in ledger.costs():
        gpu = f"{duration(cost.gpu_seconds)} {cost.accelerator}".strip() if cost.gpu_seconds else ""
        table.add_row(
            cost.step, Text(cost.pool), str(cost.calls), str(cost.lost), duration(cost.seconds), Text(gpu), _bytes(cost.bytes_in),
            _bytes(cost.bytes_out),
        )  # fmt: skip
    return table


def _slices(costs: dict[str, Amounts], accepted: dict[str, int]) -> Table:
    columns = ("cost of", "worker time", "GPU time", "read", "written", "money", "a pair: worker s", "GPU s", "money")
    table = Table(*columns, box=None, pad_edge=False)
    total = Amounts()
    for name, amounts in costs.items():
        table.add_row(Text(name or "(no job)"), *_amounts(amounts), *_each(amounts, accepted.get(name, 0)))
        total.add(amounts)
    table.add_row("all", *_amounts(total), *_each(total, sum(accepted.values())))
    return table


def _amounts(amounts: Amounts) -> list[Text]:
    gpus = ", ".join(f"{duration(micros / 1e6)} {kind}".strip() for kind, micros in sorted(amounts.gpu_micros.items()))
    words = [duration(amounts.seconds), gpus, _bytes(amounts.bytes_in), _bytes(amounts.bytes_out), _money(amounts.money_nano)]
    return [Text(word) for word in words]


def _each(amounts: Amounts, accepted: int) -> list[Text]:
    """The cost of an accepted pair, rejected attempts included."""
    if not accepted:
        return [Text("–")] * 3
    return [Text(f"{value / accepted:.3f}") for value in (amounts.seconds, amounts.gpu_seconds)] + [Text(f"{amounts.money / accepted:.6f}")]


def tell_quarantine(folder: Path, console: Console) -> None:
    """Request, errors and the worker's last lines of every step in quarantine."""
    with ledger_of(folder) as ledger:
        steps, jobs = ledger.quarantined(), ledger.jobs("quarantined")
    for step in steps:
        _tell_step(step, [job for job in jobs if job.blamed == step.key], console)
    known = {step.key for step in steps}
    for job in (job for job in jobs if job.blamed not in known):
        console.print(Text(f"job {job.slice} {job.job[:12]}: {_first(job.message)}"))
    if not steps and not jobs:
        console.print("nothing is in quarantine")
    else:
        console.print(Text(f"once the cause is mended: motionpair retry {folder} --job ID (or --all), then run again"))


def _tell_step(step: QuarantinedStep, jobs: Sequence[JobState], console: Console) -> None:
    console.print(Text(f"step {step.step} {step.key[:12]}", style="bold"))
    console.print(Text("  jobs: " + (", ".join(f"{job.slice} {job.job[:12]}" for job in jobs) or "none")))
    for number, strike in enumerate(step.strikes, 1):
        console.print(Text(f"  try {number}: {_plain(strike)}"))
    _tell_lines("request", json.dumps(step.request, indent=2, ensure_ascii=False, sort_keys=True), console)
    _tell_lines("last lines", step.details, console)


def _tell_lines(title: str, text: str, console: Console) -> None:
    console.print(Text(f"  {title}:"))
    for line in text.splitlines() or ["none"]:
        console.print(Text(f"    {_plain(line)}"))


def retry_jobs(folder: Path, wanted: Sequence[str], everything: bool, console: Console) -> None:
    """Set quarantined and undecided jobs free. Raises BadRecipe for a job that is none of these."""
    if bool(wanted) == everything:
        raise BadRecipe("retry: give the jobs, as --job ID (status --quarantine lists them), or --all.")
    with ledger_of(folder, locked=True) as ledger:
        free = ledger.retry(None if everything else [_job_of(ledger, text) for text in wanted])
    for job in free:
        console.print(Text(f"free: {job[:12]}"))
    console.print(Text(f"{len(free)} jobs are made again by the next run" if free else "no job was quarantined or undecided"))


def _job_of(ledger: Ledger, text: str) -> str:
    found = [job for job in ledger.jobs() if text and job.job.startswith(text.lower())]
    held = [job.job for job in found if job.state in HELD]
    if len(held) == 1:
        return held[0]
    if held:
        raise BadRecipe(f"--job {text}: {len(held)} jobs' ids begin so; give more letters.")
    state = f"is {found[0].state}; only {' and '.join(HELD)} jobs are made again" if found else "is no job of this run"
    raise BadRecipe(f"--job {text} {state}.")


def tell_calls(folder: Path, console: Console) -> None:
    """What questions to a model cost, by role."""
    with ledger_of(folder) as ledger:
        table = Table("role", "model", "requests", "tokens in", "tokens out", "money", "unconfirmed", box=None, pad_edge=False)
        spend = ledger.spend()
        for role in spend:
            table.add_row(
                Text(role.role), Text(role.model), f"{role.requests:,}", f"{role.prompt_tokens:,}", f"{role.completion_tokens:,}",
                _money(role.money_nano), _money(role.unconfirmed_nano),
            )  # fmt: skip
        console.print(table if spend else "no model was asked")
        total, open_ = sum(r.money_nano for r in spend), sum(r.unconfirmed_nano for r in spend)
        if spend:
            note = ": connections were cut; the most it may have cost is counted" if open_ else ""
            console.print(Text(f"total: {_money(total + open_)}, of which {_money(open_)} unconfirmed{note}"))


def _money(nano: int) -> str:
    return f"{nano / 1e9:.6f}"


def _bytes(count: int) -> str:
    """`12.3 MB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _first(text: str) -> str:
    return _plain((text.splitlines() or [""])[0])


def _plain(line: str) -> str:
    """What a worker wrote may hold anything; control characters do not reach the terminal."""
    return "".join(" " if unicodedata.category(c)[0] == "C" else c for c in line)[:1000]
