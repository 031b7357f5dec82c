"""The proof that supervision is real: masks come from driving and reference and never from the target; time and size are the pair's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import Finished

from factory import steps
from factory.work.clips import AnalyzeRequest
from factory.work.pairing import MaskRequest
from factory.workbench import Workbench
from manifests import masks, media
from manifests.ledger import Ledger
from manifests.records import Analysis, Artifact
from manifests.release import Release
from manifests.store import Store

SHIFT_PX = 20


@pytest.fixture
def bench(finished: Finished, tmp_path: Path) -> Workbench:
    """A worker over a store of its own, so that what it makes can't come from the finished run."""
    return Workbench(str(tmp_path / "store"), {})


def mask_requests(finished: Finished) -> list[tuple[MaskRequest, dict[str, object]]]:
    """Every request masks were drawn from in the finished run, with its answer; one for each task at least."""
    with Ledger(finished.out / "ledger.sqlite", Store(finished.out / "store")) as ledger:
        rows = ledger._execute("SELECT body FROM outcomes WHERE step = 'draw_masks' ORDER BY key")
    bodies = [json.loads(row[0]) for row in rows]
    found = [(MaskRequest.model_validate(b["request"]), b["answer"]) for b in bodies]
    assert {request.task for request, _ in found} == {"animation", "replacement", "pose"}
    return found


def bring(finished: Finished, bench: Workbench, artifact: Artifact) -> Artifact:
    return bench.store.put(Store(finished.out / "store").read(artifact), artifact.suffix)


def run(bench: Workbench, name: str, request: object) -> dict[str, object]:
    step = steps.named(name)
    reply = bench.run(name, request.model_dump(mode="json"), steps.key_of(step, request))  # type: ignore[attr-defined]
    assert reply["type"] == "outcome", reply
    assert reply["status"] == "ok", reply
    return dict(reply["answer"])


def test_noise_in_place_of_the_target_leaves_every_mask_byte_equal(finished: Finished, bench: Workbench, tmp_path: Path) -> None:
    """The masks are drawn again in a store where every target's name stands over noise and nothing else of the target is there."""
    rows = Release.open(finished.out / "release").rows()
    targets = {m.sha256 for row in rows for m in row.members if m.name == "target.mp4"}
    noise = tmp_path / "noise.mp4"
    media.write_video(noise, np.random.default_rng(0).integers(0, 256, (9, 512, 288, 3), dtype=np.uint8), 16)
    for digest in targets:
        place = tmp_path / "store" / "objects" / digest[:2] / f"{digest}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(noise, place)
    for request, answer in mask_requests(finished):
        inputs = [request.driving, request.driving_arrays, request.reference, request.reference_arrays]
        assert not targets & {a.digest for a in inputs}, "the target is among what masks are drawn from"
        for artifact in inputs:
            bring(finished, bench, artifact)
        again = run(bench, "draw_masks", request)
        assert again["driving_mask"] == answer["driving_mask"]
        assert again["reference_mask"] == answer["reference_mask"]


def test_a_shifted_driving_video_moves_the_masks(finished: Finished, bench: Workbench, tmp_path: Path) -> None:
    for request, answer in mask_requests(finished):
        for artifact in (request.driving_arrays, request.reference, request.reference_arrays):
            bring(finished, bench, artifact)
        store = Store(finished.out / "store")
        frames, fps = media.read_frames(store.local_path(request.driving, tmp_path))
        shifted = np.roll(frames, SHIFT_PX, axis=2)
        shifted[:, :, :SHIFT_PX] = shifted[:, :, SHIFT_PX : SHIFT_PX + 1]
        file = tmp_path / "shifted.mp4"
        media.write_video(file, shifted, fps)
        driving = bench.store.put(file, ".mp4")
        update: dict[str, object] = {"driving": driving}
        if request.task != "pose":
            analysis = Analysis.model_validate(run(bench, "analyze", AnalyzeRequest(video=driving)))
            assert len(analysis.people) == 1
            update["driving_arrays"], update["matched"] = analysis.arrays, (0,)
        moved = run(bench, "draw_masks", request.model_copy(update=update))
        assert moved["driving_mask"] != answer["driving_mask"]
        assert moved["reference_mask"] == answer["reference_mask"]
        middles = []
        for where, made in ((store, answer), (bench.store, moved)):
            artifact = Artifact.model_validate(made["driving_mask"])
            drawn = media.read_frames(where.local_path(artifact, tmp_path))[0]
            middles.append(np.mean([np.nonzero(masks.slot_mask(f[None], 0)[0])[1].mean() for f in drawn]))
        assert middles[1] - middles[0] == pytest.approx(SHIFT_PX, abs=4)


def test_driving_target_and_masks_agree_frame_by_frame(finished: Finished, tmp_path: Path) -> None:
    release = Release.open(finished.out / "release")
    generators = set()
    for row in release.rows():
        generators.add(row.generator)
        for name in ("driving.mp4", "target.mp4", "driving_mask.mp4"):
            file = tmp_path / name
            file.write_bytes(release.read_member(row, name))
            seen = media.probe(file)
            assert (seen.frames, seen.fps, seen.width, seen.height) == (row.frames, row.fps, row.width, row.height), (row.key, name)
            with media.Video(file) as video:
                assert np.allclose(video.starts_s, np.arange(row.frames) / row.fps, atol=1e-3)
    assert "puppet30" in generators, "no pair of a generator that works at 30 fps"


def test_a_30_fps_performance_moves_with_the_16_fps_clip(finished: Finished, tmp_path: Path) -> None:
    """The puppet at 30 fps, brought to 16 fps by timestamp, shows the pose of the same instants as the clip."""
    from agents.measures.motion import limb_errors_deg
    from generators.poses.people import PeopleTracker

    release, tracker = Release.open(finished.out / "release"), PeopleTracker()
    for row in (r for r in release.rows() if r.generator == "puppet30"):
        people = []
        for name in ("driving.mp4", "target.mp4"):
            file = tmp_path / name
            file.write_bytes(release.read_member(row, name))
            people.append(tracker.track(*media.read_frames(file)))
        driving, target = people
        error = {}
        for lag in range(-2, 3):
            a = driving.window(max(0, lag), driving.frames + min(0, lag))
            b = target.window(max(0, -lag), target.frames + min(0, -lag))
            error[lag] = float(np.median(limb_errors_deg(a, b)))
        assert min(error, key=lambda k: error[k]) == 0, error


def test_the_caption_speaks_of_the_target_and_the_prompt_never_becomes_it(finished: Finished) -> None:
    release = Release.open(finished.out / "release")
    for row in release.rows():
        told = json.loads(release.read_member(row, "json"))
        assert told["caption"] == row.caption
        assert len(row.caption) > 80
        assert not told["prompt"] or told["prompt"] not in row.caption
