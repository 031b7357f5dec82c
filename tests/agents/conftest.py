"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
