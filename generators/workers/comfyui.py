"""One ComfyUI server, as a client sees it: upload, queue, watch, fetch, and take back what is not wanted any more.

What became of a job is read from the server's history and queue alone. The websocket only says when it is worth looking there, and how
far a job is: a socket that breaks, or that never was, makes it slower and changes nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from generators.workers.watching import Watch
from generators.workers.workflow import Nodes
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, OutOfMemory, OutOfSpace, Transient

CONNECT_S, ANSWER_S, CANCEL_S = 10.0, 60.0, 10.0
LOOK_EVERY_S, LOOK_WATCHED_S = 1.0, 5.0
"""between two looks at history and queue, without and with a websocket"""
FETCH_TRIES = 3
FILE_BYTES_MAX = 4 << 30
OOM = re.compile(r"out ?of ?memory|Allocation on device|bad_alloc|DefaultCPUAllocator|MemoryError", re.IGNORECASE)
FULL_DISK = re.compile(r"No space left on device|Disk quota exceeded")
WORDS_MAX = 300


class Away(Transient):
    """The server did not answer, or with what is no answer."""

    code = "no_server"


@dataclass(frozen=True)
class Made:
    """A file that a job left on its server."""

    node: str
    filename: str
    subfolder: str
    kind: str
    """output or temp"""


@dataclass
class Job:
    """What was handed to a server."""

    client: str = field(default_factory=lambda: uuid.uuid4().hex)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """asked for; servers that don't take it give another"""


