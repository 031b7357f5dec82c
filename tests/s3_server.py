"""A real S3 server (moto's) in a process of its own on this machine, which misbehaves as told.

`S3Server` starts and stops it. Run as a script, this file is the server: requests are served one after the other, so a condition holds, and
`PUT /-/trouble?status=503&count=5` lets the next requests fail; `ignore=1` takes If-None-Match away from all that follow.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

KEY, SECRET = "AKIATESTINGONLY", "a-secret-that-nobody-may-see"


@contextlib.contextmanager
def serving() -> Iterator[S3Server]:
    """A server that this process, and those that it starts, find by their environment."""
    import pytest  # the server's own process does without

    with S3Server() as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


class S3Server:
    """Use as a context manager; `environment` is what clients need to reach it."""

    def __enter__(self) -> S3Server:
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.environment = {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def bucket(self) -> str:
        """The address of a new bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self._put(f"/{name}")
        return f"s3://{name}"

    def trouble(self, status: int = 503, count: int = 0, ignore: bool = False) -> None:
        """Let the next `count` requests fail; ignore conditions from now on."""
        self._put(f"/-/trouble?status={status}&count={count}&ignore={int(ignore)}")

    def failed(self) -> int:
        """How many requests were let fail so far."""
        with urllib.request.urlopen(f"{self.address}/-/failed", timeout=10) as reply:
            return int(reply.read())

    def damage(self, url: str, body: bytes) -> None:
        """Overwrite an object."""
        self._put(f"/{url.removeprefix('s3://')}", body)

    def _put(self, path: str, body: bytes = b"") -> None:
        authority = f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        request = urllib.request.Request(self.address + path, data=body, method="PUT", headers={"Authorization": authority})
        urllib.request.urlopen(request, timeout=10).close()


class Troubled:
    """A WSGI application before another one."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application, self._status, self._count, self._ignore, self._failed = application, 503, 0, False, 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith("/-/"):
            if path == "/-/trouble":
                told = dict(part.split("=") for part in environ["QUERY_STRING"].split("&"))
                self._status, self._count, self._ignore = int(told["status"]), int(told["count"]), told["ignore"] == "1"
            start("200 OK", [("Content-Type", "text/plain")])
            return [str(self._failed).encode()]
        if self._count:
            self._count -= 1
            self._failed += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # else closing resets the connection
            start(f"{self._status} Trouble", [("Content-Type", "application/xml")])
            code = {503: "SlowDown", 500: "InternalError", 403: "AccessDenied", 507: "InsufficientStorage"}.get(self._status, "Unknown")
            return [f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode()]
        if self._ignore:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return self._application(environ, start)


def serve() -> None:
    """Print the address and serve until killed, or until the parent is gone."""
    import threading
    import time

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object, **__: object) -> None:
            pass

    def leave_with(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    server = make_server("127.0.0.1", 0, Troubled(DomainDispatcherApplication(create_backend_app)), request_handler=Quiet)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    serve()
