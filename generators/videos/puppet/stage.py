"""The performance: characters, the people who stay and shadows put into the scene, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from generators.poses.tracks import People
from generators.videos.plate import Plate
from generators.videos.puppet.casting import Actor
from generators.videos.puppet.grading import Grain
from generators.videos.puppet.numerics import Array
from generators.videos.puppet.staging import compose, depth_order, erase, shade


@dataclass
class Stage:
    """Everything that a performance needs, and what was seen during it."""

    actors: list[Actor]
    driver: People
    """the driven people, one for each actor"""
    others: People | None
    """people of the scene who stay"""
    scene: Plate | Array
    """the clip without the driven people, or one picture (H, W, 3) for all frames"""
    at_N: Array
    """the driver's fractional frame that each output frame shows"""
    shadow: bool
    exposed_N: list[float] = field(default_factory=list)
    """share of the removed area that showed invented scene, for the frames performed so far"""

    def __post_init__(self) -> None:
        self._order_TP = depth_order(self.driver, self.others)
        self._grain = Grain(self.scene.grain if isinstance(self.scene, Plate) else 0.0, *self.driver.size_hw)

    def frames(self) -> Iterator[tuple[Array, Array]]:
        """Output frames (H, W, 3), each with the characters' coverage (H, W), both uint8."""
        canvas = np.zeros((*self.driver.size_hw, 4), np.float32)
        self.exposed_N.clear()
        for k, at in enumerate(self.at_N):
            t = round(float(at))
            scene = self.scene.frames_THWC[t].copy() if isinstance(self.scene, Plate) else self.scene.copy()
            canvas.fill(0)
            self._draw(canvas, scene, k, t)
            plate = self.scene if isinstance(self.scene, Plate) else None
            compose(scene, canvas, plate.light_T3[t] if plate else np.ones(3), self._grain.at(k))
            alpha = np.clip(cv2.extractChannel(canvas, 3), 0, 255).astype(np.uint8)
            self.exposed_N.append(plate.exposed(t, alpha) if plate else 0.0)
            yield scene, alpha

    def _draw(self, canvas: Array, scene: Array, k: int, t: int) -> None:
        """From far to near. The scene shows its own people already, so one who is nearer takes away what was drawn over them."""
        standing = None if self.others is None else self.others.masks_PTHW[:, t]
        for track in self._order_TP[t]:
            if track >= len(self.actors):
                if standing is not None:
                    erase(canvas, standing[track - len(self.actors)])
                continue
            actor = self.actors[track]
            if actor.on_stage[0] - 0.5 <= self.at_N[k] <= actor.on_stage[1] + 0.5:
                if self.shadow:
                    shade(scene, actor.shown(k).pose, k, None if standing is None else standing.max(0))
                actor.perform(canvas, k)
