"""A vision-language model behind any OpenAI-compatible endpoint (hosted, vLLM, SGLang, llama.cpp …).

One brain holds all limits of its endpoint; everybody who asks shares it. It belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from pydantic import BaseModel, SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type

from agents.brains.faults import NOT_SENT, Patience, Refused, Stumbled, told
from agents.brains.limits import Clock, Gate, MachineClock
from agents.brains.question import Question
from agents.brains.schema import Unfit, read_answer, without
from agents.brains.talk import FORMS, Bound, Form, Reply, Talk, usage_of
from manifests.agency import EndpointSpec
from manifests.calls import CallJournal, CallRecord, CallState, cost_nano
from manifests.errors import BadAnswer, BadRecipe, Transient
from manifests.services import key_from

CONNECT_S = 10.0
WRITERS = 16
"""threads that write the journal: a disk or object store that takes its time must not hold up the others"""
MAYBE_BILLED = frozenset({408, 502, 504, *range(520, 525)})
"""A gateway lost patience, or its server: nobody says whether the model worked."""
NO_KEY = "none"
"""what a server that wants no key is sent"""


@dataclass(frozen=True)
class _Sent:
    """How one request ended: with a reply or a fault, never both."""

    reply: Reply | None = None
    fault: Exception | None = None
    usage: tuple[int, int] | None = None
    """prompt and completion tokens as the server counted, (0, 0) where nothing can be billed; None: unknown"""


class OpenAIBrain:
    """See agents.brains.question.Eyes. `journal` keeps what every request cost."""

    def __init__(self, spec: EndpointSpec, journal: CallJournal, clock: Clock | None = None) -> None:
        self._spec, self._journal = spec, journal
        self._clock = clock or MachineClock()
        self._gate = Gate(spec.in_flight, spec.requests_per_min, spec.tokens_per_min, self._clock)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="calls")
        self._key = SecretStr("")
        self._client: openai.AsyncOpenAI | None = None
        self._form = 0
        """place in FORMS of the strictest form that the server takes, as far as is known"""
        self._length_field = "max_tokens"
        self._served = False
        """the server has taken a request: what it refuses now is the question's fault, not the recipe's"""

    async def ask(self, question: Question) -> BaseModel:
        """The answer, of the question's type.

        Raises BadAnswer when two answers in a row don't fit it, Transient when the server can't be reached or stays busy, BadRecipe when it
        wants another key, model or address, and what the journal raises.
        """
        self._open()
        talk = Talk(question, self._spec.tokens_per_picture)
        reply = await self._replied(talk)
        try:
            return _read(reply, question, self._key.get_secret_value())
        except Unfit as e:
            talk.correct(without(self._key.get_secret_value(), reply.text), str(e))
        reply = await self._replied(talk)
        try:
            return _read(reply, question, self._key.get_secret_value())
        except Unfit as e:
            problem = str(e)
        raise BadAnswer(f"{question.model.model} answered the {question.role}'s question twice outside its schema: {problem}")

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.close()
        self._writers.shutdown(wait=False)

    async def _replied(self, talk: Talk) -> Reply:
        """The server's reply, asked for again while the server stumbles. Waiting between tries holds nothing that others could use."""
        patience = Patience(self._spec.attempts, self._clock)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Stumbled), stop=patience.over, wait=patience.wait_s, sleep=self._clock.sleep, reraise=True
        )
        try:
            return await retrying(self._taken, talk)
        except Stumbled as e:
            last = str(e)
        raise Transient(
            f"{self._spec.base_url} gave no reply to the {talk.question.role}'s question in {talk.requests} requests; last: {last}"
        )

    async def _taken(self, talk: Talk) -> Reply:
        """The reply in the strictest form that the server takes; looser ones are tried when it refuses."""
        place, field = self._form, self._length_field
        while True:
            try:
                reply = await self._request(talk, FORMS[place], field)
            except Refused as e:
                refusal = e
            else:
                self._form, self._length_field, self._served = max(place, self._form), field, True
                return reply
            if refusal.forbidden:
                raise self._unacceptable(talk.question, str(refusal))
            if refusal.parameter == field == "max_tokens":
                field = "max_completion_tokens"
            elif place + 1 < len(FORMS):
                place += 1
            else:
                raise self._unacceptable(talk.question, str(refusal))

    async def _request(self, talk: Talk, form: Form, length_field: str) -> Reply:
        """One request's whole life: admitted, put down at its upper bound, sent, put down as it was counted."""
        talk.requests += 1
        body, bound = talk.body(form, length_field), talk.bound(form)
        async with self._gate.enter(bound.total) as admission:
            record = self._record(talk, bound)
            await self._write(record)
            self._gate.sent(admission)
            sent = await self._send(body)
        if sent.usage is not None:
            self._gate.used(admission, sum(sent.usage))
        await self._write(self._settled(record, sent.usage))  # the slot is another's by now: a slow disk costs no throughput
        if sent.reply is None:
            fault = sent.fault or Stumbled("no reply")
            raise fault.at_a_cost() if isinstance(fault, Stumbled) and sent.usage != (0, 0) else fault
        return sent.reply

    async def _send(self, body: dict[str, Any]) -> _Sent:
        """Over the wire and back. Errors are answers too: only a cancellation is raised."""
        assert self._client is not None
        try:
            async with asyncio.timeout(self._spec.timeout_s):
                # Not chat.completions.create: walking the body against its types takes a third of a request's time, and the body is ours.
                response = await self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as e:
            usage = None if e.status_code in MAYBE_BILLED else (0, 0)
            return _Sent(fault=told(e, self._spec.base_url, self._key.get_secret_value()), usage=usage)
        except (openai.APITimeoutError, TimeoutError) as e:
            return _Sent(fault=Stumbled(f"no answer in {self._spec.timeout_s:g} s"), usage=_nothing_sent(e))
        except (openai.APIConnectionError, httpx2.HTTPError) as e:
            return _Sent(fault=Stumbled(f"the connection failed ({type(e.__cause__ or e).__name__})"), usage=_nothing_sent(e))
        try:
            envelope = json.loads(response.text)
        except (ValueError, RecursionError):
            return _Sent(fault=Stumbled("the server's answer is no JSON"))
        reply = Reply.of(envelope)
        if reply is None:
            return _Sent(fault=Stumbled("the server's answer is no chat completion"), usage=usage_of(envelope))
        return _Sent(reply, usage=reply.usage)

    def _open(self) -> None:
        """Make the client, once. Raises BadRecipe where there is no address or no key."""
        if self._client is None:
            spec = self._spec
            self._key = SecretStr(key_of(spec))
            timeout = httpx2.Timeout(spec.timeout_s, connect=min(CONNECT_S, spec.timeout_s))
            limits = httpx2.Limits(max_connections=spec.in_flight, max_keepalive_connections=spec.in_flight)
            # Redirects are not followed: they would carry pictures and key to a host that the recipe doesn't name.
            line = openai.DefaultAsyncHttpxClient(timeout=timeout, limits=limits, follow_redirects=False)
            self._client = openai.AsyncOpenAI(
                api_key=self._key.get_secret_value() or NO_KEY, base_url=spec.base_url, max_retries=0, timeout=timeout, http_client=line
            )

    def _record(self, talk: Talk, bound: Bound) -> CallRecord:
        question = talk.question
        return CallRecord(
            id=uuid.uuid4().hex, key=question.key, role=question.role, model=question.model.model, attempt=talk.requests, state="reserved",
            prompt_tokens=bound.prompt, completion_tokens=bound.completion, money_nano=self._cost(bound.prompt, bound.completion),
        )  # fmt: skip

    def _settled(self, record: CallRecord, usage: tuple[int, int] | None) -> CallRecord:
        state: CallState = "unconfirmed" if usage is None else "confirmed"
        prompt, completion = usage or (record.prompt_tokens, record.completion_tokens)
        update = {"state": state, "prompt_tokens": prompt, "completion_tokens": completion, "money_nano": self._cost(prompt, completion)}
        return record.model_copy(update=update)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        return cost_nano(prompt_tokens, completion_tokens, self._spec.price_in, self._spec.price_out)

    async def _write(self, record: CallRecord) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writers, self._journal.put_call, record)

    def _unacceptable(self, question: Question, why: str) -> Exception:
        if self._served:
            return BadAnswer(f"{self._spec.base_url} refuses the {question.role}'s question: {why}")
        return BadRecipe(f"{self._spec.base_url} refuses what we ask of {question.model.model}: {why}. Check agents.brain and its key_env.")


def key_of(spec: EndpointSpec) -> str:
    """The endpoint's key from the environment; empty where the server wants none. Raises BadRecipe, also for an address that is none."""
    return key_from(spec.key_env, spec.base_url, "agents.brain")


def _nothing_sent(error: BaseException) -> tuple[int, int] | None:
    return (0, 0) if isinstance(error.__cause__, NOT_SENT) else None


def _read(reply: Reply, question: Question, key: str) -> BaseModel:
    if reply.refusal:
        raise Unfit("it was refused")
    if reply.cut:
        raise Unfit(f"it was cut off at {question.model.max_tokens} tokens; use fewer words")
    return read_answer(reply.text, question.answer, key)
