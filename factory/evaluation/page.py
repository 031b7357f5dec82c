"""The page with videos side by side: index.html and a folder of copies. Nothing on it comes from anywhere else, so it works offline."""

from __future__ import annotations

import html
import re
import shutil
from importlib import resources
from pathlib import Path

from factory.evaluation.measure import Evaluation, Video
from factory.evaluation.metrics import UNASKED, Metric
from factory.evaluation.results import shown, why
from manifests.errors import BadInput

PAGE, VIDEOS = "index.html", "index_videos"
_OURS = re.compile(r"\d{5}\.(driving|reference|truth|\d+)\.\w+")


def write(found: Evaluation, out: Path) -> Path:
    """The page, and copies of the videos and pictures under names of its own. What an earlier evaluation put there is replaced.

    Raises BadInput when anything else lies there, or what is evaluated does.
    """
    folder = _emptied(out / VIDEOS, found)
    metrics = [m for m in found.metrics if any(v.figure(m.name) is not None for v in found.videos)]
    keys = list(dict.fromkeys(video.key for video in found.videos))
    by = {(video.key, video.model): video for video in found.videos}
    bodies = [_row(folder, number, [by.get((key, model)) for model in found.models], found, metrics) for number, key in enumerate(keys)]
    page = (resources.files(__package__) / "page.html").read_text(encoding="utf-8")
    page = page.replace("{{sorts}}", _sorts(found, metrics)).replace("{{summary}}", _summary(found, metrics))
    page = page.replace("{{rows}}", "\n".join(bodies))  # last: nothing in it is looked at again
    (out / PAGE).write_text(page, encoding="utf-8")
    return out / PAGE


def _emptied(folder: Path, found: Evaluation) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        path.resolve().parent for v in found.videos for path in (v.generated, v.case.truth, v.case.driving, v.case.reference) if path
    }
    there = sorted(folder.iterdir())
    strange = [path.name for path in there if not _OURS.fullmatch(path.name) or not path.is_file()]
    if strange or folder.resolve() in sources:
        what = "what is evaluated" if not strange else strange[0]
        raise BadInput(f"{folder} holds {what}, and the page puts its own copies there; give another --out, or --no-page")
    for path in there:
        path.unlink()
    return folder


def _sorts(found: Evaluation, metrics: list[Metric]) -> str:
    options = ['<option value="key" data-better="lower">key</option>']
    for metric in metrics:
        for column, model in enumerate(found.models):
            label = f"{metric.name}, {model}" if len(found.models) > 1 else metric.name
            options.append(f'<option value="{metric.name}-{column}" data-better="{metric.better}">{html.escape(label)}</option>')
    return "".join(options)


def _summary(found: Evaluation, metrics: list[Metric]) -> str:
    head = "".join(f"<th>{html.escape(model)}</th>" for model in found.models)
    lines = []
    for metric in found.metrics:
        cells = []
        for model in found.models:
            summary = found.summaries[model][metric.name]
            spread = "" if summary.low is None else f" <small>{shown(summary.low, metric)} to {shown(summary.high, metric)}</small>"
            cells.append(f"<td>{shown(summary.mean, metric)}{spread} <small>n = {summary.n}</small></td>")
        better = "higher is better" if metric.better == "higher" else "lower is better"
        lines.append(f'<tr><th title="{html.escape(metric.what)}; {better}">{metric.name}</th>{"".join(cells)}</tr>')
    for name, reason in found.skipped.items():
        if reason != UNASKED:
            lines.append(f'<tr class="skipped"><th>{name}</th><td colspan="{len(found.models)}">skipped: {html.escape(reason)}</td></tr>')
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _row(folder: Path, number: int, videos: list[Video | None], found: Evaluation, metrics: list[Metric]) -> str:
    there = [video for video in videos if video is not None]
    case, key = there[0].case, html.escape(there[0].key)
    order = {"key": f"{number:09d}"}
    tiles = []
    for name, path in (("driving", case.driving), ("reference", case.reference)):
        if path is not None:
            tiles.append(_tile(folder, f"{number:05d}.{name}", path, name, ""))
    for column, (model, video) in enumerate(zip(found.models, videos, strict=True)):
        if video is None:
            tiles.append(f'<figure class="none"><figcaption>{html.escape(model)}: not generated</figcaption></figure>')
            continue
        order |= {f"{m.name}-{column}": repr(figure) for m in metrics if (figure := video.figure(m.name)) is not None}
        tiles.append(_tile(folder, f"{number:05d}.{column}", video.generated, model, _figures(video, metrics)))
    if case.truth is not None and not found.cross:
        tiles.append(_tile(folder, f"{number:05d}.truth", case.truth, "truth", ""))
    values = " ".join(f'data-{name.replace("_", "-")}="{value}"' for name, value in order.items())
    return f'<section {values}><h2>{key} <button type="button" class="play">play</button></h2>{tiles_of(tiles)}</section>'


def tiles_of(tiles: list[str]) -> str:
    """Side by side, all of them in the window's width as long as they stay recognisable."""
    return f'<div style="--tiles: {len(tiles)}">{"".join(tiles)}</div>'


def _figures(video: Video, metrics: list[Metric]) -> str:
    known = "".join(
        f"<dt>{m.name}</dt><dd>{shown(figure, m)}</dd>" for m in metrics if (figure := video.figure(m.name)) is not None
    )  # fmt: skip
    reason = why(video)
    return f"<dl>{known}</dl>" + (f'<p class="why">{html.escape(reason)}</p>' if reason else "")


def _tile(folder: Path, name: str, source: Path, label: str, below: str) -> str:
    """A figure with a copy of the file: its own name could hold anything and its folder may go."""
    target = folder / f"{name}{source.suffix.lower()}"
    shutil.copyfile(source, target)
    address = f"{VIDEOS}/{target.name}"
    shows = (
        f'<img src="{address}" alt="">'
        if target.suffix in (".png", ".jpg", ".jpeg", ".webp")
        else f'<video src="{address}" preload="metadata" muted loop playsinline></video>'
    )
    return f"<figure>{shows}<figcaption>{html.escape(label)}</figcaption>{below}</figure>"
