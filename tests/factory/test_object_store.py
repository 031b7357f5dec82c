"""Ray's object store is full, and so is the disk that it would spill to: somebody else holds it. Short messages need no room there; a long
one that finds none is nobody's fault."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from factory.blame import message_lost, nobodys_fault

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from engine_parts import ours
from engine_parts.naps import Nap
from test_faults import _importable, faults_of  # noqa: F401 - a fixture: workers have to find the naps

STORE_BYTES = 75 * 1024 * 1024
"""the least that Ray takes"""
LONG = 400_000
"""bytes of a message; Ray sends those below 100 kB without its store"""
FULL_DISK = {"automatic_object_spilling_enabled": False, "local_fs_capacity_threshold": 0.0001}


@pytest.fixture
def held() -> Iterator[list[Any]]:
    """Everything that the store of a cluster of one node has room for."""
    node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE_BYTES, "_system_config": FULL_DISK}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        objects: list[Any] = []
        for size in (8_000_000, 800_000, 110_000):
            with contextlib.suppress(ray.exceptions.OutOfDiskError):
                while len(objects) < 1000:
                    objects.append(ray.put(np.zeros(size, dtype=np.uint8)))
        assert len(objects) < 1000, "the store takes everything; the test shows nothing"
        yield objects
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_neither_short_nor_long_answers_need_room(tmp_path: Path, held: list[Any]) -> None:
    """A worker keeps its outcome before it answers; the outcome of an answer that is lost is found, and its worker goes on."""

    async def work() -> tuple[list[Any], list[tuple[str, str]], int]:
        async with ours.engine_at(tmp_path, ours.recipe_of(cpu=ours.workers(2))) as (memo, engine):
            heard = faults_of(engine)
            calls = [ours.nap(memo, n, 0.05, answer_bytes=LONG * (n % 2), log=str(tmp_path / "log")) for n in range(12)]
            found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
            return found, heard, len(engine._pools["cpu"]._loads_s)

    found, heard, started = asyncio.run(work())
    assert [len(f.letter) if isinstance(f, Nap) else f for f in found] == [0, LONG] * 6
    assert not heard
    assert started == 2, "workers were ended because the store was full"
    assert len((tmp_path / "log").read_text().split()) == 12, "some were done twice"
    assert held


def test_long_requests_wait_for_room_and_nobody_is_blamed(tmp_path: Path, held: list[Any]) -> None:
    async def work() -> tuple[list[Any], list[tuple[str, str]]]:
        async with ours.engine_at(tmp_path, ours.recipe_of(cpu=ours.workers(2))) as (memo, engine):
            await ours.awake(memo, 2)
            heard = faults_of(engine)
            short = [ours.nap(memo, n, 0.05) for n in range(4)]
            long = [asyncio.create_task(ours.nap(memo, 100 + n, 0.05, letter="z" * LONG)) for n in range(4)]
            found = await asyncio.wait_for(asyncio.gather(*short), 30)
            while len(heard) < 4:
                await asyncio.sleep(0.05)
            held.clear()
            return [*found, *await asyncio.wait_for(asyncio.gather(*long, return_exceptions=True), 60)], heard

    found, heard = asyncio.run(work())
    assert all(isinstance(f, Nap) for f in found), found
    assert {kind for kind, _ in heard} == {"move"}


@pytest.mark.parametrize("kind", ["ObjectLostError", "OwnerDiedError", "ObjectFetchTimedOutError", "ReferenceCountingAssertionError"])
def test_a_message_that_was_lost_is_nobodys_fault(kind: str) -> None:
    error = getattr(ray.exceptions, kind)("0" * 56, None, "")
    assert nobodys_fault(error)
    assert message_lost(error)


def test_a_full_disk_of_a_node_is_nobodys_fault_and_another_error_is_somebodys() -> None:
    def raised(number: int) -> Exception:
        cause = OSError(number, "no")
        return ray.exceptions.RayTaskError("run", "traceback", cause).as_instanceof_cause()

    assert nobodys_fault(raised(errno.ENOSPC))
    assert nobodys_fault(raised(errno.EDQUOT))
    assert not nobodys_fault(raised(errno.EACCES))
