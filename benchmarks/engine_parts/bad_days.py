"""A driver that is killed and resumed; a generator that becomes half as fast on a cluster of several kinds of GPUs (logical ones)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine_parts import ours
from engine_parts.naps import NapRequest, first_nap, second_nap
from factory.steps import Charge

COUNT, WORKERS, SLEEP_S = 77, 8, 1.0
GPUS = 8
FAST_S, SLOW_S = 0.2, 0.4
WINDOW_S = 5.0
LANES = 64


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
