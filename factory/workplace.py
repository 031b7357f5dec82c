"""A run's folder: its lock, its ledger, and where its store is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from factory.workbench import sweep_temporary
from manifests.errors import BadRecipe, OutOfSpace
from manifests.ledger import Ledger
from manifests.store import Store

LEDGER = "ledger.sqlite"
PLACE = "place.json"
"""says where the store is when it is not in the folder"""


class Workplace:
    """An output folder with its store, ledger and lock. One run at a time works in it.

    `store` is an address for the artifacts and outcomes, `s3://BUCKET/PREFIX` or a folder; without one it is what the folder was begun
    with, or `out/store`. Raises BadRecipe for a store that can't be used or is not the one that the folder was begun with.
    """

    def __init__(self, out: Path, store: str | None = None) -> None:
        self.out = out
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
            probe = out / ".writable"
            probe.write_bytes(b"x")
            probe.unlink()
        self.store = self._chosen(store)
        self.store.sweep()
        sweep_temporary()

    def _chosen(self, asked: str | None) -> Store:
        known = _address(self.out)
        if asked and (self.out / LEDGER).exists() and _absolute(asked) != known:
            raise BadRecipe(f"{self.out} was begun with the store {known}, not {asked}. Leave out --store, or choose another --out.")
        store = Store(_absolute(asked) if asked else known)
        if not store.local:
            store.check()
        if asked and store.url != known:
            with _writing(self.out):
                part = self.out / f".{PLACE}"
                part.write_text(json.dumps({"store": store.url}) + "\n", encoding="utf-8")
                os.replace(part, self.out / PLACE)
        return store

    @contextlib.contextmanager
    def opened(self) -> Iterator[Ledger]:
        """The ledger, under the folder's lock. Raises BadRecipe when another run holds it."""
        with _locked(self.out), Ledger(self.out / LEDGER, self.store) as ledger:
            if not ledger.filled:
                ledger.rebuild(self.store)
            ledger.catch_up(self.store)
            yield ledger


@contextlib.contextmanager
def ledger_of(folder: Path, locked: bool = False) -> Iterator[Ledger]:
    """The ledger of a folder in which a run has worked, to look into or, `locked`, to change. Raises BadRecipe where there was none."""
    path = folder / LEDGER
    if not path.is_file():
        raise BadRecipe(f"{folder}: no run has worked there (it has no {LEDGER}). Give the --out folder of a run.")
    with _locked(folder) if locked else contextlib.nullcontext(), Ledger(path, Store(_address(folder))) as ledger:
        yield ledger


def store_of(folder: Path) -> Store:
    """The store of a folder in which a run has worked, to be read. Raises BadRecipe where there was none, or its store is gone."""
    if not any((folder / name).exists() for name in (LEDGER, PLACE, "store")):
        raise BadRecipe(f"{folder}: no run has worked there (it has no {LEDGER}). Give the --out folder of a run.")
    store = Store(_address(folder))
    if store.local and not Path(store.url).is_dir():
        raise BadRecipe(f"{folder}: its store {store.url} is not there. Mount it, or give another folder.")
    return store


def _address(out: Path) -> str:
    """Where a folder's store is. Raises BadRecipe when what was noted can't be read."""
    place = out / PLACE
    try:
        return str(json.loads(place.read_text(encoding="utf-8"))["store"])
    except FileNotFoundError:
        return str(out.resolve() / "store")
    except (OSError, ValueError, KeyError, TypeError):
        raise BadRecipe(
            f'{place} can\'t be read; it should say {{"store": "s3://BUCKET/PREFIX"}}. Write it anew with the store in use.'
        ) from None


def _absolute(address: str) -> str:
    return address.rstrip("/") if "://" in address else str(Path(address).resolve())


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    with _writing(out):
        lock = (out / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadRecipe(f"another run is working in {out}; wait for it or choose another --out.") from None
        yield


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise OutOfSpace(f"can't write to {out}: {e.strerror or e}. Choose another --out or fix its permissions.") from e
