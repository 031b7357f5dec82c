"""Who is who from frame to frame: predicted place plus the colours a person wears, matched jointly for everybody in the frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from generators.poses import silhouettes
from generators.poses.blazepose import Body
from generators.poses.tracks import Bytes, Floats

Doubles = npt.NDArray[np.float64]

TORSO = (11, 12, 23, 24)
CORE = (0, 11, 12, 13, 14, 23, 24, 25, 26, 27, 28)
"""joints that tell two bodies apart; hands move too fast for that"""
GATE = 0.6
"""farthest a body may be from where it was expected, in body scales"""
GATE_PER_S = 1.2
"""how much that grows with the time since it was last seen"""
COLOUR_WEIGHT = 1.5
COLOUR_STRANGER = 0.62
"""a colour distance that a person met again after a gap may not exceed"""
COLOUR_FAMILIAR = 0.45
"""a colour distance below which somebody is known again wherever they come back"""
COLOUR_ALIKE = 0.55
"""...or this, if everybody else's is greater by COLOUR_LEAD"""
COLOUR_LEAD = 0.12
REENTRY_S = 0.7
"""how long somebody may be hidden and still be the same person by place"""
REJOIN_S = 3.0
"""...and by colours"""
GHOST = 0.45
"""share of a silhouette that lies on other people, from which it is nobody's own"""
HALF = 127
GREY = 114
COARSE_STEP = 4
"""every so many pixels are enough where only areas are compared"""
SAME_BODY = 0.16
"""mean distance of joints, in body scales, below which two bodies are one"""


@dataclass
class Sighting:
    """One body in one frame, with the colours it wears."""

    body: Body
    """without its crop, which would fill the memory"""
    colours: Floats
    coarse_HW: Bytes
    """the silhouette at every fourth pixel"""
    clean: bool = True
    """nobody else close by: the colours can be trusted"""

    @staticmethod
    def of(body: Body) -> Sighting:
        """Take the colours, let the crop go."""
        return Sighting(replace(body, crop_HWC=np.zeros((0, 0, 3), np.uint8)), colours_of(body), body.mask(COARSE_STEP))


@dataclass
class Track:
    """One person so far."""

    sightings: dict[int, Sighting] = field(default_factory=dict)
    colours: Floats | None = None

    @property
    def first(self) -> int:
        return min(self.sightings)

    @property
    def last(self) -> int:
        return max(self.sightings)

    def add(self, frame: int, sighting: Sighting) -> None:
        """Take a sighting in; the remembered colours follow slowly, and only while nobody else is close."""
        self.sightings[frame] = sighting
        if self.colours is None:
            self.colours = sighting.colours
        elif sighting.clean:
            self.colours = 0.85 * self.colours + 0.15 * sighting.colours

    def predicted(self, frame: int) -> Doubles:
        """Landmarks (33×2) expected in `frame`: the last ones, moved on by the body's recent velocity (for 0.3 s of frames at most)."""
        last = self.last
        here = self.sightings[last].body.landmarks_33x3[:, :2].astype(np.float64)
        before = [t for t in range(last - 4, last) if t in self.sightings]
        if not before:
            return here
        start = before[0]
        old = self.sightings[start].body.landmarks_33x3[:, :2].astype(np.float64)
        step = (here[list(TORSO)].mean(axis=0) - old[list(TORSO)].mean(axis=0)) / (last - start)
        return np.asarray(here + step * min(frame - last, 5))

    def crop(self, frame: int) -> tuple[Doubles, Doubles]:
        """Centre and tip of the crop to look into in `frame`."""
        body = self.sightings[self.last].body
        shift = self.predicted(frame).mean(axis=0) - body.landmarks_33x3[:, :2].mean(axis=0)
        return body.centre + shift, body.tip + shift


