"""Text from models and files is data."""

from __future__ import annotations

import unicodedata


def clean(text: str, limit: int = 4000) -> str:
    """Text from a model or file as data: control characters out, white space folded, length limited."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    return " ".join(kept.split())[:limit]
