"""Workers in another environment: another interpreter, a child that a command started. A real Ray, real interpreters, really killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

sys.path.insert(0, str(Path(__file__).parents[1] / "generators"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from engine_parts import ours
from own.looking import Look, LookRequest, look
from test_leash import wait_for

from factory import cluster
from factory.memo import Memo
from factory.pool import Quarantined
from factory.run import recipe_digest
from factory.steps import Charge
from manifests.errors import BadRecipe, Transient
from manifests.recipe import PoolSpec, parse_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have to find the step."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]))
        ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of another prefix, in a folder with a space, that finds the libraries of this one."""
    folder = tmp_path_factory.mktemp("another") / "environment of its own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return folder / "bin" / "python"


@contextlib.asynccontextmanager
async def looking(folder: Path, spec: PoolSpec) -> AsyncIterator[tuple[Any, list[tuple[str, str]]]]:
    """A function that asks for looks, and what went wrong."""
    async with ours.engine_at(folder, ours.recipe_of(cpu=spec)) as (memo, engine):
        heard: list[tuple[str, str]] = []
        engine.notice = lambda kind, name: heard.append((kind, name))
        yield lambda number, **more: _look(memo, folder, number, **more), heard


async def _look(memo: Memo, folder: Path, number: int, **more: Any) -> Look:
    request = LookRequest(number=number, log=str(folder / "log"), **more)
    return await memo.call(look, request, Charge(f"{number:064d}"), "cpu")


def looks(folder: Path, spec: PoolSpec, *asked: dict[str, Any], limit_s: float = 60) -> tuple[list[Any], list[tuple[str, str]]]:
    """Answers or errors of all that is asked, side by side, and what went wrong."""

    async def work() -> tuple[list[Any], list[tuple[str, str]]]:
        async with looking(folder, spec) as (ask, heard):
            calls = [ask(i, **more) for i, more in enumerate(asked)]
            return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), limit_s), heard

    return asyncio.run(work())


def test_steps_run_in_another_interpreter(tmp_path: Path, other_python: Path) -> None:
    spec = ours.workers(1, python=str(other_python), env={"SEEN_BY_STEPS": "it's ${HOME}"})
    (found,), heard = looks(tmp_path, spec, {"variable": "SEEN_BY_STEPS"})
    assert isinstance(found, Look), found
    assert Path(found.prefix) == other_python.parents[1]
    assert found.value == f"it's {os.environ['HOME']}"
    assert not heard


def test_steps_run_in_a_child_that_the_command_started(tmp_path: Path, other_python: Path) -> None:
    spec = ours.workers(1, command=(str(other_python), "-W", "ignore"), env={"SEEN_BY_STEPS": "it's ${HOME}"}, gpus=1)
    found, heard = looks(tmp_path, spec, *[{"variable": "SEEN_BY_STEPS"}] * 5)
    assert all(isinstance(f, Look) for f in found), found
    assert {Path(f.prefix) for f in found} == {other_python.parents[1]}
    assert {f.value for f in found} == {f"it's {os.environ['HOME']}"}
    assert {f.pool for f in found} == {"cpu"}
    assert {f.processors for f in found} <= {"0", "1"}, "it has to see the worker's GPU and no other"
    assert len({f.pid for f in found}) == 1, "it loads once"
    assert not heard


def test_a_child_that_dies_in_a_step_is_a_strike_for_this_step_alone(tmp_path: Path) -> None:
    spec = ours.workers(1, command=(sys.executable,))
    found, heard = looks(tmp_path, spec, *[{"end": "die"} if i == 1 else {} for i in range(6)])
    killer = found.pop(1)
    assert isinstance(killer, Quarantined)
    assert "these are my last words" in killer.details
    assert "-m factory.lines_worker ended with exit status 137 (SIGKILL)" in killer.details
    assert all(isinstance(f, Look) for f in found), found
    assert [kind for kind, _ in heard] == ["strike", "strike"]
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1", "1", "2", "3", "4", "5"]


def test_a_child_that_dies_while_it_waits_is_nobodys_fault(tmp_path: Path) -> None:
    async def work() -> list[tuple[str, str]]:
        async with looking(tmp_path, ours.workers(1, command=(sys.executable,))) as (ask, heard):
            seen = set()
            for number in range(3):
                found = await asyncio.wait_for(ask(number), 60)
                seen.add(found.pid)
                os.kill(found.pid, signal.SIGKILL)
                await asyncio.sleep(0.5)
            assert len(seen) == 3
            return heard

    assert [kind for kind, _ in asyncio.run(work())] == ["move", "move"]