def colours_of(body: Body) -> Floats:
    """What a body wears: Lab histograms of its upper and lower half (above and below the hips), each summing to 1."""
    crop = cv2.cvtColor(cv2.resize(body.crop_HWC, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    inside = (cv2.resize(body.silhouette_HW, (64, 64), interpolation=cv2.INTER_AREA) > 178).astype(np.uint8)
    # Clothes use a small part of the a and b range; what is outside counts as the outermost bin.
    crop[..., 1:] = np.clip(crop[..., 1:], 97, 159)
    parts = []
    for rows in (slice(0, 34), slice(34, 64)):
        histogram = cv2.calcHist([crop[rows]], [0, 1, 2], inside[rows], [6, 8, 8], [0, 256, 96, 160, 96, 160]).ravel()
        parts.append(histogram / max(float(histogram.sum()), 1.0))
    return np.concatenate(parts).astype(np.float32)


def colour_distance(a: Floats, b: Floats) -> float:
    """Hellinger distance of two `colours_of`, 0 (same) to 1; halves that one of them doesn't show are left out."""
    distances = []
    for half in np.split(np.stack([a, b]), 2, axis=1):
        if (half.sum(axis=1) > 0.5).all():
            distances.append(np.sqrt(max(0.0, 1.0 - float(np.sqrt(half[0] * half[1]).sum()))))
    return float(np.mean(distances)) if distances else 0.5


def body_distance(a_33x2: Doubles, b_33x2: Doubles, scale: float) -> float:
    """Mean distance of the joints that tell bodies apart, in body scales."""
    core = list(CORE)
    return float(np.linalg.norm(a_33x2[core] - b_33x2[core], axis=1).mean() / max(scale, 1.0))


def cost(track: Track, sighting: Sighting, frame: int, fps: float) -> float | None:
    """How badly the sighting fits the track; None: it can't be the same person."""
    gap = frame - track.last
    apart = body_distance(track.predicted(frame), sighting.body.landmarks_33x3[:, :2].astype(np.float64), sighting.body.scale)
    if apart > GATE + GATE_PER_S * (gap - 1) / fps or track.colours is None:
        return None
    colour = colour_distance(track.colours, sighting.colours)
    if gap > 1 and colour > COLOUR_STRANGER:
        return None
    return apart + COLOUR_WEIGHT * colour


def assign(costs: list[list[float | None]], skip: float) -> list[int | None]:
    """Column for each row (or None) with the least total cost, exactly; leaving a row out costs `skip`.

    Dynamic programme over the set of used columns: rows × 2^columns steps, fine for the dozen people of a frame.
    """
    columns = len(costs[0]) if costs else 0
    best: dict[int, tuple[float, list[int | None]]] = {0: (0.0, [])}
    for row in costs:
        following: dict[int, tuple[float, list[int | None]]] = {}
        for used, (total, chosen) in best.items():
            options: list[tuple[int | None, float]] = [(None, skip)]
            options += [(j, c) for j in range(columns) if not used >> j & 1 and (c := row[j]) is not None]
            for j, price in options:
                mask = used if j is None else used | 1 << j
                if mask not in following or total + price < following[mask][0] - 1e-12:
                    following[mask] = (total + price, [*chosen, j])
        best = following
    return min(best.values(), key=lambda entry: entry[0])[1]


def match(tracks: list[Track], recent: list[Track], seen: list[Sighting], frame: int, fps: float, most: int) -> None:
    """Give a frame's sightings to the `recent` tracks that they fit best; the others begin `tracks` of their own while there are fewer than
    `most` recent ones."""
    costs = [[cost(track, s, frame, fps) for s in seen] for track in recent]
    taken = set()
    for track, column in zip(recent, assign(costs, skip=3.0), strict=True):
        if column is not None:
            track.add(frame, seen[column])
            taken.add(column)
    for column, sighting in enumerate(seen):
        if column not in taken and len(recent) < most:
            tracks.append(Track())
            tracks[-1].add(frame, sighting)


def painted_out(rgb_HWC: Bytes, bodies: list[Body]) -> Bytes:
    """The picture with these people painted grey."""
    out = rgb_HWC.copy() if bodies else rgb_HWC
    for body in bodies:
        out[body.mask() > 150] = GREY
    return out


def without_others(rgb_HWC: Bytes, body: Body, rivals: list[Body]) -> Bytes:
    """The picture with the `rivals` near `body` painted grey, so that its limbs aren't looked for on them. A pixel that both
    silhouettes hold is a rival's if the rival's bones are nearer."""
    height, width = rgb_HWC.shape[:2]
    out = rgb_HWC
    for rival in rivals:
        if np.linalg.norm(rival.centre - body.centre) > 1.5 * (body.scale + rival.scale):
            continue
        mine_HW, theirs = body.mask(), rival.mask() > 150
        if (theirs & (mine_HW > 50)).any():
            distances = [silhouettes.bone_distance(b.landmarks_33x3, b.visibility_33, height, width) for b in (body, rival)]
            theirs &= (mine_HW < 50) | (distances[1] < distances[0])
        out = out.copy() if out is rgb_HWC else out
        out[theirs] = GREY
    return out


def continues(track: Track, known: Body, sighting: Sighting, others: list[Sighting]) -> bool:
    """Whether the sighting is the next look at the body `known` of `track`, and not one of the others."""
    here, scale = sighting.body.landmarks_33x3[:, :2].astype(np.float64), sighting.body.scale
    if body_distance(known.landmarks_33x3[:, :2].astype(np.float64), here, scale) > GATE or track.colours is None:
        return False
    if colour_distance(track.colours, sighting.colours) > COLOUR_STRANGER:
        return False
    return all(body_distance(here, o.body.landmarks_33x3[:, :2].astype(np.float64), o.body.scale) > SAME_BODY for o in others)


def joining_cost(a: Track, b: Track, fps: float, others: list[Track]) -> float | None:
    """How badly `b` fits as the continuation of `a`; None: it can't be. After a longer absence only the colours and size can tell, and
    the colours of `others` who were about tell how much they are worth."""
    gap_s = (b.first - a.last) / fps
    if gap_s <= 0 or gap_s > REJOIN_S or a.colours is None or b.colours is None:
        return None
    colour = colour_distance(a.colours, b.colours)
    if gap_s <= REENTRY_S + 1 / fps:
        price = cost(a, b.sightings[b.first], b.first, fps)
        return None if price is None else price + COLOUR_WEIGHT * colour
    size = abs(np.log(a.sightings[a.last].body.scale / max(b.sightings[b.first].body.scale, 1.0)))
    rivals = [colour_distance(o.colours, b.colours) for o in others if o is not a and o is not b and o.colours is not None]
    limit = min([COLOUR_ALIKE, *(max(COLOUR_FAMILIAR, rival - COLOUR_LEAD) for rival in rivals)])
    return 2.0 + COLOUR_WEIGHT * colour + gap_s if colour < limit and size < 0.5 else None


def joined(tracks: list[Track], fps: float) -> list[Track]:
    """Tracks that continue one another after a short gap, as one; the best fits first."""
    tracks = sorted(tracks, key=lambda t: (t.first, t.last))
    while True:
        fits = []
        for i, a in enumerate(tracks):
            for j, b in enumerate(tracks):
                if a is not b and (price := joining_cost(a, b, fps, tracks)) is not None:
                    fits.append((price, i, j))
        if not fits:
            return tracks
        _, i, j = min(fits)
        tracks[i].sightings.update(tracks[j].sightings)
        tracks.pop(j)


def distinct(sightings: list[Sighting]) -> list[Sighting]:
    """Without second looks at the same body: of two, the one with the higher presence stays."""
    kept: list[Sighting] = []
    for sighting in sorted(sightings, key=lambda s: -s.body.presence):
        here = sighting.body.landmarks_33x3[:, :2].astype(np.float64)
        if all(body_distance(here, k.body.landmarks_33x3[:, :2].astype(np.float64), k.body.scale) > SAME_BODY for k in kept):
            kept.append(sighting)
    return kept


def covered(sighting: Sighting, others: list[Sighting]) -> float:
    """Share of the silhouette that the others' silhouettes hold too."""
    own = sighting.coarse_HW > HALF
    theirs = np.zeros_like(own)
    for other in others:
        theirs |= other.coarse_HW > HALF
    return float((own & theirs).sum() / max(int(own.sum()), 1))


def without_ghosts(tracks: list[Track]) -> list[Track]:
    """Without tracks that mostly live on the bodies of longer ones: chimeras of two people's limbs."""
    kept: list[Track] = []
    for track in sorted(tracks, key=lambda t: (-len(t.sightings), t.first)):
        shares = [covered(s, [k.sightings[f] for k in kept if f in k.sightings]) for f, s in track.sightings.items()]
        if float(np.median(shares)) < GHOST:
            kept.append(track)
    return [t for t in tracks if any(t is k for k in kept)]


def mark_crowded(sightings: list[Sighting]) -> None:
    """Set `clean` False on all whose silhouettes touch."""
    for i, a in enumerate(sightings):
        for b in sightings[i + 1 :]:
            both = np.minimum(a.coarse_HW, b.coarse_HW) > 64
            least = min(int((s.coarse_HW > 64).sum()) for s in (a, b))
            if both.sum() > 0.02 * max(least, 1):
                a.clean = b.clean = False
