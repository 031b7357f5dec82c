"""Videos that several test files read. Tests must not write into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bars import noise, numbered

from manifests import media


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one numbered video per rate, 2.5 s each."""
    folder = tmp_path_factory.mktemp("made")
    for name, fps in (("24", 24), ("29.97", 30000 / 1001), ("30", 30), ("60", 60)):
        media.write_video(folder / f"{name}.mp4", numbered(round(2.5 * fps)), fps)
    return folder


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "v.mp4"
    media.write_video(path, noise(1, 96, 96)[np.zeros(60, int)] // 2 + numbered(60, 96)[:, :, :96] // 2, 30)
    return path
