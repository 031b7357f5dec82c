"""Generators of the user's own: a class in one file, named `path/gen.py:Class`.

The file is one that is `shipped`: what counts is its text when the run began.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
from pathlib import Path
from types import ModuleType

from generators import shipped
from generators.base import Capabilities, Generator, ImageGenerator, Options, VideoGenerator
from generators.weights import WEIGHTS
from manifests.errors import BadRecipe, MotionpairError


def is_own(kind: str) -> bool:
    """Whether a kind names a file of the user's."""
    return ".py:" in kind


def text_of(kind: str) -> str:
    """The text of the kind's file. Raises BadRecipe when it can't be read."""
    file = file_of(kind)
    try:
        return shipped.text_of(file)
    except ValueError as e:
        raise BadRecipe(f"generator {kind!r}: {file} {e}.") from None


def file_of(kind: str) -> str:
    """The file that a kind names."""
    return kind.rpartition(":")[0]


def class_in(kind: str) -> type[Generator]:
    """The class behind a kind. Raises BadRecipe when its file can't be imported or the class is no generator."""
    file, _, name = kind.rpartition(":")
    found = getattr(_module(kind, file), name, None)
    if not (isinstance(found, type) and issubclass(found, ImageGenerator | VideoGenerator)):
        raise BadRecipe(f"generator {kind!r}: {file} has no class {name} derived from ImageGenerator or VideoGenerator.")
    if not isinstance(getattr(found, "capabilities", None), Capabilities):
        raise BadRecipe(f"generator {kind!r}: {name} declares no capabilities; see generators/base.py.")
    if inspect.isabstract(found):
        raise BadRecipe(f"generator {kind!r}: {name} does not define {', '.join(sorted(found.__abstractmethods__))}.")
    if not (isinstance(found.options_type, type) and issubclass(found.options_type, Options)):
        raise BadRecipe(f"generator {kind!r}: {name}.options_type is no class derived from Options.")
    if unknown := set(found.weights) - set(WEIGHTS):
        raise BadRecipe(f"generator {kind!r}: unknown weights {', '.join(sorted(unknown))}; known: {', '.join(sorted(WEIGHTS))}.")
    return found


def created(cls: type[Generator], kind: str, options: Options) -> Generator:
    """One of the user's own. Raises BadRecipe when its `__init__` does not do."""
    try:
        made = cls(options)
    except MotionpairError:
        raise
    except Exception as e:
        raise BadRecipe(f"generator {kind!r}: making one failed: {type(e).__name__}: {' '.join(str(e).split())}") from e
    if getattr(made, "options", None) is None:
        raise BadRecipe(f"generator {kind!r}: its __init__ does not keep the options; begin it with super().__init__(options).")
    return made


def _module(kind: str, file: str) -> ModuleType:
    """The file as a module, once for each text."""
    text, path = text_of(kind), str(_path(file))
    name = f"motionpair_user_{hashlib.sha256(f'{path}:{text}'.encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = path
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)  # so that a traceback shows the lines that ran
        sys.modules[name] = module
        try:
            exec(compile(text, path, "exec", dont_inherit=True), module.__dict__)
        except (Exception, SystemExit) as e:  # one that is a program too must not end ours, as if all were done
            del sys.modules[name]
            raise BadRecipe(f"generator {kind!r}: importing {file} failed: {type(e).__name__}: {e}") from e
    return sys.modules[name]


def _path(file: str) -> Path:
    return Path(file).expanduser().resolve()
