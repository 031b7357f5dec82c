"""The actor that asks: it dies, its questions are given up, its open requests count.

Real Ray; a real HTTP server stands in for the endpoint.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import ray
from running import Material
from s3_server import serving
from scripted_server import STALL_S, Act, ScriptedServer, completion

from agents.brains.base import CaptionerFacts, Scene
from factory.engine import Engine
from factory.progress import Progress
from factory.run import Run, Workplace
from factory.steps import Charge
from factory.work.asking import AskRequest, ask_model
from manifests.agency import ModelSpec
from manifests.calls import CallRecord
from manifests.recipe import Recipe, load_recipe
from manifests.records import digest_of
from manifests.store import Outcome, Store

FACTS = CaptionerFacts(scene=Scene(people=(), backdrop="grey", brightness="bright", orientation="upright"))


@pytest.fixture
def recipe_for(material: Material, tmp_path: Path) -> Callable[..., Recipe]:
    def made(server: ScriptedServer, money: float = 1000.0, **more: Any) -> Recipe:
        brain = {"kind": "openai", "base_url": server.url, "model": "stand-in", "price_in": 3.0, "price_out": 15.0, **more}
        path = tmp_path / "recipe.yaml"
        path.write_text(f"{material.recipe.read_text()}\nagents: {{brain: {json.dumps(brain)}}}\nbudget: {{money: {money}}}\n")
        return load_recipe(path)

    return made


def question(number: int) -> tuple[AskRequest, str]:
    return AskRequest(model=ModelSpec(model="stand-in"), instructions=f"Describe. {number}", facts=FACTS, exhibits=()), digest_of(number)


def answered(seen: object, before: int) -> Act:
    return completion(json.dumps({"caption": "Somebody walks."}), (100, 20))


async def ask(engine: Engine, number: int) -> Outcome:
    request, key = question(number)
    return await engine.run(ask_model, request, key, Charge("0" * 64), "brain")


async def seen_by(server: ScriptedServer, count: int) -> None:
    async with asyncio.timeout(60):
        while len(server.seen) < count:
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("one_ray")
def test_questions_outlive_their_actor_and_both_times_are_counted(recipe_for: Callable[..., Recipe], tmp_path: Path) -> None:
    async def run(server: ScriptedServer, place: Workplace) -> list[Outcome]:
        with place.opened() as ledger:
            async with Engine(recipe_for(server), place.store, ledger, {}) as engine:
                asked = [asyncio.create_task(ask(engine, n)) for n in range(3)]
                await seen_by(server, 3)
                assert engine._brain is not None
                ray.kill(engine._brain._actor)
                found = await asyncio.wait_for(asyncio.gather(*asked), 90)
            (spend,) = ledger.spend()
            assert (spend.requests, spend.unconfirmed_requests, spend.prompt_tokens) == (6, 3, 300)
            return found

    place = Workplace(tmp_path / "out")
    with ScriptedServer(lambda seen, before: Act(delay_s=STALL_S) if before < 3 else answered(seen, before)) as server:
        assert [o.status for o in asyncio.run(run(server, place))] == ["ok"] * 3
        assert len(server.seen) == 6


@pytest.mark.usefixtures("one_ray")
def test_a_question_that_nobody_waits_for_is_hung_up_and_booked(recipe_for: Callable[..., Recipe], tmp_path: Path) -> None:
    async def run(server: ScriptedServer, place: Workplace) -> None:
        with place.opened() as ledger:
            async with Engine(recipe_for(server, in_flight=1), place.store, ledger, {}) as engine:
                asked = asyncio.create_task(ask(engine, 1))
                await seen_by(server, 1)
                asked.cancel()
                async with asyncio.timeout(60):
                    assert (await ask(engine, 2)).status == "ok", "the only slot is still held"
            (spend,) = ledger.spend()
            assert (spend.requests, spend.unconfirmed_requests, spend.prompt_tokens) == (2, 1, 100)
            assert spend.unconfirmed_nano > 0

    with ScriptedServer(lambda seen, before: answered(seen, before) if before else Act(delay_s=STALL_S)) as server:
        asyncio.run(run(server, Workplace(tmp_path / "out")))


@pytest.mark.usefixtures("one_ray")
def test_what_is_open_counts_against_the_cap(recipe_for: Callable[..., Recipe], tmp_path: Path) -> None:
    async def run(server: ScriptedServer, place: Workplace) -> None:
        with place.opened() as ledger:
            about = Run(recipe_for(server, money=0.004), place, ledger, Progress())
            async with about.engine as engine:
                assert about._may_spend()
                asked = [asyncio.create_task(ask(engine, n)) for n in range(2)]
                await seen_by(server, 2)
                await about.look_at_open()
                assert about.money() > 0.004
                assert not about._may_spend()
                for one in asked:
                    one.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    with ScriptedServer(lambda *_: Act(delay_s=STALL_S)) as server:
        asyncio.run(run(server, Workplace(tmp_path / "out")))


def reserved(number: int) -> CallRecord:
    return CallRecord(
        id=f"{number:032x}", key=digest_of(number), role="captioner", model="stand-in", attempt=1, state="reserved", prompt_tokens=9,
        completion_tokens=9, money_nano=1_000_000,
    )  # fmt: skip


def open_on(store: Store, run: Run, count: int) -> None:
    for number in range(count):
        run.ledger.asking(digest_of(number))
        store.put_call(reserved(number))


async def longest_pause(work: Coroutine[Any, Any, None]) -> float:
    """Seconds that the loop stood still while it was done."""
    doing, longest = asyncio.create_task(work), 0.0
    while not doing.done():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - began)
    await doing
    return longest


def test_counting_what_is_open_on_a_slow_object_store_does_not_stop_the_loop(recipe_for: Callable[..., Recipe], tmp_path: Path) -> None:
    async def run(recipe: Recipe, place: Workplace) -> None:
        with place.opened() as ledger:
            about = Run(recipe, place, ledger, Progress())
            open_on(place.store, about, 5)
            storage.trouble(503, 12)
            began = time.monotonic()
            pause = await longest_pause(about.look_at_open())
            assert time.monotonic() - began > 1.0 > pause, "the server's bad time was not waited for on a thread"
            assert about.money() == pytest.approx(0.005)

    with serving() as storage, ScriptedServer(answered) as server:
        asyncio.run(run(recipe_for(server), Workplace(tmp_path / "out", f"{storage.bucket()}/slow")))


def test_nothing_is_begun_when_what_is_open_can_not_be_counted(recipe_for: Callable[..., Recipe], tmp_path: Path) -> None:
    async def run(recipe: Recipe, place: Workplace) -> None:
        with place.opened() as ledger:
            about = Run(recipe, place, ledger, Progress())
            assert about._may_spend()
            open_on(place.store, about, 1)
            file = next((tmp_path / "out" / "store" / "calls").rglob("*.json"))
            file.unlink()
            file.symlink_to("/proc/self/mem")  # reading it is an error of the device
            await about._keep_count()
            with pytest.raises(OSError, match="Input/output error"):
                about._may_spend()
            file.unlink()
            await about._keep_count()
            assert about._may_spend()

    with ScriptedServer(answered) as server:
        asyncio.run(run(recipe_for(server), Workplace(tmp_path / "out")))
