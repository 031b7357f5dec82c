"""A step is a pure function of a frozen request. This file holds what a step is, how its key is made and how one is run.

The steps themselves stand in the package factory.work; each module there registers its functions here.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import platform
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from generators import extractors, own, registry, weights
from manifests.records import Frozen, digest_of

if TYPE_CHECKING:
    from factory.workbench import Workbench

Q = TypeVar("Q", bound=Frozen)
A = TypeVar("A", bound=Frozen)

WORK_MODULES = tuple(
    f"factory.work.{name}"
    for name in ("clips", "making", "measuring", "describing", "pairing", "preferences", "prints", "rules", "showing", "asking")
)

HASHED_PACKAGES = (
    "factory.work.", "generators.", "agents.", "manifests.media", "manifests.soundness", "manifests.encode", "manifests.pictures",
    "manifests.containers", "manifests.masks", "factory.trainer.augment", "factory.trainer.decode", "factory.trainer.draws",
    "factory.trainer.encoders", "factory.trainer.encoding", "factory.trainer.latent_sample", "factory.trainer.masks28",
    "factory.trainer.vae",
)  # fmt: skip
"""Whose source enters a step's key when the step's module imports it; records and recipes are covered by the request itself."""

HASHED_LIBRARIES = ("numpy", "opencv-python-headless", "ai-edge-litert", "decord", "imageio-ffmpeg")
"""Libraries that change pixels or judgements with their version."""


@dataclass(frozen=True)
class Tool:
    """Something that a step reaches only through the bench, so that nothing which the step imports leads to its code."""

    module: str
    """what this imports within HASHED_PACKAGES is found by itself"""
    weights: tuple[str, ...]
    """that it loads, by their names in generators.weights"""


TRACKER = Tool("generators.poses.people", ("pose_detection", "pose_landmark", "face_landmark"))
DETAIL_READER = Tool("generators.poses.details", ("hand_landmark_lite", "face_landmark"))
TEXT_FINDER = Tool("generators.poses.lettering", ("text_detection",))
FACE_READER = Tool("agents.measures.identity", ("face_finder", "face_identity"))
SAFETY_NET = Tool("agents.measures.safety", ("nsfw",))
TOOLS = {
    "tracker": (TRACKER,), "extractor": (TRACKER,), "detail_reader": (DETAIL_READER,), "text_finder": (TEXT_FINDER,),
    "networks": (FACE_READER, SAFETY_NET),
}  # fmt: skip
"""Attribute of the bench → what a step declares that uses it."""


@dataclass(frozen=True)
class Step(Generic[Q, A]):
    """One kind of work."""

    name: str
    request: type[Q]
    answer: type[A]
    run: Callable[[Q, Workbench], A]
    tools: tuple[Tool, ...]
    """of the bench that it uses"""
    depth: int
    """how late it comes in a pair's life; later steps go first"""

    @property
    def module(self) -> str:
        """Where its code begins; what this imports within HASHED_PACKAGES is found by itself."""
        return self.run.__module__

    @property
    def modules(self) -> tuple[str, ...]:
        """Its own and those of its tools."""
        return (self.module, *(tool.module for tool in self.tools))


@dataclass(frozen=True)
class Charge:
    """For whom a step is run: its place in the plan's order, and the job and slice that its cost is charged to."""

    rank: str
    job: str = ""
    slice: str = ""


STEPS: dict[str, Step[Any, Any]] = {}


def step(depth: int, tools: tuple[Tool, ...] = ()) -> Callable[[Callable[[Q, Workbench], A]], Step[Q, A]]:
    """Register a function `(request, bench) -> answer` as a step of its own name; both types are read from its annotations."""

    def register(function: Callable[[Q, Workbench], A]) -> Step[Q, A]:
        hints = inspect.get_annotations(function, eval_str=True, locals={"Workbench": object})
        module, name = function.__module__, function.__name__
        name = name if module in WORK_MODULES else f"{module}:{name}"  # of somebody else: workers have to know where it stands
        made: Step[Q, A] = Step(name, hints["request"], hints["return"], function, tools, depth)
        STEPS[made.name] = made
        return made

    return register


