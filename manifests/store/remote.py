"""The store's files on an object store or another filesystem behind a network, through fsspec.

An upload appears whole or not at all, and nothing is renamed. The first writer of a name wins through a conditional upload
(`If-None-Match: *`), which S3 itself and most servers of its kind know. There are servers that ignore the condition: so the first creation
of every process is asked for a second time, which has to be refused. Where it is not, the process looks before every creation instead.
Then of two writers within the same few milliseconds the last one stands, and a run should not share its store with another.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import fsspec
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from manifests.errors import BadRecipe, MotionpairError, OutOfSpace, Transient
from manifests.store.disk import scratch_file, writing

PATIENCE_S = 120.0
"""how long a server may throttle, fail or be away until a call gives up"""
PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""environment variables that say where a store is and hold no secret; credentials every node brings itself"""
RANGE_BYTES = 64 << 20
"""asked for at once"""
MANY = 128
"""files under way at once when many are read"""

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ACCESS_KEY_ID")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_FULL_CODES = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}
_WRONG_CODES = {
    "NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
}  # fmt: skip
_WRONG_NAMES = {
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError", "NoRegionError", "InvalidRegionError",
    "TokenRetrievalError", "UnauthorizedSSOTokenError", "CredentialRetrievalError", "InvalidEndpointConfigurationError",
}  # fmt: skip
"""of botocore's exceptions, which has to be installed for S3 only"""

T = TypeVar("T")


class Remote:
    """See manifests.store.disk.Files. Raises Transient when the server stays away, OutOfSpace when it refuses, BadRecipe when what was
    asked for can't be: no such bucket, no credentials."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        self.url = url
        self._fs, self._root = _filesystem(url)
        self._patience_s = patience_s
        self._conditional: bool | None = None
        """whether the server keeps to conditions; None: not known yet"""

    # --- writing

    @contextlib.contextmanager
    def scratch(self) -> Iterator[tuple[Path, BinaryIO]]:
        folder = Path(tempfile.gettempdir())
        with writing(folder), scratch_file(folder) as made:
            yield made

    def publish(self, scratch: Path, name: str) -> None:
        self._ask(self._fs.put_file, str(scratch), self._path(name))

    def write(self, name: str, body: bytes) -> None:
        self._ask(self._fs.pipe_file, self._path(name), body)

    def create(self, name: str, body: bytes) -> bool:
        if not self._conditional and self.size(name) is not None:
            return False
        if self._conditional is False:
            self.write(name, body)
            return True
        made = self._created(name, body)
        if made and self._conditional is None:
            self._conditional = not self._created(name, body)
        return made

    def _created(self, name: str, body: bytes) -> bool:
        """One conditional upload. A lost answer makes the second try find the first one's file: it counts as another writer's."""
        try:
            self._ask(self._fs.pipe_file, self._path(name), body, mode="create")
        except FileExistsError:
            return False
        except NotImplementedError:
            self._conditional = False
            self.write(name, body)
        return True

    # --- reading

    def read(self, name: str) -> bytes:
        return bytes(self._ask(self._fs.cat_file, self._path(name), **self._whole))

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """`size` bytes from `start` on; fewer only at the file's end."""
        return bytes(self._ask(self._fs.cat_file, self._path(name), start=start, end=start + size)) if size else b""

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        todo = iter(names)
        while batch := list(islice(todo, MANY)):
            paths = [self._path(name) for name in batch]
            found = self._ask(self._fs.cat, paths, on_error="return", **self._whole)
            for name, path in zip(batch, paths, strict=True):
                body = found.get(path)
                if isinstance(body, bytes):
                    yield name, body
                elif not isinstance(body, FileNotFoundError):
                    with contextlib.suppress(FileNotFoundError):
                        yield name, self.read(name)

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        if size <= RANGE_BYTES:
            yield self.read(name)
            return
        if self.size(name) != size:
            return
        for start in range(0, size, RANGE_BYTES):
            yield self._ask(self._fs.cat_file, self._path(name), start=start, end=min(start + RANGE_BYTES, size))

    def size(self, name: str) -> int | None:
        try:
            return int(self._ask(self._fs.info, self._path(name))["size"])
        except FileNotFoundError:
            return None

    def files(self, folder: str, prefix: str = "") -> list[tuple[str, int]]:
        top = self._path(folder)
        more = {"prefix": prefix} if prefix else {}  # where a server can't filter, the filesystem ignores it
        try:
            found = self._ask(self._fs.find, top, detail=True, **more)
        except FileNotFoundError:
            return []
        names = {path.lstrip("/").removeprefix(f"{self._root.lstrip('/')}/"): int(info["size"]) for path, info in found.items()}
        return sorted((name, size) for name, size in names.items() if name.startswith(f"{folder}/{prefix}"))

    def folders(self, folder: str) -> list[str]:
        try:
            entries = self._ask(self._fs.ls, self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[1] for entry in entries if entry["type"] == "directory")

    def remove(self, name: str) -> None:
        self._ask(self._fs.rm_file, self._path(name))

    # --- the network

    @property
    def _whole(self) -> dict[str, Any]:
        """s3fs asks for the size before it reads unless it may read only one part at a time."""
        return {"max_concurrency": 1} if hasattr(self._fs, "max_concurrency") else {}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _ask(self, call: Callable[..., T], *arguments: Any, **more: Any) -> T:
        """A call, tried again while the server stumbles; errors in this project's words."""
        tries = Retrying(
            stop=stop_after_delay(self._patience_s), wait=wait_random_exponential(multiplier=0.2, max=10), reraise=True,
            retry=retry_if_exception(_passing),
        )  # fmt: skip
        try:
            return tries(call, *arguments, **more)
        except Exception as error:
            # The cause is not shown: client libraries put requests with all their headers into errors.
            raise self._told(error) from None

    def _told(self, error: Exception) -> Exception:
        kind, words = _kind(error), clean_of_secrets(str(error) or type(error).__name__)
        if kind == "missing":
            return FileNotFoundError(words)
        if kind == "exists":
            return FileExistsError(words)
        if kind == "unknown":
            return NotImplementedError(words)
        if kind == "wrong":
            return BadRecipe(
                f"the store {self.url} can't be used: {words}. Give a bucket that is there, and credentials as for any AWS tool "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role; AWS_ENDPOINT_URL for other servers).",
            )
        if kind == "full":
            return OutOfSpace(f"the store {self.url} refuses: {words}. Mend its permissions or its quota, then run again to resume.")
        return Transient(f"the store {self.url} did not answer: {words}")


