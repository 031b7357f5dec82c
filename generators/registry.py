"""Which generator kinds there are, and how a recipe entry becomes an object.

Three sorts: built-in kinds, programs of somebody else (`command`, described in the recipe alone), and the user's own class as
`path/gen.py:Class`. A built-in kind may be a model that is installed elsewhere: without options that say where, it can be planned only.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from generators import extractors, own, shipped
from generators.base import Capabilities, Generator, Options
from generators.weights import WEIGHTS
from manifests.errors import BadRecipe
from manifests.explain import validated
from manifests.recipe import GeneratorSpec, PoolSpec, Recipe
from manifests.records import Geometry

BUILTIN: dict[str, str] = {
    "collage": "generators.images.collage:Collage",
    "puppet": "generators.videos.puppet.generator:Puppet",
    "skeleton": "generators.poses.skeleton:Skeleton",
    "cylinders": "generators.poses.cylinders:Cylinders",
    "mesh": "generators.poses.mesh:Mesh",
    "scail": "generators.videos.scail:Scail",
    "mocha": "generators.videos.mocha:Mocha",
    "wan_animate": "generators.videos.wan_animate:WanAnimate",
    "wan_animate_cli": "generators.videos.wan_animate_cli:WanAnimateCLI",
    "qwen_edit": "generators.images.qwen_edit:QwenEdit",
    "flux2": "generators.images.flux2:Flux2",
    "command": "generators.videos.command:Command",
    "comfyui": "generators.videos.comfyui:ComfyUI",
    "openai_edit": "generators.images.openai_edit:OpenAIEdit",
}
OF_IMAGES: dict[str, str] = {
    "command": "generators.images.command:ImageCommand",
    "comfyui": "generators.images.comfyui:ImageComfyUI",
}
"""kinds of which there is another class for entries with `modes: [image]`"""

RESTRICTIVE = re.compile(r"\bnc\b|non-?commercial|research|academic|proprietary|unknown|unclear", re.IGNORECASE)


def is_image(options: Mapping[str, Any]) -> bool:
    """Whether an entry's options say that it makes images."""
    modes = options.get("modes")
    return isinstance(modes, list | tuple | set | frozenset) and set(modes) == {"image"}


def capabilities_of(spec: GeneratorSpec) -> Capabilities:
    """What the entry can do, by its kind and its options. Raises BadRecipe for an unknown kind or unknown options."""
    cls = class_of(spec.kind, spec.options)
    return cls.capabilities_with(options_of(cls, spec.kind, spec.options))


