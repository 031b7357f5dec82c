"""A program that somebody else wrote, run once for each request: what a recipe says of it, its command line, and how its end is read.

The program is started without a shell, on a leash, in a fresh folder of the call's own, so that no output can be an earlier one's and
nothing that it leaves behind is kept. Exit code 0 means nothing until its file has been inspected.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from generators.workers.declared import UNKEYED as DECLARED_ONLY
from generators.workers.declared import Declared
from generators.workers.leash import Leashed
from generators.workers.listening import Listener
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, OutOfMemory, OutOfSpace, Transient

Argument = str | tuple[str, ...]
"""a string, or a group of strings that is left out when one of its placeholders has no value"""
Values = Mapping[str, str | tuple[str, ...] | None]

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
OOM = r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|std::bad_alloc|MemoryError|^exitcode\s*: -9\b"
"""the last: torchrun ends with 1 whatever its ranks do, and tells in its report of one that was killed"""
FULL_DISK = re.compile(r"No space left on device|Disk quota exceeded")
KILLED, TERMINATED, NOT_FOUND = 137, 143, (126, 127)
"""exit codes: SIGKILL, as the kernel's own out-of-memory killer sends it; SIGTERM; no such program"""
SOURCE_BYTES = 16 << 20
"""files named in the command line up to this size enter the step key by digest, larger ones (weights) by size"""
EDITED_BY_HAND = frozenset({".py", ".sh", ".yaml", ".yml"})
LOOK_EVERY_S = 0.2
ARGUMENT_BYTES_MAX = (128 << 10) - 1
"""Linux's own limit, MAX_ARG_STRLEN, with the zero at the end"""


class CommandOptions(Declared):
    """What a recipe says of a program: how it is called, how its end is read, and what it can do."""

    argv: tuple[Argument, ...] = Field(min_length=1)
    """program and arguments, with placeholders"""
    env: dict[str, str] = Field(default_factory=dict)
    """beside the worker's own environment"""
    cwd: str = ""
    """where it runs; without it in the call's own folder"""
    output: str = ""
    """a pattern below `{folder}` that exactly one file matches at the end, for programs that name their own output; without it, `{out}`"""
    timeout_s: float = Field(default=1500.0, gt=0)
    """below the pool's"""
    progress: str = ""
    """a regular expression; a line that matches is a sign of life and is told when the program is given up"""
    silent_s: float | None = Field(default=None, gt=0)
    """given up after so long without a line that matches `progress`"""
    oom_pattern: str = OOM
    """a line of a program that failed: it lacked memory"""
    bad_input_codes: tuple[int, ...] = (65,)
    """exit codes that say: this input can't be used (EX_DATAERR)"""
    transient_codes: tuple[int, ...] = (75,)
    """exit codes that say: try again later (EX_TEMPFAIL)"""

    @field_validator("progress", "oom_pattern")
    @classmethod
    def _compiles(cls, v: str) -> str:
        try:
            re.compile(v)
        except re.error as e:
            raise ValueError(f"{v!r} is no regular expression: {e}") from None
        return v

    @field_validator("env")
    @classmethod
    def _names(cls, v: dict[str, str]) -> dict[str, str]:
        if bad := [name for name in v if not name or "=" in name or "\0" in name + v[name]]:
            raise ValueError(f"{bad[0]!r} can't be the name of an environment variable")
        return v

    @model_validator(mode="after")
    def _consistent(self) -> CommandOptions:
        if not isinstance(self.argv[0], str) or PLACEHOLDER.search(self.argv[0]):
            raise ValueError("argv begins with the program, a string without placeholders")
        if not self.output and "out" not in self.placeholders():
            raise ValueError("argv has no {out}: say where the program is to write, or give `output`, a pattern below {folder}")
        if Path(self.output).is_absolute() or ".." in Path(self.output).parts:
            raise ValueError(f"output is a pattern below the call's own folder, got {self.output!r}")
        if self.silent_s and not self.progress:
            raise ValueError("silent_s counts from the last line that matches `progress`: give that too")
        return self

    def placeholders(self) -> set[str]:
        """All that the command line asks for."""
        return {name for argument in self.argv for part in _parts(argument) for name in PLACEHOLDER.findall(part)}

    def checked(self, known: frozenset[str]) -> None:
        """Raise ValueError when the command line asks for what there is not."""
        if unknown := sorted(self.placeholders() - known):
            raise ValueError(f"argv: unknown placeholder {{{unknown[0]}}}; there are {', '.join(sorted(known))}")

    def missing(self) -> list[str]:
        """The program, and the folder that it runs in, where they are not on this machine."""
        program = _parts(self.argv[0])[0]
        place = os.path.join(self.cwd, program) if os.sep in program else program
        out = [f"no folder {self.cwd}"] if self.cwd and not Path(self.cwd).is_dir() else []
        if not shutil.which(place):
            out.append(f"no right to execute {program}" if Path(place).is_file() and os.sep in program else f"no program {program}")
        return out


