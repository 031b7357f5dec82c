"""Files that appear whole or not at all, and disk faults that say what to do."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manifests.errors import MotionpairError, OutOfSpace

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def out_of_space(path: Path, why: str) -> OutOfSpace:
    """The one wording for a disk that takes no more."""
    return OutOfSpace(f"{path} can't be written: {why}. Free space or allow writing in {path.absolute().parent}, then run again to resume")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new name beside `path` to write to; it becomes `path` when the block ends well and is removed when it does not.

    Raises OutOfSpace when the disk is full, over quota or read-only, MotionpairError for other faults of the file system.
    """
    part = path.absolute().parent / f".{secrets.token_hex(8)}.part"
    try:
        yield part
        os.replace(part, path)
    except OSError as e:
        if e.errno in _FULL | _FORBIDDEN:
            raise out_of_space(path, os.strerror(e.errno or 0)) from e
        raise MotionpairError(f"{path} can't be written: {e.strerror or e}; check that its folder exists", "unwritable") from e
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
