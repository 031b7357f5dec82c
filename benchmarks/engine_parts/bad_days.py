"""A driver that is killed and resumed; a generator that becomes half as fast on a cluster of several kinds of GPUs (logical ones); a node
that is told to go, and goes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from engine_parts import ours
from engine_parts.naps import Nap, NapRequest, first_nap, second_nap
from factory.pool import Quarantined
from factory.steps import Charge

COUNT, WORKERS, SLEEP_S = 77, 8, 1.0
GPUS = 8
FAST_S, SLOW_S = 0.2, 0.4
WINDOW_S = 5.0
LANES = 64
SEEN_S = 2.0
"""from the notice until the engine must have seen it"""


def resumed(folder: Path) -> dict[str, float]:
    """Killed after two dozen naps and asked for again: naps done twice, and seconds from Ray's start to the first new nap."""
    log = folder / "naps.log"
    command = [sys.executable, "-m", "engine_parts.bad_days", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not log.exists() or len(log.read_text().split()) < 3 * WORKERS:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(log.read_text().split())
    up_s, began_s = asyncio.run(_all(folder))
    begun = log.read_text().split()
    assert len(set(begun)) == COUNT, "a nap was lost"
    return {"naps": COUNT, "begun_before": before, "redone": len(begun) - COUNT, "first_new_s": round(began_s - up_s, 2)}


async def _all(folder: Path) -> tuple[float, float]:
    """All naps; when Ray stood, and when the first nap of this process began."""
    up: list[float] = []
    async with ours.engine_at(folder, ours.recipe_of(cpu=ours.workers(WORKERS))) as (memo, engine):
        began = time.monotonic()
        engine.started = lambda: up.append(time.monotonic())
        naps = await asyncio.gather(*(ours.nap(memo, n, SLEEP_S, log=str(folder / "naps.log")) for n in range(COUNT)))
    return up[0], min(n.began_s for n in naps if n.began_s > began)


def halved(folder: Path) -> dict[str, float]:
    """Seconds until 90 % of the new ideal after one of two generators that share the H100s became half as fast, and what a load takes."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=4, num_gpus=GPUS, resources={"accelerator_type:H100": 1})
        cluster.add_node(num_cpus=4, num_gpus=2, resources={"accelerator_type:L40S": 1})
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        return asyncio.run(_halved(folder))
    finally:
        ray.shutdown()
        cluster.shutdown()


async def _halved(folder: Path) -> dict[str, float]:
    about: dict[str, Any] = {"cpus": 0.01, "gpus": 1.0, "load_s": 2.0}
    pools = {
        "first": ours.workers(1, GPUS - 1, accelerator="H100", **about), "second": ours.workers(1, GPUS - 1, accelerator="H100", **about),
        "other": ours.workers(1, 2, accelerator="L40S", **about),
    }  # fmt: skip
    ends: list[float] = []
    now = {"first": FAST_S}
    async with ours.engine_at(folder, ours.recipe_of(**pools)) as (memo, engine):

        async def lane(number: int) -> None:
            for turn in range(10**6):
                charge, about = Charge(f"{turn:064d}"), {"number": number * 10**6 + turn}
                await memo.call(first_nap, NapRequest(**about, seconds=now["first"]), charge, "first")
                await memo.call(second_nap, NapRequest(**about, seconds=FAST_S), charge, "second")
                ends.append(time.monotonic())

        lanes = [asyncio.create_task(lane(n)) for n in range(LANES)]
        before = await _reached(ends, 0.9 * GPUS / (2 * FAST_S), 120)
        now["first"] = SLOW_S
        after = await _reached(ends, 0.9 * GPUS / (SLOW_S + FAST_S), 120)
        load_s = max(pool.service().load_s for pool in engine._pools.values())
        for one in lanes:
            one.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
    return {"until_90_s": round(after, 1), "load_s": round(load_s, 1), "until_90_at_first_s": round(before, 1)}


def preempted(folder: Path, count: int = 48, nap_s: float = 1.0, notice_s: float = 8.0) -> dict[str, float]:
    """One of two nodes is told mid-run that it goes in `notice_s`, and then is gone: naps done, quarantined, lost, and begun there although
    the engine knew."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        _, going = cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        return asyncio.run(_preempted(folder, count, nap_s, notice_s, cluster, going))
    finally:
        ray.shutdown()
        cluster.shutdown()


async def _preempted(folder: Path, count: int, nap_s: float, notice_s: float, cluster: Any, going: Any) -> dict[str, float]:
    log, faults = folder / "naps.log", Counter[str]()
    async with ours.engine_at(folder, ours.recipe_of(cpu=ours.workers(2, 4, cpus=1))) as (memo, engine):
        await asyncio.gather(*(ours.nap(memo, 10**6 + n, 0.5) for n in range(32)))  # until the pool has grown over both nodes
        engine.notice = lambda kind, _: faults.update([kind])
        naps = [asyncio.create_task(ours.nap(memo, n, nap_s, places=str(log))) for n in range(count)]
        while len(_begun(log)) < 4:
            await asyncio.sleep(0.05)
        told_s = time.monotonic()
        drain(cluster.address, going.node_id, notice_s)
        await asyncio.sleep(notice_s)
        cluster.remove_node(going, allow_graceful=False)
        ends = await asyncio.wait_for(asyncio.gather(*naps, return_exceptions=True), 300)
    begun, there = _begun(log), going.node_id
    later = [(node, at_s) for node, at_s in begun if told_s + SEEN_S < at_s < told_s + notice_s]
    done, quarantined = (sum(isinstance(end, kind) for end in ends) for kind in (Nap, Quarantined))
    return {
        "naps": count, "done": done, "quarantined": quarantined, "lost": count - done - quarantined, "redone": len(begun) - count,
        "on_the_node_before": sum(node == there for node, at_s in begun if at_s < told_s),
        "begun_there_after_notice": sum(node == there for node, _ in later),
        "others_while_it_drained": sum(node != there for node, _ in later),
        "strikes": faults["strike"], "moves": faults["move"],
    }  # fmt: skip


def _begun(log: Path) -> list[tuple[str, float]]:
    """Node and time of every nap that has begun."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(node, float(at_s)) for _, node, at_s in map(str.split, lines)]


def drain(address: str, node: str, notice_s: float) -> None:
    """Tell a node that it will be gone in a while, as `ray drain-node` does."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline_ms = int(1000 * (time.time() + notice_s))
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=address).drain_node(node, reason, "preempted", deadline_ms)
    assert accepted, why


async def _reached(ends: list[float], rate: float, seconds: float) -> float:
    """Seconds until a window that lies wholly after now has seen so many ends a second; `seconds` when it never has."""
    began = time.monotonic()
    while (past := time.monotonic() - began) < seconds:
        await asyncio.sleep(0.25)
        since = time.monotonic() - WINDOW_S
        if since >= began and sum(end >= since for end in ends) / WINDOW_S >= rate:
            return past
    return seconds


if __name__ == "__main__":
    asyncio.run(_all(Path(sys.argv[1])))
