"""One evaluation: every model's video of every key beside its case, through every meter that can run here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factory.evaluation import backbones
from factory.evaluation.alignment import Aligned, align
from factory.evaluation.cases import Case, Truth
from factory.evaluation.fvd import FvdMeter
from factory.evaluation.lpips import LpipsMeter
from factory.evaluation.metrics import ALL, BY_NAME, NO_TRUTH, UNASKED, Meter, Metric, Seen, SetMeter, Values
from factory.evaluation.people import PeopleMeter
from factory.evaluation.pixels import PixelMeter
from factory.evaluation.statistics import Summary, summarise
from factory.evaluation.vmaf import VmafMeter
from manifests.errors import BadInput, BadRecipe, MotionpairError

TOLD = 3
"""names that an error line lists"""


@dataclass(frozen=True)
class Asked:
    """What an evaluation is to do."""

    models: Mapping[str, Mapping[str, Path]]
    """name → key → generated video"""
    metrics: tuple[str, ...] | None = None
    """asked for by name, so each has to be possible; None: whatever can be computed here"""
    cross: bool = False
    trim: bool = False
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True)
class Video:
    """One generated video, measured or not."""

    model: str
    key: str
    generated: Path
    sha256: str
    case: Case
    values: Values
    frames: int = 0
    """that were compared"""
    fps: float = 0.0
    height: int = 0
    width: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""
    """why it could not be measured; there are no values then"""

    def figure(self, metric: str) -> float | None:
        value = self.values.get(metric)
        return value if isinstance(value, float) else None


@dataclass(frozen=True)
class Evaluation:
    """All that was found."""

    models: tuple[str, ...]
    cross: bool
    metrics: tuple[Metric, ...]
    """that were computed"""
    skipped: dict[str, str]
    """metric → why it was not"""
    videos: tuple[Video, ...]
    """by key, then by model"""
    summaries: dict[str, dict[str, Summary]]
    """model → metric → over the videos for which every model has a figure"""
    differences: dict[str, dict[str, Summary]]
    """model → metric → of its figure less the first model's, video by video; of every model but the first"""
    whys: dict[str, dict[str, str]]
    """model → metric of the whole set → why it has none"""
    unmatched: dict[str, tuple[str, ...]]
    """model → keys of generated videos that have no case"""
    ungenerated: dict[str, tuple[str, ...]]
    """model → keys of cases that it has no video of"""
    weights: dict[str, str]
    """name → SHA-256"""

    @property
    def broken(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.error)


def evaluate(asked: Asked, truth: Truth, progress: Callable[[int, int], None] = lambda done, of: None) -> Evaluation:
    """Measure every video that has a case. A video that can't be read or compared is kept with its reason, and the others go on.

    Raises BadInput when nothing has a case, BadRecipe when a metric that was asked for by name can't be computed.
    """
    there = truth.keys()
    keys = [key for key in there if any(key in videos for videos in asked.models.values())]
    if not keys:
        mine = sorted({key for videos in asked.models.values() for key in videos})
        raise BadInput(f"no generated video has the key of a case: generated {_some(mine)}; cases {_some(there)}")
    cases = {key: truth.case(key) for key in keys}
    cross = asked.cross or all(case.truth is None for case in cases.values())
    meters, sets, skipped = _usable(asked, cross)
    videos: list[Video] = []
    todo = [(key, model) for key in keys for model, paths in asked.models.items() if key in paths]
    for number, (key, model) in enumerate(todo):
        progress(number, len(todo))
        videos.append(_measured(model, asked.models[model][key], cases[key], asked, cross, meters, sets))
    metrics = tuple(metric for metric in ALL if metric.name not in skipped)
    summaries, differences, whys = _summaries(videos, tuple(asked.models), metrics, sets)
    return Evaluation(
        models=tuple(asked.models), cross=cross, metrics=metrics, skipped=skipped, videos=tuple(videos),
        summaries=summaries, differences=differences, whys=whys,
        unmatched={model: tuple(sorted(set(paths) - set(there))) for model, paths in asked.models.items()},
        ungenerated={model: tuple(key for key in there if key not in paths) for model, paths in asked.models.items()},
        weights={name: digest for meter in (*meters, *sets) for name, digest in getattr(meter, "used", {}).items()},
    )  # fmt: skip


def wanted(names: str | None) -> tuple[str, ...] | None:
    """Metrics by name, separated by commas. Raises BadRecipe for a name that is none."""
    if names is None:
        return None
    asked = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in asked if name not in BY_NAME]
    if unknown or not asked:
        raise BadRecipe(f"--metrics {names}: {', '.join(unknown) or 'nothing'} is no metric; allowed are {', '.join(BY_NAME)}.")
    return asked


