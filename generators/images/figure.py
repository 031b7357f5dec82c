"""What a drawn figure is made of before it has a body: its bones in a pose, and the clothes and colours of a person."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from generators.images import solids as s
from generators.images.solids import Material, Vector

View = Literal["front", "left", "right", "back"]
"""front faces the camera, back turns away from it in the same pose; left and right walk towards that side of the picture"""

SKINS: tuple[s.Colour, ...] = ((238, 195, 168), (222, 170, 136), (196, 138, 100), (150, 98, 66), (108, 68, 46), (246, 210, 188))
HAIRS: tuple[s.Colour, ...] = ((38, 28, 24), (82, 52, 32), (150, 104, 56), (24, 22, 26), (170, 166, 160), (140, 62, 34))
TOPS: tuple[s.Colour, ...] = (
    (176, 48, 52), (44, 92, 160), (52, 130, 84), (226, 222, 214), (214, 158, 50), (96, 62, 128), (58, 62, 72), (42, 140, 150)
)  # fmt: skip
BOTTOMS: tuple[s.Colour, ...] = ((44, 54, 84), (62, 58, 56), (134, 112, 84), (92, 98, 104), (38, 66, 54), (110, 52, 44))
SHOES: tuple[s.Colour, ...] = ((228, 228, 224), (56, 44, 40), (150, 40, 44), (40, 60, 100))


@dataclass
class Skeleton:
    """Joints in metres; origin on the floor between the feet, y up, z towards the viewer, the figure's left at +x."""

    stature: float
    build: float
    """1 is ordinary; above: broader"""
    view: View
    at: dict[str, Vector] = field(default_factory=dict)
    drop: float = 0.0
    """how much lower the trunk hangs than in a figure that stands straight, metres"""

    def __post_init__(self) -> None:
        h, walk = self.stature, self.view in ("left", "right")
        for side, sign in (("left", 1.0), ("right", -1.0)):
            swing = sign if walk else 0.0
            hip = np.array([0.053 * h * (0.6 + 0.4 * self.build) * sign, 0.525 * h, 0])
            thigh = _aim(24 * swing, 0 if walk else 5.5 * sign)
            shin = _aim(24 * swing if sign > 0 else 34 * swing, 0 if walk else 3.0 * sign)
            shoulder = np.array([0.108 * h * (0.5 + 0.5 * self.build) * sign, 0.812 * h, -0.005 * h])
            upper, fore = _aim(-33 * swing, 6 * sign if walk else 30 * sign), _aim(-33 * swing + 16 * walk, 4 * sign if walk else 26 * sign)
            knee, elbow = hip + 0.240 * h * thigh, shoulder + 0.168 * h * upper
            ankle, wrist = knee + 0.240 * h * shin, elbow + 0.148 * h * fore
            self.at |= {f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle, f"{side}_shoulder": shoulder,
                        f"{side}_elbow": elbow, f"{side}_wrist": wrist, f"{side}_hand": wrist + 0.055 * h * fore}  # fmt: skip
            toe = s.rotation("y", 0 if walk else 20 * sign) @ np.array([0, 0, 1.0])
            if walk:
                toe = s.rotation("x", -14 * swing if sign > 0 else 22) @ toe
            self.at[f"{side}_foot_index"] = ankle + 0.095 * h * toe + np.array([0, -0.028 * h, 0])
            self.at[f"{side}_heel"] = ankle - 0.022 * h * toe + np.array([0, -0.026 * h, 0])
        ground = min(self.at[f"{side}_{end}"][1] for side in ("left", "right") for end in ("heel", "foot_index")) - 0.026 * h
        self.at = {name: at - np.array([0, ground, 0]) for name, at in self.at.items()}
        self.drop = float(ground)
        self.at["head"] = np.array([0, 0.925 * h - ground, 0.012 * h])
        self.at["neck"] = np.array([0, 0.835 * h - ground, -0.006 * h])

    def up(self, y: float, z: float = 0.0) -> Vector:
        """A point of the trunk's middle: y above the floor and z to the front, both in statures of a figure that stands straight."""
        return np.array([0, y * self.stature - self.drop, z * self.stature])

    def face(self, x: float, y: float, z: float) -> Vector:
        """A point of the head, from its centre, in statures."""
        return self.at["head"] + np.array([x, y, z]) * self.stature


def _aim(forward_deg: float, outward_deg: float) -> Vector:
    """A unit vector that hangs down, swung forward (to the viewer) and out to the figure's left."""
    down: Vector = s.rotation("z", outward_deg) @ s.rotation("x", -forward_deg) @ np.array([0, -1.0, 0])
    return down


@dataclass(frozen=True)
class Wardrobe:
    skin: Material
    hair: Material
    top: Material
    bottom: Material
    shoes: Material
    sleeve: float
    """share of the arm that is covered: 0.28 short, 0.97 long"""
    leg: float
    """share of the leg that is covered"""
    style: str
    """of the hair"""

    @staticmethod
    def pick(rng: np.random.Generator, seed: int) -> Wardrobe:
        def one(colours: tuple[s.Colour, ...], gloss: float = 0.05, folds: float = 0.0) -> Material:
            jitter = rng.uniform(-10, 10, 3)
            red, green, blue = np.clip(np.array(colours[int(rng.integers(len(colours)))]) + jitter, 8, 250).tolist()
            return Material((red, green, blue), gloss, folds)

        styles = ("short", "bob", "cap", "bun", "short", "long")
        skin, hair, top, bottom, shoes = (
            one(SKINS, 0.10),
            one(HAIRS, 0.12),
            one(TOPS, 0.03, 0.10),
            one(BOTTOMS, 0.03, 0.10),
            one(SHOES, 0.2),
        )
        if rng.random() < 0.35:
            top = replace(top, stripe=one(TOPS).colour, stripe_m=float(rng.uniform(0.03, 0.07)))
        sleeve, leg = float(rng.choice([0.28, 0.28, 0.95])), float(rng.choice([0.97, 0.97, 0.44]))
        return Wardrobe(skin, hair, top, bottom, shoes, sleeve, leg, styles[seed % len(styles)])
