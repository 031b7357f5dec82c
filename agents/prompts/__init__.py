"""The instructions of every role, one readable file each. The text itself enters the key of a question, so that editing a file asks its
role's questions again and no others."""

from __future__ import annotations

import functools
from pathlib import Path

from agents.brains.base import Role


@functools.cache
def text_of(role: Role) -> str:
    """The instructions of a role."""
    return (Path(__file__).parent / f"{role}.md").read_text(encoding="utf-8").strip()
