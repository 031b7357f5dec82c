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

from generators import registry, weights
from manifests.records import Frozen, digest_of

if TYPE_CHECKING:
    from factory.workbench import Workbench

Q = TypeVar("Q", bound=Frozen)
A = TypeVar("A", bound=Frozen)

WORK_MODULES = tuple(
    f"factory.work.{name}" for name in ("clips", "making", "measuring", "describing", "pairing", "prints", "rules", "showing", "asking")
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
class Step(Generic[Q, A]):
    """One kind of work."""

    name: str
    request: type[Q]
    answer: type[A]
    run: Callable[[Q, Workbench], A]
    weights: tuple[str, ...]
    depth: int
    """how late it comes in a pair's life; later steps go first"""

    @property
    def module(self) -> str:
        """Where its code begins; what this imports within HASHED_PACKAGES is found by itself."""
        return self.run.__module__


@dataclass(frozen=True)
class Charge:
    """For whom a step is run: its place in the plan's order, and the job and slice that its cost is charged to."""

    rank: str
    job: str = ""
    slice: str = ""


STEPS: dict[str, Step[Any, Any]] = {}

POSE_WEIGHTS = ("pose_detection", "pose_landmark")
"""of steps that use the people tracker"""
DETAIL_WEIGHTS = (*POSE_WEIGHTS, "hand_landmark_lite", "face_landmark")
"""of steps that also read hands and faces"""
TEXT_WEIGHTS = ("text_detection",)
"""of steps that look for text"""


def step(depth: int, weights: tuple[str, ...] = ()) -> Callable[[Callable[[Q, Workbench], A]], Step[Q, A]]:
    """Register a function `(request, bench) -> answer` as a step of its own name; both types are read from its annotations."""

    def register(function: Callable[[Q, Workbench], A]) -> Step[Q, A]:
        hints = inspect.get_annotations(function, eval_str=True, locals={"Workbench": object})
        module, name = function.__module__, function.__name__
        name = name if module in WORK_MODULES else f"{module}:{name}"  # of somebody else: workers have to know where it stands
        made: Step[Q, A] = Step(name, hints["request"], hints["return"], function, weights, depth)
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
    modules: tuple[str, ...] = (step.module,)
    names, user_code = set(step.weights), ""
    content = request.model_dump(mode="json")
    kind = content.get("kind")
    if kind in registry.BUILTIN:
        modules = (*modules, registry.class_of(kind).__module__)
    elif kind is not None:
        source = Path(inspect.getfile(registry.class_of(kind))).read_text(encoding="utf-8")
        modules, user_code = (*modules, *_imports(ast.parse(source), "")), digest_of(source)
        content["kind"] = kind.rpartition(":")[2]  # where the user keeps the file is no part of the work
    if kind is not None:
        names |= set(registry.class_of(kind).weights)
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
