"""Hands and faces of tracked people. The body's landmarks say where to look; identities and sides are the body's and stay so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from generators.poses import smoothing
from generators.poses.faces import Head, face_through
from generators.poses.following import steady
from generators.poses.hands import LEFT, RIGHT, Arm, apart, hand_through
from generators.poses.networks import Face, FaceNet, Hand, HandNet
from generators.poses.summary import standing_height
from generators.poses.tracks import Bytes, Details, People
from manifests.errors import BadInput

Doubles = npt.NDArray[np.float64]
FACE = 2
"""the third thing read of everybody, after the LEFT and the RIGHT hand"""
SIZE_S = 0.5
"""a body's size is the median over this long before and after"""


class DetailReader:
    """Reads hands (21 points) and faces (468 points) of people whose bodies are known. The models are loaded on first use.

    The result does not depend on `threads`: every hand and every face is a chain of its own.
    """

    def __init__(self, threads: int = 2) -> None:
        if threads < 1:
            raise BadInput(f"threads is {threads}, it must be at least 1")
        self._networks = [(HandNet(lite=True), FaceNet()) for _ in range(threads)]

    def setup(self) -> None:
        """Load the models (fetching them once). Raises what `generators.weights.fetch` raises."""
        for hand, face in self._networks:
            hand.setup()
            face.setup()

    def read(self, frames_THWC: Bytes, people: People) -> People:
        """`people` with their details. Raises BadInput when the frames (RGB, uint8) are not those of the people."""
        wanted = (people.frames, *people.size_hw, 3)
        if frames_THWC.shape != wanted or frames_THWC.dtype != np.uint8:
            raise BadInput(f"the frames are {frames_THWC.dtype} {frames_THWC.shape}, the people's uint8 {wanted}; give the tracked frames")
        self.setup()
        arms, heads = _bodies(people)
        free: SimpleQueue[tuple[HandNet, FaceNet]] = SimpleQueue()
        for networks in self._networks:
            free.put(networks)

        def chain(task: tuple[int, int]) -> dict[int, Hand] | dict[int, Face]:
            person, part = task
            hand_net, face_net = free.get()
            try:
                if part == FACE:
                    return face_through(face_net, frames_THWC, heads[person], people.fps)
                return hand_through(hand_net, frames_THWC, arms[person][part], people.fps)
            finally:
                free.put((hand_net, face_net))

        tasks = [(p, part) for p in range(people.count) for part in (LEFT, RIGHT, FACE)]
        with ThreadPoolExecutor(len(self._networks)) as pool:
            found = dict(zip(tasks, pool.map(chain, tasks), strict=True))
        details = Details.unseen(people.count, people.frames)
        for p in range(people.count):
            hands = apart((found[p, LEFT], found[p, RIGHT]), arms[p])  # type: ignore[arg-type]
            for side in (LEFT, RIGHT):
                points, belief = _curves({t: (h.points_21x3, h.presence) for t, h in hands[side].items()}, people, 21)
                details.hands_PT2x21x3[p, :, side], details.hand_seen_PT2[p, :, side] = points, belief
            face = {t: (f.points_468x3, f.presence) for t, f in found[p, FACE].items()}  # type: ignore[union-attr]
            details.faces_PT468x3[p], details.face_seen_PT[p] = _curves(face, people, 468)
        return replace(people, details=details)


def _bodies(people: People) -> tuple[list[tuple[Arm, Arm]], list[Head]]:
    """What the bodies say of everybody's arms and head."""
    arms, heads = [], []
    radius = max(1, round(SIZE_S * people.fps)) if people.frames > 1 else 0
    for landmarks, world, visibility, present in zip(
        people.landmarks_PT33x3, people.world_PT33x3, people.visibility_PT33, people.present_PT, strict=True
    ):
        tall = np.array([standing_height(w[None], xy[None]) for w, xy in zip(world, landmarks, strict=True)])
        body = (landmarks, visibility, present, smoothing.median(tall, radius))
        arms.append((Arm.of(*body, LEFT, people.size_hw), Arm.of(*body, RIGHT, people.size_hw)))
        heads.append(Head.of(*body, people.size_hw))
    return arms, heads


def _curves(found: dict[int, tuple[Doubles, float]], people: People, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points (T, count, 3) and beliefs (T) of what was found in some frames."""
    points, belief = np.zeros((people.frames, count, 3)), np.zeros(people.frames)
    for t, (xyz, presence) in found.items():
        points[t], belief[t] = xyz, presence
    return steady(points, belief, people.fps)
