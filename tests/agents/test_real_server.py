"""The wire against a real OpenAI-compatible server (llama.cpp) with a very small language model. Its judgement is not tested."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from small_model import missing, served

from agents.brains.openai import OpenAIBrain
from agents.brains.question import Question
from manifests.agency import EndpointSpec, ModelSpec
from manifests.errors import BadAnswer
from manifests.ledger import Ledger
from manifests.records import Frozen
from manifests.store import Store

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"not installed: {', '.join(missing())}; pip install 'motionpair[llama]' brings them"
)


class Look(Frozen):
    decision: Literal["accept", "revise"]
    score: Literal[1, 2, 3]
    seen: bool


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointSpec]:
    with served(tmp_path_factory.mktemp("model")) as base_url:
        yield EndpointSpec(base_url=base_url, timeout_s=120, price_in=1.0, price_out=2.0)


def question(number: int, max_tokens: int = 100) -> Question:
    key = hashlib.sha256(str(number).encode()).hexdigest()
    model = ModelSpec(model="small", max_tokens=max_tokens, seed=1)
    return Question(key, "image_checker", model, "Judge the picture in words.", f'{{"number": {number}}}', (), Look)


def test_answers_fit_their_schema_and_are_costed(endpoint: EndpointSpec, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    async def run() -> list[object]:
        brain = OpenAIBrain(endpoint, store)
        good = await asyncio.gather(*(brain.ask(question(n)) for n in range(3)))
        with pytest.raises(BadAnswer, match="cut off at 16 tokens"):
            await brain.ask(Question(**{**vars(question(9, 16)), "answer": Long}))
        await brain.close()
        return list(good)

    answers = asyncio.run(run())
    assert [type(answer) for answer in answers] == [Look] * 3
    with Ledger(tmp_path / "l.sqlite", store) as ledger:
        ledger.rebuild(store)
        (spend,) = ledger.spend()
    assert (spend.requests, spend.unconfirmed_requests) == (5, 0), "a real server knows JSON schema at once and tells its usage"
    assert spend.prompt_tokens > 5 * 10
    assert spend.money_nano == spend.prompt_tokens * 1000 + spend.completion_tokens * 2000


class Long(Frozen):
    """Cannot be written in 16 tokens."""

    first_long_name_of_a_field: Literal["a value that takes more room than there is, by far, whatever the tokenizer makes of it"]
    second: str
