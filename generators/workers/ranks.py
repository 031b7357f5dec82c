"""One process of a group that torchrun started: rank 0 hears the owner as `child.py` does and passes every message on to the others.

Like `child.py` this file needs Python 3.10, the standard library and the model's own torch. In a model's own environment

    torchrun --standalone --nproc-per-node 8 …/ranks.py serve_model.py

calls `load(message)`, if there is one, and `handle(message)` of serve_model.py in every rank with the same message; what rank 0 returns is
the answer. The script sets up its own process group (`torch.distributed.init_process_group`) in `load`.

Messages go through the key-value store that torchrun itself runs, not through the model's process group: a broadcast that waits an hour
for the next job would occupy the GPUs and trip the time limits of NCCL. Each rank leaves there how a message ended for it. Where all ranks
come to an end the group lives on. Where one raises while others are still at work, these wait for it in a collective operation for ever:
after GRACE_S the error is told as fatal, and the owner ends the group.
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

GRACE_S = 5.0
"""for the others to end too, once one has raised"""
LOOK_S = 0.05
WAIT = timedelta(days=1)
WHOLE_BYTES = 4096
"""up to which one write to a pipe is not mixed with those of others"""

Handler = Callable[["dict[str, Any]"], "dict[str, Any] | None"]


class Unequal(Exception):
    """What another rank raised, as it was told."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.told = told


class Group:
    """The ranks as one of them sees them."""

    def __init__(self, found: dict[str, Any], child: Any) -> None:
        from torch.distributed import PrefixStore, TCPStore

        self._child, self._found = child, found
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        agent = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=WAIT)
        self._store = PrefixStore("motionpair", agent)
        self._count = 0

    def lead(self) -> None:
        """Rank 0: answer the owner until its pipe closes."""

        def everywhere(name: str) -> Handler:
            def handle(message: dict[str, Any]) -> dict[str, Any]:
                self._count += 1
                self._store.set(f"job{self._count}", json.dumps({name: message}))
                return self._led(name, message)

            return handle

        self._child.serve(everywhere("handle"), everywhere("load"))

    def _led(self, name: str, message: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = self._do(name, message)
        except Exception as error:
            told = self._child.told(error)
            self._end(told)
            raise Unequal({**told, "fatal": not self._all_ended()}) from error
        self._end({})
        for rank in range(1, self.size):  # a rank that dies takes this one along: torchrun sees to that
            self._wait(rank)
            if other := json.loads(self._store.get(self._key(rank))):
                raise Unequal(other)
        return answer

    def follow(self, out: int) -> None:
        """Another rank: do what rank 0 passes on, until torchrun ends it."""
        while True:
            self._count += 1
            while not self._store.check([f"job{self._count}"]):
                time.sleep(LOOK_S)
            ((name, message),) = json.loads(self._store.get(f"job{self._count}")).items()
            try:
                self._do(name, message)
                self._end({})
            except Exception as error:
                told = self._child.told(error)
                self._end(told)
                if not self._all_ended():
                    os.write(out, self._fatal(told))
                    time.sleep(GRACE_S)  # the owner ends the group; if it does not, torchrun does
                    os._exit(1)

    def _fatal(self, told: dict[str, Any]) -> bytes:
        for length in (1500, 300, 0):
            details = f"rank {self.rank}:\n{told['details'][-length:]}" if length else ""
            short = {**told, "message": told["message"][:500], "details": details}
            line: bytes = self._child.MARK + json.dumps({"fatal": short}).encode() + b"\n"
            if len(line) <= WHOLE_BYTES:
                break
        return line

    def _do(self, name: str, message: dict[str, Any]) -> dict[str, Any]:
        function = self._found.get(name)
        return (function(message) if function else None) or {}

    def _key(self, rank: int) -> str:
        return f"end{self._count}/{rank}"

    def _end(self, told: dict[str, Any]) -> None:
        self._store.set(self._key(self.rank), json.dumps(told))

    def _wait(self, rank: int) -> None:
        while not self._store.check([self._key(rank)]):
            time.sleep(LOOK_S)

    def _all_ended(self) -> bool:
        due_s = time.monotonic() + GRACE_S
        keys = [self._key(rank) for rank in range(self.size)]
        while not (ended := self._store.check(keys)) and time.monotonic() < due_s:
            time.sleep(LOOK_S)
        return bool(ended)


def _beside(name: str) -> Any:
    """A module of this folder, which need not be one of a package here."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"ranks_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _main(script: str, *arguments: str) -> None:
    leads = os.environ["RANK"] == "0"
    out = 1
    if not leads:  # standard input and output are the same pipes in all ranks, and rank 0's
        out, nothing = os.dup(1), os.open(os.devnull, os.O_RDONLY)
        os.dup2(2, 1)
        os.dup2(nothing, 0)
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    group = Group(runpy.run_path(script, run_name="served"), _beside("child"))
    if leads:
        group.lead()
    else:
        group.follow(out)


if __name__ == "__main__":
    _main(*sys.argv[1:])
