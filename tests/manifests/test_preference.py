"""Preference pairs in releases: each promise broken alone is refused at sealing and found by verify; they never come unasked."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from pydantic import ValidationError

from factory.trainer.order import Source
from factory.trainer.show import main
from factory.trainer.stream import PreferenceSample, Sample, Stream
from manifests import media, sealing
from manifests.errors import BadInput
from manifests.ledger import pack_pair, unpack_pair
from manifests.records import Artifact, FrameBoxes, Lineage, Pair
from manifests.release import Release
from manifests.sealing import write_release
from manifests.shards import pair_json
from manifests.store import Store
from manifests.verify import verify


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def files(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return tiny.parts(store, tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def mixed(store: Store, files: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 pairs of the mix, and 10 preference pairs of which 2 are for validation."""
    liked = [(tiny.preference(100 + i, files), 90 + i % 5) for i in range(10)]
    return write_release(tmp_path_factory.mktemp("mixed"), [*tiny.pairs(files, 25), *liked], store, tiny.meta())


def test_a_release_with_preference_pairs_is_whole_and_of_format_2(mixed: Path) -> None:
    assert verify(mixed) == verify(mixed, decode=False) == []
    info = Release.open(mixed).info
    assert info.format == 2
    assert info.counts["train"]["preference"] == {"preferences": 8}
    assert info.counts["validation"]["preference"] == {"preferences": 2}
    assert "preference" not in info.mix


def fixed_pair(**more: object) -> Pair:
    """A pair whose files exist nowhere, so that its record has the same bytes everywhere."""
    names = ("video0", "video1", "driving_mask_animation", "driving_mask_replacement", "reference0", "reference1")
    made = {name: Artifact(digest=tiny.sha(name), size=9, suffix=".mp4") for name in (*names, "video2", "video3")}
    made |= {f"reference_mask_{task}": Artifact(digest=tiny.sha(task), size=9, suffix=".png") for task in ("animation", "replacement")}
    return tiny.pair(0, made, **more)


def test_the_record_of_other_pairs_has_the_bytes_it_had_before_there_were_preferences() -> None:
    assert hashlib.sha256(pair_json(fixed_pair())).hexdigest() == "9e3dceed8931344335859c054ba571cf4a4a143338007d664037956eed9e7064"


def test_without_preference_pairs_the_format_stays_1(store: Store, files: dict[str, Artifact], tmp_path: Path) -> None:
    assert Release.open(write_release(tmp_path, tiny.pairs(files, 5), store, tiny.meta())).info.format == 1


def test_a_pair_has_the_videos_of_its_task(files: dict[str, Artifact]) -> None:
    with pytest.raises(ValidationError, match="a pair for preference has winner and loser, got winner"):
        tiny.preference(0, files, loser=None)
    with pytest.raises(ValidationError, match="a pair for preference has winner and loser, got target and winner and loser"):
        tiny.preference(0, files, target=files["video3"])
    with pytest.raises(ValidationError, match="a pair for animation has target, got target and winner"):
        tiny.pair(0, files, winner=files["video3"])
    whole = tiny.preference(0, files)
    assert unpack_pair(pack_pair(whole)) == whole


def box(*corners: float) -> tuple[FrameBoxes, ...]:
    return (FrameBoxes(hands=((corners[0], corners[1], corners[2], corners[3]),)),) * 5


def broken(harm: str, files: dict[str, Artifact]) -> dict[str, Any]:
    return {
        "one video": {"loser": files["video1"]},
        "loser drives": {"loser": files["video0"]},
        "winner drives": {"winner": files["video0"]},
        "mask is a video": {"driving_mask": files["video1"]},
        "in target": {"reference_in_target": True},
        "other picture": {"references": (files["reference1"],)},
        "nothing painted": {"lineage": Lineage(source=tiny.sha("s"), start_frame=0, crop=(0, 0, 64, 64))},
        "two people": {"slots": 2},
        "no boxes": {"boxes": ()},
        "short boxes": {"loser_boxes": box(1, 2, 3, 4)[:4]},
        "no region": {"loser_boxes": (FrameBoxes(text=((1.0, 2.0, 3.0, 4.0),)),) * 5},
        "box outside": {"boxes": box(1, 2, 65, 4)},
        "empty box": {"loser_boxes": box(5, 2, 5, 4)},
    }[harm]


HARMS = [
    ("one video", "loser.mp4", "is the same file as winner.mp4"),
    ("loser drives", "loser.mp4", "is the same file as driving.mp4"),
    ("winner drives", "winner.mp4", "is the same file as driving.mp4"),
    ("mask is a video", "driving_mask.mp4", "is one of the pair's videos"),
    ("in target", "reference.png", "is not the painted picture"),
    ("other picture", "reference.png", "is not the painted picture"),
    ("nothing painted", "reference.png", "is not the painted picture"),
    ("two people", "json", "has 2 binding slots"),
    ("no boxes", "json", "boxes has 0 frames, winner.mp4 has 5"),
    ("short boxes", "json", "loser_boxes has 4 frames, loser.mp4 has 5"),
    ("no region", "json", "loser_boxes holds no hand and no face"),
    ("box outside", "json", "boxes holds a box outside 64×64"),
    ("empty box", "json", "loser_boxes holds a box outside 64×64"),
]


