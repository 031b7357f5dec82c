"""Who is in the synthetic video besides those who should be, and who of them is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.poses.association import assign
from generators.poses.summary import standing_height
from generators.poses.tracks import INDEX, People

TRUNK = [INDEX[f"{side}_{joint}"] for side in ("left", "right") for joint in ("shoulder", "hip")]
SOLID = 127
NOBODY = 1e3
"""standing heights: farther than anybody"""


@dataclass(frozen=True)
class Stranger:
    """A track of the output that performs no driven person."""

    track: int
    presence: float
    """share of all frames in which it is found, 0 to 1"""
    beside: float
    """share of all frames in which it is found *together with* every performer. Far below `presence`: a piece of a performer's own track
    rather than a further person"""
    size: float
    """standing height over the smallest performer's; 1 is as tall"""
    apart: float | None
    """how far it is from the clip's other person whom it may be, in that person's standing heights, median over the frames that show
    both; None where the clip has nobody left for it"""
    shadow: float
    """share of its own mask's pixels that lie within a performer's box in the same frame, 0 to 1: high for a ghost of a performer"""


def presences(clip: People, output: People, matched: Sequence[int]) -> tuple[float, ...]:
    """For each driven person of `clip`: share of the frames that show the real one in which the synthetic one is found, 0 to 1; 0 where
    nobody was matched (-1), NaN where the real one is never found."""
    return tuple(
        0.0 if track < 0 else float(output.present_PT[track][clip.present_PT[i]].mean()) if clip.present_PT[i].any() else float("nan")
        for i, track in enumerate(matched)
    )


def strangers(output: People, matched: Sequence[int], others: People | None = None) -> tuple[Stranger, ...]:
    """Everybody in the output who performs no driven person.

    `matched`: the performers' tracks, -1 for a lost one. `others`: the clip's people who are not driven and stay in a replacement; each
    may explain one stranger, so that the sum of their distances is least.
    """
    performers = [t for t in matched if t >= 0]
    rest = [t for t in range(output.count) if t not in performers]
    gaps = [[_gap(others, i, output, t) for i in range(others.count)] for t in rest] if others is not None else [[] for _ in rest]
    explained = assign([list(row) for row in gaps], skip=2 * NOBODY) if rest else []
    together = output.present_PT[performers].all(0) if performers else np.ones(output.frames, bool)
    least = min((_height(output, t) for t in performers), default=None)
    return tuple(
        Stranger(
            t, float(output.present_PT[t].mean()), float((output.present_PT[t] & together).mean()),
            1.0 if least is None else _height(output, t) / least, None if i is None else gaps[row][i], _shadow(output, t, performers),
        )
        for row, (t, i) in enumerate(zip(rest, explained, strict=True))
    )  # fmt: skip


def others_kept(output: People, matched: Sequence[int], others: People) -> tuple[float, ...]:
    """For each of the clip's other people, who stay in a replacement: share of the frames that show them in which the output shows
    somebody who is no performer within half a standing height, 0 to 1; NaN where they are never found."""
    rest = [t for t in range(output.count) if t not in matched]
    out = []
    for i in range(others.count):
        seen = others.present_PT[i]
        near = np.zeros(output.frames, bool)
        for t in rest:
            near |= output.present_PT[t] & (_gaps(others, i, output, t) < 0.5)
        out.append(float(near[seen].mean()) if seen.any() else float("nan"))
    return tuple(out)


def _height(people: People, person: int) -> float:
    frames = people.present_PT[person]
    use = frames if frames.any() else np.ones_like(frames)
    return standing_height(people.world_PT33x3[person, use], people.landmarks_PT33x3[person, use])


def _gaps(real: People, i: int, output: People, t: int) -> npt.NDArray[np.float64]:
    """Distance of the trunks' middles per frame (T,), in standing heights of the real person."""
    middle_a, middle_b = (people.landmarks_PT33x3[p][:, TRUNK, :2].mean(1).astype(np.float64) for people, p in ((real, i), (output, t)))
    return np.asarray(np.linalg.norm(middle_a - middle_b, axis=1) / _height(real, i))


def _gap(real: People, i: int, output: People, t: int) -> float:
    both = real.present_PT[i] & output.present_PT[t]
    return float(np.median(_gaps(real, i, output, t)[both])) if both.any() else NOBODY


def _shadow(output: People, t: int, performers: list[int]) -> float:
    own, covered = 0, 0
    for frame in np.flatnonzero(output.present_PT[t]):
        mask = output.masks_PTHW[t, frame] > SOLID
        own += int(mask.sum())
        inside = np.zeros_like(mask)
        for p in performers:
            rows, columns = (np.flatnonzero((output.masks_PTHW[p, frame] > SOLID).any(axis)) for axis in (1, 0))
            if len(rows):
                inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        covered += int((mask & inside).sum())
    return covered / own if own else 0.0
