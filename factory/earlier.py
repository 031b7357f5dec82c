"""What the run of another folder has finished, for a run that takes it over. Nothing is ever written there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from factory.steps import Charge
from factory.workplace import store_of
from manifests import costs
from manifests.errors import BadRecipe, Damaged, Transient
from manifests.records import Artifact
from manifests.store import Cost, Outcome, Store

X = TypeVar("X")


class Earlier:
    """The store of an earlier run's folder, to be read. A run may be working there: what it has finished is whole at any time.

    Raises BadRecipe when no run has worked in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, store_of(folder)
        self.spoilt: set[str] = set()
        """keys of outcomes that are there and can't be used: damaged, or their artifacts are damaged or gone"""

    def outcome(self, key: str) -> Outcome | None:
        """A finished outcome whose artifacts are there in their full size; None where there is none such."""
        return self._read(self._whole, key)

    def take(self, key: str, into: Store, charge: Charge) -> Outcome | None:
        """Have a finished outcome in another store, artifacts first, each checked by its digest; None where there is none that is whole.

        What it took was paid for in the earlier folder: it stands in `earlier`, and the cost, charged to the job that asked, is nothing.
        """

        def copied(_: str) -> Outcome | None:
            found = self._whole(key)
            if found is None:
                return None
            for artifact in found.artifacts:
                into.take(artifact, self.store)
            cost = Cost(pool=costs.TAKEN, job=charge.job, slice=charge.slice)
            return into.put_outcome(found.model_copy(update={"cost": cost, "earlier": found.made_for}))

        return self._read(copied, key)

    def where(self, artifact: Artifact) -> str:
        """A place that a person can look at."""
        return self.store.where(artifact)

    def _whole(self, key: str) -> Outcome | None:
        found = self.store.get_outcome(key)
        if found is None:
            return None
        if all(self.store.has(artifact) for artifact in found.artifacts):
            return found
        raise Damaged(f"artifacts of the outcome {key} are gone", "missing")

    def _read(self, look: Callable[[str], Outcome | None], key: str) -> Outcome | None:
        """Look; what is damaged counts as not there, and its step runs again."""
        try:
            return look(key)
        except Damaged:
            self.spoilt.add(key)
            return None
        except PermissionError as e:
            raise BadRecipe(f"--from {self.folder}: {e.filename} can't be read: {e.strerror}. Allow it, or leave --from out.") from None
        except OSError as e:
            raise Transient(f"--from {self.folder}: its store can't be read: {e.strerror or e}") from e
