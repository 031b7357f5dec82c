"""Text files of the user's that a run works with as they were when it began: generators of their own, workflows.

A process works with a file's text as it was when it was first asked for: what runs, the key of its work and what is sent to the workers
then say the same, also when somebody edits the file meanwhile. A worker gets the text from the driver and needs no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BYTES_MAX = 16 << 20

_read: dict[str, str] = {}
"""resolved path → text, of files of this machine"""
_received: dict[str, str] = {}
"""file, as the recipe names it → text that another process has read"""


def text_of(file: str) -> str:
    """A file's text. Raises ValueError, in words that go on after its name, when it can't be read."""
    if file in _received:
        return _received[file]
    path = Path(file).expanduser().resolve()
    if str(path) not in _read:
        if not path.is_file():
            raise ValueError("is no file")
        if (size := path.stat().st_size) > BYTES_MAX:
            raise ValueError(f"has {size} bytes; allowed are {BYTES_MAX}")
        try:
            _read[str(path)] = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            raise ValueError(f"can't be read: {e}") from None
    return _read[str(path)]


def receive(texts: Mapping[str, str]) -> None:
    """Let texts stand for files, whatever lies there on this machine."""
    _received.update(texts)


def read_again() -> None:
    """Forget what the files of this machine said: a new run begins, and takes them as they are now."""
    _read.clear()