def test_a_child_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    marker = f"ENVIRONMENT_{os.getpid()}"
    spec = ours.workers(1, command=(sys.executable,), env={marker: "1"}, timeout_s=2)
    (hung, well), heard = looks(tmp_path, spec, {"end": "hang"}, {})
    assert isinstance(hung, Quarantined)
    assert "no answer in 2 s" in str(hung)
    assert isinstance(well, Look)
    assert [kind for kind, _ in heard] == ["strike", "strike"]
    wait_for(0, marker, 5)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"python": "/no/such/bin/python"}, ": /no/such/bin/python: No such file or directory"),
        ({"python": "/bin/false"}, "/bin/false: exit status 1"),
        ({"python": "/bin/echo"}, "/bin/echo: it has -c import sys, ray"),
        ({"command": ["/no/such/bin/python"]}, "ended with exit status 127; its last line: /no/such/bin/python: No such file or directory"),
        ({"command": [sys.executable, "-I", "-S"]}, "ended with exit status 1; its last line: "),
        ({"image": "example.org/nothing:1"}, "podman"),
    ],
    ids=lambda value: " ".join(map(str, *value.values())) if isinstance(value, dict) and "python" not in value else None,
)
def test_a_worker_that_can_not_start_leaves_its_steps_undecided_with_the_reason(tmp_path: Path, spec: dict[str, Any], reason: str) -> None:
    began = time.monotonic()
    (found, _), heard = looks(tmp_path, ours.workers(1, **spec), {}, {})
    assert isinstance(found, Transient)
    assert str(found).startswith("no worker of pool cpu could be started: ")
    assert "\n" not in str(found)
    assert reason in str(found)
    assert {kind for kind, _ in heard} == {"start"}
    assert time.monotonic() - began < 45


def test_only_nodes_where_a_worker_fits_have_to_have_the_interpreter() -> None:
    tried: set[str] = set()
    cluster.try_python(PoolSpec(python="/no/such/python", resources={"elsewhere": 1}), tried)
    assert not tried
    cluster.try_python(PoolSpec(python=sys.executable), tried)
    assert tried == {ray.get_runtime_context().get_node_id()}
    cluster.try_python(PoolSpec(python="/no/such/python"), tried)  # which has not been looked at again


def test_what_ray_is_asked_for() -> None:
    assert "runtime_env" not in cluster.actor_options(PoolSpec())
    asked = cluster.actor_options(PoolSpec(image="example.org/wan:2.1", env={"THREADS": "4"}))["runtime_env"]
    assert asked == {"image_uri": "example.org/wan:2.1", "env_vars": {"THREADS": "4"}}
    asked = cluster.actor_options(PoolSpec(python="/a b/bin/python"))["runtime_env"]
    assert asked == {"py_executable": "'/a b/bin/python'"}
    assert "runtime_env" not in cluster.actor_options(PoolSpec(command=("/a/bin/python",), env={"PYTHONPATH": "/a"}))


def test_the_environment_of_a_pool_is_no_part_of_the_dataset() -> None:
    plain, other = ours.recipe_of(cpu=PoolSpec()), ours.recipe_of(cpu=PoolSpec(python="/a/bin/python", env={"A": "1"}))
    assert recipe_digest(plain) == recipe_digest(other)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ({"python": "python3"}, "pools.cpu: python is the whole path of an interpreter, /…/bin/python, got 'python3'"),
        ({"python": "/a/python", "image": "a:1"}, "pools.cpu: python and image: a pool's workers run in one environment"),
        ({"python": "/a/python", "command": ["/a/python"]}, "pools.cpu: python and command: a pool's workers"),
        ({"command": []}, "pools.cpu: command is a list that begins with a program"),
        ({"command": ["docker", ""]}, "pools.cpu: command is a list that begins with a program"),
        ({"command": "docker run"}, "pools.cpu.command: got 'docker run'"),
        ({"image": "a:1; rm"}, "pools.cpu.image: got 'a:1; rm'"),
        ({"image": "a:1", "env": {"A": "it's"}}, "pools.cpu: env: with image no value may hold a '"),
        ({"env": {"A-B": "1"}}, "pools.cpu.env.A-B"),
        ({"env": {"A": True}}, "pools.cpu.env.A: got True"),
        ({"env": {"A": "\0"}}, "pools.cpu: command and env may hold no NUL"),
    ],
    ids=str,
)
def test_what_a_pool_can_not_be(pool: dict[str, Any], words: str) -> None:
    recipe = ours.recipe_of().model_dump(mode="json", exclude={"generators"}) | {"generators": {"p": {"kind": "puppet"}}}
    with pytest.raises(BadRecipe) as refused:
        parse_recipe({**recipe, "pools": {"cpu": pool}})
    assert words in str(refused.value)


def test_a_call_that_comes_late_joins_and_starts_no_other_ray() -> None:
    late = "from factory import cluster; cluster.start({}, None); import ray; ray.shutdown(); ray.put(1)"
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "has not been started" in done.stderr
