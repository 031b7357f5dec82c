"""JSON schemas for structured output, and answers read back by them."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from agents.text import clean

TEXT_MAX = 4000
"""characters of a text whose type names no limit"""
ANSWER_MAX = 400_000
"""characters of a whole answer; what is longer is not read"""
_BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minimum": "{} or more",
    "maximum": "{} or less",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "pattern": "matches {}",
    "format": "{}",
}
"""Keywords that strict servers refuse. They go into the description in words; the answer's own type holds them."""


class Unfit(ValueError):
    """An answer that is not what was asked for; the text says why, in words for the model. Never leaves this package."""


@functools.cache
def strict_schema(answer: type[BaseModel]) -> str:
    """The answer's JSON schema as text, in the subset that servers of structured output agree on.

    All references are inlined, every object is closed and all its fields are required, and only `type, properties, required,
    additionalProperties, items, anyOf, enum, description` are used. Raises TypeError for a type that can't be written so (free-form
    dictionaries, recursion).
    """
    raw = _schema(answer)
    return json.dumps(_strict(raw, raw.get("$defs", {}), ()), ensure_ascii=False)


@functools.cache
def _schema(answer: type[BaseModel]) -> dict[str, Any]:
    return answer.model_json_schema()


def _strict(node: dict[str, Any], defs: dict[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        if name in inside:
            raise TypeError(f"the answer type {name} holds itself; structured output needs a schema of finite depth")
        return _described(_strict(defs[name], defs, (*inside, name)), node.get("description"))
    if len(node.get("allOf", ())) == 1:
        return _described(_strict(node["allOf"][0], defs, inside), node.get("description"))
    out: dict[str, Any] = {}
    bounds = [words.format(node[key]) for key, words in _BOUNDS.items() if key in node]
    _described(out, "; ".join([*([node["description"]] if node.get("description") else []), *bounds]))
    if variants := node.get("anyOf") or node.get("oneOf"):
        return out | {"anyOf": [_strict(variant, defs, inside) for variant in variants]}
    if "const" in node or "enum" in node:
        out["enum"] = node.get("enum", [node.get("const")])
    if "type" in node:
        out["type"] = node["type"]
    if node.get("type") == "array":
        out["items"] = _items(node, defs, inside)
    elif node.get("type") == "object":
        if node.get("additionalProperties") not in (None, False) or "properties" not in node:
            raise TypeError(f"{node.get('title', 'an object')} has free keys; structured output needs named fields")
        out["properties"] = {name: _strict(part, defs, inside) for name, part in node["properties"].items()}
        out |= {"required": list(node["properties"]), "additionalProperties": False}
    elif "type" not in node and "enum" not in out:
        raise TypeError(f"a field of the answer has no JSON type: {node}")
    return out


def _items(node: dict[str, Any], defs: dict[str, Any], inside: tuple[str, ...]) -> dict[str, Any]:
    if "prefixItems" not in node:
        return _strict(node["items"], defs, inside)
    kinds: list[dict[str, Any]] = []
    for part in node["prefixItems"]:
        kind = _strict(part, defs, inside)
        if kind not in kinds:
            kinds.append(kind)
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _described(node: dict[str, Any], description: str | None) -> dict[str, Any]:
    if description:
        node["description"] = " ".join(description.split())
    return node


def read_answer(text: str, answer: type[BaseModel], secret: str) -> BaseModel:
    """The answer in a model's text. Its texts are cleaned and cut at their types' limits first. Raises Unfit.

    `secret` (if any) is taken out of all texts: a server may echo the headers it was sent.
    """
    raw = _schema(answer)
    try:
        data = _tidied(_json_in(text), raw, raw.get("$defs", {}), secret)
        return answer.model_validate_json(json.dumps(data))
    except RecursionError:
        wrong = "it is nested too deeply"
    except ValidationError as e:
        found = e.errors(include_url=False, include_input=False, include_context=False)
        wrong = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'the whole'}: {error['msg']}" for error in found[:8])
    raise Unfit(without(secret, clean(wrong, 1000)))


def without(secret: str, text: str) -> str:
    """The text with the secret (if there is one) blotted out."""
    return text.replace(secret, "***") if secret else text


def _json_in(text: str) -> Any:
    """The JSON value in an answer: all of it, or in a fence or among words, after the thoughts that some servers leave in."""
    if len(text) > ANSWER_MAX:
        raise Unfit(f"it has {len(text)} characters, at most {ANSWER_MAX} are read")
    text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    if not text:
        raise Unfit("it is empty")
    fenced = re.search(r"```(?:json)?\s*(\{.*?\})\s*```", text, flags=re.DOTALL)
    decoder = json.JSONDecoder(parse_constant=_no_number)
    starts = [text, *([fenced.group(1)] if fenced else []), text[text.find("{") :]]
    problem = "no JSON object in it"
    for start in starts:
        try:
            value, end = decoder.raw_decode(start)
        except (ValueError, RecursionError) as e:
            problem = f"not valid JSON: {e}"
            continue
        if isinstance(value, dict) and (start is not text or not start[end:].strip()):
            return value
    raise Unfit(problem)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _tidied(value: Any, node: dict[str, Any], defs: dict[str, Any], secret: str) -> Any:
    """The value with all its texts cleaned, and cut where its schema says so. Keys stay: the type refuses those it doesn't know."""
    node = _chosen(node, value, defs)
    if isinstance(value, str):
        return clean(without(secret, value), int(node.get("maxLength", TEXT_MAX)))
    if isinstance(value, list):
        firsts = node.get("prefixItems", [])
        return [_tidied(v, firsts[i] if i < len(firsts) else node.get("items", {}), defs, secret) for i, v in enumerate(value)]
    if isinstance(value, dict):
        parts = node.get("properties", {})
        return {key: _tidied(v, parts.get(key, {}), defs, secret) for key, v in value.items()}
    return value


def _chosen(node: Any, value: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """The schema that speaks of this value: references followed, of alternatives the first of its JSON type."""
    if not isinstance(node, dict):
        return {}
    if "$ref" in node:
        return _chosen(defs[node["$ref"].rsplit("/", 1)[1]], value, defs)
    kind = "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object" if isinstance(value, dict) else None
    found = [_chosen(variant, value, defs) for variant in node.get("anyOf") or node.get("oneOf") or node.get("allOf") or ()]
    return next((variant for variant in found if variant.get("type") == kind), node)