def async_step(depth: int) -> Callable[[Callable[[Q, Any], Coroutine[Any, Any, A]]], Step[Q, A]]:
    """The same for a coroutine `(request, desk) -> answer`, which the brain's actor runs."""

    def register(function: Callable[[Q, Any], Coroutine[Any, Any, A]]) -> Step[Q, A]:
        return step(depth)(cast("Callable[[Q, Workbench], A]", function))

    return register


def named(name: str) -> Step[Any, Any]:
    """The registered step. Raises KeyError."""
    if name not in STEPS:
        for module in [name.partition(":")[0]] if ":" in name else WORK_MODULES:
            importlib.import_module(module)
    return STEPS[name]


def key_of(step: Step[Any, Any], request: Frozen) -> str:
    """SHA-256 over everything that can change the answer, and nothing else (no price, pool, timeout, GPU type, path or host)."""
    modules, user_code = step.modules, ""
    names = {name for tool in step.tools for name in tool.weights}
    content = request.model_dump(mode="json")
    kind = content.get("kind")
    if kind is not None:
        made_by = registry.class_of(kind, content["options"])
        generator, user_code = code_of(kind, content["options"])
        content["options"] = made_by.keyed(content["options"])
        modules = (*modules, *generator)
        names |= set(made_by.weights)
        content["kind"] = kind.rpartition(":")[2]  # where the user keeps the file is no part of the work
    if "extraction" in content:
        found = extractors.stands_on(extractors.Extraction.model_validate(content["extraction"]))
        content["extraction"] = found.content
        modules, names = (*modules, *found.modules), names | found.weights
    return digest_of(
        {
            "step": step.name,
            "code": code_digest(modules),
            "user_code": user_code,
            "weights": sorted(weights.WEIGHTS[name].sha256 for name in names),
            "environment": environment(),
            "request": content,
        }
    )


def code_of(kind: str, options: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Where a generator's code begins, for `code_digest`: its module, or what the user's own file imports and the file's digest."""
    if not own.is_own(kind):
        return (registry.class_of(kind, options).__module__,), ""
    source = own.text_of(kind)
    return _imported_by(source), digest_of(source)


@functools.cache
def environment() -> dict[str, str]:
    """Versions of what else changes pixels."""
    versions = {name: importlib.metadata.version(name) for name in HASHED_LIBRARIES}
    return versions | {"python": ".".join(map(str, sys.version_info[:2])), "machine": platform.machine()}


@functools.cache
def code_digest(modules: tuple[str, ...]) -> str:
    """Digest of the modules' sources and of all they import within HASHED_PACKAGES.

    Sources are compared as syntax trees without docstrings, so that a comment or a blank line repeats no work.
    """
    seen: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in seen or not _hashed(name):
            continue
        shape, imported = _module(name)
        if shape:
            seen[name] = shape
            todo += imported
    return digest_of(seen)


@functools.cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax tree and what it imports; empty where it has no source."""
    source = _source(name)
    if source is None:
        return "", ()
    tree = ast.parse(source)
    imported = tuple(_imports(tree, name))
    return hashlib.sha256(shape_of(tree).encode()).hexdigest(), imported


def _hashed(name: str) -> bool:
    return any(name == prefix.rstrip(".") or name.startswith(prefix) for prefix in HASHED_PACKAGES)


def _source(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin and spec.origin.endswith(".py") else None


@functools.lru_cache(maxsize=64)
def _imported_by(source: str) -> tuple[str, ...]:
    return tuple(_imports(ast.parse(source), ""))


def _imports(tree: ast.Module, name: str) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [f for f in found if f != name]


def shape_of(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            first.value.value = ""
    return ast.dump(tree)
