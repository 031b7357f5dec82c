"""What several tests of generators use."""

from __future__ import annotations

import pytest

from generators.images.collage import Collage


@pytest.fixture(scope="session")
def collage() -> Collage:
    made = Collage()
    made.setup()
    return made
