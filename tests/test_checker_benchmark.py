"""The checker's benchmark: its figures, and that what it plants is what it says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from generators.poses.tracks import INDEX, People

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from checker_parts import bases, by_eye, planting, rows, scoring

FRAMES, SIDE = 21, 64


def walker() -> People:
    """Somebody whose left hand swings; everything else stands still."""
    xy = np.zeros((1, FRAMES, 33, 3), np.float32)
    places = {"shoulder": (6, 20), "hip": (4, 40), "wrist": (16, 36), "elbow": (12, 28), "index": (18, 40), "ankle": (4, 60)}
    for name, at in places.items():
        for side, sign in (("left", 1), ("right", -1)):
            xy[0, :, INDEX[f"{side}_{name}"], :2] = 32 + sign * at[0], at[1]
    xy[0, :, INDEX["left_wrist"], 0] += np.linspace(0, 20, FRAMES)
    shape = (1, FRAMES, 33)
    return People(
        xy, np.zeros((*shape, 3), np.float32), np.ones(shape, np.float32), np.ones((1, FRAMES), bool),
        np.zeros((1, FRAMES, SIDE, SIDE), np.uint8), 16.0,
    )  # fmt: skip


def output(mode: str = "animation", people: People | None = None) -> Any:
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    people = people or walker()
    return SimpleNamespace(
        row=SimpleNamespace(mode=mode, frames=FRAMES, characters=()), frames_THWC=frames, people=people, driven=people, matched=(0,),
        alpha_THW=np.zeros((FRAMES, SIDE, SIDE), np.uint8), backdrop_THWC=np.full_like(frames, 7),
        footage=SimpleNamespace(plate_THWC=np.full_like(frames, 9)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (57, 60, 0.8630, 0.9829), (0, 0, 0.0, 1.0)]
)
def test_wilson_interval(hits: int, count: int, low: float, high: float) -> None:
    """Against values of statsmodels' proportion_confint(method="wilson")."""
    assert scoring.wilson(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_tuning_and_reporting_share_neither_scene_nor_character() -> None:
    tuned, reported = rows.tuning(), rows.reporting()
    assert not {r.clip.partition("/")[0] for r in tuned} & {r.clip.partition("/")[0] for r in reported}
    assert not {c for r in tuned for c in r.characters} & {c for r in reported for c in r.characters}
    assert len({r.name for r in reported}) == len(reported)


def test_enough_can_be_planted_of_every_kind() -> None:
    reported = rows.reporting()
    for kind in planting.KINDS:
        modes = {"driving_background": ("animation",), "scene_changed": ("replacement",)}.get(kind, ("animation", "replacement"))
        fit = [r for r in reported if r.mode in modes and (r.characters or kind not in ("motion_of_another_clip", "swapped_identity"))]
        assert len(fit) * planting.TIMES.get(kind, 1) >= 60, kind


def test_outputs_judged_by_eye_are_those_of_the_other_benchmark() -> None:
    judged = by_eye.rows_by_eye()
    assert len(judged) >= 12
    assert {keep for _, keep in judged} == {True, False}


def test_the_mirror_of_the_mirror_is_the_motion() -> None:
    people = walker()
    assert np.array_equal(bases.mirrored(bases.mirrored(people)).landmarks_PT33x3, people.landmarks_PT33x3)
    assert planting.lopsided(people) > planting.lopsided(replace(people, landmarks_PT33x3=people.landmarks_PT33x3[:, :1].repeat(FRAMES, 1)))


def test_late_is_eight_frames_late_in_pixels_and_people() -> None:
    base = output()
    made = planting.late(base, None, 0)  # type: ignore[arg-type]
    assert made is not None
    assert made.people is not None
    assert np.array_equal(made.frames_THWC[8:], base.frames_THWC[:-8])
    assert np.array_equal(made.people.landmarks_PT33x3[:, 8:], base.people.landmarks_PT33x3[:, :-8])
    assert (made.frames_THWC[:8] == base.frames_THWC[0]).all()


def test_nothing_is_late_or_frozen_where_nothing_moves() -> None:
    still = replace(walker(), landmarks_PT33x3=walker().landmarks_PT33x3[:, :1].repeat(FRAMES, 1))
    assert planting.late(output(people=still), None, 0) is None  # type: ignore[arg-type]
    assert planting.frozen(output(people=still), None, 0) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", range(3))
def test_an_arm_is_erased_down_to_the_scene(variant: int) -> None:
    base = output()
    made = planting.limb_erased(base, None, variant)  # type: ignore[arg-type]
    assert made is not None
    gone = (made.frames_THWC == 7).all(-1)
    wrists = [base.people.landmarks_PT33x3[0, 10, INDEX[f"{side}_wrist"], :2].round().astype(int) for side in ("left", "right")]
    assert 0.005 < gone.mean() < 0.2
    assert any(gone[10, y, x] for x, y in wrists)
    assert (made.frames_THWC[~gone] != 7).any()


@pytest.mark.parametrize("variant", range(3))
def test_black_and_short_and_flickering(variant: int) -> None:
    base = output()
    dark, short, lit = (make(base, None, variant) for make in (planting.black, planting.one_short, planting.flicker))  # type: ignore[arg-type]
    assert dark is not None
    assert (dark.frames_THWC == 0).all((1, 2, 3)).sum() >= 3
    assert short is not None
    assert len(short.frames_THWC) == FRAMES - 1
    assert lit is not None
    if variant % 3 != 1:  # no character, no change
        assert np.abs(lit.frames_THWC.mean((1, 2, 3)) / base.frames_THWC.mean((1, 2, 3)) - 1).max() > 0.1


def test_the_other_modes_defect_is_none() -> None:
    assert planting.driving_background(output("replacement"), None, 0) is None  # type: ignore[arg-type]
    assert planting.scene_changed(output("animation"), None, 0) is None  # type: ignore[arg-type]
