"""Everybody in a video, frame by frame, with names that hold: two passes over the frames, in memory.

The first pass follows and detects; the second drops what was no person of interest, looks again into the gaps, smooths, and has
the masks drawn.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import ClassVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from generators.masks.extractor import MaskExtractor
from generators.masks.refine import EdgeRefiner
from generators.poses import association, sides, silhouettes, smoothing
from generators.poses.association import REENTRY_S, Sighting, Track
from generators.poses.blazepose import CROP_SIDE, READERS, BlazePose, Body, Detection, pasted
from generators.poses.extractor import ExtractorOptions, Facts, PoseExtractor, PoseOptions
from generators.poses.faces import head_region
from generators.poses.lookout import Lookout
from generators.poses.networks import FaceNet
from generators.poses.tracks import Bytes, Floats, People
from manifests.errors import BadInput

Doubles = npt.NDArray[np.float64]

PRESENT = 0.5
"""presence from which a crop shows a person"""
LEAST_SHARE = 0.25
LEAST_S = 1.0
"""a track shorter than this share of the frames and than this is a mistake"""
LEAST_CONFIDENCE = 0.6
"""`confidence` below which it is one too"""
LEAST_PRESENCE = 0.9
"""...and median presence"""
SURE_PRESENCE = 0.99
"""presence in four frames of five from which nothing more is asked"""
WAVERING = 0.07
"""distance, in body scales, between the joints that different crops show, from which there is nobody. A thin margin: people seen
freely lie below 0.06 (median of the frames), scenery that is taken for people above 0.077"""
WAVERING_FRAMES = 5
WAVERING_CROPS = ((1.1, 8.0), (1.0, -8.0))
BYSTANDER = 0.4
"""people smaller than this share of the tallest are bystanders"""
STILL_ROUNDS = 3
STILL_THRESHOLDS = (0.35, 0.25)
"""detector's score, and where that shows nobody; a lower one at once would merge people who overlap"""
SILHOUETTE_THREADS = 2
AGREEING = 0.8
"""`Body.agreement` below which other crops are tried"""
CONVINCING = 0.92
"""...and above which no more of them are"""
CLEARLY = 0.1
OTHER_CROPS = ((1.1, 0.0), (1.0, 8.0), (1.0, -8.0))
"""larger by, turned by (degrees)"""
SIDE_CROPS = ((1.1, 0.0), (1.0, 8.0))
MIRROR_CROPS = ((1.0, 0.0), (1.1, 0.0))
UNSURE = 0.3
"""share of doubtful frames from which no frame is believed at the first look"""
SIDE_ROUNDS = 2
"""the second looks where the first made a minority"""
START_FRAMES = 3


