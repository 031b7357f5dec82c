"""What a worker has at hand: the store, a folder for files, the models it has loaded, and where the clips lie."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from agents.inspected import Networks
from factory import steps
from factory.steps import Step
from generators import extractors, registry, shipped
from generators.base import Generator
from generators.extractors import Extraction
from generators.poses.details import DetailReader
from generators.poses.extractor import PoseExtractor
from generators.poses.lettering import TextFinder
from generators.poses.people import PeopleTracker
from generators.poses.tracks import People
from manifests.errors import BadAnswer, BadInput, BadRecipe, Damaged, OutOfMemory, OutOfSpace, Rejected, Transient
from manifests.records import Artifact, Digest, Frozen, canonical_json, digest_of
from manifests.store import Cost, Outcome, Store

TEMPORARY = "motionpair-worker-"
"""first part of the names of workers' folders; the worker's process number follows"""


def sweep_temporary() -> None:
    """Remove the folders of workers of this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        number = folder.name.removeprefix(TEMPORARY).partition("-")[0]
        if number.isdecimal() and not Path("/proc", number).exists() and Path("/proc").is_dir():
            shutil.rmtree(folder, ignore_errors=True)


class Fault(Frozen):
    """A call that ended without an outcome: nothing is remembered of it."""

    response: Literal["transient", "damaged", "out_of_memory", "out_of_space", "bad_recipe", "error"]
    message: str
    details: str = ""
    """traceback"""


