"""Answers that raters sent back. They are other people's files: everything in them is checked, and what can't be used is listed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.evaluation.gsb import SheetKey
from manifests.errors import BadInput

ANSWERS = ("left", "same", "right")
COLUMNS = ("sheet", "rater", "item", "criterion", "answer")
MAX_BYTES = 16 << 20
NAME_LETTERS = 80
Question = tuple[str, str, str]
"""rater, item, criterion"""


@dataclass(frozen=True)
class Answers:
    """What can be used of all files."""

    votes: dict[Question, str]
    """→ left, same or right"""
    problems: tuple[str, ...]
    """a line for everything that was left out"""
    missing: dict[str, int]
    """rater → questions of the sheet without a usable answer"""


def read_answers(paths: Iterable[Path], key: SheetKey) -> Answers:
    """Answers of all raters to one sheet.

    A file of another sheet, or one that can't be read, is refused as a whole (BadInput). An unknown comparison, criterion or answer is
    left out; the same answer given twice counts once; two different answers of a rater to one question count not at all. All are listed.
    """
    items, found, problems = {item.id for item in key.items}, dict[Question, set[str]](), list[str]()
    for path in paths:
        for line, row in _rows(path):
            if row["sheet"] != key.sheet:
                raise BadInput(f"{path.name}, {line}: answers to sheet {row['sheet'][:20]!r}, the key is of {key.sheet}; give its own key")
            wrong = _wrong(row, items, key)
            if wrong:
                problems.append(f"{path.name}, {line}: {wrong}; left out")
                continue
            question = (row["rater"], row["item"], row["criterion"])
            if row["answer"] in found.get(question, ()):
                problems.append(f"{path.name}, {line}: {_of(question)} is there twice; counted once")
            found.setdefault(question, set()).add(row["answer"])
    for question, given in found.items():
        if len(given) > 1:
            problems.append(f"{_of(question)}: answered {' and '.join(sorted(given))}; left out")
    votes = {question: given.pop() for question, given in sorted(found.items()) if len(given) == 1}
    raters = sorted({question[0] for question in found})
    asked = len(key.items) * len(key.criteria)
    return Answers(votes, tuple(problems), {rater: asked - sum(question[0] == rater for question in votes) for rater in raters})


def _wrong(row: dict[str, str], items: set[str], key: SheetKey) -> str:
    rater = row["rater"]
    if not rater or len(rater) > NAME_LETTERS or not rater.isprintable():
        return f"the rater's name must have 1 to {NAME_LETTERS} printable letters"
    for name, allowed in (("item", items), ("criterion", key.criteria), ("answer", ANSWERS)):
        if row[name] not in allowed:
            return f"unknown {name} {row[name][:40]!r}"
    return ""


def _of(question: Question) -> str:
    rater, item, criterion = question
    return f"{rater}'s answer on {criterion} of {item}"


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, row) of one file, every cell a stripped text."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"{path} can't be read as text ({type(e).__name__}); give the CSV or JSON that the sheet exported") from e
    if len(data) > MAX_BYTES:
        raise BadInput(f"{path} has over {MAX_BYTES >> 20} MB; a sheet's answers are far smaller")
    try:
        for number, row in enumerate(_from_json(text) if text.lstrip()[:1] in ("{", "[") else _from_csv(text), start=1):
            yield f"answer {number}", {name: str(row[name]).strip() for name in COLUMNS}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as e:
        raise BadInput(f"{path} is no export of a sheet ({type(e).__name__}); it has the columns {', '.join(COLUMNS)}") from e


def _from_csv(text: str) -> Iterator[dict[str, Any]]:
    """Spreadsheets of some languages separate by semicolons."""
    first = text.partition("\n")[0]
    yield from csv.DictReader(io.StringIO(text), delimiter=";" if first.count(";") > first.count(",") else ",", strict=True)


def _from_json(text: str) -> Iterator[dict[str, Any]]:
    whole = json.loads(text)
    for row in whole["answers"]:
        yield {"sheet": whole["sheet"], "rater": whole["rater"], **row}
