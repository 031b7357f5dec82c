"""The instructions of every role, one readable file each. The text itself enters the key of a question, so that editing a file asks its
role's questions again and no others."""

from __future__ import annotations

import functools
from pathlib import Path

from agents.brains.base import ROLES, Role
from manifests.errors import BadRecipe


def check(folder: str) -> None:
    """Raises BadRecipe for a folder whose files would be of no effect."""
    found = {p.name for p in Path(folder).glob("*.md")}
    unknown = sorted(found - {f"{role}.md" for role in ROLES})
    if unknown or not found:
        got = ", ".join(unknown) or "no .md file"
        raise BadRecipe(f"agents.prompts: {got} in {folder}; instructions are called {', '.join(f'{role}.md' for role in ROLES)}.")


@functools.cache
def text_of(role: Role, folder: str | None = None) -> str:
    """The instructions of a role: from `folder` if it has a file for it, else the built-in ones."""
    own = Path(folder) / f"{role}.md" if folder else None
    path = own if own and own.is_file() else Path(__file__).parent / f"{role}.md"
    return path.read_text(encoding="utf-8").strip()
