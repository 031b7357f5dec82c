"""Workers that die, hang or lie: who is blamed, what is remembered, and that the others go on. Real Ray, real steps."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import numpy as np
import pytest
from running import Finished, Material

from factory import steps
from factory.engine import Engine
from factory.members import Member
from factory.memo import Memo
from factory.pool import Pool, Quarantined
from factory.steps import Charge
from factory.work.making import AnimateRequest, Synthetic, generate_video
from factory.workbench import Workbench
from manifests import media
from manifests.errors import BadRecipe, Rejected
from manifests.ledger import Ledger
from manifests.recipe import Recipe, load_recipe
from manifests.records import Artifact
from manifests.release import Release
from manifests.store import Store

OWN = Path(__file__).parent / "own" / "misbehaving.py"
FIRST = Charge("0" * 64)


@pytest.fixture
def request_for(finished: Finished, tmp_path: Path):  # type: ignore[no-untyped-def]
    """`request_for(class name, options)`: a real pose request for one of the misbehaving generators, its inputs in a fresh store."""
    old, store = Store(finished.out / "store"), Store(tmp_path / "store")
    with Ledger(finished.out / "ledger.sqlite", old) as ledger:
        rows = ledger.execute("SELECT key FROM outcomes WHERE step = 'generate_video' ORDER BY key")
        bodies = [ledger.lookup(row[0]) for row in rows]
    poses = [b.request for b in bodies if b is not None and b.request["mode"] == "pose"]  # type: ignore[index,call-overload]
    request = AnimateRequest.model_validate(poses[0])
    for artifact in (request.clip_video, request.clip):
        store.put(old.read(artifact), artifact.suffix)

    def make(name: str, seed: int = 0, **options: str) -> AnimateRequest:
        return request.model_copy(update={"kind": f"{OWN}:{name}", "options": options, "seed": seed})

    return make


@pytest.fixture
def recipe(material: Material) -> Recipe:
    made = load_recipe(material.recipe)
    return made.model_copy(update={"pools": {"cpu": made.pools["cpu"].model_copy(update={"timeout_s": 20.0})}})


async def together(recipe: Recipe, folder: Path, requests: list[AnimateRequest]) -> tuple[list[object], Memo]:
    """All requests at once through memo, engine, Ray and back; errors as values."""
    store = Store(folder / "store")
    with Ledger(folder / "ledger.sqlite", store) as ledger:
        async with Engine(recipe, store, ledger, {}) as engine:
            memo = Memo(store, ledger, engine)
            calls = [memo.call(generate_video, r, Charge(f"{i:064d}"), "cpu") for i, r in enumerate(requests)]
            return await asyncio.gather(*calls, return_exceptions=True), memo


def test_a_pool_that_fits_on_no_node_is_refused_at_once(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    big = recipe.model_copy(update={"pools": {"cpu": recipe.pools["cpu"].model_copy(update={"gpus": 64.0})}})
    with pytest.raises(BadRecipe, match=r"pools\.cpu: a worker asks 1 CPUs, 64 GPUs; the largest node has") as caught:
        raise asyncio.run(together(big, tmp_path, [request_for("Ticker")]))[0][0]  # type: ignore[misc]
    assert "Lower pools.cpu" in str(caught.value)


@pytest.mark.usefixtures("one_ray")
def test_a_killer_is_quarantined_and_takes_nobody_along(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    requests = [request_for("Ticker", seed) for seed in range(4)]
    requests[1:1] = [request_for("Killer"), request_for("KillerOnce", mark=str(tmp_path / "mark"))]
    requests.append(request_for("Liar"))
    answers, memo = asyncio.run(together(recipe, tmp_path, requests))
    assert isinstance(answers[1], Quarantined)
    assert "failed 2 times: its worker died" in str(answers[1])
    assert isinstance(answers[-1], Rejected), "a file that is no video is an answer, not an accident"
    others = [answers[i] for i in (0, 2, 3, 4, 5)]
    assert all(isinstance(a, Synthetic) for a in others), others
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.counts()["generate_video"] == {"ok": 5, "rejected": 1}, "the killer's end is not remembered as an outcome"
    assert memo.ran["generate_video"] == 6


@pytest.mark.usefixtures("one_ray")
def test_what_broke_once_is_not_tried_again_by_the_next_job(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    faults: list[tuple[str, str]] = []

    async def work() -> list[object]:
        store = Store(tmp_path / "store")
        with Ledger(tmp_path / "ledger.sqlite", store) as ledger:
            async with Engine(recipe, store, ledger, {}) as engine:
                engine.notice = lambda kind, of: faults.append((kind, of))
                memo = Memo(store, ledger, engine)
                request = request_for("KillerOnce", mark=str(tmp_path / "never" / "there"))
                first = await asyncio.gather(memo.call(generate_video, request, FIRST, "cpu"), return_exceptions=True)
                assert faults == [("strike", "generate_video")] * 2
                again = await asyncio.gather(memo.call(generate_video, request, FIRST, "cpu"), return_exceptions=True)
                return [*first, *again]

    answers = asyncio.run(work())
    assert len(faults) == 2, "it was tried again"
    assert answers[0] is answers[1]
    assert isinstance(answers[0], Quarantined)
    assert "FileNotFoundError" in answers[0].details, "the traceback of the last try is kept"


@pytest.mark.usefixtures("one_ray")
def test_quarantine_outlives_the_run_until_somebody_frees_it(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mark = tmp_path / "mark"
    mark.mkdir()
    request = request_for("KillerOnce", mark=str(mark / "not" / "there"))
    (first,), _ = asyncio.run(together(recipe, tmp_path, [request]))
    assert isinstance(first, Quarantined)
    (mark / "not").mkdir()
    (mark / "not" / "there").touch()  # the cause is mended
    (again,), memo = asyncio.run(together(recipe, tmp_path, [request]))
    assert isinstance(again, Quarantined)
    assert str(again) == str(first)
    assert not memo.ran
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (known,) = ledger.quarantined()
        assert known.step == "generate_video"
        assert known.request["seed"] == request.seed
        assert "FileNotFoundError" in known.details
        ledger.retry()
    (freed,), _ = asyncio.run(together(recipe, tmp_path, [request]))
    assert isinstance(freed, Synthetic)


@pytest.mark.usefixtures("one_ray")
def test_a_dead_workers_last_lines_are_kept(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (killed,), _ = asyncio.run(together(recipe, tmp_path, [request_for("Killer")]))
    assert isinstance(killed, Quarantined)
    assert "these are my last words" in killed.details


def test_a_damaged_artifact_is_no_verdict_and_is_made_again(request_for, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    request = request_for("Ticker")
    bench = Workbench(str(tmp_path / "store"), {})
    place = bench.store.local_path(request.clip, tmp_path)
    place.chmod(0o644)
    place.write_bytes(bytes(place.stat().st_size))
    reply = bench.run("generate_video", request.model_dump(mode="json"), steps.key_of(generate_video, request))
    assert reply["type"] == "fault"
    assert "was removed; run again to make it anew" in reply["message"]
    assert not bench.store.has(request.clip)
    assert bench.store.get_outcome(steps.key_of(generate_video, request)) is None


def test_the_first_recorded_answer_stands(request_for, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A generator that never makes the same twice, asked twice with one key: ledger, run and store hold one answer."""
    request = request_for("Dice")
    bench = Workbench(str(tmp_path / "store"), {})
    key = steps.key_of(generate_video, request)
    first, second = (bench.run("generate_video", request.model_dump(mode="json"), key) for _ in range(2))
    assert first == second
    bench.store.local_path(Synthetic.model_validate(first["answer"]).video, tmp_path).unlink()
    third = bench.run("generate_video", request.model_dump(mode="json"), key)
    assert third["answer"] != first["answer"]
    standing = bench.store.get_outcome(key)
    assert standing is not None
    assert standing.answer == third["answer"]


