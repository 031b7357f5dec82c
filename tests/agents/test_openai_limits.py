"""What the questions to one endpoint share: slots, minutes, and money that is written down before it is spent."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
from pathlib import Path

import pytest
from asking import FastClock, Opinion, ask, ask_all, good, question, spec
from scripted_server import STALL_S, Act, ScriptedServer, Seen, error

from agents.brains.limits import MARGIN_S, MINUTE_S, Gate
from agents.brains.openai import OpenAIBrain
from agents.brains.question import Picture
from agents.brains.talk import Talk
from manifests.agency import EndpointSpec
from manifests.calls import CallRecord, cost_nano
from manifests.errors import BadRecipe, MotionpairError
from manifests.ledger import Ledger
from manifests.store import Store

# --- limits


def test_a_request_that_waits_holds_no_slot(store: Store) -> None:
    """One slot; the first question is told to wait 100 s of the clock; the others pass meanwhile."""

    def script(seen: Seen, before: int) -> Act:
        return error(429, headers={"retry-after": "100"}) if before == 0 else good(seen)

    with ScriptedServer(script) as server:
        ended = ask_all(spec(server, in_flight=1), store, [question(n) for n in range(10)], FastClock(100.0))
    assert all(isinstance(end, Opinion) for end in ended)
    assert [seen.number for seen in server.seen] == [*range(10), 0]
    assert server.most_open == 1


def test_no_more_requests_are_under_way_than_there_are_slots(store: Store) -> None:
    with ScriptedServer(lambda seen, _: good(seen, delay_s=0.05)) as server:
        ask_all(spec(server, in_flight=5), store, [question(n) for n in range(30)])
    assert server.most_open == 5


def _most_within_a_minute(times_s: list[float], weights: list[int]) -> int:
    times = sorted(zip(times_s, weights, strict=True))
    return max(sum(w for t, w in times if start <= t < start + MINUTE_S) for start, _ in times)


def test_limits_hold_over_every_sliding_minute() -> None:
    """Time runs 60 times as fast; what counts are the instants at which requests were sent."""
    clock, sent = FastClock(60.0), []

    async def one(gate: Gate, tokens: int, used: int) -> None:
        async with gate.enter(tokens) as admission:
            await clock.sleep(random.uniform(0, 0.5))  # the journal
            gate.sent(admission)
            sent.append((admission.sent_s, used))
            await clock.sleep(random.uniform(0, 3))
        gate.used(admission, used)

    async def many(gate: Gate, count: int, tokens: int, used: int) -> float:
        began = clock.now()
        await asyncio.gather(*(one(gate, tokens, used) for _ in range(count)))
        return clock.now() - began

    took_s = asyncio.run(many(Gate(64, 100, None, clock), 350, 10, 10))
    assert _most_within_a_minute([t for t, _ in sent], [1] * 350) == 100
    assert 3 * (MINUTE_S + MARGIN_S) <= took_s < 3 * (MINUTE_S + MARGIN_S) + 50
    sent.clear()
    took_s = asyncio.run(many(Gate(4, None, 1000, clock), 120, 100, 30))
    assert _most_within_a_minute([t for t, _ in sent], [u for _, u in sent]) <= 1000
    assert took_s < 5 * (MINUTE_S + MARGIN_S), "upper bounds are given back when the usage is known"


def test_a_cancelled_waiter_leaves_slots_and_minute_as_they_were() -> None:
    clock = FastClock(100.0)

    async def run() -> float:
        gate = Gate(1, 2, None, clock)

        async def hold() -> None:
            async with gate.enter(1):
                await asyncio.sleep(60)

        tasks = [asyncio.create_task(hold()) for _ in range(4)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        began = clock.now()
        for _ in range(2):
            async with gate.enter(1) as admission:
                gate.sent(admission)
        return clock.now() - began

    assert asyncio.run(run()) < 10, "what was never sent is in nobody's minute"


def test_a_question_larger_than_a_minutes_tokens_is_the_recipes_mistake(store: Store) -> None:
    with ScriptedServer(lambda seen, _: good(seen)) as server, pytest.raises(BadRecipe, match="tokens_per_min: 100 is less"):
        ask(spec(server, tokens_per_min=100), store)
    assert not server.seen
    assert not list(store.calls())


# --- money


@pytest.mark.parametrize(
    ("prompt", "completion", "price_in", "price_out", "nano"),
    [(1, 0, 0.15, 0.6, 150), (1, 1, 0.15, 0.6, 750), (3, 0, 0.0001, 0, 1), (7, 0, 0.1, 0, 700), (0, 0, 5, 5, 0),
     (1_000_000, 1_000_000, 2.5, 10, 12_500_000_000)],
)  # fmt: skip
def test_money_is_counted_in_whole_nanos_rounded_up(prompt: int, completion: int, price_in: float, price_out: float, nano: int) -> None:
    assert cost_nano(prompt, completion, price_in, price_out) == nano


def test_the_record_is_there_before_the_request_and_stays_when_its_worker_is_killed(store: Store, tmp_path: Path) -> None:
    before: list[list[CallRecord]] = []

    def script(seen: Seen, _: int) -> Act:
        before.append(list(store.calls(question().key)))
        return Act(delay_s=STALL_S)

    async def killed(endpoint: EndpointSpec) -> None:
        task = asyncio.create_task(OpenAIBrain(endpoint, store).ask(question()))
        while not before:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with ScriptedServer(script) as server:
        asyncio.run(killed(spec(server)))
    ((record,),) = before
    bound = Talk(question(), 2000).bound("json_schema")
    assert (record.state, record.attempt, record.role, record.model) == ("reserved", 1, "weaver", "looker-1")
    assert record.money_nano == math.ceil(bound.prompt * 150 + bound.completion * 600)
    with Ledger(tmp_path / "l.sqlite", store) as ledger:
        ledger.asking(question().key)
    with Ledger(tmp_path / "l.sqlite", store) as ledger:
        assert ledger.catch_up(store) == 1
        assert ledger.catch_up(store) == 0
        (spend,) = ledger.spend()
    assert (spend.money_nano, spend.unconfirmed_nano, spend.unconfirmed_requests) == (0, record.money_nano, 1)


def test_the_bound_is_one(store: Store) -> None:
    """Whatever the tokenizer: no more tokens than bytes; pictures at the recipe's bound."""
    facts = "häuser 漢字 🕺 " * 50
    talk = Talk(question(0, (Picture("p", b"x" * 9999, "image/png"),) * 3, instructions=facts), tokens_per_picture=700)
    bound = talk.bound("json_schema")
    assert len(facts.encode()) + 3 * 700 < bound.prompt < len(facts.encode()) + 3 * 700 + 3000
    talk.correct("x" * 100_000, "no")
    assert bound.prompt + 4000 < talk.bound("json_schema").prompt < bound.prompt + 8000