class PeopleTracker(PoseExtractor):
    """Poses and silhouettes of the people in videos and pictures. The models are loaded on first use."""

    facts: ClassVar[Facts] = Facts(what="33 landmarks in the plane and in space, silhouettes", weights_licence="Apache-2.0")
    options_type: ClassVar[type[ExtractorOptions]] = PoseOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark", "face_landmark")

    @classmethod
    def build(cls, options: ExtractorOptions, masks: MaskExtractor) -> PeopleTracker:
        return cls(cast(PoseOptions, options).max_people, masks)

    def __init__(self, max_people: int = 6, extractor: MaskExtractor | None = None) -> None:
        """`extractor` draws the masks; by default `EdgeRefiner`. Raises BadInput for a number of people that isn't one."""
        if max_people < 1:
            raise BadInput(f"max_people is {max_people}, it must be at least 1")
        self.max_people = max_people
        self._extractor: MaskExtractor = extractor or EdgeRefiner()
        self._model: BlazePose | None = None
        self._faces: SimpleQueue[FaceNet] = SimpleQueue()
        """those that no thread is using"""

    def setup(self) -> None:
        """Load the models (fetching them once). Raises what `generators.weights.fetch` raises."""
        if self._model is None:
            faces = [FaceNet() for _ in range(READERS)]
            for face in faces:
                face.setup()
            self._model = BlazePose()
            for face in faces:
                self._faces.put(face)

    @property
    def model(self) -> BlazePose:
        self.setup()
        assert self._model is not None
        return self._model

    def still(self, image_HWC: Bytes) -> People:
        """The people of one picture, left to right (T = 1). Nobody: `count` is 0. Raises BadInput for what is no RGB picture."""
        check_pixels(image_HWC, 3)
        people = self._in_still(image_HWC, STILL_THRESHOLDS[0])
        return people if people.count else self._in_still(image_HWC, STILL_THRESHOLDS[1])

    def _in_still(self, image_HWC: Bytes, threshold: float) -> People:
        seen: list[Sighting] = []
        for detection in self.model.detect_closely(image_HWC, threshold)[: 2 * self.max_people]:
            # Without those already found, or the look would slide from somebody half hidden to who stands in front.
            sighting = self._refined(association.painted_out(image_HWC, [s.body for s in seen]), detection, STILL_ROUNDS)
            if sighting is not None:
                seen.append(sighting)
        return self._finished([Track({0: s}, s.colours) for s in association.distinct(seen)], image_HWC[None], 1.0)

    def track(self, frames_THWC: Bytes, fps: float) -> People:
        """The people of a video, by first appearance, then left to right. Raises BadInput for what are no RGB frames."""
        check_pixels(frames_THWC, 4, fps)
        tracks: list[Track] = []
        with Lookout(self.model, frames_THWC, fps) as lookout:
            for frame, rgb in enumerate(frames_THWC):
                self._step(tracks, rgb, frame, fps, lookout)
        return self._finished(tracks, frames_THWC, fps)

    def _step(self, tracks: list[Track], rgb_HWC: Bytes, frame: int, fps: float, lookout: Lookout) -> None:
        """One frame of the first pass: look where people are expected, detect, match."""
        recent = [t for t in tracks if frame - t.last <= REENTRY_S * fps + 1]
        seen = self._expected(recent, rgb_HWC, frame)
        if lookout.scheduled(frame) or len(seen) < len(recent) or not recent:
            for found in lookout.at(frame):
                known = any(_explains(s.body, found) for s in seen)
                sighting = None if known else self._refined(rgb_HWC, found, 2)
                if sighting is not None and association.covered(sighting, seen) < association.GHOST:
                    seen.append(sighting)
        seen = association.distinct(seen)
        association.mark_crowded(seen)
        association.match(tracks, recent, seen, frame, fps, 2 * self.max_people)

    def _expected(self, recent: list[Track], rgb_HWC: Bytes, frame: int) -> list[Sighting]:
        """Look where those who were seen a frame ago must be, the surest first, with everybody else nearby painted out."""
        live = [t for t in recent if t.last == frame - 1]
        live.sort(key=lambda t: -confidence_of(t.sightings[t.last].body))
        seen: dict[int, Sighting] = {}
        for i, track in enumerate(live):
            rivals = [seen[j].body if j in seen else t.sightings[t.last].body for j, t in enumerate(live) if j != i]
            picture = association.without_others(rgb_HWC, track.sightings[track.last].body, rivals)
            for sighting in self._look(picture, *track.crop(frame)):
                seen[i] = sighting
        return list(seen.values())

    def _look(self, rgb_HWC: Bytes, centre: Doubles, tip: Doubles) -> list[Sighting]:
        body = self._sound(rgb_HWC, self.model.body(rgb_HWC, centre, tip), centre, tip)
        return [Sighting.of(body)] if body.presence >= PRESENT else []

    def _sound(self, rgb_HWC: Bytes, body: Body, centre: Doubles, tip: Doubles) -> Body:
        """The body, or what slightly different crops show if its joints leave its own silhouette: the model then wavers between a
        front and a back view, or lost a limb, and another crop mostly settles it."""
        if body.presence < PRESENT or body.agreement >= AGREEING:
            return body
        best, enough = body, max(CONVINCING, body.agreement + CLEARLY)
        for grow, turn in OTHER_CROPS:
            look = self.model.body(rgb_HWC, centre, centre + grow * turned(tip - centre, turn))
            best = look if look.presence >= PRESENT and look.agreement > best.agreement else best
            if best.agreement > enough:
                break
        return best if best.agreement > body.agreement + CLEARLY else body

    def _refined(self, rgb_HWC: Bytes, found: Detection, rounds: int) -> Sighting | None:
        """A detection looked at again through its own landmarks, because a picture has no earlier frame to start from."""
        centre, tip, last = found.centre, found.tip, None
        for _ in range(rounds):
            body = self._sound(rgb_HWC, self.model.body(rgb_HWC, centre, tip), centre, tip)
            if body.presence < PRESENT / 2:
                break
            last = body if body.presence >= PRESENT else last
            centre, tip = body.centre, body.tip
        return Sighting.of(last) if last is not None else None

    def _finished(self, tracks: list[Track], frames_THWC: Bytes, fps: float) -> People:
        """The second pass."""
        count = len(frames_THWC)
        for track in sorted(tracks, key=lambda t: -len(t.sightings)):
            self._extend(track, tracks, frames_THWC)
        tracks = association.without_ghosts(association.joined(tracks, fps))
        tracks = [t for t in tracks if len(t.sightings) >= least_frames(count, fps) and self._is_somebody(t, frames_THWC)]
        for track in tracks:
            self._look_into_gaps(track, frames_THWC, fps)
            self._look_at_start(track, frames_THWC)
        tracks = of_interest(tracks, self.max_people)
        self._settle(tracks, frames_THWC)
        tracks.sort(key=in_order)
        people = people_of(tracks, frames_THWC.shape[:3], fps)
        return replace(people, masks_PTHW=self._extractor.extract(frames_THWC, people))

    def _is_somebody(self, track: Track, frames_THWC: Bytes) -> bool:
        """No scenery: the landmark model is sure most of the time, or at least does not change its mind with the crop.

        Where nobody else is near, if that is ever so: somebody half hidden makes it waver too.
        """
        clean = [t for t, s in sorted(track.sightings.items()) if s.clean]
        seen = clean if len(clean) >= WAVERING_FRAMES else sorted(track.sightings)
        presence = [track.sightings[t].body.presence for t in seen]
        if confidence(track) < LEAST_CONFIDENCE or np.median(presence) < LEAST_PRESENCE:
            return False
        if np.percentile(presence, 20) >= SURE_PRESENCE or len(presence) < WAVERING_FRAMES:
            return True
        at = [seen[i] for i in np.linspace(0, len(seen) - 1, WAVERING_FRAMES).astype(int)]
        return bool(np.median([self._wavering(frames_THWC[t], track.sightings[t].body) for t in at]) < WAVERING)

    def _wavering(self, rgb_HWC: Bytes, body: Body) -> float:
        """Mean distance between the body's joints and what other crops show, in body scales."""
        here = body.landmarks_33x3[:, :2].astype(np.float64)
        looks = self._reread(rgb_HWC, body, WAVERING_CROPS)
        return float(
            np.mean([association.body_distance(look.landmarks_33x3[:, :2].astype(np.float64), here, body.scale) for look in looks])
        )

    def _extend(self, track: Track, tracks: list[Track], frames_THWC: Bytes) -> None:
        """Follow the person backwards before the first sighting (the detector notices late) and onwards after the last one."""
        for step in (-1, 1):
            frame = (track.first if step < 0 else track.last) + step
            while 0 <= frame < len(frames_THWC):
                known = track.sightings[frame - step].body
                seen = self._look(frames_THWC[frame], known.centre, known.tip)
                others = [t.sightings[frame] for t in tracks if t is not track and frame in t.sightings]
                if not seen or not association.continues(track, known, seen[0], others):
                    break
                track.sightings[frame] = seen[0]
                frame += step

    def _look_at_start(self, track: Track, frames_THWC: Bytes) -> None:
        """Look at the first frames once more, coming from behind: the detector's first crop is often a poor one."""
        for frame in range(track.first + START_FRAMES - 1, track.first - 1, -1):
            after, now = track.sightings.get(frame + 1), track.sightings.get(frame)
            if after is None or now is None or not now.clean:
                continue
            wanted = after.body.landmarks_33x3[:, :2].astype(np.float64)
            for again in self._look(frames_THWC[frame], after.body.centre, after.body.tip):
                gaps = [
                    association.body_distance(wanted, s.body.landmarks_33x3[:, :2].astype(np.float64), after.body.scale)
                    for s in (now, again)
                ]
                if gaps[1] < gaps[0]:
                    track.sightings[frame] = again

    def _look_into_gaps(self, track: Track, frames_THWC: Bytes, fps: float) -> None:
        """Look once more where somebody was hidden or missed for a short time, between where they were seen."""
        known = sorted(track.sightings)
        for before, after in itertools.pairwise(known):
            if not 1 < after - before <= REENTRY_S * fps + 1:
                continue
            a, b = track.sightings[before].body, track.sightings[after].body
            for frame in range(before + 1, after):
                share = (frame - before) / (after - before)
                centre, tip = a.centre * (1 - share) + b.centre * share, a.tip * (1 - share) + b.tip * share
                expected = (a.landmarks_33x3 * (1 - share) + b.landmarks_33x3 * share)[:, :2].astype(np.float64)
                for s in self._look(frames_THWC[frame], centre, tip):
                    apart = association.body_distance(expected, s.body.landmarks_33x3[:, :2].astype(np.float64), s.body.scale)
                    if apart < 0.3 and (track.colours is None or association.colour_distance(track.colours, s.colours) < 0.5):
                        track.sightings[frame] = s

    def _settle(self, tracks: list[Track], frames_THWC: Bytes) -> None:
        """Look again, with other crops and for a face, where the model took a front for a back, wholly or by halves."""
        for track in tracks:
            bodies = {t: track.sightings[t].body for t in sorted(track.sightings)}
            doubtful = sides.doubtful(bodies) if len(bodies) > 1 else []
            if not doubtful:
                continue
            thorough = set(doubtful)
            if len(doubtful) >= UNSURE * len(bodies):
                doubtful = list(bodies)
            readings, faces = {t: [body] for t, body in bodies.items()}, {}
            others = [other for other in tracks if other is not track]
            rivals = {t: [other.sightings[t].body for other in others if t in other.sightings] for t in bodies}
            for _ in range(SIDE_ROUNDS):
                with ThreadPoolExecutor(READERS) as pool:
                    tasks = ([a[t] for t in doubtful] for a in (frames_THWC, bodies, rivals))
                    how = (t in thorough for t in doubtful)
                    for t, (looks, face) in zip(doubtful, pool.map(self._look_again, *tasks, how), strict=True):
                        readings[t] += looks
                        faces[t] = face
                doubtful = [t for t in sides.outnumbered(sides.settled(readings, faces)) if t not in faces]
                thorough.update(doubtful)
            for t, body in sides.settled(readings, faces).items():
                track.sightings[t] = replace(track.sightings[t], body=body)

    def _look_again(self, rgb_HWC: Bytes, body: Body, rivals: list[Body], thorough: bool) -> tuple[list[Body], float]:
        """What other crops show of a body, as they are and in the mirror; and how surely it shows a face. On any thread.

        A frame that is not doubtful in itself gets one look in the mirror: it tells a front from a back as well as four do.
        """
        picture = association.without_others(rgb_HWC, body, rivals)
        crops, mirrored = (SIDE_CROPS, MIRROR_CROPS) if thorough else ((), MIRROR_CROPS[:1])
        looks = self._reread(picture, body, crops) + self._in_mirror(picture, body, mirrored)
        face = self._faces.get()
        try:
            return [look for look in looks if look.presence >= PRESENT], face.read(picture, head_region(body)).presence
        finally:
            self._faces.put(face)

    def _in_mirror(self, rgb_HWC: Bytes, body: Body, crops: tuple[tuple[float, float], ...]) -> list[Body]:
        """What the crops of the mirrored picture show, brought back."""
        mirror = np.asarray(cv2.flip(rgb_HWC, 1), np.uint8)
        return [sides.in_mirror(b) for b in self._reread(mirror, sides.in_mirror(body), crops)]

    def _reread(self, rgb_HWC: Bytes, body: Body, crops: tuple[tuple[float, float], ...]) -> list[Body]:
        """What crops show that differ from the body's own."""
        centre, up = body.crop.centre, body.crop.turn_22 @ np.array([0.0, -0.4 * body.crop.side])
        return [self.model.reread(rgb_HWC, body, centre, centre + grow * turned(up, turn)) for grow, turn in crops]


