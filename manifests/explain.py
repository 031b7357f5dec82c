"""What is wrong with a recipe, in lines that help: where, what was got, what may stand there, the nearest name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from manifests.errors import BadRecipe


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """A hint for a misspelt name: the nearest known one, and all of them."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(sorted(known)) or 'none'})"


M = typing.TypeVar("M", bound=BaseModel)


def validated(model: type[M], data: Any, where: str) -> M:
    """`data` as `model`. Raises BadRecipe with a readable line for every mistake."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        errors = e.errors()
        inner = [err for err in errors if not any(o["loc"][: len(err["loc"])] == err["loc"] and o is not err for o in errors)]
        inner.sort(key=lambda err: err["type"] == "missing")  # a misspelt key is the likelier cause of a missing one
        raise BadRecipe("\n".join(dict.fromkeys(f"{where}: {_explain(model, err)}" for err in inner))) from None


def _explain(model: type[BaseModel], error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    place = ".".join(part for part in loc if "[" not in part and not part.startswith("tuple")) or "(top)"
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, loc[:-1])
        return f"{place}: unknown key{nearest(loc[-1], fields)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "value_error":
        return f"{place}: {message}" if place != "(top)" else message
    return f"{place}: got {error['input']!r}; {message[0].lower()}{message[1:]}"


def _fields_at(model: type[BaseModel], loc: list[str]) -> list[str]:
    """The keys allowed at a place, found by walking the annotations along the error's location."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            if part not in current.model_fields:
                return []
            current = current.model_fields[part].annotation
        else:
            current = _inside(current)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inside(annotation: Any) -> Any:
    """The value type of dict[...], tuple[...] or a union."""
    args = [a for a in typing.get_args(annotation) if a is not Ellipsis and a is not types.NoneType]
    return args[-1] if args else annotation
