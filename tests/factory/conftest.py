"""One finished run of a small recipe over two real clips, shared by all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from running import RECIPE, Finished, Material, call

from generators.images import drawn
from manifests import media

PICTURES = {
    "drawn-a": partial(drawn.mannequin, 6, 512),
    "drawn-b": partial(drawn.mannequin, 3, 512),
    "drawn-c": partial(drawn.mannequin, 8, 512),
    "drawn-d": partial(drawn.mannequin, 4, 512),
}


@pytest.fixture(scope="session")
def material(sample_clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Two clips in two groups, two drawn characters for each side of the split."""
    folder = tmp_path_factory.mktemp("material")
    for group, name in (("lab", "front"), ("other", "single")):
        (folder / "clips" / group).mkdir(parents=True)
        shutil.copy(os.path.realpath(sample_clip(name)), folder / "clips" / group / f"{name}.mp4")
    for group, draw in PICTURES.items():
        (folder / "characters" / group).mkdir(parents=True)
        media.write_png(folder / "characters" / group / "one.png", draw())
    made = Material(folder)
    made.recipe.write_text(RECIPE.format(clips=made.clips, characters=folder / "characters"))
    return made


@pytest.fixture(scope="session")
def finished(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run. Tests must not write into it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return Finished(out, call("run", material.recipe, "--out", out))
