"""A clip that lies in the sources twice, in two encodings, is used once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from running import call

from manifests import media
from manifests.release import Release

RECIPE = """
recipe: twice
seed: 1
geometry: {{frames: 13, fps: 16, sizes: [[256, 160]]}}
sources: [{{clips: {clips}, spans_per_clip: 2}}]
split: {{validation_fraction: 0, validation_groups: [b]}}
reference: {{in_target_max: 1}}
slices: {{poses: {{task: pose, generator: skeleton, quota: 4}}}}
generators: {{skeleton: {{kind: skeleton}}}}
pools: {{cpu: {{workers: 2, cpus: 1}}}}
"""


def test_the_second_encoding_is_left_out(sample_clip: Callable[[str], Path], tmp_path: Path) -> None:
    original = sample_clip("single")
    for group in "ab":
        (tmp_path / "clips" / group).mkdir(parents=True)
    shutil.copy(os.path.realpath(original), tmp_path / "clips" / "a" / "one.mp4")
    frames = [cv2.resize(frame, (540, 960), interpolation=cv2.INTER_AREA) for frame in media.read_clip(original, 30.0)]
    media.write_video(tmp_path / "clips" / "b" / "other.mp4", np.stack(frames), 30.0)
    (tmp_path / "twice.yaml").write_text(RECIPE.format(clips=tmp_path / "clips"))

    printed = call("run", tmp_path / "twice.yaml", "--out", tmp_path / "out", code=3)
    assert "release sealed" in printed, printed
    release = Release.open(tmp_path / "out")
    left_out = [json.loads(line) for line in (release.folder / "left_out.jsonl").read_text().splitlines()]
    assert len(release.rows()) == 2
    assert [(entry["state"], entry["reason"]) for entry in left_out] == [("duplicate", "same_clip")] * 2
    spans = {json.loads(row.lineage)["start_frame"] for row in release.rows()}
    assert len(spans) == 2, "each part of the clip once, from whichever file comes first in plan order"