@pytest.mark.parametrize(("harm", "member", "what"), HARMS)
def test_each_broken_promise_is_refused_at_sealing_and_found_by_verify(
    harm: str, member: str, what: str, store: Store, files: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(tiny.preference(0, files, **broken(harm, files)), 0), (tiny.pair(1, files), 0)]
    with pytest.raises(BadInput, match=rf"preference pair {pairs[0][0].key} can't be sealed: {member} {what}"):
        write_release(tmp_path / "r", pairs, store, tiny.meta())
    assert not (tmp_path / "r").exists()
    monkeypatch.setattr(sealing, "record_problems", lambda record: ())  # sealed by somebody who does not look
    problems = verify(write_release(tmp_path / "r", pairs, store, tiny.meta()), decode=False)
    assert [(p.key, p.member) for p in problems] == [(pairs[0][0].key, member)]
    assert what in problems[0].what


def harmed(harm: str, store: Store, files: dict[str, Artifact], folder: Path) -> dict[str, Any]:
    if harm == "remuxed":
        data = store.read(files["video1"]) + b"\0\0\0\x08free"  # an empty box: another file, the same pictures
        return {"loser": store.put(data, ".mp4")}
    if harm == "same region":
        frames_THWC = media.read_frames(_written(store.read(files["video1"]), folder))[0].copy()
        frames_THWC[:, 48:, 48:] = 255 - frames_THWC[:, 48:, 48:]
        media.write_lossless(folder / "v.mp4", frames_THWC, 16.0)
        media.write_lossless(folder / "w.mp4", media.read_frames(_written(store.read(files["video1"]), folder))[0], 16.0)
        low = (FrameBoxes(hands=((0.0, 0.0, 40.0, 46.0),)),) * 5
        videos = {name: store.put(folder / f"{file}.mp4", ".mp4") for name, file in (("loser", "v"), ("winner", "w"))}
        return {**videos, "boxes": low, "loser_boxes": low}
    if harm == "frames":
        media.write_video(folder / "long.mp4", np.zeros((9, 64, 64, 3), np.uint8), 16.0)
        return {"loser": store.put(folder / "long.mp4", ".mp4")}
    if harm == "size":
        media.write_video(folder / "wide.mp4", np.zeros((5, 64, 96, 3), np.uint8), 16.0)
        return {"winner": store.put(folder / "wide.mp4", ".mp4")}
    return {"driving_mask": files["driving_mask_replacement"]}


def _written(data: bytes, folder: Path) -> Path:
    path = folder / "read.mp4"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("harm", "member", "what"),
    [
        ("remuxed", "loser.mp4", "shows the same as winner.mp4"),
        ("same region", "loser.mp4", "shows the same as the winner in every region"),
        ("frames", "loser.mp4", "has 9 frames"),
        ("size", "winner.mp4", "96×64"),
        ("polarity", "driving_mask.mp4", "background"),
    ],
)
def test_what_only_decoding_shows(harm: str, member: str, what: str, store: Store, files: dict[str, Artifact], tmp_path: Path) -> None:
    pair = tiny.preference(0, files, **harmed(harm, store, files, tmp_path))
    problems = verify(write_release(tmp_path / "r", [(pair, 0)], store, tiny.meta()))
    assert [(p.key, p.member) for p in problems] == [(pair.key, member)]
    assert what in problems[0].what


def test_the_mix_of_a_release_can_not_hold_them(store: Store, files: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="preference pairs stand outside the mix"):
        write_release(tmp_path, [(tiny.preference(0, files), 0)], store, tiny.meta(mix={"animation": 1, "preference": 1}))


def test_the_stream_leaves_them_out_unless_they_alone_are_asked_for(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Stream(mixed, threads=0) as stream:
        assert all(isinstance(sample, Sample) for sample in itertools.islice(stream, 60))
        assert {s for s, _ in stream.schedule.mix.sources} == {"animation", "replacement", "pose"}
    for split, count in (("train", 8), ("validation", 2)):
        with Stream(mixed, split, tasks=["preference"], threads=0) as stream:  # type: ignore[arg-type]
            samples = list(itertools.islice(stream, count))
            assert all(isinstance(s, PreferenceSample) and (s.winner_THWC != s.loser_THWC).any() for s in samples)
            assert {s.key for s in samples} == {r.key for r in Release.open(mixed).rows() if (r.task, r.split) == ("preference", split)}
            state = stream.state_dict()
            stream.load_state_dict(state)
    for options in ({"tasks": ["animation", "preference"]}, {"mix": {"animation": 1, "preference": 1}}):
        with pytest.raises(BadInput, match="open a stream of their own with tasks="):
            Stream(mixed, **options)  # type: ignore[arg-type]
    with Stream([Source(mixed), Source(mixed, 2)], mix={"preference": 3}, threads=0) as stream:
        assert isinstance(next(stream), PreferenceSample)
    assert main([str(mixed), "--tasks", "preference", "--take", "2", "--threads", "0"]) == 0
    assert "winner 5×64×64×3  loser 5×64×64×3" in capsys.readouterr().out
