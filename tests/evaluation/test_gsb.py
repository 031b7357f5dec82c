"""Sheets for human raters: blind, balanced, and scored right, also from files that somebody meddled with."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pages import Page
from typer.testing import CliRunner, Result
from videos import scene, write

from factory.cli import app
from factory.evaluation.gsb import SheetKey, read_key
from factory.evaluation.gsb_answers import read_answers
from factory.evaluation.gsb_scores import Tally, kappa, score_answers, sign_test
from manifests.errors import BadInput

KEYS = 7


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "gsb", *map(str, arguments)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ours and theirs, and a truth with driving videos."""
    folder = tmp_path_factory.mktemp("models")
    for number in range(KEYS):
        for model, seed in (("ours", number), ("theirs", number + 20)):
            write(folder / model, f"dance{number}.mp4", scene(seed, frames=2))
    write(folder / "truth", "dance0.driving.mp4", scene(40, frames=2))
    return folder


def made(models: Path, out: Path, *more: object) -> SheetKey:
    done = call("make", f"ours={models / 'ours'}", f"theirs={models / 'theirs'}", "--out", out, *more)
    assert done.exit_code == 0, done.output
    return read_key(out / "key.json")


@pytest.fixture(scope="module")
def sheet(models: Path, tmp_path_factory: pytest.TempPathFactory) -> SheetKey:
    return made(models, tmp_path_factory.mktemp("sheet"), "--criterion", "motion", "--criterion", "identity")


def answer(key: SheetKey, grade: str, item: int) -> str:
    """What a rater clicks who finds the first model good, same or bad."""
    if grade == "same":
        return "same"
    return "left" if (key.items[item].left == key.models[0]) == (grade == "good") else "right"


def exported(path: Path, key: SheetKey, rater: str, grades: Sequence[str], criterion: str = "motion") -> Path:
    """As the page's CSV export writes it."""
    lines = [[key.sheet, rater, key.items[i].id, criterion, answer(key, grade, i)] for i, grade in enumerate(grades)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["sheet", "rater", "item", "criterion", "answer"], *lines])
    return path


# --- making


def test_a_sheet_tells_raters_nothing(models: Path, tmp_path: Path) -> None:
    key = made(models, tmp_path, "--truth", models / "truth")
    page = Page(tmp_path / "sheet" / "index.html")
    loaded = page.check_sources()
    assert len(loaded) == 2 * KEYS + 1
    assert {path.relative_to(tmp_path / "sheet").as_posix() for path in (tmp_path / "sheet" / "videos").iterdir()} == set(loaded)
    source = page.path.read_text()
    assert not any(word in source for word in ("ours", "theirs", "dance", '"seed"'))
    assert [section["data-item"] for section in page.all("section")] == [item.id for item in key.items]
    for number, item in enumerate(key.items):
        left = (tmp_path / "sheet" / "videos" / f"{number:04d}.left.mp4").read_bytes()
        assert left == (models / item.left / f"{item.key}.mp4").read_bytes()


