"""A child in another environment, spoken to in lines of JSON. Real processes, killed for real."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_leash import group_of, wait_for

from generators.workers.lines import CHILD, Child, ChildDied, ChildFault
from manifests.errors import BadInput, OutOfMemory, OutOfSpace, Transient

MODEL = """
import errno, os, subprocess, sys, time

print("printed before anybody listens", end="", flush=True)
loaded = {"times": 0}

def load(message):
    if message.get("broken"):
        raise FileNotFoundError("no weights at " + message["broken"])
    loaded["times"] += 1
    loaded.update(message)
    return {"pid": os.getpid()}

class BadInput(Exception):
    code = "no_person"

class OutOfMemoryError(RuntimeError):
    pass

def handle(message):
    os.system("echo printed by a program that it called")
    print("printed by a library")
    what = message["do"]
    if what == "refuse":
        raise BadInput("nobody is in the picture")
    if what == "grow":
        raise OutOfMemoryError("CUDA out of memory")
    if what == "fill":
        raise OSError(errno.ENOSPC, "no space left on device")
    if what == "stumble":
        return {"nothing": object()}
    if what == "exit":
        print("these are my last words", file=sys.stderr)
        sys.exit(3)
    if what == "die":
        os.kill(os.getpid(), 9)
    if what == "sleep":
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    if what == "stop":
        os.kill(os.getpid(), 19)
    return {"python": sys.version_info[:2], "argv": sys.argv, "read": sys.stdin.read(), "echo": message.get("echo"), **loaded}
