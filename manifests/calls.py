"""What every request to a language model cost: one record a request, written before it is sent and settled when it is answered.

A request that is under way, or whose connection was cut, may be billed: it counts at its upper bound until the server says otherwise.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Literal, Protocol

from pydantic import Field

from manifests.records import Digest, Frozen

NANO = 1_000_000_000
"""parts of one unit of money in which spend is counted: integers add up exactly"""

CallState = Literal["reserved", "confirmed", "unconfirmed"]
"""reserved: about to be sent, or under way when its worker was killed; confirmed: the server said what it took, or refused; unconfirmed: it
was sent and no usage came back"""

CallId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class CallRecord(Frozen):
    """One request. `reserved` and `unconfirmed` ones hold their upper bounds."""

    id: CallId
    key: Digest
    """of the step that asked"""
    role: str
    model: str
    attempt: int = Field(ge=1)
    """1 is the question's first request; every further one adds 1, whatever its cause"""
    state: CallState
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    money_nano: int = Field(ge=0)
    """in billionths of the unit that the recipe's prices are in"""


class CallJournal(Protocol):
    """Where records go; `manifests.store.Store` is one."""

    def put_call(self, record: CallRecord) -> None:
        """Keep a record, in place of an earlier one of its id. On the disk when it returns."""
        ...


class RoleSpend(Frozen):
    """What the requests of one role to one model came to."""

    role: str
    model: str
    requests: int
    """that were sent, those that the server refused included"""
    unconfirmed_requests: int
    """of these, how many ended without a word of their cost"""
    prompt_tokens: int
    """as the server counted"""
    completion_tokens: int
    money_nano: int
    """confirmed"""
    unconfirmed_nano: int
    """at most this much besides"""


def cost_nano(prompt_tokens: int, completion_tokens: int, price_in: float, price_out: float) -> int:
    """Billionths of a unit of money, rounded up; prices are money per million tokens, taken as the decimals they are written as."""
    exact = prompt_tokens * Fraction(str(price_in)) + completion_tokens * Fraction(str(price_out))
    return math.ceil(exact * NANO / 1_000_000)