class Server:
    """Talks to one server. Addresses hold no secrets: `address_of` refuses them."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx2.Client(base_url=self.url, timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S), follow_redirects=False)

    def load(self) -> int:
        """Jobs that it works at or that wait. Raises Away."""
        return sum(len(part) for part in self._queue())

    def upload(self, path: Path) -> str:
        """Bring a file there; returns what nodes call it. The same bytes have the same name, so nothing is ever overwritten by others."""
        data = path.read_bytes()
        name = f"motionpair-{hashlib.sha256(data).hexdigest()[:24]}{path.suffix.lower()}"
        told = self._json("POST", "/upload/image", files={"image": (name, data)}, data={"type": "input"})
        if not isinstance(told, dict) or not isinstance(told.get("name"), str):
            raise Away(f"{self.url} took {path.name} and did not say under which name")
        return "/".join(part for part in (str(told.get("subfolder") or ""), told["name"]) if part)

    def watch(self, job: Job) -> Watch:
        """Its websocket, for this job."""
        return Watch(f"ws{self.url.removeprefix('http')}/ws?clientId={job.client}", CONNECT_S)

    def submit(self, job: Job, nodes: Nodes) -> None:
        """Queue a workflow; the job then has the server's number. Raises BadRecipe when the server does not take it."""
        told = self._json("POST", "/prompt", json={"prompt": nodes, "client_id": job.client, "prompt_id": job.id})
        if not isinstance(told, dict) or not isinstance(told.get("prompt_id"), str):
            raise Away(f"{self.url} took the workflow and gave no prompt_id")
        job.id = told["prompt_id"]
        if errors := told.get("node_errors"):
            # It runs what is left of the workflow and leaves out the outputs that it can't make.
            raise BadRecipe(
                f"{self.url} takes only a part of the workflow: {_node_errors(errors)}. Mend the workflow, or install it there."
            )

    def finished(self, job: Job, watch: Watch, until_s: float, lost_s: float) -> dict[str, Any]:
        """The job's entry in the history, once it is there.

        Raises Transient("timeout") at the instant `until_s` (monotonic), Away when the server is not to be reached for `lost_s`, and
        Transient("forgotten") when for so long neither its history nor its queue has the job.
        """
        gone_since: float | None = None
        why: Transient = Away("")
        while True:
            try:
                entry = self._entry(job)
                if entry is not None:
                    return entry
                known = self._holds(job)
                why = Transient(f"{self.url} took the job {job.id} and has it no more: neither its queue nor its history does", "forgotten")
            except Away as e:
                known, why = False, e
            now = time.monotonic()
            gone_since = None if known else gone_since if gone_since is not None else now
            if gone_since is not None and now - gone_since >= lost_s:
                raise why
            if now >= until_s:
                raise Transient(f"{self.url} was given up after the time allowed; last progress: {watch.progress or 'none'}", "timeout")
            every = LOOK_WATCHED_S if watch.open and known else min(LOOK_EVERY_S, max(lost_s / 3, 0.01))
            watch.wait(job.id, min(every, max(0.0, until_s - now)))

    def cancel(self, job: Job) -> None:
        """Have the server stop or forget the job, so that its GPU is free. Best effort: nothing is raised."""
        with contextlib.suppress(MotionpairError):
            running, pending = self._queue(CANCEL_S)
            for entry in pending:
                if (number := _of_job(entry, job)) is not None:
                    self._json("POST", "/queue", json={"delete": [number]}, timeout=CANCEL_S)
            for entry in running:
                # Servers that don't read the number stop whatever runs: that is why the job has to be the one that does.
                if (number := _of_job(entry, job)) is not None:
                    self._json("POST", "/interrupt", json={"prompt_id": number}, timeout=CANCEL_S)

    def fetch(self, made: Made, out: Path, until_s: float) -> None:
        """Write the file to `out`. Raises BadOutput("no_output") when the server has no such file, Away when it can't be had whole."""
        query = {"filename": made.filename, "subfolder": made.subfolder, "type": made.kind}
        for tries_left in reversed(range(FETCH_TRIES)):
            try:
                return self._fetched(query, out, until_s)
            except httpx2.HTTPError as e:
                if not tries_left:
                    raise Away(f"{self.url}: {made.filename} did not arrive whole in {FETCH_TRIES} tries ({type(e).__name__})") from e

    def close(self) -> None:
        self._http.close()

    def _fetched(self, query: Mapping[str, str], out: Path, until_s: float) -> None:
        with self._http.stream("GET", "/view", params=query) as answer, out.open("wb") as file:
            if answer.status_code == 404:
                raise BadOutput(f"{self.url} says that it wrote {query['filename']} and does not have it", "no_output")
            self._refused(answer.status_code, "/view", "")
            size = 0
            for chunk in answer.iter_bytes():
                size += len(chunk)
                if size > FILE_BYTES_MAX:
                    raise BadOutput(f"{query['filename']} has more than {FILE_BYTES_MAX >> 30} GiB", "too_large")
                if time.monotonic() > until_s:
                    raise Transient(f"{self.url} was given up while it sent {query['filename']}", "timeout")
                file.write(chunk)

    def _entry(self, job: Job) -> dict[str, Any] | None:
        told = self._json("GET", f"/history/{job.id}")
        entry = told.get(job.id) if isinstance(told, dict) else None
        return entry if isinstance(entry, dict) else None

    def _holds(self, job: Job) -> bool:
        return any(_of_job(entry, job) is not None for part in self._queue() for entry in part)

    def _queue(self, timeout_s: float = ANSWER_S) -> tuple[list[Any], list[Any]]:
        told = self._json("GET", "/queue", timeout=timeout_s)
        parts = [told.get(name) if isinstance(told, dict) else None for name in ("queue_running", "queue_pending")]
        if not all(isinstance(part, list) for part in parts):
            raise Away(f"{self.url} answers, but not like a ComfyUI server")
        return parts[0], parts[1]  # type: ignore[return-value]

    def _json(self, method: str, path: str, **more: Any) -> Any:
        """The answer's JSON; None where it is empty. Raises Away, BadInput and BadRecipe."""
        try:
            answer = self._http.request(method, path, **more)
        except (httpx2.HTTPError, httpx2.InvalidURL) as e:
            raise Away(f"{self.url} does not answer ({type(e).__name__})") from e
        self._refused(answer.status_code, path, answer.text)
        try:
            return answer.json() if answer.content else None
        except (ValueError, RecursionError):
            if path in ("/interrupt", "/queue") and method == "POST":
                return None
            raise Away(f"{self.url} answers {path} with what is no JSON") from None

    def _refused(self, status: int, path: str, body: str) -> None:
        if status < 300:
            return
        if status == 413:
            raise BadRecipe(f"{self.url} takes no file of this size: start it with a larger --max-upload-size.")
        if status in (401, 403):
            raise BadRecipe(f"{self.url} lets us in nowhere (status {status}): it has to be open to the workers.")
        if status in (400, 422) and path == "/prompt":
            raise BadRecipe(f"{self.url} does not take the workflow: {_why(body)}. Mend the workflow, or install there what it lacks.")
        if status in (400, 415, 422) and path == "/upload/image":
            raise BadInput(f"{self.url} does not take an input file (status {status})", "refused")
        if status < 400 or (status == 404 and path == "/queue"):
            raise BadRecipe(f"{self.url} is no ComfyUI server (status {status}): give `servers` the address that its page has.")
        raise Away(f"{self.url} answers {path} with status {status}")