class Workbench:
    """One worker's tools. Heavy ones are loaded on first use and kept."""

    def __init__(
        self, store_url: str, files: dict[str, str], pool: str = "local", gpus: float = 0.0, accelerator: str = "",
        texts: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """`files`: where clips and pictures lie, by digest; `texts`: of the user's own files, as the driver has read them."""
        self.store = Store(store_url)
        shipped.receive(texts or {})
        self.pool, self.gpus, self.accelerator = pool, gpus, accelerator
        self._files = files
        self._tracker: PeopleTracker | None = None
        self._detail_reader: DetailReader | None = None
        self._text_finder: TextFinder | None = None
        self.networks = Networks()
        """of the checker"""
        self._extractors: dict[str, PoseExtractor] = {}
        self._generators: dict[str, Generator] = {}
        self._kept: list[Artifact] = []
        self._opened: set[str] = set()
        self._read: dict[str, int] = {}
        """digest → bytes of what the step has opened"""
        self._checked: set[str] = set()
        self._folder: Path | None = None
        self._key = ""
        """of the step that is run"""
        self._until_done = contextlib.ExitStack()

    def run(self, name: str, request: dict[str, Any], key: str, job: str = "", slice_: str = "") -> dict[str, Any]:
        """Run one step and write its outcome to the store; returns the Outcome or a Fault as a dict with the key `type`.

        `job` and its slice are charged with what it takes.
        """
        step = steps.named(name)
        parsed = step.request.model_validate(request)
        self._kept, self._key = [], key
        self._opened = set()
        self._read = {}
        began = time.perf_counter()
        try:
            with contextlib.ExitStack() as self._until_done:
                outcome = self._outcome(step, parsed)
            cost = self._cost(time.perf_counter() - began, job, slice_)
            about = {"key": key, "step": name, "artifacts": self._kept, "request": parsed.model_dump(mode="json"), "cost": cost}
            standing = self.store.put_outcome(Outcome.model_validate(outcome | about))
        except (Exception, SystemExit) as e:  # some research code ends with sys.exit, and would take the loaded model along
            return {"type": "fault", **_fault(e).model_dump()}
        return {"type": "outcome", **standing.model_dump(mode="json")}

    def _cost(self, seconds: float, job: str, slice_: str) -> Cost:
        made = {artifact.digest: artifact.size for artifact in self._kept}
        return Cost(
            seconds=round(seconds, 4), pool=self.pool, gpu_seconds=round(seconds * self.gpus, 4),
            accelerator=self.accelerator if self.gpus else "", bytes_in=sum(self._read.values()), bytes_out=sum(made.values()), job=job,
            slice=slice_,
        )  # fmt: skip

    def _outcome(self, step: Step[Any, Any], request: Frozen) -> dict[str, Any]:
        try:
            return {"status": "ok", "answer": step.run(request, self).model_dump(mode="json")}
        except (BadInput, BadAnswer, Rejected) as e:
            if e.code in ("unreadable", "missing"):  # the disk's fault or the mount's, not the clip's
                raise Transient(e.message) from e
            return {"status": "rejected", "reason": e.code, "message": self._without_paths(e.message)}

    def _without_paths(self, message: str) -> str:
        """Where a file lies is no part of an outcome: it may be elsewhere when the outcome is read again."""
        for path in (*self._opened, str(self._folder)) if self._folder else self._opened:
            message = message.replace(path, "the file")
        return message

    @property
    def folder(self) -> Path:
        """A folder of the call's own, made when it is first asked for and gone at its end."""
        if self._folder is None:
            self._folder = Path(self._until_done.enter_context(tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-")))
            self._until_done.callback(setattr, self, "_folder", None)
        return self._folder

    def clip(self, source: Digest) -> Path:
        """The file of a source clip or gallery picture. Raises Transient when this node doesn't have it."""
        path = Path(self._files.get(source, ""))
        if source not in self._files or not path.is_file():
            raise Transient(f"source {source[:12]}… is not on this node; sources must be readable under the same path everywhere.")
        self._opened.add(str(path))
        self._read[source] = path.stat().st_size
        return path

    def file(self, artifact: Artifact) -> Path:
        """A stored artifact as a local file, read-only. Its bytes are checked once by each worker. Raises Damaged."""
        self._read[artifact.digest] = artifact.size
        if self.store.local and artifact.digest not in self._checked:  # others are checked as they are brought here
            for _ in self.store.stream(artifact):
                pass
            self._checked.add(artifact.digest)
        return self.store.local_path(artifact, self.folder)

    def people(self, arrays: Artifact) -> People:
        self._read[arrays.digest] = arrays.size
        return People.load(self.store.read(arrays))

    def keep(self, made: Path | bytes, suffix: str) -> Artifact:
        """Put what was made into the store."""
        artifact = self.store.put(made, suffix)
        self._kept.append(artifact)
        return artifact

    def keep_people(self, people: People) -> Artifact:
        buffer = io.BytesIO()
        people.save(buffer)
        return self.keep(buffer.getvalue(), ".npz")

    @property
    def tracker(self) -> PeopleTracker:
        if self._tracker is None:
            self._tracker = PeopleTracker()
            self._tracker.setup()
        return self._tracker

    def extractor(self, extraction: Extraction) -> PoseExtractor:
        """Who finds the people, set up once for each of the recipe's extractions; the built-in one is `tracker`."""
        if extraction == Extraction():
            return self.tracker
        name = digest_of(extraction)
        if name not in self._extractors:
            made = extractors.create(extraction)
            made.setup()
            self._extractors[name] = made
        return self._extractors[name]

    @property
    def detail_reader(self) -> DetailReader:
        if self._detail_reader is None:
            self._detail_reader = DetailReader()
            self._detail_reader.setup()
        return self._detail_reader

    @property
    def text_finder(self) -> TextFinder:
        if self._text_finder is None:
            self._text_finder = TextFinder()
            self._text_finder.setup()
        return self._text_finder

    def generator(self, kind: str, options: dict[str, Any]) -> Generator:
        """The generator, set up once per kind and options."""
        name = digest_of({"kind": kind, "options": canonical_json(options).decode()})
        if name not in self._generators:
            made = registry.create(kind, options)
            made.setup()
            self._generators[name] = made
        made = self._generators[name]
        if made.paid:
            made.book, made.booked_to = self.store.put_call, self._key
        return made


def _fault(error: BaseException) -> Fault:
    details = "".join(traceback.format_exception(error))[-4000:]
    message = f"{type(error).__name__}: {error}" if not hasattr(error, "message") else str(error)
    if isinstance(error, OutOfSpace) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return Fault(response="out_of_space", message=message, details=details)
    if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be here
        return Fault(response="out_of_memory", message=f"the worker's memory is too small: {message}", details=details)
    if isinstance(error, BadRecipe):  # a key or a workflow that a service does not take: no other call would fare better
        return Fault(response="bad_recipe", message=message)
    if isinstance(error, Damaged):  # what it works on is gone: the next run makes that anew
        return Fault(response="damaged", message=message, details=details)
    return Fault(response="transient" if isinstance(error, Transient) else "error", message=message, details=details)
