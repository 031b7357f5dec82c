"""The wire to an OpenAI-compatible `images.edit`: what is sent, what comes back, and what each way of failing calls for.

Nothing that a service wrote is quoted before it was searched for the key. Redirects are not followed: they would carry key and pictures
to a host that the recipe doesn't name.
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from pydantic import SecretStr
from tenacity import Retrying, retry_if_exception_type

from manifests.calls import NANO, CallRecord, CallState
from manifests.errors import BadInput, BadOutput, BadRecipe, Transient
from manifests.services import asked_wait_s, holds

CONNECT_S = 10.0
BACKOFF_MAX_S = 60.0
BYTES_MAX = 128 << 20
QUOTE_MAX = 300
NO_KEY = "none"
"""what a server that wants no key is sent"""
TRY_AGAIN = frozenset({408, 409, 425, 429})
MAYBE_BILLED = frozenset({408, 502, 504, *range(520, 525)})
"""a gateway lost patience, or its server: nobody says whether the model worked"""
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL)
OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
POLICY = re.compile(r"content[_ -]?(policy|filter)|moderation|safety|responsible[_ ]?ai", re.IGNORECASE)


class Stumbled(Exception):
    """The service is busy or in trouble, or the line is: ask again later. Never leaves this module."""

    def __init__(self, why: str, wait_s: float | None = None, billed: bool = False) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        """as the service asked"""
        self.billed = billed
        """the request may be paid for"""


@dataclass(frozen=True)
class Edit:
    """One picture that is asked for."""

    pictures: Sequence[bytes]
    """PNG, in the order in which the prompt numbers them"""
    prompt: str
    size_hw: tuple[int, int]
    mask: bytes | None
    fields: Mapping[str, str | int | float | bool]
    """further fields of the form"""


@dataclass(frozen=True)
class Service:
    """Where it is and how much patience it is given."""

    base_url: str
    model: str
    attempts: int
    timeout_s: float
    price: float
    """of one picture, in the recipe's unit of money"""
    where: str
    """the recipe's entry, for messages"""


