"""From releases, a mix and shapes that were asked for to the stream's schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.trainer.catalog import Catalog, Shelf
from factory.trainer.mix import Mix
from factory.trainer.schedule import Schedule, shape_weights
from manifests.errors import BadInput
from manifests.records import MODES, PREFERENCE, Split
from manifests.release import Release

_RANK: dict[str, int] = {task: number for number, task in enumerate(MODES)}
"""tasks in their usual order, whatever the order of the mix; others follow by name"""


@dataclass(frozen=True)
class Source:
    """A release, beside others."""

    release: str | Path | Release
    weight: int = 1
    """its share of each of its tasks, beside the other releases that have it"""
    tasks: tuple[str, ...] | None = None
    """only these; None: all of the mix that it has in the split"""


def schedule_of(
    catalogs: Sequence[Catalog],
    sources: Sequence[Source],
    split: Split,
    seed: int,
    mix: Mapping[str, int] | None,
    tasks: Sequence[str] | None,
    shapes: Mapping[str, int] | None,
    block: int,
) -> Schedule:
    """The schedule over sources, whose releases are `catalogs`. Arguments as Stream's. Raises BadInput for what can't be."""
    weights = _mix_of(catalogs, mix, tasks)
    there = [
        {t: n for t, n in catalog.tasks(split).items() if not s.tasks or t in s.tasks} for catalog, s in zip(catalogs, sources, strict=True)
    ]
    weights = _asked(weights, _summed(there), split, tasks)
    having = {task: [i for i, counts in enumerate(there) if counts.get(task)] for task in weights}
    order = Mix(weights, {task: [sources[i].weight for i in numbers] for task, numbers in having.items()})
    shelves: list[Shelf] = [catalogs[having[task][number]].shelf(task, split) for task, number in order.sources]
    return Schedule(order, shelves, seed, shape_weights(shelves, order, block, shapes), block)


def _wanted(counts: Mapping[str, int], source: Source) -> dict[str, int]:
    return {task: count for task, count in counts.items() if source.tasks is None or task in source.tasks}


def _mix_of(catalogs: Sequence[Catalog], mix: Mapping[str, int] | None, tasks: Sequence[str] | None) -> dict[str, int]:
    """What is drawn from: the given mix, or the releases' own, or preference pairs alone, which stand outside every mix."""
    if PREFERENCE in (mix if mix is not None else ()) or PREFERENCE in (tasks or ()):
        if set(tasks or mix or ()) != {PREFERENCE}:
            raise BadInput(f"{PREFERENCE} pairs have two videos and no target: open a stream of their own with tasks=({PREFERENCE!r},)")
        return {PREFERENCE: 1}
    return dict(mix) if mix is not None else _common_mix(catalogs)


def _common_mix(catalogs: Sequence[Catalog]) -> dict[str, int]:
    mixes = [dict(catalog.info.mix) for catalog in catalogs]
    if not mixes:
        raise BadInput("no release was given; give a path, an address, or at least one Source")
    if any(mix != mixes[0] for mix in mixes):
        raise BadInput(f"the releases have different mixes ({', '.join(map(str, mixes))}); give mix=, as {{'animation': 60, …}}")
    return {str(task): weight for task, weight in mixes[0].items()}


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {task: sum(there.get(task, 0) for there in counts) for task in sorted(set().union(*counts))}


def _asked(mix: Mapping[str, int], there: Mapping[str, int], split: str, tasks: Sequence[str] | None) -> dict[str, int]:
    """The mix over the asked tasks; each must have pairs to draw."""
    asked = {task: weight for task, weight in mix.items() if weight and (tasks is None or task in tasks)}
    unknown = sorted(set(tasks or ()) - set(asked))
    have = ", ".join(f"{task} ({count})" for task, count in sorted(there.items())) or "none"
    if unknown:
        raise BadInput(f"no task {', '.join(unknown)} in the release's mix {dict(mix)}; split {split!r} has pairs of: {have}")
    empty = [task for task in asked if not there.get(task)]
    if empty or not asked:
        kept = ",".join(task for task in asked if there.get(task))
        hint = f"; give tasks= (--tasks {kept}) to share the mix out among those" if kept else "; choose another split"
        raise BadInput(f"split {split!r} has no pairs of {', '.join(empty) or 'any task'}, it has: {have}{hint}")
    return dict(sorted(asked.items(), key=lambda item: (_RANK.get(item[0], len(_RANK)), item[0])))
