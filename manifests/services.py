"""What is asked of any HTTP service that is paid for with a key: when to ask again, and that nothing quoted holds a part of the key."""

from __future__ import annotations

import datetime
import email.utils
import math
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from manifests.errors import BadRecipe

WINDOW = 8
"""characters in a row of a key that are never quoted"""


def holds(text: str, key: str) -> bool:
    """Whether any 8 characters in a row of the key are in the text (all of a shorter key), spaces and case aside."""
    packed, key = "".join(text.split()).lower(), key.lower()
    windows = [key[i : i + WINDOW] for i in range(max(1, len(key) - WINDOW + 1))] if key else []
    return any(window in packed for window in windows)


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, from a number of seconds, of milliseconds (`retry-after-ms`), or a date. None: not asked, or nonsense."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def address_trouble(base_url: str) -> str:
    """Why an address can't be a service's, without quoting it; empty where it can."""
    try:
        parts = urlsplit(base_url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        known = False
    if not known:
        return "base_url is an address like http://host:8000/v1, without user or password in it"
    if parts.username or parts.password or parts.query:
        return "base_url holds a user, password or query; keys come from the variable that key_env names, and only from it"
    return ""


def key_from(variable: str, base_url: str, where: str) -> str:
    """A service's key from the environment; empty where it wants none. `where` is the recipe's entry.

    Raises BadRecipe when the variable is not set or holds no key, and for an address that is none or holds a secret.
    """
    if trouble := address_trouble(base_url):
        raise BadRecipe(f"{where}.{trouble}.")
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key:
        mend = "export it, or leave key_env out for a server that wants no key"
        raise BadRecipe(f"the environment has no {variable}, which {where}.key_env names; {mend}.")
    if not (key.isascii() and key.isprintable()):
        raise BadRecipe(f"{variable} holds characters that no key has; export it again.")
    return key