def least_frames(count: int, fps: float) -> float:
    """In how many of `count` frames somebody has to be seen, or it was a mistake."""
    return min(LEAST_SHARE * count, LEAST_S * fps)


def of_interest(tracks: list[Track], most: int) -> list[Track]:
    """Without bystanders; the tallest `most` at most."""
    heights = [track_height(t) for t in tracks]
    tallest = max(heights, default=0.0)
    order = sorted(range(len(tracks)), key=lambda i: -heights[i])[:most]
    return [tracks[i] for i in sorted(order) if heights[i] >= BYSTANDER * tallest]


def in_order(track: Track) -> tuple[int, float]:
    """By first appearance, then left to right."""
    return track.first, float(track.sightings[track.first].body.landmarks_33x3[:, 0].mean())


def people_of(tracks: list[Track], shape_THW: tuple[int, ...], fps: float) -> People:
    """Tracks as arrays: gaps interpolated, jitter out, the pose model's silhouettes cleaned."""
    frames, height, width = shape_THW
    p = len(tracks)
    landmarks, world = np.zeros((p, frames, 33, 3), np.float32), np.zeros((p, frames, 33, 3), np.float32)
    visibility, present = np.zeros((p, frames, 33), np.float32), np.zeros((p, frames), np.bool_)
    masks = np.zeros((p, frames, height, width), np.uint8)
    for i, track in enumerate(tracks):
        present[i, sorted(track.sightings)] = True
        for t, sighting in track.sightings.items():
            body = sighting.body
            landmarks[i, t], world[i, t], visibility[i, t] = body.landmarks_33x3, body.world_33x3, body.visibility_33
        for target in (landmarks, world, visibility):
            target[i] = smoothing.smooth(smoothing.fill(target[i], present[i]), fps)
        with ThreadPoolExecutor(SILHOUETTE_THREADS) as pool:
            seen = sorted(track.sightings)
            drawn = pool.map(_silhouette, (track.sightings[t].body for t in seen), landmarks[i, seen], visibility[i, seen])
            for t, mask in zip(seen, drawn, strict=True):
                masks[i, t] = mask
    return People(landmarks, world, np.clip(visibility, 0, 1), present, masks, fps)


