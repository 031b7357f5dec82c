"""Ray, started here or reached elsewhere, and whether the recipe's pools have room there."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from manifests.errors import BadRecipe
from manifests.recipe import PoolSpec
from manifests.store import PASSED_ON, Store, answer_probe

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""messages carry digests, never frames"""
PROBE_TIMEOUT_S = 300.0
"""until every node has read the store"""


def start(pools: dict[str, PoolSpec], address: str | None) -> bool:
    """Have Ray. Says whether it was started, or joined, here, and so has to be left by us. Raises BadRecipe."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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
    return options


def nodes() -> list[dict[str, float]]:
    """Resources of every node that is alive."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def probe(store: Store) -> None:
    """Have every node read a file that was written here. Raises BadRecipe with the node's address and the reason."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    with store.probing() as written:
        asked = [
            ray.remote(answer_probe)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(store.url, written, node["NodeID"])
            for node in there
        ]
        for node, answer in zip(there, asked, strict=True):
            try:
                reason = ray.get(answer, timeout=PROBE_TIMEOUT_S)
            except ray.exceptions.GetTimeoutError:
                reason = f"no answer in {PROBE_TIMEOUT_S:g} s"
            except ray.exceptions.RayError:  # the node has gone since it was asked
                continue
            if reason:
                raise BadRecipe(f"node {node['NodeManagerAddress']} can't use the store: {reason}")


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
        asked = {"CPU": spec.cpus, "GPU": spec.gpus, "memory": (spec.memory_gb or 0) * 1e9, **spec.resources}
        if spec.accelerator:
            asked[f"accelerator_type:{spec.accelerator}"] = 0.001
        if any(all(node.get(kind, 0) >= count for kind, count in asked.items()) for node in there):
            continue
        kinds = sorted({kind.partition(":")[2] for node in there for kind in node if kind.startswith("accelerator_type:")})
        largest = ", ".join(f"{max(node.get(kind, 0) for node in there):g} {kind}s" for kind in ("CPU", "GPU"))
        wish = f"{spec.cpus:g} CPUs, {spec.gpus:g} GPUs" + (f" of type {spec.accelerator}" if spec.accelerator else "")
        wish += (f", {spec.memory_gb:g} GB" if spec.memory_gb else "") + "".join(f", {n:g} {kind}" for kind, n in spec.resources.items())
        have = f"the largest node has {largest}; accelerators there are: {', '.join(kinds) or 'none'}"
        raise BadRecipe(f"pools.{name}: a worker asks {wish}; {have}. Lower pools.{name} or give --address of a larger cluster.")


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("MOTIONPAIR_CACHE", *PASSED_ON) if name in os.environ}
