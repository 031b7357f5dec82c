"""Scores of a blind sheet: good, same and bad by criterion and rater, how far raters agree, and whether it could be chance."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from factory.evaluation.gsb import SheetKey
from factory.evaluation.gsb_answers import Answers
from factory.evaluation.statistics import LEVEL, resampled_means
from manifests.files import replacing

Grade = Literal["good", "same", "bad"]
GRADES: tuple[Grade, ...] = ("good", "same", "bad")


@dataclass(frozen=True)
class Tally:
    """Answers, counted for the first model against the second."""

    good: int
    """the first is better"""
    same: int
    bad: int

    @property
    def gsb(self) -> float | None:
        """(G − B) / (G + S + B), −1 to 1: ΔGSB of side-by-side tests of search engines (Zou et al., KDD 2021)."""
        total = self.good + self.same + self.bad
        return (self.good - self.bad) / total if total else None

    @property
    def ratio(self) -> float | None:
        """(G + S) / (S + B), above 1 where the first is better: the other form in use, in reports on video models. None when S + B is 0."""
        return (self.good + self.same) / (self.same + self.bad) if self.same + self.bad else None


@dataclass(frozen=True)
class Score:
    """One criterion."""

    criterion: str
    every: Tally
    by_rater: dict[str, Tally]
    low: float | None
    """of the 95 % interval of `gsb`: comparisons are drawn with replacement, with all their answers"""
    high: float | None
    kappa: float | None
    """Cohen's of two raters, Fleiss' of more, over the comparisons that all of them answered; None where it is not defined"""
    kappa_items: int
    wins: int
    """comparisons in which more answers are good than bad"""
    losses: int
    p: float
    """of the two-sided exact sign test on wins and losses: comparisons and not answers, as those of one comparison are not independent"""
    left: int
    """answers for the left side, whoever stood there..."""
    right: int
    """...and for the right: far apart, the raters prefer a side"""


@dataclass(frozen=True)
class Scores:
    """All criteria."""

    criteria: tuple[Score, ...]
    problems: tuple[str, ...]
    missing: dict[str, int]


def score_answers(answers: Answers, key: SheetKey) -> Scores:
    """Score every criterion that has an answer."""
    return Scores(
        tuple(_score(criterion, answers, key) for criterion in key.criteria if any(q[2] == criterion for q in answers.votes)),
        answers.problems, answers.missing,
    )  # fmt: skip


def _score(criterion: str, answers: Answers, key: SheetKey) -> Score:
    lefts = {item.id: item.left for item in key.items}
    graded: dict[str, dict[str, Grade]] = {}
    """rater → item → grade"""
    sides: Counter[str] = Counter()
    for (rater, item, asked), answer in answers.votes.items():
        if asked == criterion:
            graded.setdefault(rater, {})[item] = _grade(answer, lefts[item] == key.models[0])
            sides[answer] += 1
    by_item: dict[str, Counter[Grade]] = {}
    for given in graded.values():
        for item, grade in given.items():
            by_item.setdefault(item, Counter())[grade] += 1
    low, high = _interval([by_item[item] for item in sorted(by_item)])
    shared = sorted(set.intersection(*(set(given) for given in graded.values())))
    leads = [counts["good"] - counts["bad"] for counts in by_item.values()]
    wins, losses = sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads)
    return Score(
        criterion, _tally(sum(by_item.values(), Counter())),
        {rater: _tally(Counter(given.values())) for rater, given in sorted(graded.items())}, low, high,
        kappa([[given[item] for item in shared] for _, given in sorted(graded.items())]), len(shared),
        wins, losses, sign_test(wins, losses), sides["left"], sides["right"],
    )  # fmt: skip


def _grade(answer: str, first_is_left: bool) -> Grade:
    return "same" if answer == "same" else "good" if (answer == "left") == first_is_left else "bad"


def _tally(counts: Mapping[Grade, int]) -> Tally:
    return Tally(*(counts.get(grade, 0) for grade in GRADES))


def _interval(by_item: Sequence[Counter[Grade]]) -> tuple[float | None, float | None]:
    """Percentile bootstrap over comparisons; nothing below two."""
    if len(by_item) < 2:
        return None, None
    counts_N2 = np.array([[c["good"] - c["bad"], sum(c.values())] for c in by_item], np.float64)
    means = resampled_means(counts_N2)
    low, high = np.percentile(means[:, 0] / means[:, 1], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def kappa(grades_RN: Sequence[Sequence[str]]) -> float | None:
    """Agreement of R raters on N comparisons beyond chance, 1 is complete: Cohen's kappa (1960) for two raters, each with a distribution
    of his own; Fleiss' (1971) for more. None below two raters, without a comparison, and where chance alone would agree always."""
    if len(grades_RN) < 2 or not grades_RN[0]:
        return None
    if len(grades_RN) == 2:
        observed, expected = _cohen(*grades_RN)
    else:
        observed, expected = _fleiss(grades_RN)
    return None if expected > 1 - 1e-12 else (observed - expected) / (1 - expected)


