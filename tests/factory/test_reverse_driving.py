"""The proof that supervision is real: masks come from driving and reference and never from the target; time and size are the pair's."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from running import Finished, Material

from factory import loop, steps
from factory.plan import Job, make_plan
from factory.progress import Progress
from factory.run import working
from factory.stages import Clip, Stages
from factory.work.clips import AnalyzeRequest
from factory.work.pairing import MaskRequest
from factory.workbench import Workbench
from manifests import masks, media
from manifests.recipe import Recipe, load_recipe
from manifests.records import Analysis, Artifact, Pair
from manifests.release import Release
from manifests.store import Store

SHIFT_PX = 20


@pytest.fixture
def bench(finished: Finished, tmp_path: Path) -> Workbench:
    """A worker over a store of its own, so that what it makes can't come from the finished run."""
    return Workbench(str(tmp_path / "store"), {})


def mask_requests(finished: Finished) -> list[tuple[MaskRequest, dict[str, object]]]:
    """Every request masks were drawn from in the finished run, with its answer; one for each task at least."""
    bodies = [o for o in Store(finished.out / "store").outcomes() if o.step == "draw_masks"]
    found = [(MaskRequest.model_validate(b.request), cast("dict[str, object]", b.answer)) for b in bodies]
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


def test_noise_in_place_of_the_target_leaves_every_mask_byte_equal(
    finished: Finished, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pair is assembled again with a target of pure noise: caption and target change, masks and reference do not."""
    seen: list[tuple[Job, Clip, loop.Performance]] = []
    real = loop.assemble

    async def listening(job: Job, clip: Clip, done: loop.Performance, stages: Stages) -> Pair:
        seen.append((job, clip, done))
        return await real(job, clip, done, stages)

    async def work(recipe: Recipe) -> list[tuple[Pair, Pair]]:
        async with working(recipe, out, Progress()) as running:
            index = await running.index()
            running.ledger.execute("DELETE FROM jobs")  # else they are taken as they are, and nothing is assembled
            await running.pairs(make_plan(recipe, index.spans, index.gallery))
            made = running.place.store.put(noise, ".mp4")
            stages = Stages(recipe, running.memo)
            return [
                (await real(job, clip, done, stages), await real(job, replace(clip, target=made), done, stages)) for job, clip, done in seen
            ]

    out, noise = tmp_path / "out", tmp_path / "noise.mp4"
    shutil.copytree(finished.out, out)
    media.write_video(noise, np.random.default_rng(0).integers(0, 256, (9, 512, 288, 3), dtype=np.uint8), 16)
    monkeypatch.setattr(loop, "assemble", listening)
    pairs = asyncio.run(work(load_recipe(material.recipe)))
    assert {pair.task for pair, _ in pairs} == {"animation", "replacement", "pose"}
    for pair, noisy in pairs:
        assert noisy.target != pair.target
        assert noisy.caption != pair.caption, "the caption must be of the target"
        for part in ("driving", "driving_mask", "references", "reference_masks"):
            assert getattr(noisy, part) == getattr(pair, part), part


def test_the_target_is_not_among_what_masks_are_drawn_from(finished: Finished) -> None:
    rows = Release.open(finished.out / "release").rows()
    targets = {m.sha256 for row in rows for m in row.members if m.name == "target.mp4"}
    for request, _ in mask_requests(finished):
        drawn_from = {a.digest for a in (request.driving, request.driving_arrays, request.reference, request.reference_arrays)}
        assert not targets & drawn_from


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
    """The puppet at 30 fps, brought to 16 fps by timestamp, shows the pose of the same instants as the clip.

    The span moves little from frame to frame, and of a 30 fps video the frame on display is up to half a 16 fps frame old: a neighbour may
    fit as well, two frames off may not.
    """
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
        assert error[0] < min(error[-2], error[2]), error
        assert error[0] < 1.15 * min(error.values()), error


def test_the_caption_speaks_of_the_target_and_the_prompt_never_becomes_it(finished: Finished) -> None:
    release = Release.open(finished.out / "release")
    for row in release.rows():
        told = json.loads(release.read_member(row, "json"))
        assert told["caption"] == row.caption
        assert len(row.caption) > 80
        assert not told["prompt"] or told["prompt"] not in row.caption
