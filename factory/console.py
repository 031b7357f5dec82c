"""What all commands share: where they print, and how an error ends them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.text import Text

from manifests.errors import BadRecipe, MotionpairError

out_console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err_console = Console(stderr=True, soft_wrap=True)
state = {"debug": False}


@contextlib.contextmanager
def plainly(resume: str = "") -> Iterator[None]:
    """Errors as one line on standard error, and the right exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell_error(f"interrupted; nothing finished is lost. {resume}".strip())
        raise typer.Exit(130) from None
    except BadRecipe as e:
        _fail(e, 2)
    except MotionpairError as e:
        _fail(e, 1)
    except OSError as e:
        _fail(e, 1)
    except Exception as e:  # ours to mend: say so in one line, and how to see more
        if state["debug"]:
            raise
        first = (str(e).splitlines() or [""])[0]
        tell_error(f"unexpected {type(e).__name__}: {first} (motionpair --debug shows where; what is finished is kept)")
        raise typer.Exit(1) from None


def _fail(error: Exception, code: int) -> None:
    if state["debug"]:
        traceback.print_exc()
    for line in str(error).splitlines():
        tell_error(line)
    raise typer.Exit(code) from None


def tell_error(line: str) -> None:
    """One line on standard error."""
    err_console.print(Text(f"motionpair: {line}"))