def _parts(argument: Argument) -> tuple[str, ...]:
    return (argument,) if isinstance(argument, str) else argument


# --- the step key

UNKEYED = DECLARED_ONLY | {
    "cwd", "timeout_s", "progress", "silent_s", "oom_pattern", "bad_input_codes", "transient_codes",
}  # fmt: skip
"""what no pixel can depend on, or stands in the request anyway"""


def keyed(options: dict[str, Any]) -> dict[str, Any]:
    """The options as far as they can change pixels. Files that the command line names count by their content, not by where they lie."""
    cwd = str(options.get("cwd") or "")
    argv = [[_content(part, cwd, first=not i) for part in _parts(_frozen(a))] for i, a in enumerate(options.get("argv") or ())]
    return {name: value for name, value in options.items() if name not in UNKEYED} | {"argv": argv}


def _frozen(argument: Any) -> Argument:
    return argument if isinstance(argument, str) else tuple(map(str, argument))


def _content(part: str, cwd: str, first: bool) -> str:
    """A part of the command line; of a file that it names (after `=` too) its name and digest, of a program its name."""
    option, equals, value = part.partition("=") if part.startswith("-") else ("", "", part)
    path = Path(cwd, value)
    # Without a cwd the program runs in a folder that is not there yet: a relative name is no file that could be meant.
    if PLACEHOLDER.search(value) or not value or not path.is_absolute() or not path.is_file():
        return part if not first else Path(part).name
    if first and not _is_script(path):
        return path.name
    about = path.stat()
    content = _digest(str(path), about.st_mtime_ns) if about.st_size <= SOURCE_BYTES else f"{about.st_size} bytes"
    return f"{option}{equals}{path.name} {content}"


class Sources:
    """The scripts and settings that a command line names, as they were when this worker first had to do with them."""

    def __init__(self, options: CommandOptions) -> None:
        self._options = options
        self._began = self._now()

    def check(self) -> None:
        """Raise BadRecipe when one was edited since: the keys that the run has given out are those of what it said before."""
        for edited in sorted(self._began - self._now()):
            name = edited.rpartition(" ")[0]
            raise BadRecipe(f"{name} was edited while the run was at work. Run again: what was made before stays, the rest is made anew.")

    def _now(self) -> set[str]:
        parts: list[list[str]] = keyed(self._options.model_dump())["argv"]
        # Others may be what the program itself writes: a log, a cache.
        return {part for of_one in parts for part in of_one if Path(part.rpartition(" ")[0]).suffix in EDITED_BY_HAND}


