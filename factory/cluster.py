"""Ray, started here or reached elsewhere, and whether the recipe's pools have room there."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

from manifests.errors import BadRecipe, Transient
from manifests.recipe import PoolSpec
from manifests.store import PASSED_ON, Store, answer_probe

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""messages carry digests, never frames"""
PROBED_FOLDERS = 100
"""of which each node opens a file; of more, so many that are spread over all"""
PROBE_TIMEOUT_S = 300.0
"""until every node has read the store, or has tried an interpreter"""
ASKED_VERSIONS = "import sys, ray; print(f'Ray {ray.__version__} with Python {sys.version_info[0]}.{sys.version_info[1]}')"


def start(pools: dict[str, PoolSpec], address: str | None) -> bool:
    """Have Ray. Says whether it was started, or joined, here, and so has to be left by us. Raises BadRecipe."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call that comes late must not join somebody else's Ray, or start one, and wait there
    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        _check_machine(pools)
    try:
        if address:
            _knock(address)
            ray.init(address=address, runtime_env={"env_vars": _environment()}, **quiet)
        else:
            wanted = sum(p.cpus * p.workers[0] for p in pools.values()) + 1
            cpus = max(os.cpu_count() or 1, int(wanted + 0.999))  # pools share the cores; Ray's count only places actors
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    except Exception as e:
        what = f"--address {address}: no Ray cluster lets us in there" if address else "Ray could not be started here"
        hint = " If it asks for a token, set RAY_AUTH_MODE=token and bring its ~/.ray/auth_token here." if address else ""
        raise BadRecipe(f"{what}: {str(e).splitlines()[0] if str(e) else type(e).__name__}.{hint}") from e
    try:
        check_places(pools)
    except BadRecipe:
        ray.shutdown()
        raise
    return True


def actor_options(spec: PoolSpec) -> dict[str, Any]:
    """What Ray is asked for one worker. An actor lies on one node, so whole GPUs of one worker do too."""
    options: dict[str, Any] = {"num_cpus": spec.cpus, "num_gpus": spec.gpus, "max_restarts": 0}
    if spec.accelerator:
        options["accelerator_type"] = spec.accelerator
    if spec.memory_gb:
        options["memory"] = int(spec.memory_gb * 1e9)
    if spec.resources:
        options["resources"] = dict(spec.resources)
    if environment := _runtime_env(spec):
        options["runtime_env"] = environment
    return options


def _runtime_env(spec: PoolSpec) -> dict[str, Any]:
    """What Ray adds to the job's own. A child's variables are the child's alone: a PYTHONPATH for it would break Ray's worker."""
    environment: dict[str, Any] = {}
    if spec.python:
        environment["py_executable"] = shlex.quote(spec.python)  # Ray gives it to a shell
    if spec.image:
        environment["image_uri"] = spec.image
    if spec.env and not spec.command:
        environment["env_vars"] = dict(spec.env)
    return environment


def nodes(without: Collection[str] = ()) -> list[dict[str, float]]:
    """Resources of every node that is alive, but for those of some ids."""
    return [dict(node["Resources"]) for node in _alive() if node["NodeID"] not in without]


def leaving() -> frozenset[str]:
    """Ids of the nodes that were told to go: preempted with notice, or no longer wanted by the autoscaler. Ray has no public call for it
    (2.60), so none are known where this one is not there; then such a node goes without notice."""
    with contextlib.suppress(Exception):
        from ray._private.state import state

        return frozenset(state.get_draining_nodes())
    return frozenset()


def probe(store: Store) -> None:
    """Have every node read a file that was written here. Raises BadRecipe with the node's address and the reason."""
    with store.probing() as written:
        for node, reason in _asked(answer_probe, _alive(), lambda node: (store.url, written, node["NodeID"])):
            if reason:
                raise BadRecipe(f"node {node['NodeManagerAddress']} can't use the store: {reason}")


def probe_files(paths: Collection[str]) -> None:
    """Have every node open one file of each folder, of at most `PROBED_FOLDERS`. Raises BadRecipe with the node's address and the file."""
    folders = {os.path.dirname(path): path for path in sorted(paths, reverse=True)}
    firsts = [folders[name] for name in sorted(folders)]
    some = firsts[:: math.ceil(len(firsts) / PROBED_FOLDERS)] if firsts else []
    for node, reason in _asked(answer_files, _alive(), lambda _: (some,)):
        if reason:
            where = f"node {node['NodeManagerAddress']} can't read the clips and pictures: {reason}"
            raise BadRecipe(f"{where}. They have to lie under the same path on every node.")


