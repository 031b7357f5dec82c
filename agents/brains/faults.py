"""What an endpoint's errors call for: wait and ask again, ask differently, or tell the user.

Nothing that a server wrote is quoted before it was searched for the key: some echo the headers they were sent.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from agents.brains.limits import Clock
from agents.text import clean
from manifests.errors import BadRecipe
from manifests.services import asked_wait_s, holds

PATIENCE_S = 900.0
"""how long one question puts up with a server in trouble, from its first fault on"""
BACKOFF_MAX_S = 60.0
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL)
"""faults that come before a request is on its way: it costs nothing"""
_TRY_AGAIN = {408, 409, 425, 429}
_OUT_OF_MONEY = "insufficient_quota"
_QUOTE_MAX = 300


class Stumbled(Exception):
    """The server is busy or in trouble, or the line is: ask again later. Never leaves this package."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        """as the server asked"""
        self.costly = False
        """the request may be billed"""

    def at_a_cost(self) -> Stumbled:
        """The same, of a request that may be billed."""
        self.costly = True
        return self


class Refused(Exception):
    """The server doesn't take a request of this form. Never leaves this package."""

    def __init__(self, why: str, parameter: str = "", forbidden: bool = False) -> None:
        super().__init__(why)
        self.parameter = parameter
        """that the server names; may be empty"""
        self.forbidden = forbidden
        """a key that may not do this, or contents that a moderator does not let through: no other form helps"""


def told(error: openai.APIStatusError, base_url: str, key: str) -> Exception:
    """An error answer as Stumbled, Refused or BadRecipe."""
    status, code = error.status_code, error.code or ""
    said = _quoted(error.body, key)
    if status == 402 or (status == 429 and code == _OUT_OF_MONEY):
        return BadRecipe(f"{base_url} says that this key's quota is used up (status {status}){said}. Top it up or use another key_env.")
    if status in _TRY_AGAIN or status >= 500:
        return Stumbled(f"status {status}{said}", asked_wait_s(error.response.headers))
    if status == 403:
        return Refused(f"status 403{said}", forbidden=True)
    if status == 401:
        return BadRecipe(f"{base_url} does not accept the key (status {status}): check the variable that agents.brain.key_env names{said}.")
    if status == 404:
        return BadRecipe(
            f"{base_url} knows no such model or address (status 404): check agents.brain.model and base_url with its /v1{said}."
        )
    if status < 400:
        return BadRecipe(f"{base_url} sends us elsewhere (status {status}): give agents.brain.base_url the final address.")
    return Refused(f"status {status}{said}", str(error.param or ""))


def _quoted(body: object, key: str) -> str:
    """Of an error's body what a reader needs, unless a part of the key is in it."""
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    text = inner.get("message", "") if isinstance(inner, Mapping) else inner
    line = clean(text, _QUOTE_MAX) if isinstance(text, str) else ""
    if not line:
        return ""
    return "; its words are withheld, they hold a part of the key" if holds(line, key) else f': "{line}"'


class Patience:
    """Tenacity's `stop` and `wait` for one question: what the server asks for, else doubling; always with jitter.

    A server that is busy or down is asked for `PATIENCE_S`; requests that may be billed end after `attempts` of them.
    """

    def __init__(self, attempts: int, clock: Clock) -> None:
        self._attempts, self._clock = attempts, clock
        self._began_s: float | None = None
        self._costly = 0

    def wait_s(self, state: Any) -> float:
        """Seconds until the next try. Never earlier than the server asked."""
        error = state.outcome.exception()
        asked = error.wait_s if isinstance(error, Stumbled) else None
        if asked is not None:
            return float(asked) + random.uniform(0, max(1.0, min(asked / 4, BACKOFF_MAX_S)))
        return float(min(BACKOFF_MAX_S, 2.0 ** (state.attempt_number - 1))) * random.uniform(0.5, 1.0)

    def over(self, state: Any) -> bool:
        """Whether to give up: too many tries that cost, or the next one would come too late."""
        self._costly += bool(getattr(state.outcome.exception(), "costly", False))
        now_s = self._clock.now()
        self._began_s = now_s if self._began_s is None else self._began_s
        return bool(self._costly >= self._attempts or now_s - self._began_s + state.upcoming_sleep > PATIENCE_S)
