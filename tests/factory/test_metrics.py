"""What a Prometheus server reads from a node while naps are slept and questions asked. Real Ray with its metrics agent, which comes with
`motionpair[metrics]`; without it there is nothing to read."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from running import RECIPE
from scripted_server import ScriptedServer
from test_brain_pool import answered, ask

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from engine_parts import ours
from engine_parts.naps import NapRequest, second_nap
from test_faults import _importable  # noqa: F401 - a fixture: workers have to find the naps

from factory.engine import Engine
from factory.pool import Quarantined
from factory.steps import Charge
from manifests.recipe import Recipe, load_recipe

pytest.importorskip("prometheus_client", reason="Ray's metrics agent is not installed: pip install 'motionpair[metrics]'")
pytest.importorskip("opencensus", reason="Ray's metrics agent is not installed: pip install 'motionpair[metrics]'")

POOLS = """
  cpu: {workers: 2, cpus: 0.01, timeout_s: 120}
  painter: {workers: 1, cpus: 0.01, gpus: 0.5, accelerator: H100, timeout_s: 120}
"""
PAINTED_S = 0.3
PRICE = (100 * 3.0 + 20 * 15.0) / 1e6
"""of one question, by the server's count and the recipe's prices"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recipe]:
    """With a brain, and a pool on a GPU that Ray is made to believe in."""
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps({"GPU": 1, "accelerator_type:H100": 1}))
    with ScriptedServer(answered) as server:
        brain = {"kind": "openai", "base_url": server.url, "model": "stand-in", "price_in": 3.0, "price_out": 15.0}
        text = RECIPE.format(clips=tmp_path, characters=tmp_path).partition("pools:")[0]
        (tmp_path / "recipe.yaml").write_text(f"{text}pools:{POOLS}\nagents: {{brain: {json.dumps(brain)}}}\n")
        yield load_recipe(tmp_path / "recipe.yaml")


def test_what_a_prometheus_server_reads(recipe: Recipe, tmp_path: Path) -> None:
    async def work() -> None:
        async with ours.engine_at(tmp_path, recipe) as (memo, engine):
            log = str(tmp_path / "log")
            calls = [ours.nap(memo, n, 0.05) for n in range(8)]
            calls += [ours.nap(memo, 8, 0.0, log=log, stumbles=1), ours.nap(memo, 9, 0.0, killer=True)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(end) for end in ends if isinstance(end, Exception)] == [Quarantined]
            await memo.call(second_nap, NapRequest(number=10, seconds=PAINTED_S), Charge("0" * 64), "painter")
            await asyncio.gather(*(ask(engine, n) for n in range(3)))
            engine.metrics.decided("walk", "rejected", "identity")
            asleep = [asyncio.create_task(ours.nap(memo, 20 + n, 120.0)) for n in range(7)]
            await asyncio.to_thread(_compare, engine)
            for one in asleep:
                one.cancel()
            await asyncio.gather(*asleep, return_exceptions=True)

    asyncio.run(work())


def _compare(engine: Engine) -> None:
    """Ask the node until it tells everything, and no longer than a minute."""
    first, second = "engine_parts.naps:first_nap", "engine_parts.naps:second_nap"
    exact = {
        ("pool_busy", "pool=cpu"): 2.0, ("pool_workers", "pool=cpu"): 2.0,
        ("pool_workers", "pool=painter"): 1.0,
        ("calls_total", f"pool=cpu reason= status=ok step={first}"): 9.0,
        ("calls_total", f"pool=painter reason= status=ok step={second}"): 1.0,
        ("calls_total", "pool=brain reason= status=ok step=ask_model"): 3.0,
        ("service_seconds_count", f"pool=cpu step={first}"): 9.0,
        ("faults_total", f"kind=stumble of={first}"): 1.0, ("faults_total", f"kind=strike of={first}"): 2.0,
        ("jobs_total", "reason=identity slice=walk state=rejected"): 1.0,
    }  # fmt: skip
    near = {
        ("gpu_seconds_total", "accelerator=H100 pool=painter"): 0.5 * PAINTED_S,
        ("money", "model=stand-in role=captioner"): 3 * PRICE,
    }
    told: dict[tuple[str, str], float] = {}
    for _ in range(120):
        told = _read()
        exact["pool_waiting", "pool=cpu"] = float(engine._pools["cpu"].waiting)
        if all(told.get(name) == value for name, value in exact.items()) and near.keys() <= told.keys():
            break
        time.sleep(0.5)
    assert {name: told.get(name) for name in exact} == exact
    assert told["pool_waiting", "pool=cpu"] > 0
    assert told["gpu_seconds_total", "accelerator=H100 pool=painter"] == pytest.approx(0.5 * PAINTED_S, abs=0.1)
    assert told["money", "model=stand-in role=captioner"] == pytest.approx(3 * PRICE)


def _read() -> dict[tuple[str, str], float]:
    """(name, labels of ours) → value."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("ray_motionpair_")]
    found: dict[tuple[str, str], float] = {}
    for line in lines:
        name, labels, value = re.fullmatch(r"ray_motionpair_(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
        ours_ = sorted(f"{k}={v}" for k, v in re.findall(r'(\w+)="([^"]*)"', labels) if k.islower() and not k.startswith("otel"))
        found[name, " ".join(ours_)] = float(value)
    return found
