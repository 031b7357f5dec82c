"""A group of ranks under the real torchrun, on CPU with gloo, spoken to as one child. Processes are killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_leash import group_of, wait_for

pytest.importorskip("torch", reason="needs torch")

from generators.workers.group import as_response, served, torchrun
from generators.workers.leash import Leashed
from generators.workers.lines import Child, ChildDied, ChildFault
from manifests.errors import BadInput, MotionpairError, OutOfMemory, OutOfSpace, Transient

MODEL = """
import os, sys, time

print("printed by a rank at import")
state = {"loads": 0, "calls": 0}

class BadInput(Exception):
    code = "no_person"

class OutOfMemoryError(RuntimeError):
    pass

def load(message):
    import torch, torch.distributed as dist
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    state.update(message, loads=state["loads"] + 1, rank=dist.get_rank())
    return {"pid": os.getpid()}

def summed(value):
    import torch, torch.distributed as dist
    total = torch.tensor([float(value)])
    dist.all_reduce(total)
    return total.item()

def handle(message):
    state["calls"] += 1
    print("printed by rank", state["rank"])
    what, mine = message["do"], state["rank"] == message.get("rank", 1)
    if what == "refuse":
        raise BadInput("nobody is in the picture")
    if what == "grow" and mine:
        raise OutOfMemoryError("CUDA out of memory. " + "x" * 9000)
    if what == "stumble" and mine:
        summed(1)
        raise KeyError("after the last collective")
    if what == "stumble":
        summed(1)
        return {}
    if what == "die" and mine:
        os.kill(os.getpid(), 9)
    if what == "sleep":
        time.sleep(600)
    ranks = summed(10 ** state["rank"])
    return {"sum": summed(message.get("value", 0) + state["rank"]), "ranks": ranks, "read": sys.stdin.read(), **state}