@pytest.mark.usefixtures("one_ray")
def test_a_hanging_call_ends_with_its_timeout(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    quick = recipe.model_copy(update={"pools": {"cpu": recipe.pools["cpu"].model_copy(update={"timeout_s": 6.0})}})
    answers, _ = asyncio.run(together(quick, tmp_path, [request_for("Sleeper"), request_for("Ticker")]))
    assert isinstance(answers[0], Quarantined)
    assert "no answer in 6 s" in str(answers[0])
    assert isinstance(answers[1], Synthetic)


@pytest.mark.usefixtures("one_ray")
def test_the_same_call_twice_runs_once(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    answers, memo = asyncio.run(together(recipe, tmp_path, [request_for("Ticker")] * 3))
    assert len({a.video.digest for a in answers if isinstance(a, Synthetic)}) == 1
    assert memo.ran["generate_video"] == 1


@pytest.mark.usefixtures("one_ray")
def test_who_gives_up_takes_no_shared_step_along(request_for, recipe: Recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A slice that has its quota cancels its jobs; a job of another slice may wait for the same step."""

    async def work() -> object:
        store = Store(tmp_path / "store")
        with Ledger(tmp_path / "ledger.sqlite", store) as ledger:
            async with Engine(recipe, store, ledger, {}) as engine:
                memo = Memo(store, ledger, engine)
                first, second = (asyncio.create_task(memo.call(generate_video, request_for("Ticker"), FIRST, "cpu")) for _ in range(2))
                await asyncio.sleep(0.1)
                first.cancel()
                answer = await second
                assert first.cancelled()
                lone = asyncio.create_task(memo.call(generate_video, request_for("Ticker", 7), FIRST, "cpu"))
                await asyncio.sleep(0.1)
                lone.cancel()
                await asyncio.gather(lone, return_exceptions=True)
                again = await memo.call(generate_video, request_for("Ticker", 7), FIRST, "cpu")
                return answer, again

    answer, again = asyncio.run(work())  # type: ignore[misc]
    assert isinstance(answer, Synthetic)
    assert isinstance(again, Synthetic)


def test_closing_a_pool_does_not_wait_for_a_server_that_swallowed_its_cancellation() -> None:
    """asyncio.wait_for of Python 3.11 does that when answer and cancellation come together; a run hung at its end for it."""

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        await asyncio.sleep(600)

    async def work() -> bool:
        pool = Pool.__new__(Pool)
        servers = [asyncio.create_task(stubborn()) for _ in range(2)]
        pool._members, pool._later = [Member(server=server) for server in servers], set()
        await asyncio.sleep(0)
        await asyncio.wait_for(pool.close(), 10)
        return all(server.done() for server in servers)

    assert asyncio.run(work())


def test_30_fps_comes_to_16_fps_without_a_frame_of_drift(request_for, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    request = request_for("Ticker")
    bench = Workbench(str(tmp_path / "store"), {})
    reply = bench.run("generate_video", request.model_dump(mode="json"), steps.key_of(generate_video, request))
    made = Synthetic.model_validate(reply["answer"])
    assert made.raw_fps == 30
    frames, fps = media.read_frames(bench.store.local_path(made.video, tmp_path))
    assert (fps, len(frames)) == (16, request.geometry.frames)
    shown = np.round((frames.mean((1, 2, 3)) - 40) / 8).astype(int)
    wanted = np.floor(np.arange(len(frames)) / 16 * 30 + 1e-6).astype(int)
    assert (shown == wanted).all()


def test_a_released_artifact_is_what_its_digest_says(finished: Finished) -> None:
    store, release = Store(finished.out / "store"), Release.open(finished.out / "release")
    for row in release.rows():
        for member in (m for m in row.members if m.name.endswith(".mp4")):
            whole = store.read(Artifact(digest=member.sha256, size=member.size, suffix=".mp4"))
            assert whole == release.read_member(row, member.name)
