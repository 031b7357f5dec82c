"""Repair of frames in which the landmark model takes a body's front for its back.

Wholly: left and right change places for some frames. By halves: the model can't decide and answers with the mean of both, so that
shoulders and hips shrink towards the spine, in space too, which no turn of a body does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from generators.poses.blazepose import Body
from generators.poses.tracks import INDEX, LANDMARKS

Doubles = npt.NDArray[np.float64]

OWN_BELIEF = 0.03
"""price of contradicting the model in one frame, in mean joint travel over body scale"""
SECOND_LOOK = 0.01
"""...of another crop's reading in place of the track's own"""
UNDECIDED = 0.5
"""...of a body without breadth; in proportion less up to `NARROW`"""
NARROW = 0.9
"""share of the usual breadth below which the model is undecided: now and then with real people, in every third frame with some drawn"""
FACED = 0.3
"""...of a body seen from behind that shows a face"""
SHOULDERS_M = 0.3
"""breadth of shoulders seen squarely"""
AGREEING = 0.06
"""mean distance of joints, over body scale, between readings that say the same"""
PAIRED = tuple(range(11, 17)) + tuple(range(23, 29))
"""shoulders to wrists and hips to ankles"""
_LINES = tuple((INDEX[f"left_{part}"], INDEX[f"right_{part}"]) for part in ("shoulder", "hip"))


def _mirror() -> npt.NDArray[np.int64]:
    """For each landmark, the index of the one on the other side."""

    def other(name: str) -> str:
        if "left" in name:
            return name.replace("left", "right")
        return name.replace("right", "left")

    return np.array([LANDMARKS.index(other(name)) for name in LANDMARKS])


MIRROR = _mirror()


def about_face(body: Body) -> Body:
    """The same outline read as a body that faces the other way: left and right exchanged, near and far too, for a flat picture can't
    tell the two apart (Lee & Chen 1985)."""
    flipped = np.array([1, 1, -1], np.float32)
    return replace(
        body,
        landmarks_33x3=body.landmarks_33x3[MIRROR] * flipped,
        world_33x3=body.world_33x3[MIRROR] * flipped,
        visibility_33=body.visibility_33[MIRROR],
    )


def in_mirror(body: Body) -> Body:
    """The body in the picture's mirror image; twice is the body again."""
    width, flip = body.size_hw[1], np.array([-1.0, 1.0])

    def place(xy: Doubles) -> Doubles:
        return np.asarray(xy * flip + [width - 1, 0])

    flipped, moved = np.array([-1, 1, 1], np.float32), np.array([width - 1, 0, 0], np.float32)
    return replace(
        body,
        landmarks_33x3=body.landmarks_33x3[MIRROR] * flipped + moved,
        world_33x3=body.world_33x3[MIRROR] * flipped,
        visibility_33=body.visibility_33[MIRROR],
        centre=place(body.centre),
        tip=place(body.tip),
        crop=replace(body.crop, centre=place(body.crop.centre), turn_22=body.crop.turn_22.T),
        crop_HWC=body.crop_HWC[:, ::-1],
        silhouette_HW=np.ascontiguousarray(body.silhouette_HW[:, ::-1]),
    )


def facing(body: Body) -> float:
    """1 towards the camera, -1 away from it, 0 in profile."""
    left, right = _LINES[0]
    return float(np.clip((body.world_33x3[left, 0] - body.world_33x3[right, 0]) / SHOULDERS_M, -1, 1))


def breadth_m(body: Body) -> float:
    """Of shoulders and hips together, in space."""
    return float(sum(np.linalg.norm(body.world_33x3[a] - body.world_33x3[b]) for a, b in _LINES))


def usual_breadth_m(bodies: Sequence[Body]) -> float:
    """The upper quartile: what is wrong makes a body narrower, never broader."""
    return float(np.percentile([breadth_m(body) for body in bodies], 75))