"""
RANKS = 2


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("group") / "serve model.py"
    path.write_text(MODEL)
    return str(path)


@pytest.fixture
def group_of_ranks(script: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], tuple[Child, str]]]:
    """A child that is a group, and what marks its processes."""
    made: list[Child] = []

    def make() -> tuple[Child, str]:
        marker = f"RANKS_{os.getpid()}_{request.node.name}"
        made.append(Child(served(sys.executable, RANKS, script), load={"weights": "here"}, env={marker: "1", "OMP_NUM_THREADS": "1"}))
        return made[-1], marker

    yield make
    for child in made:
        child.end()


def test_every_rank_gets_every_message_and_errors_of_all_leave_the_group_alive(
    group_of_ranks: Callable[[], tuple[Child, str]], capfd: pytest.CaptureFixture[str]
) -> None:
    child, marker = group_of_ranks()
    pid = child.start()["pid"]
    first, second = child.call({"do": "it", "value": 20}, 60), child.call({"do": "it", "value": 0.5}, 60)
    assert (first["ranks"], first["sum"], second["sum"]) == (11, 41, 2)
    assert (first["loads"], second["loads"], second["calls"], first["weights"], first["read"]) == (1, 1, 2, "here", "")
    with pytest.raises(BadInput, match="nobody is in the picture") as refused:
        child.call({"do": "refuse"}, 60)
    assert refused.value.code == "no_person"
    for rank in range(RANKS):
        with pytest.raises(ChildFault, match="after the last collective"):
            child.call({"do": "stumble", "rank": rank}, 60)
    assert child.call({"do": "it"}, 60)["calls"] == 6
    os.kill(pid, 0)
    child.end()
    wait_for(0, marker, 5)
    printed = capfd.readouterr()
    assert not printed.out
    assert "printed by rank 1" in printed.err


@pytest.mark.parametrize("rank", range(RANKS))
def test_one_rank_without_memory_ends_the_group_and_is_told_as_that(rank: int, group_of_ranks: Callable[[], tuple[Child, str]]) -> None:
    child, marker = group_of_ranks()
    child.start()
    began = time.monotonic()
    with pytest.raises(OutOfMemory, match="CUDA out of memory") as lacking:
        child.call({"do": "grow", "rank": rank}, 60)
    assert time.monotonic() - began < 15
    assert lacking.value.__notes__[0].startswith("in the child:")
    assert not child.alive
    wait_for(0, marker, 5)
    if rank:
        assert child.call({"do": "it"}, 60)["calls"] == 1, "a new group"


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_rank_that_dies_takes_all_along(rank: int, group_of_ranks: Callable[[], tuple[Child, str]]) -> None:
    child, marker = group_of_ranks()
    child.start()
    with pytest.raises(ChildDied, match="ended with exit status") as died:
        child.call({"do": "die", "rank": rank}, 60)
    wait_for(0, marker, 5)
    assert died.value.status == 1, "torchrun's own, whatever its ranks do"
    assert isinstance(as_response(died.value), OutOfMemory), "killed, as the kernel does it that lacks memory"


def test_a_group_that_takes_too_long_is_killed(group_of_ranks: Callable[[], tuple[Child, str]]) -> None:
    child, marker = group_of_ranks()
    child.start()
    with pytest.raises(ChildDied, match=r"no answer in 0\.5 s") as late:
        child.call({"do": "sleep"}, 0.5)
    assert isinstance(as_response(late.value), Transient)
    wait_for(0, marker, 5)


OWNER = """
import sys
from generators.workers.group import served
from generators.workers.lines import Child
child = Child(served(sys.executable, 2, sys.argv[1]))
child.start()
print("loaded", flush=True)
child.call({"do": sys.argv[2]})
"""


def test_a_killed_owner_takes_the_ranks_along_though_they_have_sessions_of_their_own(script: str) -> None:
    marker = f"RANKS_{os.getpid()}_owner"
    env = {**os.environ, marker: "1", "OMP_NUM_THREADS": "1"}
    owner = subprocess.Popen([sys.executable, "-c", OWNER, script, "sleep"], env=env, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"loaded\n"
    ranks = [pid for pid in group_of(marker) if b"LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_bytes()]
    assert len(ranks) == 2
    assert len({os.getsid(pid) for pid in (*ranks, owner.pid)}) == 3, "torchrun gives each rank a session"
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert wait_for(0, marker, 5) < 5
    owner.stdout.close()


def test_a_program_that_is_run_once_under_torchrun_ends_with_its_leash(tmp_path: Path) -> None:
    marker = f"RANKS_{os.getpid()}_once"
    (tmp_path / "generate.py").write_text("import time\ntime.sleep(600)\n")
    held = Leashed(torchrun(sys.executable, 2, str(tmp_path / "generate.py")), env={**os.environ, marker: "1"})
    began = time.monotonic()
    while sum(b"LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_bytes() for pid in group_of(marker)) < 2:
        assert time.monotonic() - began < 60
        time.sleep(0.1)
    held.end()
    wait_for(0, marker, 5)


@pytest.mark.parametrize(
    ("status", "line", "expected"),
    [
        (None, "", Transient),
        (137, "", OutOfMemory),
        (1, "torch.OutOfMemoryError: CUDA out of memory", OutOfMemory),
        (1, "exitcode  : -9 (pid: 27197)  (SIGKILL)", OutOfMemory),
        (1, "OSError: [Errno 28] No space left on device", OutOfSpace),
        (127, "no such file", Transient),
        (143, "", Transient),
        (1, "KeyError: 'x'", MotionpairError),
    ],
)
def test_what_an_end_calls_for(status: int | None, line: str, expected: type[MotionpairError]) -> None:
    made = as_response(ChildDied("it ended", [line] if line else [], status))
    assert type(made) is expected
    assert [line in note for note in getattr(made, "__notes__", [])] == ([True] if line else [])


def test_a_group_has_at_least_one_rank() -> None:
    with pytest.raises(ValueError, match="ranks is 0"):
        served(sys.executable, 0, "x.py")