def test_calls_are_settled_once_and_survive_a_damaged_file(store: Store, tmp_path: Path) -> None:
    reserved = CallRecord(
        id="a" * 32, key=question().key, role="weaver", model="m", attempt=1, state="reserved", prompt_tokens=9, completion_tokens=9,
        money_nano=99,
    )  # fmt: skip
    confirmed = reserved.model_copy(update={"state": "confirmed", "prompt_tokens": 5, "money_nano": 7})
    with Ledger(tmp_path / "l.sqlite", store) as ledger:
        for records in ((reserved,), (confirmed,), (reserved,), (confirmed, confirmed)):
            ledger.asked(reserved.key, records)
        assert [(s.money_nano, s.unconfirmed_nano, s.requests) for s in ledger.spend()] == [(7, 0, 1)]
        store.put_call(reserved)
        store.put_call(confirmed)
        store.put_call(reserved.model_copy(update={"id": "b" * 32}))
        assert ledger.rebuild(store) == 0
        assert ledger.money_nano() == 7 + 99
    assert next(store.calls(reserved.key)) == confirmed
    harmed = next((tmp_path / "store" / "calls").rglob("a*.json"))
    harmed.chmod(0o644)
    harmed.write_bytes(harmed.read_bytes().replace(b'"money_nano":7', b'"money_nano":0'))
    seen: list[MotionpairError] = []
    assert [c.id for c in store.calls(damaged=seen.append)] == ["b" * 32]
    assert re.search("call record .* is not what was written", str(seen[0]))


def test_the_environment_names_no_other_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with ScriptedServer(lambda seen, _: good(seen)) as server:
        ask(spec(server), store)
    assert "somebody" not in json.dumps(server.seen[0].headers)
    assert os.environ["OPENAI_API_KEY"]
