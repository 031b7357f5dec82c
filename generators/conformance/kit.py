"""The rules, and how they are asked of any generator. Every rule is told apart: one that is broken does not break others, and what can't
be asked any more is said to be so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np

from generators.base import INPUTS, Capabilities, ImageGenerator, ImageRequest, Mode, Report, VideoGenerator, VideoRequest, scene_beside
from generators.poses.tracks import People
from manifests.errors import BadInput, BadOutput, MotionpairError
from manifests.records import Geometry

RULES: dict[str, str] = {
    "declares": "capabilities are those of its sort: modes, roles, at least one of each",
    "runs": "makes the sample in every mode that it declares",
    "writes_out": "writes its file to `out`, whatever its name",
    "frames": "the file has as many frames as the frame rule says",
    "size": "the file has a size that it declares",
    "rate": "the file has the rate that it declares",
    "shows": "the file can be read to its end, is not black and moves with the clip",
    "people": "takes two characters where it declares several",
    "deterministic": "the same request gives the same bytes twice, where it promises that",
    "refuses": "`validate` raises BadInput for what lies outside the capabilities",
    "names_errors": "a damaged input is no crash: what is raised is one of the project's own errors",
    "nothing_partial": "leaves no file behind when it fails",
    "verify_rejects": "`verify` raises BadOutput for a file that is missing, half-written, of another kind, black or frozen",
    "stays_in_place": "writes nothing beside `out`, the empty scene and the derived inputs",
    "keeps_inputs": "changes neither the files nor the arrays of its request",
    "reports": "its report fits the request",
}
"""each rule, and what it asks"""

State = Literal["held", "broken", "not asked"]
ARRAYS = ("landmarks_PT33x3", "world_PT33x3", "visibility_PT33", "present_PT", "masks_PTHW")
"""of People"""
R = TypeVar("R", ImageRequest, VideoRequest)


@dataclass(frozen=True)
class Found:
    """What became of one rule."""

    rule: str
    state: State
    words: str = ""


@dataclass(frozen=True)
class Sample:
    """A short real clip with the people in it, and pictures of other characters, at least as many as people."""

    clip: Path
    people: People
    pictures: tuple[Path, ...]
    geometry: Geometry


class Broken(Exception):
    """A rule does not hold, and why."""

    def __init__(self, rule: str, words: str) -> None:
        super().__init__(words)
        self.rule, self.words = rule, words


class NotAsked(Exception):
    """A rule does not concern this generator."""


@dataclass
class Kit(Generic[R]):
    """One generator under examination. Subclasses say how it is asked."""

    create: Callable[[], ImageGenerator | VideoGenerator]
    sample: Sample
    folder: Path
    found: dict[str, Found] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self.generator = self.create()
        self.can: Capabilities = self.generator.can

    def results(self) -> list[Found]:
        """All rules, in order."""
        with self._asking("declares"):
            self.declared()
        with self._asking("refuses"):
            self.refusals()
        with self._asking("verify_rejects"):
            self.bad_files()
        self._runs()
        return [self.found.get(rule, Found(rule, "not asked", "it makes no such thing")) for rule in RULES]

    def _runs(self) -> None:
        once = ("writes_out", "frames", "size", "rate", "shows", "stays_in_place", "keeps_inputs", "reports")
        with self._asking("runs", *once):
            self.generator.setup()
            for mode in sorted(self.modes()):
                self.observed(self.request(mode))
        if self.found["runs"].state != "held":
            for rule in ("people", "deterministic", "names_errors", "nothing_partial"):
                self.found[rule] = Found(rule, "not asked", "it does not run")
            return
        with self._asking("people"):
            self.several()
        with self._asking("deterministic"):
            self.twice()
        with self._asking("names_errors", "nothing_partial"):
            self.damaged()

    @contextmanager
    def _asking(self, *rules: str) -> Iterator[None]:
        """What is raised within is a finding; the first rule is the one that an unknown error breaks."""
        state, told = "held", ""
        try:
            yield
        except NotAsked as e:
            state, told = "not asked", str(e)
        except Broken as e:
            self.broken(e.rule, e.words)
        except (Exception, SystemExit) as e:
            self.broken(rules[0], f"{type(e).__name__}: {e}")
            state, told = "not asked", "it did not come so far"
        for rule in rules:
            self.found.setdefault(rule, Found(rule, state, told))  # type: ignore[arg-type]

    def broken(self, rule: str, words: str) -> None:
        """The first finding against a rule stands."""
        if rule not in self.found or self.found[rule].state != "broken":
            self.found[rule] = Found(rule, "broken", " ".join(words.split()))

    def place(self) -> Path:
        """A folder that nobody has used."""
        made = self.folder / f"{next(self._numbers):02d}"
        made.mkdir(parents=True)
        return made

    # --- what subclasses say

    def modes(self) -> frozenset[Mode]:
        """Those that can be asked."""
        raise NotImplementedError

    def request(self, mode: Mode, people: int = 1) -> R:
        """A request with fresh copies of its files."""
        raise NotImplementedError

    def files_of(self, request: R) -> list[Path]:
        """All files that it names."""
        raise NotImplementedError

    def life(self, request: R, out: Path) -> Report:
        """prepare, validate and run, without verify."""
        raise NotImplementedError

    def check(self, request: R, out: Path) -> None:
        """What `verify` has to find, whatever the generator's own does."""
        raise NotImplementedError

    def out(self) -> Path:
        """A name to write to, with a space in it."""
        raise NotImplementedError

    def declared(self) -> None:
        """Rule "declares"."""
        raise NotImplementedError

    def refusals(self) -> None:
        """Rule "refuses"."""
        raise NotImplementedError

    def bad_files(self) -> None:
        """Rule "verify_rejects"."""
        raise NotImplementedError

    # --- rules that are the same for all

    def observed(self, request: R) -> Path:
        """Run once and look at everything that it left."""
        before, people = {path: path.read_bytes() for path in self.files_of(request)}, copied(request.clip_people)
        out = self.out()
        report = self.life(request, out)
        self.inspected(request, out)
        allowed = {out.name, scene_beside(out).name, INPUTS}
        if other := sorted(path.name for path in out.parent.iterdir() if path.name not in allowed):
            self.broken("stays_in_place", f"left {', '.join(other)} beside its file")
        if changed := sorted(path.name for path, data in before.items() if not path.is_file() or path.read_bytes() != data):
            self.broken("keeps_inputs", f"changed {', '.join(changed)}")
        if not alike(people, request.clip_people):
            self.broken("keeps_inputs", "changed the arrays of clip_people")
        self._reported(report, request)
        return out

    def inspected(self, request: R, out: Path) -> None:
        """The file, as `verify` should see it."""
        if not out.is_file():
            self.broken("writes_out", f"{out.name} was not written")
            return
        rules = {"wrong_frames": "frames", "wrong_size": "size", "wrong_fps": "rate"}
        try:
            self.check(request, out)
        except BadOutput as e:
            self.broken(rules.get(e.code, "shows"), e.message)

    def _reported(self, report: object, request: R) -> None:
        frames = request.geometry.frames
        if not isinstance(report, Report):
            self.broken("reports", f"`run` returned {type(report).__name__}, not a Report")
        elif report.per_frame and len(report.per_frame) != frames:
            self.broken("reports", f"per_frame has {len(report.per_frame)} values for {frames} frames")
        elif any(not 0 <= start < stop <= frames for start, stop in report.stretches):
            self.broken("reports", f"stretches {report.stretches} do not lie within {frames} frames")

    def several(self) -> None:
        """Rule "people"."""
        raise NotAsked("it takes one character")

    def twice(self) -> None:
        """Rule "deterministic": two generators, each set up by itself."""
        if not self.can.deterministic:
            raise NotAsked("it does not promise that")
        mode, made = min(self.modes()), []
        for generator in (self.create(), self.create()):
            self.generator = generator
            generator.setup()
            out = self.out()
            self.life(self.request(mode), out)
            made.append([path.read_bytes() if path.is_file() else b"" for path in (out, scene_beside(out))])
        if made[0] != made[1]:
            raise Broken("deterministic", "the same request gave other bytes the second time")

    def damaged(self) -> None:
        """Rules "names_errors" and "nothing_partial": each of the files in turn is cut off."""
        mode = min(self.modes())
        for i in range(len(self.files_of(self.request(mode)))):
            request, out = self.request(mode), self.out()
            path = self.files_of(request)[i]
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
            try:
                self.life(request, out)
            except MotionpairError:
                pass
            except (Exception, SystemExit) as e:
                self.broken("names_errors", f"with {path.name} cut off it raised {type(e).__name__}: {e}")
            else:
                continue  # it has no use for this file, or makes do with what is left of it
            if left := sorted(p.name for p in out.parent.iterdir() if p.name != INPUTS):
                self.broken("nothing_partial", f"with {path.name} cut off it failed and left {', '.join(left)}")

    def refused(self, what: str, ask: Callable[[], None]) -> None:
        """Raise Broken unless BadInput comes of it."""
        try:
            ask()
        except BadInput:
            return
        except (Exception, SystemExit) as e:
            raise Broken("refuses", f"{what}: {type(e).__name__} instead of BadInput: {e}") from e
        raise Broken("refuses", f"{what} was not refused")

    def rejected(self, what: str, ask: Callable[[], None]) -> None:
        """Raise Broken unless BadOutput comes of it."""
        try:
            ask()
        except BadOutput:
            return
        except (Exception, SystemExit) as e:
            raise Broken("verify_rejects", f"{what}: {type(e).__name__} instead of BadOutput: {e}") from e
        raise Broken("verify_rejects", f"{what} was taken for good")


def copied(people: People) -> People:
    """The same in arrays of its own."""
    return replace(people, **{name: getattr(people, name).copy() for name in ARRAYS})


def alike(a: People, b: People) -> bool:
    """Whether all arrays are the same."""
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)
