"""The wire to a vision-language model: what is sent, what comes back, and what the user must hear. A real HTTP server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import traceback
from pathlib import Path
from typing import Any

import pytest
from asking import KEY, FastClock, Opinion, ask, ask_all, good, question, spec
from pydantic import BaseModel
from scripted_server import Act, ScriptedServer, Seen, completion, error

from agents.brains.base import CaptionerAnswer, ImageJudgement, SelectorAnswer, VideoJudgement, WeaverAnswer
from agents.brains.openai import OpenAIBrain
from agents.brains.question import Picture
from agents.brains.schema import Unfit, read_answer, strict_schema
from manifests.agency import EndpointSpec
from manifests.errors import BadAnswer, BadRecipe, Transient
from manifests.ledger import Ledger
from manifests.services import holds
from manifests.store import Store

# --- what is sent and what comes back


def test_a_question_with_pictures_goes_out_whole_and_its_answer_comes_back_typed(store: Store) -> None:
    shown = (Picture("sheet 1", b"\x89PNG1", "image/png"), Picture("sheet\n2", b"\xff\xd8jpeg", "image/jpeg"))
    with ScriptedServer(lambda seen, _: good(seen)) as server:
        answer = ask(spec(server), store, question(3, shown))
    assert answer == Opinion(number=3, words="fine")
    body = server.seen[0].body
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("looker-1", 0.0, 200, 7)
    assert body["messages"][0] == {"role": "system", "content": "Say what you think."}
    kinds = [part["type"] for part in body["messages"][1]["content"]]
    assert kinds == ["text", "text", "image_url", "text", "image_url"]
    assert body["messages"][1]["content"][2]["image_url"]["url"] == "data:image/png;base64,iVBORzE="
    assert body["messages"][1]["content"][3]["text"] == "sheet 2"
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == json.loads(strict_schema(Opinion))
    assert server.seen[0].headers["authorization"] == "Bearer none"


ALLOWED = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "description"}


def _nodes(node: Any) -> list[dict[str, Any]]:
    inner = [*node.get("properties", {}).values(), *node.get("anyOf", []), *([node["items"]] if "items" in node else [])]
    return [node, *(n for part in inner for n in _nodes(part))]


@pytest.mark.parametrize("answer", [Opinion, SelectorAnswer, WeaverAnswer, CaptionerAnswer, ImageJudgement, VideoJudgement])
def test_schemas_keep_to_what_strict_servers_know(answer: type[BaseModel]) -> None:
    for node in _nodes(json.loads(strict_schema(answer))):
        assert set(node) <= ALLOWED
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])


def test_bounds_that_strict_servers_refuse_are_said_in_words_and_impossible_types_are_refused() -> None:
    properties = json.loads(strict_schema(Opinion))["properties"]
    assert properties["words"] == {"type": "string", "description": "at most 40 characters"}
    assert properties["notes"]["description"] == "at most 3 items"
    assert properties["notes"]["items"]["properties"]["code"]["enum"] == ["blur", "seam"]

    class Free(BaseModel):
        scores: dict[str, float]

    class Tree(BaseModel):
        inner: Tree | None

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    for impossible, why in ((Free, "free keys"), (Tree, "finite depth")):
        with pytest.raises(TypeError, match=why):
            strict_schema(impossible)


def test_texts_are_cleaned_and_cut_at_their_types_limits() -> None:
    dirty = {"number": 1, "words": "a\x00b\x1b[31m\u202e " + "x" * 100, "notes": [{"code": "blur", "words": "y" * 99}], "other": "z" * 99}
    answer = read_answer(json.dumps(dirty), Opinion, "")
    assert isinstance(answer, Opinion)
    assert answer.words == ("a b [31m " + "x" * 100)[:40]
    assert answer.notes[0].words == "y" * 30
    assert answer.other == "z" * 10


OPINION = '{"number": 1, "words": "w"}'


@pytest.mark.parametrize(
    "text",
    [
        OPINION,
        f"\n{OPINION}\n",
        f"Sure:\n```json\n{OPINION}\n```\nDone.",
        f"I say {OPINION} and that is it",
        f'<think>{{"a": 1}}</think>{OPINION}',
    ],
)
def test_the_answer_is_found_among_words(text: str) -> None:
    assert read_answer(text, Opinion, "") == Opinion(number=1, words="w")


@pytest.mark.parametrize(
    "text",
    ["", "  ", "no", "{", "[1]", "7", '{"number": NaN, "words": "w"}', '{"number": -1, "words": "w"}', '{"number": 1}', "[" * 50_000,
     '{"a":' * 5000 + "1" + "}" * 5000,
     '{"number": 1, "words": "w", "decision": "accept"}',
     '{"number": 1, "words": {"$ref": "x"}}', "x" * 500_000,
     '{"number": ' + "9" * 5000 + ', "words": "w"}'],
)  # fmt: skip
def test_what_does_not_fit_is_said_and_nothing_worse(text: str) -> None:
    with pytest.raises(Unfit) as told:
        read_answer(text, Opinion, "")
    assert 0 < len(str(told.value)) <= 1000


# --- answers that don't fit


UNFIT = {
    "words": completion("I would rather tell a story.", fit=False),
    "schema": completion('{"number": "many"}', fit=False),
    "empty": completion("", fit=False),
    "none": completion(None, fit=False),
    "cut": completion(OPINION, fit=False, finish="length"),
    "refusal": completion(None, fit=False, refusal="I can't"),
    "filter": completion("", fit=False, finish="content_filter"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_an_unfit_answer_is_asked_again_once_with_the_error(store: Store, kind: str) -> None:
    with ScriptedServer(lambda seen, before: good(seen) if before else UNFIT[kind]) as server:
        assert ask(spec(server), store, question(5)) == Opinion(number=5, words="fine")
    first, second = server.seen
    assert len(second.body["messages"]) > len(first.body["messages"])
    last = second.body["messages"][-1]["content"]
    assert "can't be used: " in last
    assert strict_schema(Opinion) in last
    with ScriptedServer(lambda *_: UNFIT[kind]) as server, pytest.raises(BadAnswer, match="twice outside its schema") as told:
        ask(spec(server), store)
    assert told.value.code == "bad_answer"
    assert len(server.seen) == 2


# --- servers that know less


@pytest.mark.parametrize("forms", [["json_schema", "json_object"], ["json_schema", "json_object", None]])
def test_servers_without_json_schema_get_looser_forms_and_it_is_remembered(store: Store, forms: list[str | None]) -> None:
    def script(seen: Seen, _: int) -> Act:
        kind = seen.body.get("response_format", {}).get("type")
        return error(400, "unsupported response_format") if kind in forms[:-1] else good(seen)

    async def twice(endpoint: EndpointSpec) -> list[BaseModel]:
        brain = OpenAIBrain(endpoint, store)
        return [await brain.ask(question(1)), await brain.ask(question(2))]

    with ScriptedServer(script) as server:
        assert asyncio.run(twice(spec(server))) == [Opinion(number=1, words="fine"), Opinion(number=2, words="fine")]
    asked = [seen.body.get("response_format", {}).get("type") for seen in server.seen]
    assert asked == [*forms, forms[-1]]
    assert strict_schema(Opinion) in server.seen[-1].body["messages"][0]["content"]
    assert strict_schema(Opinion) not in server.seen[0].body["messages"][0]["content"]


def test_newer_servers_name_the_limit_of_tokens_differently(store: Store) -> None:
    def script(seen: Seen, _: int) -> Act:
        return error(400, "use max_completion_tokens", param="max_tokens") if "max_tokens" in seen.body else good(seen)

    with ScriptedServer(script) as server:
        ask(spec(server), store)
    assert server.seen[1].body["max_completion_tokens"] == 200
    assert server.seen[1].body["response_format"]["type"] == "json_schema"


def test_a_question_refused_in_every_form_is_bad_once_the_server_has_served(store: Store) -> None:
    with ScriptedServer(lambda *_: error(400, "temperature must be 1")) as server, pytest.raises(BadRecipe, match="temperature must be 1"):
        ask(spec(server), store)
    assert len(server.seen) == 3

    async def second(endpoint: EndpointSpec) -> None:
        brain = OpenAIBrain(endpoint, store)
        await brain.ask(question(1))
        await brain.ask(question(2))

    with (
        ScriptedServer(lambda seen, _: good(seen) if seen.number == 1 else error(400, "too long")) as server,
        pytest.raises(BadAnswer, match="too long"),
    ):
        asyncio.run(second(spec(server)))


# --- keys and what the user must hear


@pytest.mark.parametrize(
    ("act", "words"),
    [(error(401), "key_env names"), (error(403), "its key_env"), (error(404, "no model x"), 'base_url with its /v1: "no model x"'),
     (error(402), "quota"), (error(429, code="insufficient_quota"), "quota"),
     (Act(307, headers={"location": "http://127.0.0.1:9/"}), "elsewhere")],
)  # fmt: skip
def test_mistakes_of_the_recipe_are_told_at_once_and_cost_nothing(store: Store, act: Act, words: str) -> None:
    with ScriptedServer(lambda *_: act) as server, pytest.raises(BadRecipe, match=words):
        ask(spec(server), store)
    assert len(server.seen) == 1
    assert [(c.state, c.money_nano) for c in store.calls()] == [("confirmed", 0)]


def test_a_missing_key_or_a_wrong_address_is_told_before_anything_is_sent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOKER_KEY", raising=False)
    with ScriptedServer(lambda seen, _: good(seen)) as server:
        with pytest.raises(BadRecipe, match="has no LOOKER_KEY"):
            ask(spec(server, key_env="LOOKER_KEY"), store)
        for address in ("127.0.0.1:8000/v1", "ftp://host/v1", "http://me:pw@host/v1", "http://host/v1?key=abc"):
            with pytest.raises(BadRecipe, match="base_url") as told:
                ask(spec(server, base_url=address), store)
            assert "pw" not in str(told.value)
    assert not server.seen
    assert not list(store.calls())


def test_the_key_appears_nowhere(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The server echoes the header it was sent into error bodies and answers, whole, in part and spaced."""
    monkeypatch.setenv("LOOKER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    echoes = ("Incorrect API key: {}", "Bearer {} is wrong", "you sent\n{}\nto us")
    forms = (KEY, KEY[:14], KEY[-12:], " ".join(KEY), KEY.upper())

    def script(seen: Seen, _: int) -> Act:
        assert seen.headers["authorization"] == f"Bearer {KEY}"
        words = random.Random(seen.number).choice(echoes).format(forms[seen.number % len(forms)])
        kind = seen.number % 7
        if kind < 5:
            return error((401, 404, 400, 429, 500)[kind], words)
        return completion(json.dumps({"number": 1, "words": KEY, KEY: 1} if kind == 5 else {"number": 1, "words": f"it is {KEY}"}))

    with ScriptedServer(script) as server:
        endpoint = spec(server, key_env="LOOKER_KEY", attempts=2)
        brain = OpenAIBrain(endpoint, store)
        ended = ask_all(endpoint, store, [question(n) for n in range(70)], FastClock(300))
    told = [repr(brain), str(vars(brain)), caplog.text]
    for end in ended:
        told.append(repr(end))
        if isinstance(end, BaseException):
            assert isinstance(end, BadRecipe | BadAnswer | Transient)
            told += traceback.TracebackException.from_exception(end, capture_locals=True).format()
    with Ledger(tmp_path / "l.sqlite", store) as ledger:
        ledger.rebuild(store)
    told += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(list(store.calls())) >= 70
    for text in told:
        assert not holds(text, KEY)
    assert any(isinstance(end, Opinion) and end.words == "it is ***" for end in ended)


def test_parts_of_keys_are_recognised() -> None:
    assert holds("key SK-TEST-4F1D was wrong", KEY)
    assert holds("s k - t e s t - 4", KEY)
    assert not holds("sk-test", KEY)
    assert holds("abc", "abc")
    assert not holds("anything", "")