def _usable(asked: Asked, cross: bool) -> tuple[list[Meter], list[SetMeter], dict[str, str]]:
    """The meters to use, and why each metric that is left out is."""
    meters: list[Meter] = []
    sets: list[SetMeter] = []
    skipped: dict[str, str] = {}
    each: tuple[Meter, ...] = (PixelMeter(), VmafMeter(), LpipsMeter(asked.weights, asked.device), PeopleMeter())
    for meter in each:
        if (why := _why_not(meter.metrics, meter, meter.needs_truth, asked, cross)) is None:
            meters.append(meter)
        for metric in meter.metrics:
            if why or not _is_asked(metric, asked):
                skipped[metric.name] = why or UNASKED
    fvd: SetMeter = FvdMeter(asked.weights, asked.device)
    if (why := _why_not((fvd.metric,), fvd, True, asked, cross)) is None:
        sets.append(fvd)
    else:
        skipped[fvd.metric.name] = why
    refused = [f"{name}: {skipped[name]}" for name in asked.metrics or () if name in skipped]
    if refused:
        raise BadRecipe(f"--metrics asks for what can't be computed: {'; '.join(refused)}.")
    return meters, sets, {metric.name: skipped[metric.name] for metric in ALL if metric.name in skipped}


def _is_asked(metric: Metric, asked: Asked) -> bool:
    return asked.metrics is None or metric.name in asked.metrics


def _why_not(metrics: Sequence[Metric], meter: Meter | SetMeter, needs_truth: bool, asked: Asked, cross: bool) -> str | None:
    if not any(_is_asked(metric, asked) for metric in metrics):
        return UNASKED
    if cross and needs_truth:
        return NO_TRUTH
    return meter.lacking() or None


def _measured(
    model: str, path: Path, case: Case, asked: Asked, cross: bool, meters: Sequence[Meter], sets: Sequence[SetMeter]
) -> Video:  # fmt: skip
    other, what = (case.driving, "driving video") if cross else (case.truth, "ground truth")
    digest = backbones.sha256_of(path)
    if other is None:
        return Video(model, case.key, path, digest, case, {}, error=f"{case.key} has no {what}")
    try:
        pair: Aligned = align(path, other, trim=asked.trim, same_size=not cross)
    except BadInput as e:
        return Video(model, case.key, path, digest, case, {}, error=e.message)
    seen = Seen(case, pair, cross)
    values: Values = {}
    for meter in meters:
        try:
            found = meter.measure(seen)
        except MotionpairError as e:
            found = {metric.name: e.message for metric in meter.metrics}
        values |= {name: _finite(value) for name, value in found.items() if _is_asked(BY_NAME[name], asked)}
    for meter_of_set in sets:
        if why := meter_of_set.add(model, seen):
            values[meter_of_set.metric.name] = why
    count, height, width = pair.truth_THWC.shape[:3]
    return Video(model, case.key, path, digest, case, values, count, pair.fps, height, width, pair.notes)


def _finite(value: float | str) -> float | str:
    if isinstance(value, str):
        return value
    return round(float(value), 6) if math.isfinite(value) else "not a finite figure"


def _summaries(
    videos: Sequence[Video], models: tuple[str, ...], metrics: Sequence[Metric], sets: Sequence[SetMeter]
) -> tuple[dict[str, dict[str, Summary]], dict[str, dict[str, Summary]], dict[str, dict[str, str]]]:
    """Over the keys for which every model has a figure: means over other videos could not be compared."""
    summaries: dict[str, dict[str, Summary]] = {model: {} for model in models}
    differences: dict[str, dict[str, Summary]] = {model: {} for model in models[1:]}
    whys: dict[str, dict[str, str]] = {model: {} for model in models}
    of_set = {meter.metric.name: meter for meter in sets}
    for metric in metrics:
        name, meter = metric.name, of_set.get(metric.name)
        has = Counter(video.key for video in videos if _told(video, name, meter is not None))
        shared = tuple(sorted(key for key, count in has.items() if count == len(models)))
        if meter is not None:
            for model in models:
                result = meter.result(model, shared)
                summaries[model][name] = Summary(None if isinstance(result, str) else round(result, 6), None, len(shared), None, None)
                if isinstance(result, str):
                    whys[model][name] = result
            continue
        by_model: dict[str, list[float]] = {model: [] for model in models}
        for video in videos:
            if video.key in shared and (figure := video.figure(name)) is not None:
                by_model[video.model].append(figure)
        for model, figures in by_model.items():
            summaries[model][name] = summarise(figures)
            if model != models[0]:
                differences[model][name] = summarise([b - a for a, b in zip(by_model[models[0]], figures, strict=True)])
    return summaries, differences, whys


def _told(video: Video, metric: str, of_set: bool) -> bool:
    """Whether the video has a figure, or is among those that a set's figure is taken of: there only a reason against it is noted."""
    return not video.error and (metric not in video.values if of_set else video.figure(metric) is not None)


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:TOLD]) or 'none'}{f' … ({len(names)})' if len(names) > TOLD else ''}"
