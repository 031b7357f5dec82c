"""One finished run of a small recipe over two real clips, shared by all tests of this folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from running import RECIPE, Finished, Material, call

from generators.images import drawn
from manifests import media

PICTURES = {
    "drawn-a": partial(drawn.mannequin, 6, 512),
    "drawn-b": partial(drawn.mannequin, 3, 512),
    "drawn-c": partial(drawn.mannequin, 8, 512),
    "drawn-d": partial(drawn.mannequin, 4, 512),
}
BESIDE = (Path(__file__).parent, Path(__file__).parents[2] / "benchmarks")
"""where workers find steps that only tests and benchmarks have"""


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """The folder `place` as `make` fills it: by the first process that asks, while the others wait."""
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = place.with_name(f"{place.name}.made")
        if not made.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            made.touch()
    return place


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of `pytest -n` have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def material(sample_clip: Callable[[str], Path], shared: Path) -> Material:
    """Two clips in two groups, two drawn characters for each side of the split. Tests must not write into it."""

    def make(folder: Path) -> None:
        for group, name in (("lab", "front"), ("other", "single")):
            (folder / "clips" / group).mkdir(parents=True)
            shutil.copy(os.path.realpath(sample_clip(name)), folder / "clips" / group / f"{name}.mp4")
        for group, draw in PICTURES.items():
            (folder / "characters" / group).mkdir(parents=True)
            media.write_png(folder / "characters" / group / "one.png", draw())
        made = Material(folder)
        made.recipe.write_text(RECIPE.format(clips=made.clips, characters=folder / "characters"))

    return Material(made_once(shared / "material", make))


@pytest.fixture(scope="session")
def finished(material: Material, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run, for every process a copy of its own. Tests must not write into it."""

    def make(folder: Path) -> None:
        (folder / "printed.txt").write_text(call("run", material.recipe, "--out", folder / "out"))

    whole = made_once(shared / "undisturbed", make)
    out = tmp_path_factory.mktemp("finished") / "out"
    shutil.copytree(whole / "out", out)
    return Finished(out, (whole / "printed.txt").read_text())


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for all tests of a module that ask for it, which take along what they start there. Tests of the module that start one
    of their own have to stand before them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([*map(str, BESIDE), os.environ.get("PYTHONPATH", "")]))
        ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield
        ray.shutdown()