def test_sides_are_balanced_and_the_seed_decides(models: Path, tmp_path: Path) -> None:
    keys = [made(models, tmp_path / str(i), "--seed", seed) for i, seed in enumerate((0, 0, 1))]
    for name in ("key.json", "sheet/index.html"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    assert keys[0].sheet != keys[2].sheet
    assert [item.key for item in keys[0].items] != [item.key for item in keys[2].items]
    for key in keys:
        assert sum(item.left == "ours" for item in key.items) in (KEYS // 2, KEYS // 2 + 1)
    assert len(made(models, tmp_path / "few", "--count", 3).items) == 3
    again = call("make", f"ours={models / 'ours'}", f"theirs={models / 'theirs'}", "--out", tmp_path / "0", "--seed", 5)
    assert again.exit_code == 1
    assert "holds another sheet" in again.output
    (tmp_path / "mine" / "sheet").mkdir(parents=True)
    again = call("make", f"ours={models / 'ours'}", f"theirs={models / 'theirs'}", "--out", tmp_path / "mine")
    assert "is there without a key.json" in again.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a=x",), "compares two models; 1 were given"),
        (("a=x", "a=y"), "a is given twice"),
        (("a=x", "<b>=y"), "expected NAME=FOLDER"),
        (("--criterion", ""), "each is asked once"),
    ],
)
def test_sheets_that_can_not_be(models: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    both = [] if "=" in arguments[0] else [f"a={models / 'ours'}", f"b={models / 'theirs'}"]
    done = call("make", *both, *arguments, "--out", tmp_path)
    assert done.exit_code == 2
    assert words in done.output


# --- scoring


def test_scores_of_two_raters_by_hand(sheet: SheetKey, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(sheet.model_dump_json())
    anna = exported(tmp_path / "anna.csv", sheet, "Anna", ["good"] * 4 + ["same", "bad", "bad"])
    ben = exported(tmp_path / "ben.csv", sheet, "Ben", ["good"] * 5 + ["same", "bad"])
    scores = score_answers(read_answers([anna, ben], sheet), sheet)
    (score,) = scores.criteria
    assert score.every == Tally(good=9, same=2, bad=3)
    assert score.every.gsb == pytest.approx(6 / 14)
    assert score.every.ratio == pytest.approx(11 / 5)
    assert score.by_rater == {"Anna": Tally(4, 1, 2), "Ben": Tally(5, 1, 1)}
    # Agreed in 5 of 7; by chance (4·5 + 1·1 + 2·1) / 49.
    assert score.kappa == pytest.approx((5 / 7 - 23 / 49) / (1 - 23 / 49))
    # Good leads in five comparisons (one of them 1:0 with a "same"), bad in two.
    assert (score.wins, score.losses) == (5, 2)
    assert score.p == pytest.approx(2 * (1 + 7 + 21) / 128)
    assert score.low is not None
    assert score.high is not None
    assert score.low < 6 / 14 < score.high
    assert scores.missing == {"Anna": KEYS, "Ben": KEYS}
    done = call("score", anna, ben, "--key", tmp_path / "key.json", "--out", tmp_path / "scores.json")
    assert done.exit_code == 0, done.output
    for words in ("+0.429", "2.200", "5 won, 2 lost", "Cohen's kappa", "Anna: 7 questions without a usable answer"):
        assert words in done.output
    assert json.loads((tmp_path / "scores.json").read_text())["criteria"]["motion"]["gsb"] == pytest.approx(6 / 14)


def test_csv_and_json_say_the_same(sheet: SheetKey, tmp_path: Path) -> None:
    grades = ["good", "bad", "same", "good", "bad", "same", "good"]
    table = exported(tmp_path / "a.csv", sheet, 'Zoë; "Z"', grades)
    rows = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
    answers = [{name: row[name] for name in ("item", "criterion", "answer")} for row in rows]
    (tmp_path / "a.json").write_text(json.dumps({"sheet": sheet.sheet, "rater": rows[0]["rater"], "answers": answers}))
    semicolons = "\ufeff" + "sheet;rater;item;criterion;answer\r\n"
    semicolons += "".join(f'{sheet.sheet};"Zoë; ""Z""";{r["item"]};{r["criterion"]};{r["answer"]}\r\n' for r in rows)
    (tmp_path / "b.csv").write_text(semicolons, encoding="utf-8")
    read = [read_answers([tmp_path / name], sheet) for name in ("a.csv", "a.json", "b.csv")]
    assert read[0] == read[1] == read[2]
    assert len(read[0].votes) == KEYS


def test_answers_that_somebody_meddled_with(sheet: SheetKey, tmp_path: Path) -> None:
    path = exported(tmp_path / "a.csv", sheet, "Anna", ["good"] * 3)
    item, other = sheet.items[0].id, sheet.items[1].id
    more = [
        (sheet.sheet, "Anna", item, "motion", answer(sheet, "good", 0)),
        (sheet.sheet, "Anna", other, "motion", answer(sheet, "bad", 1)),
        (sheet.sheet, "Anna", "0123456789", "motion", "left"),
        (sheet.sheet, "Anna", item, "beauty", "left"),
        (sheet.sheet, "Anna", item, "identity", "both"),
        (sheet.sheet, "", item, "identity", "left"),
        (sheet.sheet, "Anna\x1b[31m", item, "identity", "left"),
    ]
    path.write_text(path.read_text() + "\n".join(",".join(row) for row in more) + "\n")
    read = read_answers([path], sheet)
    assert sorted(item for _, item, _ in read.votes) == sorted(sheet.items[i].id for i in (0, 2))
    assert read.missing["Anna"] == 2 * KEYS - 2
    for words, problem in zip(
        (
            "is there twice",
            "unknown item",
            "unknown criterion",
            "unknown answer",
            "rater's name",
            "rater's name",
            "answered left and right",
        ),
        read.problems,
        strict=True,
    ):
        assert words in problem
        assert "\x1b" not in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sheet,rater,item,criterion,answer\nffff,A,x,motion,left\n", "answers to sheet 'ffff', the key is of"),
        ("a,b\n1,2\n", "is no export of a sheet"),
        ('{"answers": 5, "sheet": 1}', "is no export of a sheet"),
        ("[" * 100_000, "is no export of a sheet"),
        ("{", "is no export of a sheet"),
    ],
)
def test_files_that_are_no_answers(sheet: SheetKey, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadInput, match=words):
        read_answers([tmp_path / "a.csv"], sheet)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="can't be read as text"):
        read_answers([tmp_path / "b.csv"], sheet)
    with pytest.raises(BadInput, match="is no key of a sheet"):
        read_key(tmp_path / "a.csv")


