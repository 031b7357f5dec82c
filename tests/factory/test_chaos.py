"""The short form of tests/factory/chaos.py: one disturbed run on a disk and one on S3."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import disturbed, final
from running import Finished, Material
from s3_server import serving


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_a_disturbed_run_makes_the_same_release(where: str, material: Material, finished: Finished, tmp_path: Path) -> None:
    with serving() as server:
        store = ["--store", f"{server.bucket()}/chaos"] if where == "s3" else []
        done = disturbed(material.recipe, tmp_path, final(finished.out / "release"), 1, len(where), lambda _: store)
    assert sum(done[kind] for kind in ("worker", "node", "driver")) >= 1, "on a quick machine it is over soon"