def answer_files(paths: list[str]) -> str:
    """On a node: the first of these files that can't be read, and why; nothing if all can."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as e:
            return f"{path}: {e.strerror}"
    return ""


def try_python(spec: PoolSpec, tried: set[str]) -> None:
    """Have every node that a worker may be placed on, and that is not yet in `tried`, start the pool's interpreter; good ones are added.

    Ray itself would start one that is not there, or has another Ray, over and over again without a word. Raises Transient with the reason.
    """
    if spec.python is None:
        return
    there = [node for node in _alive() if node["NodeID"] not in tried and _fits(_wish(spec), node["Resources"])]
    for node, reason in _asked(answer_python, there, lambda _: (spec.python, dict(spec.env))):
        if reason:
            raise Transient(f"node {node['NodeManagerAddress']}: {spec.python}: {reason}")
        tried.add(node["NodeID"])


def answer_python(python: str, env: dict[str, str]) -> str:
    """On a node: why Ray's workers can't run in this interpreter; nothing if they can."""
    import ray

    seen = {name: os.path.expandvars(value) for name, value in env.items()}
    try:
        asked = subprocess.run(
            [python, "-c", ASKED_VERSIONS], env={**os.environ, **seen}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=PROBE_TIMEOUT_S / 2,
        )  # fmt: skip
    except OSError as e:
        return f"{e.strerror}. Give pools an interpreter that is on every node where its workers fit."
    except subprocess.TimeoutExpired:
        return f"did not import ray within {PROBE_TIMEOUT_S / 2:g} s"
    if asked.returncode:
        return (asked.stderr.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
    here = f"Ray {ray.__version__} with Python {sys.version_info[0]}.{sys.version_info[1]}"
    said = (asked.stdout.strip().splitlines() or [""])[-1]
    return "" if said == here else f"it has {said or 'no Ray'}; the cluster has {here}, and both must be the same."


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _asked(
    question: Callable[..., str], of: list[dict[str, Any]], about: Callable[[dict[str, Any]], tuple[object, ...]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Every node with its answer, empty where there is nothing to complain of. A node that has gone since is left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = [
        ray.remote(question)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*about(node))
        for node in of
    ]
    for node, answer in zip(of, asked, strict=True):
        try:
            yield node, ray.get(answer, timeout=PROBE_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            yield node, f"no answer in {PROBE_TIMEOUT_S:g} s"
        except ray.exceptions.RayError:  # the node has gone since it was asked
            continue


def _knock(address: str) -> None:
    """Raise OSError at once where nothing listens: Ray itself would wait for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _check_machine(pools: dict[str, PoolSpec]) -> None:
    """Raise BadRecipe for a pool of more workers than one machine can be asked for."""
    cores = os.cpu_count() or 1
    most = max(16, 8 * cores)
    for name, spec in pools.items():
        if spec.workers[0] > most:
            raise BadRecipe(f"pools.{name}: {spec.workers[0]:g} workers; this machine has {cores} cores, at most {most} are started on it.")


def check_places(pools: dict[str, PoolSpec]) -> None:
    """Raise BadRecipe for a pool whose worker fits on no node of the cluster."""
    there = nodes()
    for name, spec in pools.items():
        if any(_fits(_wish(spec), node) for node in there):
            continue
        kinds = sorted({kind.partition(":")[2] for node in there for kind in node if kind.startswith("accelerator_type:")})
        largest = ", ".join(f"{max(node.get(kind, 0) for node in there):g} {kind}s" for kind in ("CPU", "GPU"))
        wish = f"{spec.cpus:g} CPUs, {spec.gpus:g} GPUs" + (f" of type {spec.accelerator}" if spec.accelerator else "")
        wish += (f", {spec.memory_gb:g} GB" if spec.memory_gb else "") + "".join(f", {n:g} {kind}" for kind, n in spec.resources.items())
        have = f"the largest node has {largest}; accelerators there are: {', '.join(kinds) or 'none'}"
        raise BadRecipe(f"pools.{name}: a worker asks {wish}; {have}. Lower pools.{name} or give --address of a larger cluster.")


def _wish(spec: PoolSpec) -> dict[str, float]:
    """What one worker takes of a node's resources."""
    asked = {"CPU": spec.cpus, "GPU": spec.gpus, "memory": (spec.memory_gb or 0) * 1e9, **spec.resources}
    return asked | ({f"accelerator_type:{spec.accelerator}": 0.001} if spec.accelerator else {})


def _fits(wish: dict[str, float], node: dict[str, float]) -> bool:
    return all(node.get(kind, 0) >= count for kind, count in wish.items())


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("MOTIONPAIR_CACHE", *PASSED_ON) if name in os.environ}