def _cohen(a: Sequence[str], b: Sequence[str]) -> tuple[float, float]:
    total, in_a, in_b = len(a), Counter(a), Counter(b)
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / total
    return observed, sum(in_a[grade] * in_b[grade] for grade in in_a) / total**2


def _fleiss(grades_RN: Sequence[Sequence[str]]) -> tuple[float, float]:
    raters, total = len(grades_RN), len(grades_RN[0])
    counts = [Counter(grades[i] for grades in grades_RN) for i in range(total)]
    observed = sum(n * (n - 1) for count in counts for n in count.values()) / (total * raters * (raters - 1))
    overall = sum(counts, Counter[str]())
    return observed, sum((n / (total * raters)) ** 2 for n in overall.values())


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p of so uneven a split under a fair coin (Dixon & Mood 1946); draws are left out. 1 when nothing is won or lost."""
    total = wins + losses
    tail = sum(math.comb(total, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(2 * tail / 2**total))


def write_scores(scores: Scores, key: SheetKey, path: Path) -> None:
    """As JSON."""
    value = {
        "sheet": key.sheet, "models": key.models, "missing": scores.missing, "problems": scores.problems,
        "criteria": {
            s.criterion: asdict(s) | {"gsb": s.every.gsb, "ratio": s.every.ratio} for s in scores.criteria
        },
    }  # fmt: skip
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def tell_scores(scores: Scores, key: SheetKey, console: Console) -> None:
    """A line a criterion and rater, then agreement, the test, and what was left out."""
    first, second = key.models
    console.print(Text(f"good: {first} is better than {second}; sheet {key.sheet}, {len(key.items)} comparisons"))
    table = Table(box=None, pad_edge=False)
    for column in ("criterion", "rater", "good", "same", "bad", "(G−B)/(G+S+B)", "95 % interval", "(G+S)/(S+B)"):
        table.add_column(column)
    for score in scores.criteria:
        spread = "–" if score.low is None or score.high is None else f"{score.low:+.3f} to {score.high:+.3f}"
        table.add_row(Text(score.criterion), "all", *_cells(score.every, spread))
        for rater, tally in score.by_rater.items():
            table.add_row("", Text(rater), *_cells(tally, ""))
    console.print(table)
    for score in scores.criteria:
        name = {0: "no", 1: "no", 2: "Cohen's"}.get(len(score.by_rater), "Fleiss'")
        agree = "not defined" if score.kappa is None else f"{score.kappa:.3f} over {score.kappa_items} comparisons"
        split = f"{score.wins} won, {score.losses} lost, sign test p = {score.p:.4f}"
        sides = f"left preferred {score.left} times, right {score.right}"
        console.print(Text(f"{score.criterion}: {split}; {name} kappa {agree}; {sides}"))
    for rater, count in scores.missing.items():
        if count:
            console.print(Text(f"{rater}: {count} questions without a usable answer"))
    for problem in scores.problems:
        console.print(Text(problem, style="red"))


def _cells(tally: Tally, spread: str) -> list[str]:
    gsb = "–" if tally.gsb is None else f"{tally.gsb:+.3f}"
    return [str(tally.good), str(tally.same), str(tally.bad), gsb, spread, "–" if tally.ratio is None else f"{tally.ratio:.3f}"]
