"""Who is blamed when something goes: nodes that leave, memory that is too small, faults that pass. A real Ray with several nodes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from factory import engine, pool
from factory.engine import Engine
from factory.memo import Memo
from factory.pool import STUMBLES
from manifests.errors import BadRecipe, OutOfMemory, Transient
from manifests.ledger import Ledger
from manifests.recipe import PoolSpec
from manifests.store import Store

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from engine_parts import ours
from engine_parts.naps import Nap


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have to find the naps."""
    where = str(Path(ours.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([where, os.environ.get("PYTHONPATH", "")]))


@contextlib.contextmanager
def cluster(*nodes: dict[str, Any]) -> Iterator[tuple[Cluster, list[Any]]]:
    """A head without room for workers, and nodes."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        joined = [made.add_node(**node) for node in nodes]
        made.wait_for_nodes()
        ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
        yield made, joined
    finally:
        ray.shutdown()
        made.shutdown()


def faults_of(engine: Engine) -> list[tuple[str, str]]:
    """What the engine notices from now on."""
    heard: list[tuple[str, str]] = []
    engine.notice = lambda kind, name: heard.append((kind, name))
    return heard


async def naps(
    folder: Path, spec: PoolSpec, count: int, during: Callable[[], object] | None = None, seconds: float = 1.0
) -> tuple[list[Any], list[tuple[str, str]]]:
    """So many naps, something that happens while they are slept, and all that went wrong."""
    async with ours.engine_at(folder, ours.recipe_of(cpu=spec)) as (memo, engine):
        heard = faults_of(engine)
        sleeping = [asyncio.create_task(ours.nap(memo, n, seconds, log=str(folder / "log"))) for n in range(count)]
        if during:
            await until_begun(folder / "log", 3)
            during()  # not on a thread: Ray's nodes set signal handlers
        return await asyncio.wait_for(asyncio.gather(*sleeping, return_exceptions=True), 120), heard


async def until_begun(log: Path, count: int) -> None:
    async with asyncio.timeout(60):
        while not log.exists() or len(log.read_text().split()) < count:
            await asyncio.sleep(0.05)


def test_nobody_is_blamed_for_a_node_that_leaves(tmp_path: Path) -> None:
    with cluster({"num_cpus": 2}, {"num_cpus": 2}) as (made, joined):
        spec = ours.workers(3, cpus=1)
        found, heard = asyncio.run(naps(tmp_path, spec, 12, lambda: made.remove_node(joined[1], allow_graceful=False)))
    assert all(isinstance(f, Nap) for f in found), found
    assert "strike" not in {kind for kind, _ in heard}
    assert "move" in {kind for kind, _ in heard}, "the node had nothing to do; the test shows nothing"


def test_a_node_that_comes_is_used(tmp_path: Path) -> None:
    with cluster({"num_cpus": 1}) as (made, _):
        spec = ours.workers(1, most=4, cpus=1)
        found, heard = asyncio.run(naps(tmp_path, spec, 30, lambda: made.add_node(num_cpus=3)))
    assert all(isinstance(f, Nap) for f in found)
    assert not heard
    assert max(sum(n.began_s <= f.began_s < n.ended_s for n in found) for f in found) > 1, "one after the other, as if nobody had come"


def test_clips_that_a_node_can_not_read_are_said_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").touch()
    files = {"0" * 64: str(tmp_path / "there.mp4"), "1" * 64: str(tmp_path / "other" / "gone.mp4")}

    async def work(address: str) -> None:
        store = Store(tmp_path / "store")
        with Ledger(tmp_path / "ledger.sqlite", store) as ledger:
            async with Engine(ours.recipe_of(cpu=ours.workers(1)), store, ledger, files, address) as engine:
                await ours.nap(Memo(store, ledger, engine), 1, 0.0)

    with cluster({"num_cpus": 1}) as (made, _), pytest.raises(BadRecipe, match=r"node \S+ can't read .*other/gone\.mp4: No such file"):
        asyncio.run(work(made.address))


def asked(folder: Path, recipe_pools: dict[str, PoolSpec], **more: Any) -> tuple[object, list[tuple[str, str]]]:
    """One nap's answer or error."""

    async def work() -> tuple[object, list[tuple[str, str]]]:
        async with ours.engine_at(folder, ours.recipe_of(**recipe_pools)) as (memo, engine):
            heard = faults_of(engine)
            (answer,) = await asyncio.gather(ours.nap(memo, 1, 0.0, log=str(folder / "log"), **more), return_exceptions=True)
            return answer, heard

    return asyncio.run(work())


@pytest.mark.usefixtures("one_ray")
def test_what_needs_more_memory_goes_to_the_larger_pool(tmp_path: Path) -> None:
    pools = {"cpu": ours.workers(1, larger="large"), "large": ours.workers(1)}
    answer, heard = asked(tmp_path, pools, needs="large")
    assert isinstance(answer, Nap)
    assert not heard


@pytest.mark.usefixtures("one_ray")
def test_without_a_larger_pool_it_is_left_undecided(tmp_path: Path) -> None:
    answer, heard = asked(tmp_path, {"cpu": ours.workers(1)}, needs="large")
    assert isinstance(answer, OutOfMemory)
    assert "memory is too small" in str(answer)
    assert not heard
    assert (tmp_path / "log").read_text().split() == ["1"], "the same memory was asked twice"


@pytest.mark.usefixtures("one_ray")
def test_a_fault_that_passes_is_waited_out_and_one_that_stays_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BACKOFF_S", 0.05)
    answer, heard = asked(tmp_path / "passes", {"cpu": ours.workers(1)}, stumbles=2)
    assert isinstance(answer, Nap)
    assert [kind for kind, _ in heard] == ["stumble"] * 2
    answer, heard = asked(tmp_path / "stays", {"cpu": ours.workers(1)}, stumbles=99)
    assert isinstance(answer, Transient)
    assert f"was tried {STUMBLES} times: a share is not mounted" in str(answer)
    assert [kind for kind, _ in heard] == ["stumble"] * STUMBLES


@pytest.mark.usefixtures("one_ray")
def test_what_a_worker_had_finished_when_it_died_is_neither_blamed_nor_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies after it has kept the outcome and before its answer has left."""
    from own.dying import DyingWorker

    monkeypatch.setattr(engine, "Worker", DyingWorker)
    found, heard = asyncio.run(naps(tmp_path, ours.workers(1), 4, seconds=0.0))
    assert all(isinstance(f, Nap) for f in found), found
    assert not heard
    begun = (tmp_path / "log").read_text().split()
    assert sorted(begun) == ["0", "1", "2", "3"]