def test_files_without_answers_are_told(sheet: SheetKey, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(sheet.model_dump_json())
    done = call("score", exported(tmp_path / "a.csv", sheet, "Anna", []), "--key", tmp_path / "key.json")
    assert done.exit_code == 1
    assert "no usable answer in a.csv: they are empty" in done.output


# --- statistics


def test_fleiss_kappa_of_the_published_example() -> None:
    """Ten subjects, fourteen raters, five categories: the worked example that is commonly taught, 0.210."""
    table = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1), (7, 7, 0, 0, 0), (3, 2, 6, 3, 0),
        (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    subjects = [[grade for grade, count in zip("abcde", row, strict=True) for _ in range(count)] for row in table]
    found = kappa([[subject[rater] for subject in subjects] for rater in range(14)])
    assert found == pytest.approx(0.210, abs=5e-4)


def test_kappa_where_it_is_not_defined() -> None:
    assert kappa([["good", "bad"]]) is None
    assert kappa([[], []]) is None
    assert kappa([["good", "good"], ["good", "good"]]) is None
    assert kappa([["good", "bad"], ["good", "bad"], ["good", "bad"]]) == pytest.approx(1)


def test_the_sign_test_against_all_outcomes() -> None:
    """Counted out: of all 2ⁿ sequences, the share that is at least as uneven."""
    for wins, losses in ((0, 0), (5, 0), (6, 2), (4, 4), (1, 8)):
        n = wins + losses
        uneven = sum(abs(2 * sum(s) - n) >= abs(wins - losses) for s in itertools.product((0, 1), repeat=n))
        assert sign_test(wins, losses) == pytest.approx(uneven / 2**n)
    assert math.isfinite(sign_test(2000, 1900))


def test_nobody_who_always_clicks_left_moves_the_score(models: Path, tmp_path: Path) -> None:
    key = made(models, tmp_path / "s", "--count", 6)
    grades = ["good" if item.left == key.models[0] else "bad" for item in key.items]
    (score,) = score_answers(read_answers([exported(tmp_path / "a.csv", key, "L", grades, "overall")], key), key).criteria
    assert (score.every.gsb, score.left, score.right, score.p) == (0, 6, 0, 1)
    assert np.isfinite([score.low, score.high]).all()
