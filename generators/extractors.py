"""Which extractors of poses and masks there are, and how the recipe's entry becomes one."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import Field, JsonValue

from generators.masks.extractor import MaskExtractor
from generators.poses.extractor import Extractor, ExtractorOptions, Facts, PoseExtractor
from manifests.errors import BadRecipe
from manifests.explain import nearest, validated
from manifests.extraction import ExtractorSpec, ExtractorsSpec
from manifests.recipe import Recipe
from manifests.records import Frozen

Sort = Literal["poses", "masks"]
SORTS: tuple[Sort, ...] = ("poses", "masks")
KINDS: dict[Sort, dict[str, str]] = {
    "poses": {
        "blazepose": "generators.poses.people:PeopleTracker",
        "dwpose": "generators.poses.dwpose:DWPose",
        "nlf": "generators.poses.nlf:NLF",
        "sam3d_body": "generators.poses.sam3d_body:Sam3dBody",
    },
    "masks": {"guided": "generators.masks.refine:EdgeRefiner", "sam2": "generators.masks.sam2:Sam2"},
}


class Extraction(Frozen):
    """What a step has to know of the recipe's extractors: their kinds and options."""

    poses: str = "blazepose"
    pose_options: dict[str, JsonValue] = Field(default_factory=dict)
    masks: str = "guided"
    mask_options: dict[str, JsonValue] = Field(default_factory=dict)

    @staticmethod
    def of(spec: ExtractorsSpec) -> Extraction:
        return Extraction(poses=spec.poses.kind, pose_options=spec.poses.options, masks=spec.masks.kind, mask_options=spec.masks.options)

    def part(self, sort: Sort) -> tuple[str, dict[str, Any]]:
        """Kind and options."""
        return (self.poses, dict(self.pose_options)) if sort == "poses" else (self.masks, dict(self.mask_options))


@dataclass(frozen=True)
class Stands:
    """What extractions stand on, for the step key."""

    modules: tuple[str, ...]
    weights: frozenset[str]
    """names in generators.weights"""
    content: dict[str, Any]
    """kinds, and of their options what may change poses or masks"""


def class_of(sort: Sort, kind: str) -> type[Extractor]:
    """The class behind a kind. Raises BadRecipe when there is none."""
    if kind not in KINDS[sort]:
        raise BadRecipe(f"extractors.{sort}.kind: {kind!r} is unknown{nearest(kind, KINDS[sort])}")
    module, _, name = KINDS[sort][kind].partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def options_of(sort: Sort, kind: str, options: dict[str, Any]) -> ExtractorOptions:
    """The options as the class takes them. Raises BadRecipe with a line for each that it does not."""
    return validated(class_of(sort, kind).options_type, options, f"extractors.{sort} ({kind})")


def create(extraction: Extraction) -> PoseExtractor:
    """The pose extractor with its mask extractor, not set up yet. Raises BadRecipe for unknown kinds and options."""
    masks = class_of("masks", extraction.masks)
    drawing = cast(MaskExtractor, cast(Any, masks).build(options_of("masks", *extraction.part("masks"))))
    poses = cast(type[PoseExtractor], class_of("poses", extraction.poses))
    return poses.build(options_of("poses", *extraction.part("poses")), drawing)


def stands_on(extraction: Extraction) -> Stands:
    """Modules, weights and options that an extraction's result depends on."""
    classes = {sort: class_of(sort, extraction.part(sort)[0]) for sort in SORTS}
    content: dict[str, Any] = {}
    for sort in SORTS:
        kind, options = extraction.part(sort)
        content[sort] = {"kind": kind, **classes[sort].keyed(options_of(sort, kind, options))}
    weights = frozenset(name for cls in classes.values() for name in cls.weights)
    return Stands(tuple(cls.__module__ for cls in classes.values()), weights, content)


def facts_of(sort: Sort, spec: ExtractorSpec) -> Facts:
    """What is known of an entry. Raises BadRecipe as `class_of` and `options_of`."""
    return class_of(sort, spec.kind).facts_with(options_of(sort, spec.kind, spec.options))


def gives(recipe: Recipe) -> frozenset[str]:
    """What the clip's people have beside poses and masks."""
    return facts_of("poses", recipe.extractors.poses).gives


def complaints(recipe: Recipe) -> list[str]:
    """Why the recipe's extractors can't be used, a line each. Raises BadRecipe for unknown kinds and options."""
    out = []
    name = recipe.extractors.pool or "cpu"
    pool = recipe.pools.get(name)
    for sort in SORTS:
        spec: ExtractorSpec = getattr(recipe.extractors, sort)
        facts = facts_of(sort, spec)
        if facts.gpus and not (pool and pool.gpus):
            out.append(f"extractors.{sort}: {spec.kind} needs a GPU, its pool {name!r} has none; give extractors.pool, or device: cpu.")
        if facts.accept_licence and not spec.accept_licence:
            licences = f"code {facts.code_licence or 'not named'}, weights {facts.weights_licence or 'not named'}"
            out.append(f"extractors.{sort}: {spec.kind} ({licences}); write `accept_licence: true` into the entry if you may use it.")
    return out