def doubtful(bodies: Mapping[int, Body]) -> list[int]:
    """The frames, of those of `bodies` (in order), in which the model was undecided or contradicts the frames around."""
    usual = usual_breadth_m(list(bodies.values()))
    swapped = [turned for _, turned in _cheapest([[body] for body in bodies.values()], usual, [0.0] * len(bodies))]
    return [t for (t, body), turned in zip(bodies.items(), swapped, strict=True) if turned or breadth_m(body) < NARROW * usual]


def outnumbered(bodies: Mapping[int, Body]) -> list[int]:
    """The frames in which the body faces another way than in most."""
    towards = np.array([facing(body) for body in bodies.values()])
    return [t for t, other in zip(bodies, towards * np.sign(np.median(towards)) < 0, strict=True) if other]


def settled(readings: Mapping[int, Sequence[Body]], faces: Mapping[int, float]) -> dict[int, Body]:
    """One body a frame (in order) out of the readings of each, the track's own first: the sequence that moves least while it seldom
    contradicts the model. `faces`: how surely a face is seen, 0 to 1, in frames in which somebody looked."""
    if not readings:
        return {}
    usual = usual_breadth_m([bodies[0] for bodies in readings.values()])
    chosen = _cheapest(list(readings.values()), usual, [faces.get(t, 0.0) for t in readings])
    return {t: _agreed(bodies, *choice) for (t, bodies), choice in zip(readings.items(), chosen, strict=True)}


def _agreed(bodies: Sequence[Body], which: int, turned: bool) -> Body:
    """The chosen reading with the median landmarks of those that agree with it."""
    either = [*bodies, *map(about_face, bodies)] if len(bodies) > 1 or turned else list(bodies)
    chosen = either[which + turned * len(bodies)]
    at = _paired(either, range(33))
    apart = np.linalg.norm(at - _paired([chosen], range(33)), axis=2).mean(1) / max(chosen.scale, 1.0)
    alike = [body for body, gap in zip(either, apart, strict=True) if gap < AGREEING]
    if len(alike) == 1:
        return chosen
    landmarks, world = (np.median([getattr(b, name) for b in alike], axis=0) for name in ("landmarks_33x3", "world_33x3"))
    return replace(chosen, landmarks_33x3=landmarks.astype(np.float32), world_33x3=world.astype(np.float32))


def _cheapest(readings: Sequence[Sequence[Body]], usual_m: float, faces: Sequence[float]) -> list[tuple[int, bool]]:
    """Per frame which reading, and whether about face (Viterbi 1967): each pays for the travel of its joints since the last frame and for
    being improbable."""
    options = [np.concatenate([_paired(bodies, range(33)), _paired(bodies, MIRROR)]) for bodies in readings]
    total, back = _prices(readings[0], usual_m, faces[0]), []
    for t in range(1, len(readings)):
        scale = max(readings[t][0].scale, 1.0)
        travel = np.linalg.norm(options[t][None] - options[t - 1][:, None], axis=3).mean(2) / scale
        through = total[:, None] + travel
        back.append(through.argmin(axis=0))
        total = through.min(axis=0) + _prices(readings[t], usual_m, faces[t])
    path = [int(total.argmin())]
    for came_from in reversed(back):
        path.append(int(came_from[path[-1]]))
    return [(k % len(bodies), k >= len(bodies)) for k, bodies in zip(path[::-1], readings, strict=True)]


def _paired(bodies: Sequence[Body], order: Sequence[int] | npt.NDArray[np.int64] | range) -> Doubles:
    """(N, 12, 2)"""
    return np.stack([body.landmarks_33x3[order][list(PAIRED), :2] for body in bodies]).astype(np.float64)


def _prices(bodies: Sequence[Body], usual_m: float, face: float) -> Doubles:
    """Of the readings as they are, then about face."""
    narrow = np.array([UNDECIDED * max(0.0, 1 - breadth_m(body) / max(NARROW * usual_m, 1e-6)) for body in bodies])
    either_way = narrow + SECOND_LOOK * (np.arange(len(bodies)) > 0)
    towards = np.array([facing(body) for body in bodies])
    behind = FACED * face * np.maximum(np.concatenate([-towards, towards]), 0)
    return np.asarray(np.concatenate([either_way, either_way + OWN_BELIEF]) + behind)
