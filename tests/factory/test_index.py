"""What the index tells the plan of the people in a clip and of a gallery's characters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from factory.work.clips import ClipIndex, IndexRequest, PictureRequest, index_clip, index_picture
from factory.workbench import Workbench
from generators.images import drawn
from manifests import media
from manifests.recipe import GeometrySpec
from manifests.records import digest_of


@pytest.fixture(scope="module")
def bench(sample_clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = tmp_path_factory.mktemp("index")
    files = {digest_of("multi3"): sample_clip("multi3")}
    for height in (400, 800):
        media.write_png(folder / f"{height}.png", drawn.mannequin(6, height))
        files[digest_of(height)] = folder / f"{height}.png"
    return Workbench(str(folder / "store"), {digest: str(path) for digest, path in files.items()})


def test_everybody_of_a_span_is_described_at_the_pairs_geometry(bench: Workbench) -> None:
    indexed: dict[int, ClipIndex] = {}
    for height in (256, 512):
        geometry = GeometrySpec(frames=9, sizes=((height, height * 9 // 16 // 32 * 32),))
        indexed[height] = index_clip.run(IndexRequest(source=digest_of("multi3"), geometry=geometry, spans_per_clip=9), bench)
    for small, large in zip(indexed[256].spans, indexed[512].spans, strict=True):
        assert small.people == len(small.figures)
        assert small.main == small.figures[0]
        assert all(len(f.appearance) == 12 and f.visible_joints for f in small.figures)
        heights = [f.stature_px for f in large.figures]
        assert all(0.2 * 512 < height < 1.5 * 512 for height in heights), heights
        # Twice the pixels, but for what another aspect crops.
        assert [f.stature_px / s.stature_px for f, s in zip(large.figures, small.figures, strict=True)] == pytest.approx(
            [2 * (small.span.crop[3] - small.span.crop[1]) / (large.span.crop[3] - large.span.crop[1])] * large.people, rel=0.01
        )
    assert max(info.people for info in indexed[512].spans) == 2
    looks = {f.appearance for info in indexed[512].spans for f in info.figures}
    assert len(looks) > 1


def test_a_characters_stature_is_in_its_pictures_pixels(bench: Workbench) -> None:
    small, large = (index_picture.run(PictureRequest(picture=digest_of(height), role="character"), bench) for height in (400, 800))
    assert small.person is not None
    assert small.person.height * 0.9 < small.stature_px < small.person.height * 1.5
    assert np.isclose(large.stature_px / small.stature_px, 2, rtol=0.05)