def _is_script(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(2) == b"#!"


@functools.lru_cache(maxsize=256)
def _digest(path: str, changed_ns: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# --- one call


def filled(argv: Sequence[Argument], values: Values) -> list[str]:
    """The command line. A part that is nothing but one placeholder of several values becomes as many arguments.

    Raises BadInput("input_missing") when something has no value and stands in no group, and for text that can't be an argument.
    """
    out: list[str] = []
    for argument in argv:
        parts = _parts(argument)
        lacking = [name for part in parts for name in PLACEHOLDER.findall(part) if not values.get(name) and values.get(name) != ""]
        if lacking and isinstance(argument, str):
            raise BadInput(f"the command asks for {{{lacking[0]}}}, which this request has not; put it into a group", "input_missing")
        if not lacking:
            out += [filled_in for part in parts for filled_in in _filled(part, values)]
    for part in out:
        if "\0" in part or any("\ud800" <= c <= "\udfff" for c in part):
            raise BadInput("a prompt with a zero byte or half a character can't be an argument; write another", "bad_prompt")
        if len(part.encode()) > ARGUMENT_BYTES_MAX:
            raise BadInput(f"a prompt may have {ARGUMENT_BYTES_MAX} bytes as an argument; write a shorter one", "bad_prompt")
    return out


def _filled(part: str, values: Values) -> list[str]:
    alone = PLACEHOLDER.fullmatch(part)
    value = values[alone[1]] if alone else None
    if isinstance(value, tuple):
        return list(value)
    return [PLACEHOLDER.sub(lambda m: str(_single(values[m[1]])), part)]


def _single(value: str | tuple[str, ...] | None) -> str:
    return " ".join(value) if isinstance(value, tuple) else value or ""


@contextmanager
def own_folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside `out`, with `in` for copies and `out` for the program's own files; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="call-", dir=out.parent) as folder:
        for name in ("in", "out"):
            Path(folder, name).mkdir()
        yield Path(folder)


def copied(path: Path, folder: Path, name: str) -> str:
    """A copy under a plain name: the program may not reach what is stored."""
    target = folder / f"{name}{path.suffix}"
    shutil.copyfile(path, target)
    return str(target)


def call(options: CommandOptions, values: Values, folder: Path, out: Path) -> None:
    """Run the program in `folder`; its file is then at `out`.

    Raises BadInput, Transient, OutOfMemory, OutOfSpace and MotionpairError by the exit code and the last lines, Transient when it takes
    too long, BadOutput when it ends well and has not written exactly one file.
    """
    target = folder / out.name
    argv = filled(options.argv, {**values, "folder": str(folder), "out": str(target)})
    code, listener = _ended(options, argv, folder)
    found = [target] if not options.output else sorted(folder.glob(options.output))
    whole = [path for path in found if path.is_file() and path.stat().st_size and _lies_in(path, folder)]
    if code or len(whole) != 1:
        print(listener.tail(), file=sys.stderr, flush=True)  # a quarantined call shows what its worker said last
        raise _failure(options, argv[0], code, listener, len(whole))
    os.replace(whole[0], out)


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether it is a file of the folder itself, not one that a link on its way leads to."""
    return not path.is_symlink() and path.resolve().is_relative_to(folder.resolve())


def _ended(options: CommandOptions, argv: list[str], folder: Path) -> tuple[int, Listener]:
    """The exit code and what was said. Raises Transient when it has to be given up, or can't be started here."""
    try:
        # Whatever this worker's locale can say: arguments are UTF-8.
        held = Leashed([part.encode() for part in argv], cwd=options.cwd or folder, env={**os.environ, **options.env}, **Listener.streams())
    except OSError as e:
        raise Transient(f"{argv[0]} can't be started on this node: {e}") from e
    with held:
        listener = Listener(held.process, options.progress, (options.oom_pattern, FULL_DISK.pattern))
        began = time.monotonic()
        while (code := held.process.poll()) is None:
            now = time.monotonic()
            silent = options.silent_s and now - listener.heard_at > options.silent_s
            if now - began > options.timeout_s or silent:
                limit = f"{options.silent_s:g} s without a sign of life" if silent else f"{options.timeout_s:g} s"
                raise Transient(f"{argv[0]} was given up after {limit}; its last progress: {listener.progress or 'none'}")
            listener.wait(LOOK_EVERY_S)
    listener.finish()
    return code, listener


def _failure(options: CommandOptions, program: str, code: int, listener: Listener, files: int) -> MotionpairError:
    name, last = Path(program).name, listener.last_words()
    said = f"{name} ended with exit code {code}: {last}"
    if code == KILLED or (options.oom_pattern and options.oom_pattern in listener.matched):
        return OutOfMemory(said)
    if FULL_DISK.pattern in listener.matched:
        return OutOfSpace(said)
    if not code:
        return BadOutput(f"{name} ended well and left {files} files where one is expected; its last words: {last}", "no_output")
    if code in options.bad_input_codes:
        return BadInput(said, "refused")
    if code in options.transient_codes or code == TERMINATED or (code in NOT_FOUND and options.missing()):
        return Transient(said)
    return MotionpairError(said)
