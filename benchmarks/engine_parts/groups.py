"""A worker with eight GPUs (logical ones) that has started a process for each of them, and is killed with SIGKILL."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from pathlib import Path

from generators.workers.leash import Leashed

GPUS, ROUNDS = 8, 5
FAMILY = f"for i in $(seq {GPUS}); do sleep 600 & done; wait"


class Torchrunner:
    """Stands in for a worker that starts torchrun: a shell with a sleeper for each GPU, on a leash."""

    def __init__(self, mark: str) -> None:
        self.held = Leashed(["bash", "-c", FAMILY], env={**os.environ, mark: "1"}, stdout=subprocess.DEVNULL)

    def pid(self) -> int:
        return os.getpid()


def killed(folder: Path) -> dict[str, float]:
    """Seconds from the SIGKILL until the whole group is gone, and until the next worker has the same GPUs; medians and the most."""
    import ray

    ray.init(address="local", num_cpus=1, num_gpus=GPUS, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    gone_s, free_s = [], []
    made = ray.remote(Torchrunner).options(num_gpus=GPUS, num_cpus=0, max_restarts=0)
    try:
        actor = made.remote(f"{folder.name}_0")
        for number in range(ROUNDS):
            mark, pid = f"{folder.name}_{number}", ray.get(actor.pid.remote())
            while len(marked(mark)) < GPUS + 2:
                time.sleep(0.02)
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            actor = made.remote(f"{folder.name}_{number + 1}")
            while marked(mark):
                time.sleep(0.02)
            gone_s.append(time.monotonic() - began)
            ray.get(actor.pid.remote())
            free_s.append(time.monotonic() - began)
    finally:
        ray.shutdown()
    return {
        "group_gone_s": round(statistics.median(gone_s), 2), "group_gone_most_s": round(max(gone_s), 2),
        "next_stands_s": round(statistics.median(free_s), 2), "next_stands_most_s": round(max(free_s), 2),
    }  # fmt: skip


def marked(mark: str) -> list[int]:
    """Processes, other than defunct ones, with this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if mark.encode() in (entry / "environ").read_bytes() and "State:\tZ" not in (entry / "status").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
