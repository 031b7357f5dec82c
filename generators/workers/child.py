"""The child's side of `generators/workers/lines.py`: answer messages on standard input, one JSON object a line, until it closes.

This one file needs Python 3.10 and the standard library, nothing else of this project. In a model's own environment it is run by its path

    /envs/model/bin/python …/child.py serve_model.py

where serve_model.py defines `handle(message)`, and `load(message)` if there is something to load. Or it is copied, and `serve` imported.

What is said: each line is U+001E, a JSON object, a line feed (RFC 7464). In: `{"id": 1, "load": {…}}` once, then `{"id": 2, "call": {…}}`,
one at a time. Out: `{"id": 2, "answer": {…}}` or `{"id": 2, "error": {…}}`, and in between `{"beat": n}`; `{"fatal": {…}}` is an error
after which nothing more can be asked. Standard output is taken away from everybody else first: what libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import queue
import runpy
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

BEAT_S = 1.0
"""between two signs of life"""
MARK = b"\x1e"
"""before every line of ours; JSON has none inside"""

Handler = Callable[["dict[str, Any]"], "dict[str, Any]"]
Loader = Callable[["dict[str, Any]"], "dict[str, Any] | None"]


def serve(handle: Handler, load: Loader | None = None, beat_s: float = BEAT_S) -> None:
    """Answer until the owner's pipe closes, then end the process at once, whatever it is doing.

    `load` gets the owner's first message, before any call. What either raises is told to the owner, and the next message is waited for.
    Call it from the main thread, and import what is large in `load`: signs of life begin here.
    """
    out, given = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    lock = threading.Lock()
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def say(message: dict[str, Any]) -> None:
        line = MARK + json.dumps(message).encode() + b"\n"
        with lock:
            while line:
                line = line[os.write(out, line) :]

    def listen() -> None:
        with os.fdopen(given, "rb") as stream:
            for line in stream:
                messages.put(json.loads(line.lstrip(MARK)))
        os._exit(0)

    def beat() -> None:
        count = 0
        while True:
            count += 1
            try:
                say({"beat": count})
            except OSError:  # nobody listens any more
                os._exit(0)
            time.sleep(beat_s)

    for run in (listen, beat):
        threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            message = messages.get()
            say({"id": message["id"], **_answer(message, handle, load)})
    except BaseException:  # also SystemExit: there is nobody to go back to
        traceback.print_exc()
        os._exit(1)


def _answer(message: dict[str, Any], handle: Handler, load: Loader | None) -> dict[str, Any]:
    try:
        answer = (load(message["load"]) if load else None) if "load" in message else handle(message["call"])
        json.dumps(answer)
        return {"answer": answer or {}}
    except Exception as error:
        return {"error": told(error)}


def told(error: Exception) -> dict[str, Any]:
    """`kinds`: the names of its class and of those that it derives from, by which the owner knows what to do. Its `code` goes along."""
    ready: dict[str, Any] | None = getattr(error, "told", None)
    return ready or {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "code": str(getattr(error, "code", "")),
        "message": str(error),
        "errno": error.errno if isinstance(error, OSError) else None,
        "details": "".join(traceback.format_exception(error))[-4000:],
    }


def _main(script: str, *arguments: str) -> None:
    """Serve the functions of a script, which sees its own folder and arguments as if it had been started itself."""
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    found = runpy.run_path(script, run_name="served")
    serve(found["handle"], found.get("load"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