def class_of(kind: str, options: Mapping[str, Any] | None = None) -> type[Generator]:
    """The class behind a kind. Raises BadRecipe when it is unknown or can't be run by this version."""
    if kind in BUILTIN:
        place = OF_IMAGES[kind] if kind in OF_IMAGES and is_image(options or {}) else BUILTIN[kind]
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    if own.is_own(kind):
        return own.class_in(kind)
    near = difflib.get_close_matches(kind, BUILTIN, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadRecipe(f"unknown generator kind {kind!r}.{hint} Known: {', '.join(BUILTIN)}, or your own as path/gen.py:Class.")


def options_of(cls: type[Generator], kind: str, options: Mapping[str, Any]) -> Options:
    """The options as the class takes them. Raises BadRecipe with a line for each that it does not."""
    return validated(cls.options_type, dict(options), f"generators ({kind})")


def keyed(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What of an entry's options may change pixels."""
    return class_of(kind, options).keyed(dict(options))


def create(kind: str, options: dict[str, Any]) -> Generator:
    """A generator that is not set up yet. Raises BadRecipe for unknown kinds and options."""
    cls = class_of(kind, options)
    given = options_of(cls, kind, options)
    return own.created(cls, kind, given) if own.is_own(kind) else cls(given)


def licences_to_accept(can: Capabilities, weights: Iterable[str] = ()) -> list[str]:
    """What stands against using it unasked: licences that are missing, unclear or restrictive, a short line each."""
    found = [
        f"its {what} licence is {licence or 'not named'}"
        for what, licence in (("code's", can.code_licence), ("weights'", can.weights_licence))
        if RESTRICTIVE.search(licence) or (can.accept_licence and licence in ("", "none"))
    ]
    found += [f"the licence of its weights {name} is {WEIGHTS[name].licence}" for name in weights if WEIGHTS[name].accept]
    return found or (["its licence has to be accepted"] if can.accept_licence else [])


def check(recipe: Recipe, to_run: bool) -> None:
    """Hold every slice against the capabilities of its generators. Raises BadRecipe with one line per misfit.

    The user's own files and workflows are taken as they are now, and stand until the next check.
    """
    shipped.read_again()
    wrong: list[str] = extractors.complaints(recipe)
    for name in recipe.generators:
        try:
            wrong += [f"generators.{name}: {line}" for line in _not_to_run(recipe, name, to_run)]
        except BadRecipe as e:
            wrong += [f"generators.{name}: {line.removeprefix('generators ')}" for line in e.message.splitlines()]
        except Exception as e:
            if not own.is_own(recipe.generators[name].kind):
                raise
            wrong.append(f"generators.{name}: asked what it can do it failed: {type(e).__name__}: {' '.join(str(e).split())}")
    if wrong:
        raise BadRecipe("\n".join(wrong))
    for name, part in recipe.slices.items():
        wrong += [f"slices.{name}: {line}" for line in _misfits(recipe, part.generator, part.mode, part.where.people[0])]
        if part.task != "pose":
            wrong += [f"slices.{name}: {line}" for line in _misfits(recipe, part.painter, "image", 1)]
    if wrong:
        raise BadRecipe("\n".join(dict.fromkeys(wrong)))


def _not_to_run(recipe: Recipe, name: str, to_run: bool) -> list[str]:
    """Why an entry can't be run with what the recipe says of it. Where it is installed and what has to be accepted is asked for only
    before a run."""
    spec, out = recipe.generators[name], []
    made = create(spec.kind, spec.options)
    can = made.can
    pool = recipe.pools.get(recipe.pool_of(name))
    if can.gpus and pool and not pool.gpus:
        out.append(f"{spec.kind} needs a GPU; its pool {recipe.pool_of(name)!r} has gpus: 0.")
    timeout_s, pool_s = getattr(made.options, "timeout_s", None), pool.timeout_s if pool else PoolSpec().timeout_s
    if timeout_s is not None and timeout_s >= pool_s:
        out.append(f"timeout_s is {timeout_s:g}, its pool's {pool_s:g}: give the pool more, or the worker is killed before the program.")
    servers, workers = getattr(made.options, "servers", ()), (pool or PoolSpec()).workers[1]
    if servers and workers > len(servers):
        out.append(f"{len(servers)} servers and up to {workers:g} workers in its pool: one worker a server; change servers or workers.")
    if to_run and (names := made.unsaid()):
        out.append(f"{spec.kind} can be planned, but to run it the entry has to say {', '.join(names)}; see docs/generators.md.")
    if to_run and not spec.accept_licence and (why := licences_to_accept(can, made.weights)):
        out.append(f"{spec.kind}: {' and '.join(why)}; write `accept_licence: true` into the entry if you may use it.")
    return out


def texts_of(recipe: Recipe) -> dict[str, str]:
    """The text files that workers are sent, by how the recipe names them. Raises BadRecipe when one can't be read."""
    found: dict[str, str] = {}
    for spec in recipe.generators.values():
        if own.is_own(spec.kind):
            found[own.file_of(spec.kind)] = own.text_of(spec.kind)
        for file in class_of(spec.kind, spec.options).texts(spec.options):
            found[file] = shipped.text_of(file)
    return found


def lacking(recipe: Recipe) -> list[str]:
    """What this machine lacks to run the recipe's slices in its own environment, a line for each entry."""
    used = [name for part in recipe.slices.values() for name in (part.generator, *([] if part.task == "pose" else [part.painter]))]
    out = []
    for name in dict.fromkeys(used):
        spec, pool = recipe.generators[name], recipe.pools.get(recipe.pool_of(name)) or PoolSpec()
        made = create(spec.kind, spec.options)
        if not (pool.python or pool.image or pool.command) and (what := made.missing(made.options)):
            out.append(f"generators.{name}: here is {', '.join(what)}")
    return out


def _misfits(recipe: Recipe, generator: str, mode: str, people_min: float) -> list[str]:
    spec = recipe.generators[generator]
    can, asked = capabilities_of(spec), recipe.geometry
    out = []
    if mode not in can.modes:
        out.append(f"{generator} ({spec.kind}) makes {', '.join(sorted(can.modes))}, not {mode}.")
    if lacking := can.needs - extractors.gives(recipe):
        given = f"extractors.poses is {recipe.extractors.poses.kind}"
        out.append(f"{generator} ({spec.kind}) needs the clip's {', '.join(sorted(lacking))}; {given}, which gives none.")
    if people_min > can.people_max:
        out.append(f"{generator} ({spec.kind}) drives {can.people_max} people at once; the slice asks for at least {people_min:g}.")
    for height, width in asked.sizes:
        geometry = Geometry(frames=asked.frames, fps=asked.fps, height=height, width=width)
        out += [f"{generator} ({spec.kind}) {line}." for line in can.misfits(geometry)]
    return list(dict.fromkeys(out))