"""


@pytest.fixture
def child_of(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """`child_of(…)`: a child of the model above."""
    made: list[Child] = []
    script = tmp_path / "model.py"
    script.write_text(MODEL)

    def child_of(python: str = sys.executable, **more: object) -> Child:
        made.append(Child([python, str(CHILD), str(script), "--size", "4"], **more))  # type: ignore[arg-type]
        return made[-1]

    yield child_of
    for child in made:
        child.end()


def test_it_loads_once_and_answers(child_of: Callable[..., Child], capfd: pytest.CaptureFixture[str]) -> None:
    child = child_of(load={"weights": "here"})
    assert not child.alive
    pid = child.start()["pid"]
    large = "ä\n\x1e" * 300_000
    first, second = child.call({"do": "it", "echo": large}, 30), child.call({"do": "it"}, 30)
    assert (first["times"], second["times"], first["weights"]) == (1, 1, "here")
    assert first["echo"] == large
    assert first["argv"][1:] == ["--size", "4"]
    assert first["read"] == "", "the model must not read what is meant for us"
    assert child.alive
    os.kill(pid, 0)
    assert second["python"] == list(sys.version_info[:2])
    child.end()
    assert not child.alive
    printed = capfd.readouterr()
    assert not printed.out
    for line in ("before anybody listens\n", "by a program that it called\n", "by a library\n"):
        assert f"printed {line}" in printed.err


def test_what_it_raises_is_raised_here_by_its_response_and_it_lives_on(child_of: Callable[..., Child]) -> None:
    child = child_of()
    with pytest.raises(BadInput, match="nobody is in the picture") as refused:
        child.call({"do": "refuse"})
    assert refused.value.code == "no_person"
    assert "in the child:\nTraceback" in refused.value.__notes__[0]
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        child.call({"do": "grow"})
    with pytest.raises(OutOfSpace):
        child.call({"do": "fill"})
    with pytest.raises(ChildFault, match=r"TypeError: .*not JSON serializable"):
        child.call({"do": "stumble"})
    with pytest.raises(ChildFault, match="KeyError: 'do'"):
        child.call({})
    assert child.call({"do": "it"})["times"] == 1


def test_one_that_ends_tells_how_and_its_last_words_and_the_next_call_has_another(child_of: Callable[..., Child]) -> None:
    child = child_of()
    with pytest.raises(ChildDied, match=r"ended with exit status 137 \(SIGKILL\)"):
        child.call({"do": "die"}, 30)
    assert not child.alive
    assert child.call({"do": "it"}, 30)["times"] == 1
    with pytest.raises(ChildDied, match="ended with exit status 1; its last line: SystemExit: 3") as ended:
        child.call({"do": "exit"}, 30)
    assert "these are my last words" in ended.value.lines
    assert "these are my last words" in ended.value.__notes__[0]
    again = pickle.loads(pickle.dumps(ended.value))  # as it comes from another process
    assert (str(again), again.lines, again.__notes__) == (str(ended.value), ended.value.lines, ended.value.__notes__)


def test_one_that_exceeds_its_time_is_killed_with_all_that_it_started(child_of: Callable[..., Child]) -> None:
    marker = f"LINES_{os.getpid()}_A"
    child = child_of(env={marker: "1"})
    child.start()
    began = time.monotonic()
    with pytest.raises(ChildDied, match=r"gave no answer in 0\.5 s and was killed"):
        child.call({"do": "sleep"}, 0.5)
    assert time.monotonic() - began < 5
    wait_for(0, marker, 5)


def test_one_that_gives_no_sign_of_life_is_killed_without_a_time_limit(child_of: Callable[..., Child]) -> None:
    marker = f"LINES_{os.getpid()}_B"
    child = child_of(env={marker: "1"}, silence_s=3.0)
    with pytest.raises(ChildDied, match="no sign of life for 3 s"):
        child.call({"do": "stop"})
    wait_for(0, marker, 5)


def test_one_that_works_longer_than_the_silence_allowed_lives(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text("import time\ndef handle(message):\n    time.sleep(4)\n    return {'done': True}\n")
    with Child([sys.executable, str(CHILD), str(script)], silence_s=2.5) as child:
        assert child.call({}) == {"done": True}


def test_one_that_does_not_read_keeps_nobody_waiting() -> None:
    with Child(["sleep", "600"], load={"large": "x" * 1_000_000}, load_timeout_s=0.5) as child, pytest.raises(ChildDied, match="no answer"):
        child.start()


def test_what_does_not_start_says_why(child_of: Callable[..., Child], tmp_path: Path) -> None:
    with pytest.raises(ChildDied, match="exit status 127; its last line: /no/such/python: No such file or directory"):
        Child(["/no/such/python", "serve.py"]).start()
    with pytest.raises(ChildDied, match=r"No such file or directory: '/no/script\.py'"):
        Child([sys.executable, str(CHILD), "/no/script.py"]).start()
    child = child_of(load={"broken": "/weights"})
    for _ in range(2):
        with pytest.raises(ChildFault, match="FileNotFoundError: no weights at /weights"):
            child.call({"do": "it"})
        assert not child.alive


OWNER = """
import sys
from generators.workers.lines import CHILD, Child
child = Child([sys.executable, str(CHILD), sys.argv[1]])
child.start()
print("stands", flush=True)
child.call({"do": "sleep"})
"""


def test_a_killed_owner_takes_it_along(child_of: Callable[..., Child], tmp_path: Path) -> None:
    child_of()
    marker = f"LINES_{os.getpid()}_C"
    command = [sys.executable, "-c", OWNER, str(tmp_path / "model.py")]
    with subprocess.Popen(command, env={**os.environ, marker: "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"stands\n"
        wait_for(5, marker, 10)  # owner, who waits, guard, child, sleep
        owner.send_signal(signal.SIGKILL)
    wait_for(0, marker, 5)


def test_one_whose_owners_pipe_closes_ends_although_it_is_busy(child_of: Callable[..., Child], tmp_path: Path) -> None:
    """As behind `docker run -i`, where no leash reaches: its standard input is all that it has of us."""
    child_of()
    marker, command = f"LINES_{os.getpid()}_E", [sys.executable, str(CHILD), str(tmp_path / "model.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0, env={**os.environ, marker: "1"}
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b'\x1e{"id": 1, "call": {"do": "sleep"}}\n')
        process.stdin.flush()
        wait_for(2, marker, 30)  # it, and the sleep that it began
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(15) == 0
        os.killpg(process.pid, signal.SIGKILL)  # the sleep
    wait_for(0, marker, 5)


def test_the_childs_file_needs_an_old_python_and_nothing_else() -> None:
    tree = ast.parse(CHILD.read_text(encoding="utf-8"), feature_version=(3, 10))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def _python_310() -> str:
    found = shutil.which("python3.10")
    works = found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0
    return found if found and works else ""


@pytest.mark.skipif(not _python_310(), reason="there is no Python 3.10")
def test_another_python_serves(child_of: Callable[..., Child]) -> None:
    assert child_of(_python_310()).call({"do": "it"}, 30)["python"] == [3, 10]


def test_nothing_is_left() -> None:
    assert not group_of(f"LINES_{os.getpid()}_")


def test_an_error_that_may_pass_is_known_by_its_name(tmp_path: Path) -> None:
    script = tmp_path / "away.py"
    script.write_text("class Transient(Exception): pass\ndef handle(message):\n    raise Transient('a server is away')\n")
    with Child([sys.executable, str(CHILD), str(script)]) as child, pytest.raises(Transient, match="a server is away"):
        child.call({})
