"""`kind: comfyui`: what a recipe says of a workflow and its servers, and the life of one request there."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from generators import shipped
from generators.workers import workflow
from generators.workers.comfyui import Away, Job, Made, Server, address_of, outputs_of
from generators.workers.command import own_folder
from generators.workers.declared import UNKEYED as DECLARED_ONLY
from generators.workers.declared import Declared
from generators.workers.workflow import Value, Workflow
from manifests.errors import BadOutput, BadRecipe

Values = Mapping[str, Value | Path | None]
REQUIRES = ("websockets",)
FOLDER = "motionpair"
"""below the server's own folder of outputs"""


def _listed(slots: Any) -> dict[str, Any]:
    return {name: (place,) if isinstance(place, str) else place for name, place in slots.items()}


class ComfyOptions(Declared):
    """What a recipe says of a workflow: where it lies, what fills it, who runs it, and what it can do."""

    servers: tuple[str, ...] = Field(min_length=1)
    """addresses, as http://host:8188; the pool has at most as many workers"""
    workflow: str = Field(min_length=1)
    """a file, as the editor's Export (API) writes it"""
    slots: dict[str, tuple[str, ...]] = Field(min_length=1)
    """what fills which inputs: name → NODE.inputs.NAME, or several of them"""
    output: str = ""
    """the node whose file is the answer, by number or title; without it, the one file that there is"""
    timeout_s: float = Field(default=1500.0, gt=0)
    """for a request, its wait in the server's queue included; below the pool's"""
    lost_s: float = Field(default=30.0, gt=0)
    """how long a server may be away, or know nothing of a job that it took, before the job is given up"""

    @field_validator("servers")
    @classmethod
    def _addresses(cls, v: tuple[str, ...]) -> tuple[str, ...]:
        plain = [address_of(url).rstrip("/") for url in v]
        if len(set(plain)) < len(plain):
            raise ValueError("servers: an address stands there twice; each is one worker's")
        return v

    @field_validator("slots", mode="before")
    @classmethod
    def _lists(cls, v: object) -> object:
        return _listed(v) if isinstance(v, dict) else v

    @model_validator(mode="after")
    def _in_the_workflow(self) -> ComfyOptions:
        if self.deterministic:
            raise ValueError("deterministic: what a server has in memory and which GPU it has is not known; leave it out")
        self.template()
        return self

    def template(self) -> Workflow:
        """The workflow as its file said when the run began."""
        return workflow.load(self.workflow, self.slots, self.output)

    def checked(self, known: frozenset[str], needed: frozenset[str]) -> None:
        """Raise ValueError for slots that nothing fills, and for those that have to be there and are not."""
        if unknown := sorted(set(self.slots) - known):
            raise ValueError(f"slots: nothing fills {unknown[0]!r}; there are {', '.join(sorted(known))}")
        if lacking := sorted(needed - set(self.slots)):
            raise ValueError(f"slots: {lacking[0]} is needed; say which input of the workflow takes it")


UNKEYED = DECLARED_ONLY | {"servers", "timeout_s", "lost_s"}


def keyed(options: dict[str, Any]) -> dict[str, Any]:
    """A recipe's options as far as they can change pixels: the workflow by what it says, whoever runs it."""
    path, output = str(options.get("workflow")), str(options.get("output") or "")
    slots = tuple((name, tuple(places)) for name, places in sorted(_listed(options.get("slots") or {}).items()))
    try:
        said = _digest(path, shipped.text_of(path), slots, output)
    except ValueError as e:
        raise BadRecipe(f"generators (comfyui): {e}") from None
    kept = {name: value for name, value in options.items() if name not in UNKEYED | {"slots", "output"}}
    return {**kept, "workflow": said}


@functools.lru_cache(maxsize=64)
def _digest(path: str, _text: str, slots: tuple[tuple[str, tuple[str, ...]], ...], output: str) -> str:
    return workflow.load(path, dict(slots), output).digest()


class Desk:
    """One worker's side: which server it goes to, and a request's way there and back."""

    def __init__(self, options: ComfyOptions) -> None:
        self._options, self._template = options, options.template()
        self._servers = [Server(url) for url in options.servers]
        self._usual: Server | None = None

    def make(self, values: Values, out: Path, suffixes: tuple[str, ...]) -> None:
        """Run the workflow with these values (files are uploaded; None takes its node out); its one file is then at `out`.

        Raises Transient by code: no_server (none there), forgotten, interrupted, timeout; BadRecipe when a server does not take the
        workflow; OutOfMemory and MotionpairError as the workflow failed; BadOutput by code: no_output, several_outputs, wrong_kind.
        """
        until_s = time.monotonic() + self._options.timeout_s
        server, job = self._chosen(), Job()
        filled = {name: server.upload(value) if isinstance(value, Path) else value for name, value in values.items()}
        # No two requests share a name, whoever sends them: neither a collision nor what a server remembers can give another's file.
        nodes = self._template.filled(filled, f"{FOLDER}/{uuid.uuid4().hex}")
        ended = False
        try:
            with server.watch(job) as watch:
                server.submit(job, nodes)
                entry = server.finished(job, watch, until_s, self._options.lost_s)
                ended = True
        finally:
            if not ended:
                server.cancel(job)
        self._usual = server
        made = _the_one(outputs_of(entry, server.url), self._template.output, suffixes)
        with own_folder(out) as folder:
            server.fetch(made, folder / "fetched", until_s)
            os.replace(folder / "fetched", out)

    def _chosen(self) -> Server:
        """The one with the least to do; of equals the one whose models this worker's last request loaded, then each worker's own."""
        found: list[tuple[tuple[int, bool, str], Server]] = []
        why: list[str] = []
        for server in self._servers:
            try:
                found.append(((server.load(), server is not self._usual, _preference(server.url)), server))
            except Away as e:
                why.append(e.message)
        if not found:
            raise Away("; ".join(why))
        return min(found, key=lambda pair: pair[0])[1]


def _preference(url: str) -> str:
    return hashlib.sha256(f"{socket.gethostname()} {os.getpid()} {url}".encode()).hexdigest()


def _the_one(files: list[Made], output: str, suffixes: tuple[str, ...]) -> Made:
    there = [made for made in files if made.node == output] if output else files
    fitting = [made for made in there if made.filename.lower().endswith(suffixes)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(f"{made.filename} of node {made.node}" for made in files[:6]) or "nothing"
    wanted = " or ".join(suffixes) + (f" of node {output}" if output else "")
    if fitting:
        raise BadOutput(f"the workflow wrote {names}, where one {wanted} is expected; name its node as `output`", "several_outputs")
    raise BadOutput(f"the workflow wrote {names}, no {wanted}", "wrong_kind" if there else "no_output")
