"""Pose agreement and identity, by the Quality Checker's own measures (agents/measures/agreement.py, motion.py, identity.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from agents.measures import agreement, identity, motion
from agents.measures import people as casts
from agents.measuring import read_alike
from factory.evaluation.metrics import IDENTITY, POSE_LIMB, POSE_MOTION, POSE_PCK, POSE_PRESENCE, Seen, Values
from generators.masks.identity import match_people
from generators.poses.people import PeopleTracker
from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadInput, MotionpairError
from manifests.media import Frames

LOST_DEG = 180.0
"""limb error of somebody who isn't there"""


class PeopleMeter:
    """People are tracked in both videos and matched; of several the worst one's figure counts, as with the checker.

    Somebody who is not found in the generated video counts as wrong in every joint, at rest, and 180° off: a figure that left him out
    would be the better the more people are lost.
    """

    metrics = (POSE_PRESENCE, POSE_PCK, POSE_LIMB, POSE_MOTION, IDENTITY)
    needs_truth = False

    def __init__(self) -> None:
        self._tracker = PeopleTracker()
        self._faces = identity.FaceReader()
        self._driver: tuple[tuple[object, ...], People] | None = None
        """the last one: all models' videos of a case are measured one after the other"""

    def lacking(self) -> str:
        try:
            self._tracker.setup()
            self._faces.setup()
        except MotionpairError as e:
            return e.message
        return ""

    def measure(self, seen: Seen) -> Values:
        driver = self._driving(seen)
        if not driver.count:
            source = "driving video" if seen.cross else "truth"
            return {metric.name: f"nobody is found in the {source}" for metric in self.metrics}
        made = self._tracker.track(seen.pair.generated_THWC, seen.pair.fps)
        matched = match_people(driver, made)
        alike, _ = read_alike(driver, made, matched)
        return {**poses(alike, made, matched), **self._identity(seen, driver, made, matched)}

    def _driving(self, seen: Seen) -> People:
        source = seen.case.driving if seen.cross else seen.case.truth
        name = (source, len(seen.pair.truth_THWC), seen.pair.fps)
        if self._driver is None or self._driver[0] != name:
            self._driver = name, self._tracker.track(seen.pair.truth_THWC, seen.pair.fps)
        return self._driver[1]

    def _identity(self, seen: Seen, driver: People, made: People, matched: Sequence[int]) -> Values:
        """Against the truth's faces; without one, against the reference picture's, each of which may be any of the people found."""
        if -1 in matched:
            return {"identity": "somebody is missing, so no face of theirs is compared"}
        frames_THWC = seen.pair.generated_THWC
        shown = [self._faces.read(frames_THWC, made, track) for track in matched]
        if not seen.cross:
            wanted = [self._faces.read(seen.pair.truth_THWC, driver, i) for i in range(driver.count)]
            found = [identity.likeness(a, b) for a, b in zip(wanted, shown, strict=True)]
        else:
            if seen.case.reference is None:
                return {"identity": "no reference picture"}
            wanted = self._in_picture(media.read_image(seen.case.reference))
            found = [max((identity.likeness(a, b) for b in shown), key=_cosine) for a in wanted]
        cosines = [likeness.cosine for likeness in found if likeness is not None]
        return {"identity": min(cosines) if cosines else "no face shows in both"}

    def _in_picture(self, image_HWC: Frames) -> list[identity.FaceLook]:
        people = self._tracker.still(image_HWC)
        return [self._faces.read(image_HWC[None], people, i) for i in range(people.count)]


def _cosine(likeness: identity.Likeness | None) -> float:
    return -math.inf if likeness is None else likeness.cosine


def poses(driver: People, made: People, matched: Sequence[int]) -> Values:
    """The four figures of pose. `matched`: the track of `made` that performs each person of the driver, -1 for nobody.

    Raises BadInput when the numbers of frames differ.
    """
    if driver.frames != made.frames:
        raise BadInput(f"{driver.frames} frames against {made.frames}", "other_length")
    found = [(i, track) for i, track in enumerate(matched) if track >= 0]
    lost = len(found) < len(matched)
    agreed = [agreement.agreement(driver, made, i, track) for i, track in found]
    follows = [motion.following(driver, made, i, track).correlation for i, track in found]
    return {
        "pose_presence": _of(casts.presences(driver, made, matched), min, "nobody is found in the truth"),
        "pose_pck": 0.0 if lost else _of((a.pck20 for a in agreed), min, "no joint is seen in both"),
        "pose_limb_deg": LOST_DEG if lost else _of((a.limb_deg for a in agreed), max, "no limb is seen in both"),
        "pose_motion": 0.0 if lost else _of(follows, min, "nothing moves in both"),
    }


def _of(values: Iterable[float], pick: Callable[[list[float]], float], why: str) -> float | str:
    """The worst of the figures that can be told."""
    known = [value for value in values if math.isfinite(value)]
    return float(pick(known)) if known else why