def address_of(url: str) -> str:
    """The address as it stands. Raises ValueError for what is none, or holds more than one."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"servers are addresses like http://host:8188, got {url!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("servers are addresses without user, password or query: they are written into the ledger")
    return url


def _of_job(entry: object, job: Job) -> str | None:
    """The number of an entry of the queue, [place, number, workflow, about, outputs], if it is the job's; else None."""
    if not isinstance(entry, list) or len(entry) < 2 or not isinstance(entry[1], str):
        return None
    about = entry[3] if len(entry) > 3 and isinstance(entry[3], dict) else {}
    return entry[1] if entry[1] == job.id or about.get("client_id") == job.client else None


def outputs_of(entry: Mapping[str, Any], url: str) -> list[Made]:
    """The files that a finished job left. Raises as its error calls for: OutOfMemory, OutOfSpace, Transient, MotionpairError."""
    status = entry.get("status")
    status = status if isinstance(status, dict) else {}
    messages = [m for m in status.get("messages") or [] if isinstance(m, list) and len(m) == 2 and isinstance(m[1], dict)]
    told = {str(kind): about for kind, about in messages}
    if "execution_error" in told:
        raise _failure(told["execution_error"], url)
    if "execution_interrupted" in told:
        raise Transient(f"{url}: somebody interrupted the job", "interrupted")
    if status.get("status_str") == "error" or status.get("completed") is False:
        raise MotionpairError(f"{url}: the workflow failed, and the server does not say why")
    outputs = entry.get("outputs")
    lists = [
        (str(node), files) for node, about in (outputs.items() if isinstance(outputs, dict) else ()) if isinstance(about, dict)
        for files in about.values() if isinstance(files, list)
    ]  # fmt: skip
    found = [
        Made(node, file["filename"], str(file.get("subfolder") or ""), str(file.get("type") or "output"))
        for node, files in lists for file in files if isinstance(file, dict) and isinstance(file.get("filename"), str)
    ]  # fmt: skip
    return list(dict.fromkeys(found))


def _failure(about: Mapping[str, Any], url: str) -> MotionpairError:
    kind, words = str(about.get("exception_type") or "an error"), _line(str(about.get("exception_message") or ""))
    said = f"{url}: node {about.get('node_id')} ({about.get('node_type')}) failed with {kind}: {words}"
    if OOM.search(f"{kind} {words}"):
        return OutOfMemory(said)
    return OutOfSpace(said) if FULL_DISK.search(words) else MotionpairError(said)


def _why(body: str) -> str:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return _line(body) or "it does not say why"
    told = told if isinstance(told, dict) else {}
    if isinstance(told.get("node_errors"), dict) and told["node_errors"]:
        return _node_errors(told["node_errors"])
    error = told.get("error")
    parts = [error.get("message"), error.get("details")] if isinstance(error, dict) else [error]
    return _line(": ".join(str(part) for part in parts if part)) or "it does not say why"


def _node_errors(errors: object) -> str:
    """What it says of each node, in a line."""
    if not isinstance(errors, dict):
        return _line(str(errors))
    out = []
    for number, about in errors.items():
        about = about if isinstance(about, dict) else {}
        listed = [one for one in about.get("errors") or [] if isinstance(one, dict)]
        words = "; ".join(" ".join(str(one[part]) for part in ("message", "details") if one.get(part)) for one in listed)
        out.append(f"node {number} ({about.get('class_type')}): {words or 'refused'}")
    return _line(", ".join(out))


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:WORDS_MAX]