def turned(vector_2: Doubles, degrees: float) -> Doubles:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]]) @ vector_2


def _silhouette(body: Body, landmarks_33x3: Floats, visibility_33: Floats) -> Bytes:
    """The soft silhouette in the picture, cleaned while it is small, in the crop."""
    matrix = body.crop.matrix()
    here = landmarks_33x3 * np.float32(CROP_SIDE / body.crop.side)
    here[:, :2] = landmarks_33x3[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return pasted(silhouettes.cleaned(body.silhouette_HW, here, visibility_33), body.crop, body.size_hw)


def confidence(track: Track) -> float:
    """Median of `confidence_of` over the frames."""
    return float(np.median([confidence_of(s.body) for s in track.sightings.values()]))


def confidence_of(body: Body) -> float:
    """Mean visibility of the five best seen of nose, torso, elbows and legs: a close-up of a face and shoulders is a person too."""
    return float(np.sort(body.visibility_33[list(association.CORE)])[-5:].mean())


def track_height(track: Track) -> float:
    """Median size of the body, in pixels (twice the scale: standing or not, in the picture or not)."""
    return float(np.median([2 * s.body.scale for s in track.sightings.values()]))


def _explains(body: Body, found: Detection) -> bool:
    """The detection is of a body that was already seen: its hips are near, or its face."""
    near = np.linalg.norm(found.centre - body.centre) < 0.25 * body.scale
    face = np.linalg.norm((found.box[:2] + found.box[2:]) / 2 - body.landmarks_33x3[0, :2]) < 0.12 * body.scale
    return bool(near or face)


def check_pixels(array: Bytes, dimensions: int, fps: float = 1.0) -> None:
    """Raises BadInput for what is no RGB picture (3 dimensions) or video (4), or no frame rate."""
    shape: tuple[int, ...] = getattr(array, "shape", ())
    if getattr(array, "dtype", None) != np.uint8 or len(shape) != dimensions or shape[-1] != 3 or min(shape) < 1:
        layout = "HWC" if dimensions == 3 else "THWC"
        raise BadInput(f"expected RGB uint8 pixels in layout {layout}, got {getattr(array, 'dtype', type(array).__name__)} {shape}")
    if not 0 < fps < 1000:
        raise BadInput(f"fps is {fps:g}, it must lie between 0 and 1000")
