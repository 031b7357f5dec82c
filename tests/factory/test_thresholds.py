"""Thresholds are no part of what is measured: other ones judge the same scores. What waits for a person is neither used nor forgotten."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from running import Finished, Material, call

from manifests.ledger import Ledger
from manifests.release import Release


def recipe_with(material: Material, folder: Path, checker: str) -> Path:
    path = folder / "other.yaml"
    path.write_text(f"{material.recipe.read_text()}agents: {{checker: {{{checker}}}}}\n")
    return path


def test_what_looks_unsafe_waits_for_a_person_and_measures_nothing_again(finished: Finished, material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished.out, out)
    told = call("run", recipe_with(material, tmp_path, "unsafe_max: 0.0"), "--out", out, code=3)
    assert "walk: 0 of 2 pairs" in told
    assert "poses: 2 of 2 pairs" in told
    with Ledger(out / "ledger.sqlite") as ledger:
        waiting = ledger.jobs("review")
        assert {job.slice for job in waiting} == {"walk", "swap"}
        for job in waiting:
            assert job.reason == "unsafe"
            shown = re.search(r"store/objects/\S+", job.message)
            assert shown
            assert (out / shown.group()).is_file()
        assert not ledger.jobs("quarantined")
    assert {row.task for row in Release.open(out / "release").rows()} == {"pose"}
    again = call("run", material.recipe, "--out", out)
    assert "walk: 2 of 2 pairs" in again
    assert "no generator work was needed" in again
    assert Release.open(out / "release").rows() == Release.open(finished.out / "release").rows()
