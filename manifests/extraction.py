"""Who finds the people in clips, as a recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from manifests.records import Frozen


class ExtractorSpec(BaseModel):
    """How poses are read, or masks drawn: a kind, and its own options (all other keys, checked against the kind)."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    kind: str
    accept_licence: bool = False
    """whether you may use code and weights whose licence is unclear or restrictive; such a kind is refused without"""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class ExtractorsSpec(Frozen):
    """Who finds the people in clips and synthetic videos. The index, and the checker's look at pictures, always use the built-in ones."""

    poses: ExtractorSpec = ExtractorSpec(kind="blazepose")
    masks: ExtractorSpec = ExtractorSpec(kind="guided")
    pool: str | None = None
    """on whose workers; default: `cpu`"""


def beside_recipe(spec: ExtractorsSpec, folder: Path) -> ExtractorsSpec:
    """Files of weights (`file:…`) are looked for beside the recipe."""

    def placed(entry: ExtractorSpec) -> ExtractorSpec:
        named = {name: value[5:] for name, value in entry.options.items() if isinstance(value, str) and value.startswith("file:")}
        return entry.model_copy(update={name: f"file:{(folder / Path(path).expanduser()).resolve()}" for name, path in named.items()})

    return spec.model_copy(update={"poses": placed(spec.poses), "masks": placed(spec.masks)})
