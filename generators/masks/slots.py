"""Binding slots and the masks painted with them: one identity map a pair, for driving and references alike.

An identity is a person of the real clip, numbered by first appearance, then left to right. The map says which slot each identity has.
`tracks` says where an identity is found in a video's or picture's own People arrays (see `generators.masks.identity.match_people`); the
colours never depend on how many people that video or picture happens to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from generators.poses.tracks import Bools, Bytes, People
from manifests import masks
from manifests.errors import BadInput
from manifests.records import Person, Task

ABSENT = -1
"""in `tracks`: the identity was not found there"""
SPECK = 0.002
"""parts smaller than this share of a silhouette are not painted"""


@dataclass(frozen=True)
class SlotMap:
    """identity → slot"""

    slots: tuple[int, ...]

    @property
    def identities(self) -> int:
        return len(self.slots)

    @property
    def used(self) -> int:
        """How many binding slots the pair's masks use."""
        return len(set(self.slots))


def assign(people: Sequence[Person]) -> SlotMap:
    """Slots for the driven people, in their order of appearance; from seven on the smallest share one. Raises BadInput for nobody."""
    if not people:
        raise BadInput("nobody to give a slot to: the clip has no tracked person", "no_people")
    return SlotMap(masks.assign_slots([person.height for person in people]))


def crisp(masks_PTHW: Bytes) -> Bools:
    """Silhouettes with hard edges: smoothed by a 3×3 median, inside from one half on, specks dropped."""
    out = np.zeros(masks_PTHW.shape, np.bool_)
    for p, t in np.ndindex(*masks_PTHW.shape[:2]):
        if masks_PTHW[p, t].any():
            solid = (cv2.medianBlur(masks_PTHW[p, t], 3) >= masks.THRESHOLD).astype(np.uint8)
            _, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
            areas = stats[:, cv2.CC_STAT_AREA]
            keep = areas >= max(SPECK * float(areas[1:].sum()), 4.0)
            keep[0] = False
            out[p, t] = keep[labels]
    return out


def draw_driving_masks(
    driving: People, slots: SlotMap, task: Task, tracks: Sequence[int] | None = None, silhouettes_PTHW: Bytes | Bools | None = None
) -> Bytes:
    """The driving mask's frames_THWC, RGB uint8.

    `tracks[i]` is identity i's track in `driving` (ABSENT where it isn't shown); by default track i. People without an identity are
    background. `silhouettes_PTHW` takes the place of the tracked silhouettes: an extractor's, or those of a pose rendering.
    Raises BadInput when map and tracks don't fit, or when no identity is shown at all.
    """
    chosen, painted = _placed(driving, slots, tracks)
    source = driving.masks_PTHW if silhouettes_PTHW is None else silhouettes_PTHW
    if source.shape[:2] != (driving.count, driving.frames):
        raise BadInput(f"silhouettes of shape {source.shape[:2]} (P, T) for people of {(driving.count, driving.frames)}", "size_mismatch")
    picked = source[chosen]
    inside = picked if picked.dtype == np.bool_ else crisp(np.asarray(picked, np.uint8))
    return masks.paint(inside, painted, task, "driving")


def draw_reference_mask(reference: People, slots: SlotMap, task: Task, tracks: Sequence[int] | None = None) -> Bytes:
    """The mask of one reference picture (`reference` has T = 1), HWC. `tracks` and errors as in `draw_driving_masks`."""
    if reference.frames != 1:
        raise BadInput(f"a reference is one picture, got people of {reference.frames} frames", "frames_mismatch")
    chosen, painted = _placed(reference, slots, tracks)
    return np.asarray(masks.paint(crisp(reference.masks_PTHW[chosen]), painted, task, "reference")[0])


def _placed(people: People, slots: SlotMap, tracks: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Tracks to paint and their slots."""
    tracks = range(min(people.count, slots.identities)) if tracks is None else tracks
    if len(tracks) > slots.identities or any(not ABSENT <= k < people.count for k in tracks):
        raise BadInput(
            f"tracks {tuple(tracks)} do not fit {slots.identities} identities and {people.count} people; give each identity a track or -1",
            "people_mismatch",
        )
    shown = [(k, slots.slots[i]) for i, k in enumerate(tracks) if k != ABSENT]
    if len({k for k, _ in shown}) < len(shown):
        raise BadInput(f"tracks {tuple(tracks)} give one person to two identities", "people_mismatch")
    if not shown:
        raise BadInput("none of the identities is shown: the mask would be empty", "no_people")
    return [k for k, _ in shown], [slot for _, slot in shown]