class EditService:
    """Asks one service. `book` keeps what every request cost; `key` is the digest of the step that asks."""

    def __init__(self, service: Service, secret: str) -> None:
        self._at, self._secret = service, SecretStr(secret)
        timeout = httpx2.Timeout(service.timeout_s, connect=min(CONNECT_S, service.timeout_s))
        line = openai.DefaultHttpxClient(timeout=timeout, follow_redirects=False)
        self._client = openai.OpenAI(api_key=secret or NO_KEY, base_url=service.base_url, max_retries=0, timeout=timeout, http_client=line)
        self._served = False
        """it has taken a request: what it refuses now is the request's fault, not the recipe's"""

    def edited(self, edit: Edit, book: Callable[[CallRecord], None] | None = None, key: str = "") -> bytes:
        """The picture's file.

        Raises BadInput("refused_by_service", "refused"), BadOutput("no_output", "half_written", "too_large"), BadRecipe, and
        Transient("service_busy") when the service stays in trouble for `attempts` requests or `timeout_s`.
        """
        until_s = time.monotonic() + self._at.timeout_s
        tries = Retrying(
            retry=retry_if_exception_type(Stumbled),
            wait=_wait_s,
            stop=lambda state: state.attempt_number >= self._at.attempts or time.monotonic() + state.upcoming_sleep >= until_s,
            reraise=True,
        )
        numbers = iter(range(1, self._at.attempts + 1))
        try:
            answer = tries(lambda: self._paid(edit, until_s, next(numbers), book, key))
            return tries.copy()(self._picture, answer, until_s)
        except Stumbled as e:
            last = str(e)
        raise Transient(f"{self._at.base_url} gave no picture; last: {last}", "service_busy")

    def _paid(self, edit: Edit, until_s: float, number: int, book: Callable[[CallRecord], None] | None, key: str) -> Any:
        """One request, put down at its price before it is sent and settled when it is answered."""
        cost = round(self._at.price * NANO)
        record = CallRecord(
            id=uuid.uuid4().hex, key=key or "0" * 64, role="painter", model=self._at.model, attempt=number, state="reserved",
            prompt_tokens=0, completion_tokens=0, money_nano=cost,
        )  # fmt: skip

        def settle(state: CallState, nano: int) -> None:
            if book:
                book(record.model_copy(update={"state": state, "money_nano": nano}))

        settle("reserved", cost)
        try:
            answer = self._asked(edit, until_s)
        except (BadInput, BadRecipe):
            settle("confirmed", 0)
            raise
        except Stumbled as e:
            settle(*(("unconfirmed", cost) if e.billed else ("confirmed", 0)))
            raise
        settle("confirmed", cost)
        self._served = True
        return answer

    def _asked(self, edit: Edit, until_s: float) -> Any:
        """The service's answer as JSON."""
        files: list[tuple[str, bytes, str]] = [(f"picture{i}.png", data, "image/png") for i, data in enumerate(edit.pictures, 1)]
        mask: Any = ("mask.png", edit.mask, "image/png") if edit.mask else openai.omit
        height, width = edit.size_hw
        left_s = max(1.0, until_s - time.monotonic())
        try:
            with self._client.images.with_streaming_response.edit(
                image=files, prompt=edit.prompt, model=self._at.model, size=f"{width}x{height}", mask=mask, n=1,
                extra_body=dict(edit.fields) or None, timeout=httpx2.Timeout(left_s, connect=min(CONNECT_S, left_s)),
            ) as response:  # fmt: skip
                body = _read(response.iter_bytes(), until_s)
        except openai.APIStatusError as e:
            raise self._told(e) from None
        except (openai.APITimeoutError, openai.APIConnectionError, httpx2.HTTPError) as e:
            why = "no answer in time" if isinstance(e, openai.APITimeoutError | httpx2.TimeoutException) else "the connection failed"
            cause = e.__cause__ or e
            raise Stumbled(f"{why} ({type(cause).__name__})", billed=not isinstance(cause, NOT_SENT)) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise Stumbled("its answer is no JSON", billed=True) from None

    def _picture(self, answer: Any, until_s: float) -> bytes:
        """The file that an answer holds or names."""
        data = answer.get("data") if isinstance(answer, dict) else None
        first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
        if isinstance(text := first.get("b64_json"), str) and text:
            return _decoded(text)
        if isinstance(url := first.get("url"), str) and url:
            return _decoded(url.partition(",")[2]) if url.startswith("data:") else self._downloaded(url, until_s)
        raise BadOutput(f"{self._at.model} answered without a picture{self._quoted(answer)}", "no_output")

    def _downloaded(self, url: str, until_s: float) -> bytes:
        """Without the key: a service may keep its pictures anywhere."""
        if not url.startswith(("http://", "https://")):
            raise BadOutput(f"{self._at.model} names a picture at what is no address", "no_output")
        try:
            with (
                httpx2.Client(timeout=httpx2.Timeout(60.0, connect=CONNECT_S), follow_redirects=True) as line,
                line.stream("GET", url) as response,
            ):
                if response.status_code != 200:
                    raise Stumbled(f"the picture's address answers with status {response.status_code}")
                return _read(response.iter_bytes(), until_s)
        except (httpx2.HTTPError, httpx2.InvalidURL) as e:
            raise Stumbled(f"the picture can't be fetched ({type(e).__name__})") from None

    def _told(self, error: openai.APIStatusError) -> Exception:
        """An error answer as Stumbled, BadInput or BadRecipe."""
        status, code, at = error.status_code, str(error.code or ""), self._at
        said = self._quoted(error.body)
        if status in (400, 403, 422) and POLICY.search(f"{code} {_words(error.body)}"):
            return BadInput(f"{at.model} refuses to paint this (status {status}){said}", "refused_by_service")
        if status == 402 or code in OUT_OF_MONEY:
            return BadRecipe(f"{at.base_url} says that this key's quota is used up (status {status}){said}. Top it up.")
        if status in TRY_AGAIN or status >= 500:
            return Stumbled(f"status {status}{said}", asked_wait_s(error.response.headers), status in MAYBE_BILLED)
        if status in (401, 403):
            return BadRecipe(
                f"{at.base_url} does not accept the key (status {status}): check the variable that {at.where}.key_env names{said}."
            )
        if status == 404:
            return BadRecipe(f"{at.base_url} knows no such model or address (status 404): check {at.where}.model and base_url{said}.")
        if status < 400:
            return BadRecipe(f"{at.base_url} sends us elsewhere (status {status}): give {at.where}.base_url the final address.")
        if self._served or status == 413:
            return BadInput(f"{at.base_url} refuses the request (status {status}){said}", "refused")
        return BadRecipe(f"{at.base_url} refuses what we ask of {at.model} (status {status}){said}. Check the options of {at.where}.")

    def _quoted(self, body: object) -> str:
        line = _words(body)
        if not line:
            return ""
        return "; its words are withheld, they hold a part of the key" if holds(line, self._secret.get_secret_value()) else f': "{line}"'


def _words(body: object) -> str:
    """What an error's body, or an answer without a picture, says; one line."""
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    text = inner.get("message", "") if isinstance(inner, Mapping) else inner
    kept = "".join(c if c.isprintable() else " " for c in text) if isinstance(text, str) else ""
    return " ".join(kept.split())[:QUOTE_MAX]


def _wait_s(state: Any) -> float:
    """Never earlier than the service asked; else doubling, with jitter."""
    asked = getattr(state.outcome.exception(), "wait_s", None)
    if asked is not None:
        return float(asked) + random.uniform(0, max(0.1, min(asked / 4, BACKOFF_MAX_S)))
    return float(min(BACKOFF_MAX_S, 2.0 ** (state.attempt_number - 1))) * random.uniform(0.5, 1.0)


def _read(chunks: Any, until_s: float) -> bytes:
    out = bytearray()
    for chunk in chunks:
        out += chunk
        if len(out) > BYTES_MAX:
            raise BadOutput(f"the answer has more than {BYTES_MAX >> 20} MB", "too_large")
        if time.monotonic() > until_s:
            raise Stumbled("the answer took too long", billed=True)
    return bytes(out)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadOutput("the picture's base64 is cut off or damaged", "half_written") from None
