"""Characters of the samples that are shown from all sides: known as one, and seen from behind where the driver turns away."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from factory import samples
from factory.index import _with_views
from factory.samples import SampleSet, fetch_samples
from factory.sources import FoundFile
from generators.base import VideoRequest
from generators.images import drawn
from generators.poses.people import PeopleTracker
from generators.poses.summary import describe
from generators.poses.tracks import People
from generators.videos.puppet.generator import Puppet
from manifests import media
from manifests.records import Candidate, Geometry

T, FPS, H, W = 17, 16.0, 544, 320
BEHIND_DEG = 120


@pytest.fixture(scope="module")
def cached() -> SampleSet:
    return fetch_samples()


def _candidates(root: Path) -> dict[str, Candidate]:
    """The character gallery as the index makes it: file name below the root → candidate."""
    files = [FoundFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), path.parent.name) for path in sorted(root.rglob("*.png"))]
    candidates = [Candidate(picture=f.digest, role="character", group=f.group, split="train") for f in files]
    known = _with_views(candidates, {f.digest: f.character for f in files if f.character})
    return {str(f.path.relative_to(root)): c for f, c in zip(files, known, strict=True)}


def test_the_index_knows_the_views_of_a_character(cached: SampleSet) -> None:
    found = _candidates(cached.characters)
    all_round = [(n, kind, seed) for n, (kind, seed, views) in enumerate(samples.DRAWN, 1) if views == samples.ALL_ROUND]
    assert {kind for _, kind, _ in all_round} == {"mannequin", "robot"}
    with_views = set()
    for number, kind, seed in all_round:
        names = {f"drawn-{number}/{kind}-{seed}@{view}.png" for view in samples.ALL_ROUND}
        with_views |= names
        for name in names:
            assert found[name].views == tuple(sorted(found[other].picture for other in names - {name}))
    assert all(c.views == () for name, c in found.items() if name not in with_views)


def test_pictures_from_behind_are_read_as_such(cached: SampleSet, tracker: PeopleTracker) -> None:
    for side, low, high in (("front", 0, 20), ("back", BEHIND_DEG, 180)):
        pictures = sorted(cached.characters.rglob(f"*@{side}.png"))
        assert len(pictures) == sum(views == samples.ALL_ROUND for _, _, views in samples.DRAWN)
        for picture in pictures:
            (person,) = describe(tracker.still(media.read_image(picture)))
            assert low <= abs(person.yaw_deg) <= high, picture
            assert person.framing == "full"
            assert not person.arms_crossed


@pytest.fixture(scope="module")
def turned_driver(cached: SampleSet, tracker: PeopleTracker) -> People:
    """The man of a clip with two people; the camera stands behind him."""
    frames = media.read_clip(cached.clips / "lab/multi-cam03.mp4", fps=FPS, short_side=W, count=T)[:, :H]
    people = tracker.track(frames, FPS)
    behind = [i for i, person in enumerate(describe(people)) if abs(person.yaw_deg) > BEHIND_DEG]
    assert len(behind) == 1
    return people.only(behind)


def _framed(picture: Path, out: Path) -> Path:
    """The picture, whole, in the middle of an H×W one."""
    image = media.read_image(picture)
    h, w = image.shape[:2]
    scale = min(H / h, W / w)
    move = np.array([[scale, 0, (W - scale * w) / 2], [0, scale, (H - scale * h) / 2]])
    framed = cv2.warpAffine(image, move, (W, H), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    media.write_png(out, framed.astype(np.uint8))
    return out


@pytest.mark.parametrize("name", ["drawn-3/mannequin-4", "drawn-7/robot-1"])
def test_a_driver_seen_from_behind_gets_the_view_from_behind(
    cached: SampleSet, tracker: PeopleTracker, turned_driver: People, tmp_path: Path, name: str
) -> None:
    view: dict[drawn.View, Path] = {v: cached.characters / f"{name}@{v}.png" for v in samples.ALL_ROUND}
    painted = _framed(view["front"], tmp_path / "painted.png")
    geometry = Geometry(frames=T, fps=FPS, height=H, width=W)
    asked = VideoRequest("animation", tmp_path / "none.mp4", turned_driver, (painted,), "", geometry, 1)
    puppet = Puppet()
    puppet.setup()
    alone = puppet.run(asked, tmp_path / "alone.mp4")
    assert "turned_away" in alone.reasons
    assert max(alone.per_frame) == 0
    several = puppet.run(replace(asked, views=((view["left"], view["right"], view["back"]),)), tmp_path / "several.mp4")
    assert "turned_away" not in several.reasons
    assert np.mean(np.array(several.per_frame) > 0.5) > 0.8
    (start, end), *_ = several.stretches
    assert end - start > T / 2
    seen = tracker.track(media.read_frames(tmp_path / "several.mp4")[0], FPS)
    assert seen.count == 1
    assert abs(describe(seen)[0].yaw_deg) > BEHIND_DEG, "the output shows the back, not a face on a turned body"