def _kind(error: BaseException) -> str:
    """missing, exists, unknown, wrong, full; or passing: worth another try."""
    code = _code(error)
    if isinstance(error, MotionpairError):
        return "passing"
    if code in _WRONG_CODES or type(error).__name__ in _WRONG_NAMES or "bucket does not exist" in str(error):
        return "wrong"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
        return "exists"
    number = getattr(error, "errno", None)
    if isinstance(error, NotImplementedError) or number == errno.ENOSYS:
        return "unknown"
    return "full" if isinstance(error, PermissionError) or number in _FULL or code in _FULL_CODES else "passing"


def _passing(error: BaseException) -> bool:
    return isinstance(error, Exception) and _kind(error) == "passing"


def _code(error: BaseException) -> str:
    """The code of an S3 server's answer, where the error came from one."""
    for seen in (error, error.__cause__):
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def clean_of_secrets(text: str) -> str:
    """One line without passwords in addresses, signatures, or this process's credentials."""
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    text = re.sub(r"(?i)((?:x-amz-)?(?:signature|credential|security-token))=[^&\s,\"']+", r"\1=***", text)
    return " ".join(text.split())


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's filesystem of an address and the root in it. Raises BadRecipe."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    if (at and (parts.scheme in ("s3", "s3a") or ":" in user)) or parts.query:
        raise BadRecipe(
            f"the store's address ({parts.scheme}://…) must not hold credentials; give them in the environment, as to any AWS tool."
        )
    options: dict[str, Any] = {"use_listings_cache": False}  # other processes write too: a remembered listing would hide what they made
    if parts.scheme in ("s3", "s3a"):
        if not parts.netloc:
            raise BadRecipe(f"the store {url} names no bucket; write s3://BUCKET/PREFIX.")
        timeouts = {"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": MANY}
        place = next((os.environ[name] for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)), None)
        if place:
            options["endpoint_url"] = place  # said, not left to the environment: fsspec keeps filesystems by what they are asked with
        options["config_kwargs"] = {**timeouts, "retries": {"mode": "standard", "total_max_attempts": 1}}  # tries are counted here only
    try:
        fs, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        hint = "pip install 'motionpair[s3]'" if parts.scheme.startswith("s3") else str(error)
        raise BadRecipe(f"the store {parts.scheme}://… needs a package that is not installed: {hint}.") from error
    except ValueError as error:
        raise BadRecipe(f"the store {url} can't be used: {clean_of_secrets(str(error))}. Give a folder or s3://BUCKET/PREFIX.") from error
    if options.get("config_kwargs"):
        fs.retries = 1
    return fs, root.rstrip("/")
