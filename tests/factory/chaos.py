"""Runs that are disturbed at random moments: workers, nodes and the driver are killed while a recipe is made on a cluster of this machine.

    python tests/factory/chaos.py RECIPE FOLDER --runs 20 [--store s3://BUCKET/PREFIX] [--seed N]

Prints a line a run and fails when a release differs from that of an undisturbed run. `tests/factory/test_chaos.py` is the short form.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster
from running import call, motionpair, tree

CPUS = 2
"""of each node; three workers of the recipe's pool fit on two of them"""
PAUSE_S = (1.0, 6.0)
"""between two disturbances"""


class Chaos:
    """A cluster and what is done to it."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self._nodes = [self.cluster.add_node(num_cpus=CPUS) for _ in range(2)]
        self.cluster.wait_for_nodes()
        self.done: Counter[str] = Counter()

    def close(self) -> None:
        self.cluster.shutdown()

    def run(self, recipe: Path, out: Path, disturbances: int, *more: object) -> None:
        """One recipe to its end, however often the driver dies; a job that two kills in a row have struck is freed and made again."""
        command = motionpair("run", recipe, "--out", out, "--address", self.cluster.address, *more)
        process = self._started(command)
        for _ in range(disturbances):
            time.sleep(self._dice.uniform(*PAUSE_S))
            if process.poll() is not None:
                break
            what = self._dice.choice((self._kill_worker, self._lose_node, None))
            if what is None:
                process.kill()
                process.wait()
                self.done["driver"] += 1
                process = self._started(command)
            else:
                what()
        while (status := process.wait(600)) == 3:
            call("retry", out, "--all")
            self.done["retried"] += 1
            process = self._started(command)
        assert status == 0, process.stdout and process.stdout.read()

    def _started(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _kill_worker(self) -> None:
        """One process that runs an actor, of whatever node of this cluster."""
        found = processes()
        workers = [pid for pid, (parent, words) in found.items() if words.startswith("ray::Worker") and self._ours(found.get(parent))]
        if workers:
            os.kill(self._dice.choice(sorted(workers)), signal.SIGKILL)
            self.done["worker"] += 1

    def _ours(self, raylet: tuple[int, str] | None) -> bool:
        return raylet is not None and self.cluster.address in raylet[1]

    def _lose_node(self) -> None:
        """One of the nodes, with all on it; another one comes."""
        node = self._nodes.pop(self._dice.randrange(len(self._nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self.cluster.add_node(num_cpus=CPUS))
        self.done["node"] += 1


def processes() -> dict[int, tuple[int, str]]:
    """Number of every process → its parent's number and its command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                found[int(entry.name)] = int(parent), words
    return found


def final(release: Path) -> dict[str, bytes]:
    """The newest revision's files. A run that had to be retried has sealed what it had before: its number may differ, nothing else."""
    newest = max(folder for folder in release.iterdir() if folder.name.isdecimal())
    files = tree(newest)
    about = json.loads(files["dataset.json"])
    return files | {"dataset.json": json.dumps({name: value for name, value in about.items() if name != "revision"}).encode()}


def disturbed(recipe: Path, folder: Path, wanted: dict[str, bytes], runs: int, seed: int, more: Callable[[int], list[Any]]) -> Counter[str]:
    """So many disturbed runs, each compared with the undisturbed release; returns what was done."""
    done: Counter[str] = Counter()
    for number in range(runs):
        chaos = Chaos(seed + number)
        try:
            out = folder / f"run-{number}"
            chaos.run(recipe, out, 6, *more(number))
            made = final(out / "release")
            differ = sorted(name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name))
            assert not differ, f"run {number} made another release after {dict(chaos.done)}: {differ}"
        finally:
            chaos.close()
            done += chaos.done
        print(f"run {number}: the same release after {dict(chaos.done)}", flush=True)
    return done


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", default="")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    call("run", asked.recipe, "--out", asked.folder / "undisturbed")
    wanted = final(asked.folder / "undisturbed" / "release")
    stores = (lambda n: ["--store", f"{asked.store}/{n}"]) if asked.store else (lambda n: [])
    print(dict(disturbed(asked.recipe, asked.folder, wanted, asked.runs, asked.seed, stores)))


if __name__ == "__main__":
    sys.exit(main())
