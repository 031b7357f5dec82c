"""Blind sheets for human raters: two models' videos of the same key beside each other, and a key file that says which is where.

Nothing in the sheet's folder names a model: files are named by comparison and side, in the order of the sheet. What a video itself gives
away (its size, its rate, a watermark) it gives away.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from factory.evaluation.backbones import sha256_of
from factory.evaluation.cases import Truth
from factory.evaluation.page import tiles_of
from manifests.errors import BadInput, BadRecipe
from manifests.files import replacing
from manifests.records import Digest, Frozen, digest_of

SHEET, KEY_FILE = "sheet", "key.json"
FORMAT = 1
CRITERION_LETTERS = 80
SHOWN = (("driving", "driving video"), ("reference", "reference"))


class Item(Frozen):
    """One comparison."""

    id: str
    key: str
    left: str
    """the model on the left"""


class SheetKey(Frozen):
    """key.json: what is behind a sheet."""

    format: int = FORMAT
    sheet: str
    """the sheet's id, which every exported answer carries"""
    models: tuple[str, str]
    """"good" means that the first one is better"""
    seed: int
    criteria: tuple[str, ...] = Field(min_length=1)
    items: tuple[Item, ...]
    """in the order of the sheet"""
    videos: dict[str, dict[str, Digest]]
    """model → key → SHA-256 of its video"""


def make_sheet(
    models: Mapping[str, Mapping[str, Path]], truth: Truth | None, out: Path, seed: int, count: int | None, criteria: tuple[str, ...]
) -> SheetKey:
    """Write `out`/sheet and `out`/key.json. The same videos and seed give the same bytes.

    Each model is on the left in half of the comparisons (one more or less where they are odd), so a rater who prefers a side moves
    nothing. Raises BadInput when the models have no key in common or `out` holds another sheet, BadRecipe for criteria that can't be asked.
    """
    _check(criteria)
    (first, mine), (second, theirs) = models.items()
    common = sorted(set(mine) & set(theirs))
    if not common:
        raise BadInput(f"{first} and {second} have no key in common; name their videos by the same keys")
    rng = np.random.default_rng(seed)
    chosen = [common[i] for i in rng.permutation(len(common))[:count]]
    lefts = [(first, second)[i] for i in rng.permutation(np.arange(len(chosen)) % 2)]
    digests = {model: {key: sha256_of(models[model][key]) for key in chosen} for model in (first, second)}
    sheet = digest_of({"videos": digests, "seed": seed, "order": chosen, "left": lefts, "criteria": criteria})[:16]
    items = tuple(
        Item(id=digest_of({"sheet": sheet, "key": key})[:10], key=key, left=left) for key, left in zip(chosen, lefts, strict=True)
    )  # fmt: skip
    made = SheetKey(sheet=sheet, models=(first, second), seed=seed, criteria=criteria, items=items, videos=digests)
    _make_room(out, sheet)
    _write_page(made, models, truth, out / SHEET)
    with replacing(out / KEY_FILE) as part:
        part.write_text(made.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return made


def read_key(path: Path) -> SheetKey:
    """Raises BadInput for what is no key file."""
    try:
        made = SheetKey.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, UnicodeDecodeError) as e:
        raise BadInput(f"{path} is no key of a sheet ({str(e).splitlines()[0]}); give the key.json that `gsb make` wrote") from e
    if made.format != FORMAT:
        raise BadInput(f"{path} has format {made.format}, this version reads {FORMAT}; use the version that wrote it")
    return made


def _check(criteria: tuple[str, ...]) -> None:
    bad = [c for c in criteria if not c.strip() or len(c) > CRITERION_LETTERS or not c.isprintable()]
    if bad or len(set(criteria)) != len(criteria):
        raise BadRecipe(f"--criterion {', '.join(criteria)}: each is asked once, in 1 to {CRITERION_LETTERS} printable letters.")


def _make_room(out: Path, sheet: str) -> None:
    """Answers to another sheet would be lost with its key, so that one is never overwritten; nor is a folder that is no sheet of ours."""
    there = (out / KEY_FILE).exists()
    if not there and (out / SHEET).exists():
        raise BadInput(f"{out / SHEET} is there without a {KEY_FILE} beside it; give another --out")
    if there and (other := read_key(out / KEY_FILE).sheet) != sheet:
        raise BadInput(f"{out} holds another sheet ({other}); give another --out, or remove it")
    shutil.rmtree(out / SHEET, ignore_errors=True)
    (out / SHEET / "videos").mkdir(parents=True)


def _write_page(made: SheetKey, models: Mapping[str, Mapping[str, Path]], truth: Truth | None, folder: Path) -> None:
    known = set(truth.keys()) if truth else set()
    sections = []
    for number, item in enumerate(made.items):
        right = next(model for model in made.models if model != item.left)
        files = [(models[item.left][item.key], f"{number:04d}.left", "left"), (models[right][item.key], f"{number:04d}.right", "right")]
        if truth and item.key in known:
            case = truth.case(item.key)
            files[:0] = [(path, f"{number:04d}.{role}", label) for role, label in SHOWN if (path := getattr(case, role)) is not None]
        sections.append(_section(item, number, [_tile(folder, *file) for file in files], made.criteria))
    page = (resources.files(__package__) / "gsb.html").read_text(encoding="utf-8")
    page = page.replace("{{sheet}}", made.sheet).replace("{{items}}", "\n".join(sections))
    (folder / "index.html").write_text(page, encoding="utf-8")


def _section(item: Item, number: int, tiles: list[str], criteria: tuple[str, ...]) -> str:
    """Not the key: it may name a model, and raters need none."""
    asked = []
    for criterion in criteria:
        text = html.escape(criterion)
        buttons = "".join(
            f'<button type="button" data-answer="{answer}" aria-pressed="false">{label}</button>'
            for answer, label in (("left", "left is better"), ("same", "same"), ("right", "right is better"))
        )
        asked.append(f'<p data-criterion="{text}"><b>{text}</b> {buttons}</p>')
    heading = f'<h2>{number + 1} <button type="button" class="play">play</button></h2>'
    return f'<section data-item="{item.id}">{heading}{tiles_of(tiles)}{"".join(asked)}</section>'


def _tile(folder: Path, source: Path, name: str, label: str) -> str:
    target = folder / "videos" / f"{name}{source.suffix.lower()}"
    shutil.copyfile(source, target)  # not its times: models are often sampled one after the other
    address = f"videos/{target.name}"
    shows = (
        f'<img src="{address}" alt="">' if name.endswith(".reference")
        else f'<video src="{address}" preload="metadata" muted loop playsinline></video>'
    )  # fmt: skip
    return f"<figure>{shows}<figcaption>{label}</figcaption></figure>"
