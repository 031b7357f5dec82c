"""Whether a call that ended without an answer is anybody's fault, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno

from factory.worker import last_words
from manifests.errors import MotionpairError

LAST_WORDS_S = 10.0
"""for a node to tell what its dead worker left"""
_FULL = {errno.ENOSPC, errno.EDQUOT}


def nobodys_fault(error: BaseException) -> bool:
    """The node went or was preempted, it ran out of memory and Ray's monitor chose this worker, or a message had no room or was lost."""
    import ray

    kinds = ray.exceptions
    if isinstance(error, kinds.NodeDiedError | kinds.OutOfMemoryError | kinds.ActorUnavailableError | kinds.ActorUnschedulableError):
        return True
    words = str(error).lower()
    return message_lost(error) or (
        isinstance(error, kinds.RayActorError)
        and (
            error.preempted
            or any(sign in words for sign in ("node has died", "node was terminated", "node died", "memory monitor", "low on memory"))
        )
    )


def message_lost(error: BaseException) -> bool:
    """A request or an answer found no room in Ray's object store or on the node's disk, or was lost there. The worker may be well."""
    import ray

    kinds = ray.exceptions
    cause = getattr(error, "cause", error)  # of an error that was raised on a worker
    return isinstance(error, kinds.ObjectStoreFullError | kinds.OutOfDiskError | kinds.ObjectLostError) or (
        isinstance(cause, OSError) and cause.errno in _FULL
    )


def told(error: BaseException, timeout_s: float) -> str:
    """An error of a remote call in one line."""
    import ray

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, TimeoutError):
        return f"no answer in {timeout_s:g} s"
    if isinstance(error, MotionpairError):
        return error.message
    if isinstance(error, ray.exceptions.RayActorError):
        raised = lines and "creation task" in lines[0]  # its traceback follows, of which the last line says most
        return f"its worker died: {lines[-1 if raised else 0] if lines else 'no reason given'}"
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


async def words_of(ready: dict[str, str]) -> tuple[str, str]:
    """See factory.worker.last_words, read on the worker's node; nothing where that is gone too."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with contextlib.suppress(Exception):
        if ready["node"] == ray.get_runtime_context().get_node_id():
            return last_words(ready)
        there = NodeAffinitySchedulingStrategy(ready["node"], soft=False)
        reading = ray.remote(last_words).options(num_cpus=0, scheduling_strategy=there).remote(ready)
        lines, key = await asyncio.wait_for(reading, LAST_WORDS_S)
        return str(lines), str(key)
    return "", ""
