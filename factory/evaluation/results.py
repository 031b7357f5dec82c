"""What an evaluation leaves behind: the table in the terminal, evaluation.json, per_video.parquet and per_video.csv."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from factory.evaluation import statistics
from factory.evaluation.fvd import CLIP_FRAMES
from factory.evaluation.measure import Evaluation, Video
from factory.evaluation.metrics import BY_NAME, UNASKED, Metric
from factory.evaluation.statistics import Summary
from manifests.files import replacing

SUMMARY, ROWS, ROWS_CSV = "evaluation.json", "per_video.parquet", "per_video.csv"
FORMAT = 1
LIBRARIES = ("numpy", "scikit-image", "opencv-python-headless", "imageio-ffmpeg", "ai-edge-litert", "torch")
"""whose versions may change a figure"""
LISTED = 5
ARROWS = {"higher": "↑", "lower": "↓"}


def write(found: Evaluation, out: Path) -> None:
    """The three files. The same videos and versions give the same bytes. Raises OutOfSpace."""
    table = rows(found)
    with replacing(out / SUMMARY) as part:
        part.write_text(json.dumps(as_json(found), indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    with replacing(out / ROWS) as part:
        pa.parquet.write_table(table, part)
    with replacing(out / ROWS_CSV) as part:
        pa.csv.write_csv(table, part)


def rows(found: Evaluation) -> pa.Table:
    """A row a video; a figure that there is none of is null, and `why` says why."""
    names = [metric.name for metric in found.metrics if any(metric.name in video.values for video in found.videos if not video.error)]
    columns: dict[str, Any] = {
        "model": [v.model for v in found.videos], "key": [v.key for v in found.videos], "sha256": [v.sha256 for v in found.videos],
        "frames": pa.array([v.frames for v in found.videos], pa.int32()), "fps": [v.fps for v in found.videos],
        "height": pa.array([v.height for v in found.videos], pa.int32()),
        "width": pa.array([v.width for v in found.videos], pa.int32()),
    }  # fmt: skip
    columns |= {name: pa.array([v.figure(name) for v in found.videos], pa.float64()) for name in names}
    columns |= {"why": [why(v) for v in found.videos], "notes": ["; ".join(v.notes) for v in found.videos]}
    return pa.table(columns)


def why(video: Video) -> str:
    """Why the video, or some figure of it, could not be had."""
    return video.error or "; ".join(f"{name}: {value}" for name, value in video.values.items() if isinstance(value, str))


def as_json(found: Evaluation) -> dict[str, Any]:
    """Everything but the figures by video."""
    return {
        "format": FORMAT,
        "mode": "cross-identity" if found.cross else "ground truth",
        "interval": f"{statistics.LEVEL:.0%} percentile bootstrap of the mean, {statistics.DRAWS} resamples",
        "metrics": {m.name: {"better": m.better, "what": m.what} for m in found.metrics},
        "skipped": found.skipped,
        "models": {
            model: {
                "videos": sum(v.model == model for v in found.videos),
                "summary": {name: _summary(summary) for name, summary in found.summaries[model].items()},
                "difference_from_the_first": {name: _summary(summary) for name, summary in found.differences.get(model, {}).items()},
                "without_a_set_figure": found.whys[model],
                "not_measured": {v.key: v.error for v in found.broken if v.model == model},
                "without_a_case": found.unmatched[model],
                "not_generated": found.ungenerated[model],
            }
            for model in found.models
        },
        "weights_sha256": found.weights,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES if _installed(name)},
    }


def _summary(summary: Summary) -> dict[str, float | int | None]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(summary).items()}


def _installed(name: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=name))


def tell(found: Evaluation, console: Console) -> None:
    """A line a model and metric, then what was left out and why."""
    several = len(found.models) > 1
    columns = ["metric", "mean", "median", "n", "95 % interval", ""]
    if several:
        columns = ["model", *columns[:-1], f"less {found.models[0]}", ""]
    table = Table(*columns, box=None, pad_edge=False)
    for name, metric in BY_NAME.items():
        why_not = found.skipped.get(name)
        if why_not == UNASKED:
            continue
        if why_not is not None:
            dashes = ["–"] * (len(columns) - 2 - several)
            table.add_row(*(["all"] if several else []), name, *dashes, Text(f"skipped: {why_not}", style="dim"))
            continue
        for model in found.models:
            first = [Text(model)] if several else []
            table.add_row(*first, f"{name} {ARROWS[metric.better]}", *_cells(found, model, metric))
    console.print(table)
    for line in _remarks(found):
        console.print(Text(line))


def _cells(found: Evaluation, model: str, metric: Metric) -> list[str]:
    summary = found.summaries[model][metric.name]
    low_high = "–" if summary.low is None else f"{shown(summary.low, metric)} to {shown(summary.high, metric)}"
    between = found.differences.get(model, {}).get(metric.name)
    less = [] if len(found.models) == 1 else ["–" if between is None or between.mean is None else _signed(between, metric)]
    remark = found.whys[model].get(metric.name, "")
    if metric.name == "fvd" and not remark:
        remark = f"one figure of the set, clips of {CLIP_FRAMES} frames"
    whys = Counter(
        value for v in found.videos if v.model == model and not v.error and isinstance(value := v.values.get(metric.name), str)
    )  # fmt: skip
    remark = "; ".join([*([remark] if remark else []), *(f"{count} without: {reason}" for reason, count in sorted(whys.items()))])
    return [shown(summary.mean, metric), shown(summary.median, metric), str(summary.n), low_high, *less, remark]


def _signed(between: Summary, metric: Metric) -> str:
    spread = "" if between.low is None else f" ({between.low:+.{metric.digits}f} to {between.high:+.{metric.digits}f})"
    return f"{between.mean:+.{metric.digits}f}{spread}"


def shown(value: float | None, metric: Metric) -> str:
    """A figure with as many digits as it is shown with."""
    return "–" if value is None else f"{value:.{metric.digits}f}"


def _remarks(found: Evaluation) -> list[str]:
    lines = []
    for model in found.models:
        of = f"{model}: " if len(found.models) > 1 else ""
        videos = [v for v in found.videos if v.model == model]
        lines.append(f"{of}{len(videos)} videos, {sum(not v.error for v in videos)} measured")
        if found.unmatched[model]:
            lines.append(f"{of}no case for {_list(found.unmatched[model])}")
        if found.ungenerated[model]:
            lines.append(f"{of}not generated: {_list(found.ungenerated[model])}")
        lines += [f"{of}not measured: {v.key}: {v.error}" for v in videos if v.error]
        lines += [f"{of}{count} videos {note}" for note, count in sorted(Counter(n for v in videos for n in v.notes).items())]
    if len(found.models) > 1:
        lines.append("means are over the videos for which every model has a figure")
    return lines


def _list(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)}: {', '.join(names[:LISTED])}{more}"
