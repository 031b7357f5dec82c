"""The one actor that asks a vision-language model: async, with many questions under way, so that all limits are kept in one place.

A question that was asked when the actor died is asked again by a new actor; nobody is blamed, since all were running. What the dead one had
sent is in the store's journal and counts in full.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import traceback
from typing import Any

from factory.steps import Charge, Step, named
from manifests import costs
from manifests.agency import EndpointSpec
from manifests.errors import BadAnswer, BadRecipe, OutOfSpace, Transient
from manifests.ledger import Ledger
from manifests.records import Frozen
from manifests.store import Cost, Outcome, Store

BRAIN = costs.BRAIN
"""the pool's name in costs and progress"""
DEATHS_MAX = 3
"""of the actor in a row, with no answer between them, until the questions are given up"""
START_TIMEOUT_S = 600.0
CONCURRENCY = 10_000
"""calls that the actor takes at once; those that wait for a slot, a limit or a busy server cost it nothing"""


class BrainWorker:
    """The Ray actor: one brain behind remote calls."""

    def __init__(self, store_url: str, endpoint: dict[str, Any]) -> None:
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self._store, self._endpoint = Store(store_url), EndpointSpec.model_validate(endpoint)

    def open(self, key: str) -> None:
        """Take the endpoint's key. It comes in a call of its own because what an actor is made with may be logged."""
        from agents.brains.openai import OpenAIBrain

        if self._endpoint.key_env:
            os.environ[self._endpoint.key_env] = key
        self._brain = OpenAIBrain(self._endpoint, self._store)

    async def ask(self, name: str, request: dict[str, Any], key: str, job: str, slice_: str) -> dict[str, Any]:
        """Run an asking step; returns the Outcome or a Fault as a dict with the key `type`. What was sent stands in the store."""
        from factory.work.asking import Desk

        step = named(name)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await step.run(step.request.model_validate(request), Desk(self._brain, self._store, key))  # type: ignore[arg-type]
            found: dict[str, Any] = {"status": "ok", "answer": answer.model_dump(mode="json")}
        except BadAnswer as e:
            found = {"status": "rejected", "reason": e.code, "message": e.message}
        except Exception as e:
            return {"type": "fault", **_fault(e)}
        about = {
            "key": key,
            "step": name,
            "request": request,
            "cost": Cost(seconds=round(loop.time() - began, 4), pool=BRAIN, job=job, slice=slice_),
        }
        try:
            standing = await asyncio.to_thread(self._store.put_outcome, Outcome.model_validate(found | about))
        except Exception as e:
            return {"type": "fault", **_fault(e)}
        return {"type": "outcome", **standing.model_dump(mode="json")}


def _fault(error: Exception) -> dict[str, Any]:
    kinds = ((BadRecipe, "bad_recipe"), (OutOfSpace, "out_of_space"), (Transient, "transient"))
    response = next((name for kind, name in kinds if isinstance(error, kind)), "error")
    details = "" if response == "bad_recipe" else "".join(traceback.format_exception(error))[-4000:]
    return {"response": response, "message": str(error), "details": details}


class BrainPool:
    """The driver's side: sends questions to the actor, books what they cost, replaces the actor when it dies."""

    def __init__(self, endpoint: EndpointSpec, store: Store, ledger: Ledger) -> None:
        self._endpoint, self._store, self._ledger = endpoint, store, ledger
        self._actor: Any = None
        self._lock = asyncio.Lock()
        self._deaths = 0
        self.busy = 0
        """questions under way"""
        self.size = endpoint.in_flight

    waiting = 0
    """none waits for a worker"""

    @property
    def calls(self) -> int:
        """The same."""
        return self.busy

    async def ask(self, step: Step[Any, Any], request: Frozen, key: str, charge: Charge) -> Outcome:
        """The question's outcome. Raises BadRecipe, OutOfSpace, Transient."""
        self.busy += 1
        self._ledger.asking(key)
        try:
            reply = await self._sent(step.name, request.model_dump(mode="json"), key, charge)
        finally:
            self.busy -= 1
        await asyncio.to_thread(self._ledger.asked, key, list(self._store.calls(key)))
        if reply.pop("type") == "outcome":
            return Outcome.model_validate(reply)
        raise {"bad_recipe": BadRecipe, "out_of_space": OutOfSpace}.get(reply["response"], Transient)(reply["message"])

    async def _sent(self, name: str, request: dict[str, Any], key: str, charge: Charge) -> dict[str, Any]:
        import ray

        while True:
            actor = None
            try:
                actor = await self._standing()
                reply: dict[str, Any] = await self._cancellable(actor.ask.remote(name, request, key, charge.job, charge.slice))
            except ray.exceptions.RayActorError as e:
                if actor is None or self._actor is actor:  # the first of many to notice
                    self._actor, self._deaths = None, self._deaths + 1
                if self._deaths >= DEATHS_MAX:
                    first = (str(e).splitlines() or ["no reason given"])[0]
                    raise Transient(f"the brain's actor died {self._deaths} times without an answer: {first}") from e
            else:
                self._deaths = 0
                return reply

    async def _cancellable(self, answer: Any) -> Any:
        """A remote answer; who stops waiting for it also stops the asking, which would go on and be paid for."""
        import ray

        try:
            return await answer
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                ray.cancel(answer)
            raise

    async def _standing(self) -> Any:
        """The actor, started by whoever needs it first."""
        async with self._lock:
            self._actor = self._actor or await self._started()
        return self._actor

    async def _started(self) -> Any:
        import ray

        from agents.brains.openai import key_of

        made = ray.remote(BrainWorker).options(num_cpus=0, max_restarts=0, max_concurrency=CONCURRENCY)
        actor: Any = made.remote(str(self._store.url), self._endpoint.model_dump(mode="json"))
        try:
            await asyncio.wait_for(actor.open.remote(key_of(self._endpoint)), START_TIMEOUT_S)
        except TimeoutError:
            raise Transient(f"the brain's actor could not be started in {START_TIMEOUT_S:g} s") from None
        return actor

    def close(self) -> None:
        """End the actor and book what it had sent for those who no longer wait."""
        import ray

        if self._actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._actor)
        self._ledger.catch_up(self._store)
