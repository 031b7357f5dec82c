"""Work that only sleeps, and notes when it did. It stands in for generators, so that nothing but the engine is measured."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from factory.steps import step
from factory.workbench import Workbench
from manifests.errors import Transient
from manifests.records import Frozen


class NapRequest(Frozen):
    number: int
    seconds: float = 0.0
    log: str = ""
    """a file that gets a line for every nap that begins"""
    places: str = ""
    """a file that gets number, node and time of the same"""
    letter: str = ""
    """that makes the request longer"""
    answer_bytes: int = 0
    """that make the answer longer"""
    killer: bool = False
    """takes its worker with it"""
    needs: str = ""
    """the pool whose memory is large enough; empty: any"""
    stumbles: int = 0
    """times that something transient comes between; counted in the log"""


class Nap(Frozen):
    began_s: float
    """on the machine's monotonic clock, which all its processes share"""
    ended_s: float
    letter: str = ""


def _nap(request: NapRequest, bench: Workbench) -> Nap:
    began = time.monotonic()
    if request.log:
        with Path(request.log).open("a") as log:
            log.write(f"{request.number}\n")
    if request.places:
        import ray

        with Path(request.places).open("a") as places:
            places.write(f"{request.number} {ray.get_runtime_context().get_node_id()} {began}\n")
    if request.killer:
        os.kill(os.getpid(), signal.SIGKILL)
    if request.needs and bench.pool != request.needs:
        raise MemoryError
    if request.stumbles and Path(request.log).read_text().split().count(str(request.number)) <= request.stumbles:
        raise Transient("a share is not mounted just now")
    time.sleep(request.seconds)
    return Nap(began_s=began, ended_s=time.monotonic(), letter="z" * request.answer_bytes)


@step(depth=1)
def first_nap(request: NapRequest, bench: Workbench) -> Nap:
    """Sleep."""
    return _nap(request, bench)


@step(depth=2)
def second_nap(request: NapRequest, bench: Workbench) -> Nap:
    """Sleep later in a job's life."""
    return _nap(request, bench)


@step(depth=3)
def third_nap(request: NapRequest, bench: Workbench) -> Nap:
    """Sleep last."""
    return _nap(request, bench)
