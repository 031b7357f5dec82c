"""Which generator kinds there are, and how a recipe entry becomes an object.

Three sorts: built-in kinds (run here), published models whose capabilities are declared so that a plan can be made but which this
version can't run, and the user's own class as `path/gen.py:Class`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from generators.base import Capabilities, Generator, ImageGenerator, VideoGenerator
from generators.weights import WEIGHTS
from manifests.errors import BadRecipe
from manifests.explain import validated
from manifests.recipe import GeneratorSpec, Recipe

BUILTIN: dict[str, str] = {
    "collage": "generators.images.collage:Collage",
    "puppet": "generators.videos.puppet.generator:Puppet",
    "skeleton": "generators.poses.skeleton:Skeleton",
    "cylinders": "generators.poses.cylinders:Cylinders",
}

PUBLISHED: dict[str, Capabilities] = {
    "scail": Capabilities(modes=frozenset({"animation"}), frame_counts=(65, 81), fps=16, size_multiple=32, gpus=1),
    "wan_animate": Capabilities(modes=frozenset({"animation", "replacement"}), fps=30, size_multiple=16, gpus=1),
    "mocha": Capabilities(modes=frozenset({"replacement"}), people_max=6, frame_counts=(81,), fps=30, size_multiple=16, gpus=1),
    "qwen_edit": Capabilities(modes=frozenset({"image"}), gpus=1, roles=frozenset({"character", "clothing", "scene"})),
}
"""Facts read from the models' public code; see docs/generators.md."""


def capabilities_of(spec: GeneratorSpec) -> Capabilities:
    """What the entry's kind can do. Raises BadRecipe for an unknown kind."""
    return PUBLISHED[spec.kind] if spec.kind in PUBLISHED else class_of(spec.kind).capabilities


def class_of(kind: str) -> type[Generator]:
    """The class behind a kind. Raises BadRecipe when it is unknown or can't be run by this version."""
    if kind in PUBLISHED:
        raise BadRecipe(f"generator kind {kind!r} can be planned but not run by this version; kinds that run: {', '.join(BUILTIN)}.")
    if kind in BUILTIN:
        module, _, name = BUILTIN[kind].partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    if ".py:" in kind:
        return _load_file(kind)
    known = [*BUILTIN, *PUBLISHED]
    near = difflib.get_close_matches(kind, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadRecipe(f"unknown generator kind {kind!r}.{hint} Known: {', '.join(known)}, or your own as path/gen.py:Class.")


def _load_file(kind: str) -> type[Generator]:
    file, _, name = kind.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise BadRecipe(f"generator {kind!r}: {file} is no file.")
    module_name = f"motionpair_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise BadRecipe(f"generator {kind!r}: {file} can't be imported.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as e:
            del sys.modules[module_name]
            raise BadRecipe(f"generator {kind!r}: importing {file} failed: {type(e).__name__}: {e}") from e
    found = getattr(sys.modules[module_name], name, None)
    if not (isinstance(found, type) and issubclass(found, ImageGenerator | VideoGenerator)):
        raise BadRecipe(f"generator {kind!r}: {file} has no class {name} derived from ImageGenerator or VideoGenerator.")
    if not isinstance(getattr(found, "capabilities", None), Capabilities):
        raise BadRecipe(f"generator {kind!r}: {name} declares no capabilities; see generators/base.py.")
    if unknown := set(found.weights) - set(WEIGHTS):
        raise BadRecipe(f"generator {kind!r}: unknown weights {', '.join(sorted(unknown))}; known: {', '.join(sorted(WEIGHTS))}.")
    return found


def create(kind: str, options: dict[str, Any]) -> Generator:
    """A generator that is not set up yet. Raises BadRecipe for unknown kinds and options."""
    cls = class_of(kind)
    return cls(validated(cls.options_type, options, f"generators ({kind})"))


def check(recipe: Recipe, to_run: bool) -> None:
    """Hold every slice against the capabilities of its generators. Raises BadRecipe with one line per misfit."""
    wrong: list[str] = []
    for name, spec in recipe.generators.items():
        capabilities_of(spec)
        if to_run or spec.kind not in PUBLISHED:
            create(spec.kind, spec.options)
            if capabilities_of(spec).gpus and recipe.pool_of(name) in recipe.pools and not recipe.pools[recipe.pool_of(name)].gpus:
                wrong.append(f"generators.{name}: {spec.kind} needs a GPU; its pool {recipe.pool_of(name)!r} has gpus: 0.")
    for name, part in recipe.slices.items():
        wrong += [f"slices.{name}: {line}" for line in _misfits(recipe, part.generator, part.task, part.where.people[0])]
        if part.task != "pose":
            wrong += [f"slices.{name}: {line}" for line in _misfits(recipe, part.painter, "image", 1)]
    if wrong:
        raise BadRecipe("\n".join(wrong))


def _misfits(recipe: Recipe, generator: str, mode: str, people_min: float) -> list[str]:
    spec = recipe.generators[generator]
    can, frames = capabilities_of(spec), recipe.geometry.frames
    out = []
    if mode not in can.modes:
        out.append(f"{generator} ({spec.kind}) makes {', '.join(sorted(can.modes))}, not {mode}.")
    if people_min > can.people_max:
        out.append(f"{generator} ({spec.kind}) drives {can.people_max} people at once; the slice asks for at least {people_min:g}.")
    if can.fps == recipe.geometry.fps and can.frame_counts and frames > max(can.frame_counts):
        out.append(f"{generator} ({spec.kind}) makes {', '.join(map(str, can.frame_counts))} frames; the geometry asks {frames}.")
    return out
