"""Ends of calls and of members that come at a bad moment: nobody waits for ever, nothing is paid for and forgotten. Real Ray actors."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from factory import pool as pools
from factory.members import Task
from factory.pool import Pool
from factory.steps import Charge
from manifests.errors import OutOfSpace, Transient
from manifests.store import Cost, Outcome

CPUS = 4


def actor_class() -> type:
    """Made here, so that Ray sends it as it is: its workers can't import this file."""

    class Actor:
        """What a pool asks of a worker; the request says what it does."""

        def __init__(self, at: Path, load_s: float) -> None:
            time.sleep(load_s)
            self.at = at

        def ready(self) -> dict[str, str]:
            return {"node": ray.get_runtime_context().get_node_id(), "stderr": os.devnull, "at": str(self.at)}

        def run(self, name: str, request: dict[str, Any], key: str, job: str, slice_: str) -> dict[str, Any]:
            self.at.write_text(request.get("at", key))
            time.sleep(request.get("seconds", 0.0))
            if request.get("dies"):
                os._exit(1)
            if fault := request.get("fault"):
                return {"type": "fault", "response": fault, "message": "a share is not mounted", "details": ""}
            return {"type": "outcome", **Outcome(key=key, step=name, status="ok", cost=Cost(seconds=1.0)).model_dump(mode="json")}

    return Actor


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


class Made:
    """A pool, and what it told."""

    def __init__(self, folder: Path, size: int, cpus: float = 1.0, load_s: float = 0.0, lose: Callable[[], None] = lambda: None) -> None:
        self.lost: list[float] = []
        self.kept: list[Outcome] = []
        self.faults: list[str] = []

        async def launch() -> Any:
            return ray.remote(actor_class()).options(num_cpus=cpus, max_restarts=0).remote(folder / "at", load_s)

        async def find(key: str) -> None:
            return None

        def charge(_: Task, seconds: float) -> None:
            lose()
            self.lost.append(seconds)

        self.pool = Pool("p", size, 60.0, launch, lambda kind, _: self.faults.append(kind), charge, find, self.kept.append)

    def put(self, number: int, **request: Any) -> asyncio.Future[Outcome]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.pool.put(Task((0, "", number), Charge(""), "step", request, f"{number:064d}", answer))
        return answer


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.05)


def test_a_member_that_is_retired_while_it_loads_gives_its_place_back(tmp_path: Path) -> None:
    async def work() -> None:
        made = Made(tmp_path, 3, load_s=2.0)
        answers = [made.put(n) for n in range(6)]
        await until(lambda: ray.available_resources().get("CPU", 0) == CPUS - 3)
        made.pool.resize(1)
        assert made.pool.size == 1
        await asyncio.gather(*answers)
        await until(lambda: ray.available_resources().get("CPU", 0) == CPUS - 1)
        assert not made.faults
        await made.pool.close()

    run(work)


def test_who_waits_for_room_is_no_failed_start_while_others_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        made = Made(tmp_path, 6, cpus=4.0)
        await made.put(0)
        monkeypatch.setattr(pools, "START_TIMEOUT_S", 1.0)
        done = await asyncio.gather(*(made.put(n, seconds=0.5) for n in range(1, 15)))
        assert len(done) == 14
        assert made.faults.count("start") >= pools.STARTS, "or else nothing was shown"
        await made.pool.close()

    run(work)


def test_when_the_ledger_can_not_be_written_whoever_waits_is_told(tmp_path: Path) -> None:
    def full() -> None:
        raise OutOfSpace("no room for the ledger")

    async def work() -> None:
        made = Made(tmp_path, 1, lose=full)
        for fault in ("transient", "error"):
            with pytest.raises(OutOfSpace, match="no room for the ledger"):
                await made.put(1, fault=fault)
        assert (await made.put(2)).status == "ok", "the pool goes on"
        await made.pool.close()

    run(work)


def test_an_outcome_that_nobody_waits_for_any_more_is_kept(tmp_path: Path) -> None:
    async def work() -> None:
        made = Made(tmp_path, 1)
        await made.put(0)
        answer = made.put(1, seconds=1.0)
        await asyncio.sleep(0.3)
        answer.cancel()
        await until(lambda: bool(made.kept))
        assert [outcome.key for outcome in made.kept] == [f"{1:064d}"]
        assert not made.lost
        await made.pool.close()

    run(work)


def test_a_call_that_is_cut_off_at_the_end_has_taken_its_time(tmp_path: Path) -> None:
    async def work() -> None:
        made = Made(tmp_path, 1)
        await made.put(0)
        made.put(1, seconds=30.0)
        await asyncio.sleep(0.5)
        await made.pool.close()
        assert len(made.lost) == 1
        assert 0.3 < made.lost[0] < 5

    run(work)


def test_a_worker_that_dies_before_it_begins_is_not_asked_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MOVES", 3)
    monkeypatch.setattr(pools, "BACKOFF_S", 0.01)

    async def work() -> None:
        made = Made(tmp_path, 1)
        with pytest.raises(Transient, match="3 times, by no fault of its own"):
            await made.put(0, at="-", dies=True)
        assert made.faults == ["move"] * 3
        await made.pool.close()

    run(work)


def test_a_pool_that_all_nodes_have_left_tells_who_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        made = Made(tmp_path, 1)
        await made.put(0)
        monkeypatch.setattr(pools, "START_TIMEOUT_S", 0.2)
        made.pool.resize(0)
        answer = made.put(1)
        made.pool.look_after()
        assert not answer.done()
        await asyncio.sleep(0.3)
        made.pool.look_after()
        with pytest.raises(Transient, match="no node has had room"):
            await answer
        await made.pool.close()

    run(work)
