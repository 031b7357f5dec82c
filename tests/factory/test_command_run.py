"""A run whose generator is somebody else's program, named in the recipe alone; and what another word in its script makes again."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from running import Material, call

from manifests.ledger import Ledger
from manifests.release import Release

RECIPE = """
recipe: programs
seed: 3
geometry: {{frames: 9, fps: 16, sizes: [[512, 288], [288, 512]]}}
sources: [{{clips: {clips}, spans_per_clip: 1, licence: bsd-3-clause}}]
split: {{validation_fraction: 0, validation_groups: [other]}}
reference: {{min_gap_s: 0.5}}
slices:
  theirs: {{task: pose, generator: theirs, quota: 1}}
  ours:   {{task: pose, generator: cylinders, quota: 1}}
generators:
  theirs: {{kind: command, modes: [pose], people_max: 6, deterministic: true, argv: ["{python}", copy.py, "{{skeleton}}", "{{out}}"],
            code_licence: Apache-2.0, weights_licence: none, timeout_s: 60}}
  cylinders: {{kind: cylinders}}
mix: {{pose: 1}}
pools: {{cpu: {{workers: 2, cpus: 1, timeout_s: 300}}}}
"""
COPY = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"


def videos(out: Path) -> Counter[str]:
    """Videos that were made, by slice. There may be one more than the quota wants: jobs run beside each other."""
    with Ledger(out / "ledger.sqlite") as ledger:
        return Counter(name for (name,) in ledger.execute("SELECT slice FROM outcomes WHERE step = 'generate_video'"))


def test_a_program_makes_pairs_and_is_run_again_when_its_script_changes(material: Material, tmp_path: Path) -> None:
    recipe, out = tmp_path / "programs.yaml", tmp_path / "out"
    recipe.write_text(RECIPE.format(clips=material.clips, python=sys.executable))
    (tmp_path / "copy.py").write_text(COPY)
    call("run", recipe, "--out", out)
    rows = Release.open(out / "release").rows()
    assert sorted(row.slice for row in rows) == ["ours", "theirs"]
    before = videos(out)
    (tmp_path / "copy.py").write_text(COPY + "  # by another hand")
    call("run", recipe, "--out", out)
    again = videos(out) - before
    assert set(again) == {"theirs"}, "the program's videos alone are made again"
