"""Characters drawn by code: no assets, no licence to mind, any number of them by seed.

A figure is a skeleton (joints in metres), clothed with solids and photographed before a studio backdrop. They exist so that the
whole loop runs on a machine that has no gallery; the pose model finds them like people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generators.images import solids as s
from generators.images.back import SOLE, mannequin_back, robot_back
from generators.images.figure import Skeleton, View, Wardrobe
from generators.images.scenes import scene, studio
from generators.images.solids import Material, Solid, Vector

__all__ = ["Drawing", "View", "draw_mannequin", "draw_robot", "mannequin", "robot", "scene"]

Image = npt.NDArray[np.uint8]
METALS: tuple[s.Colour, ...] = ((208, 212, 216), (222, 120, 44), (70, 130, 180), (226, 190, 60), (120, 150, 110), (196, 74, 66))
PITCH_DEG = 7.0
"""the camera looks slightly down, so that feet show from the front"""


@dataclass(frozen=True)
class Drawing:
    """A character and where its joints truly are."""

    image_HWC: Image
    alpha_HW: npt.NDArray[np.float32]
    joints: dict[str, tuple[float, float]]
    """name as in generators.poses.tracks → x, y in pixels"""


def mannequin(seed: int, height_px: int = 1024, view: View = "front") -> Image:
    """A clothed human figure, uint8 (H, W, 3) RGB, W about 0.7 H; the same seed always gives the same bytes."""
    return draw_mannequin(seed, height_px, view).image_HWC


def robot(seed: int, height_px: int = 1024, view: View = "front") -> Image:
    """A robot of human shape, uint8 (H, W, 3) RGB."""
    return draw_robot(seed, height_px, view).image_HWC


def draw_mannequin(seed: int, height_px: int = 1024, view: View = "front") -> Drawing:
    """As `mannequin`, with coverage and true joints."""
    rng = np.random.default_rng([seed, 1])
    bones = Skeleton(float(rng.uniform(1.58, 1.90)), float(rng.uniform(0.88, 1.16)), view)
    cloth = Wardrobe.pick(rng, seed)
    parts = [*_body(bones, cloth), *_face(bones, cloth), *_hair(bones, cloth)]
    if view == "back":
        parts += mannequin_back(bones, cloth, parts)
    return _photograph(bones, parts, rng, height_px)


def _body(bones: Skeleton, wear: Wardrobe) -> list[Solid]:
    j, h, b = bones.at, bones.stature, bones.build
    top, skin, bottom = wear.top, wear.skin, wear.bottom
    parts = [
        s.ellipsoid(top, "top", bones.up(0.735, 0.003), (0.100 * h * b, 0.115 * h, 0.066 * h * b), blend=0.05),
        s.ellipsoid(top, "top", bones.up(0.635), (0.083 * h * b, 0.095 * h, 0.058 * h * b), blend=0.06),
        s.ellipsoid(top, "top", bones.up(0.565), (0.093 * h * b, 0.052 * h, 0.060 * h * b), blend=0.05),
        s.capsule(top, "top", j["left_shoulder"] * [0.55, 1, 1], j["right_shoulder"] * [0.55, 1, 1], 0.036 * h, blend=0.05),
        s.capsule(skin, "head", j["neck"] - [0, 0.02 * h, 0], j["head"] - [0, 0.03 * h, 0.02 * h], 0.033 * h, 0.031 * h, blend=0.02),
        s.ellipsoid(bottom, "bottom", bones.up(0.515), (0.091 * h * b, 0.064 * h, 0.075 * h * b), blend=0.05),
    ]
    for side in ("left", "right"):
        parts += _leg(j, side, wear, h, b) + _arm(j, side, wear, h, b) + _hand(j, side, skin, h) + _foot(j, side, wear, h)
    return parts


def _leg(j: dict[str, Vector], side: str, wear: Wardrobe, h: float, b: float) -> list[Solid]:
    hip, knee, ankle = j[f"{side}_hip"], j[f"{side}_knee"], j[f"{side}_ankle"]
    calf = knee + 0.32 * (ankle - knee) + np.array([0, 0, -0.010 * h])
    thick = 0.5 + 0.5 * b
    skin = [
        s.capsule(wear.skin, side + "leg", hip, knee, 0.046 * h * thick, 0.031 * h * thick),
        s.capsule(wear.skin, side + "leg", knee, ankle, 0.030 * h * thick, 0.021 * h),
        s.ellipsoid(wear.skin, side + "leg", calf, (0.028 * h * thick, 0.062 * h, 0.030 * h * thick)),
    ]
    upper_end = hip + min(1.0, wear.leg / 0.5) * (knee - hip)
    cloth = [s.capsule(wear.bottom, "bottom", hip, upper_end, 0.054 * h * thick, 0.041 * h * thick, blend=0.035)]
    if wear.leg > 0.5:
        cloth.append(s.capsule(wear.bottom, "bottom", knee, knee + (wear.leg - 0.5) * 2 * (ankle - knee), 0.040 * h * thick, 0.031 * h))
        return cloth
    return skin + cloth


def _arm(j: dict[str, Vector], side: str, wear: Wardrobe, h: float, b: float) -> list[Solid]:
    shoulder, elbow, wrist = j[f"{side}_shoulder"], j[f"{side}_elbow"], j[f"{side}_wrist"]
    thick = 0.5 + 0.5 * b
    skin = [
        s.capsule(wear.skin, side + "arm", shoulder, elbow, 0.029 * h * thick, 0.023 * h * thick),
        s.capsule(wear.skin, side + "arm", elbow, wrist, 0.024 * h * thick, 0.0165 * h),
    ]
    end = shoulder + min(1.0, wear.sleeve / 0.5) * (elbow - shoulder)
    cloth = [s.capsule(wear.top, "top", shoulder, end, 0.036 * h * thick, 0.031 * h * thick, blend=0.035)]
    if wear.sleeve > 0.5:
        cloth.append(s.capsule(wear.top, "top", elbow, elbow + (wear.sleeve - 0.5) * 2 * (wrist - elbow), 0.031 * h * thick, 0.024 * h))
    return skin + cloth


def _hand(j: dict[str, Vector], side: str, skin: Material, h: float) -> list[Solid]:
    """A palm that shows its back to the side, four fingers slightly spread and a thumb to the front."""
    wrist, palm = j[f"{side}_wrist"], j[f"{side}_hand"]
    down = (palm - wrist) / np.linalg.norm(palm - wrist)
    front = np.array([0, 0, 1.0]) - down * down[2]
    front /= np.linalg.norm(front)
    out = np.cross(down, front) * (1 if side == "left" else -1)
    spread = 0.75 * front - 0.66 * out
    """fingers lie side by side along this direction: half turned to the viewer"""
    parts = [s.capsule(skin, side + "arm", wrist, wrist + 0.042 * h * down, 0.017 * h, 0.020 * h, blend=0.02)]
    knuckle = wrist + 0.050 * h * down
    for i, length in enumerate((0.040, 0.046, 0.043, 0.034)):
        root = knuckle + (1.5 - i) * 0.0105 * h * spread
        tip = root + length * h * (down + (1.5 - i) * 0.06 * spread)
        parts.append(s.capsule(skin, side + "arm", root, tip, 0.0072 * h, 0.0055 * h, blend=0.008))
    thumb = wrist + 0.020 * h * down + 0.012 * h * spread
    parts.append(
        s.capsule(skin, side + "arm", thumb, thumb + 0.036 * h * (0.72 * down + 0.62 * spread), 0.0085 * h, 0.0065 * h, blend=0.012)
    )
    return parts


def _foot(j: dict[str, Vector], side: str, wear: Wardrobe, h: float) -> list[Solid]:
    ankle, heel, toe = j[f"{side}_ankle"], j[f"{side}_heel"], j[f"{side}_foot_index"]
    return [
        s.capsule(wear.shoes, side + "foot", ankle, heel, 0.025 * h, 0.023 * h),
        s.capsule(wear.shoes, side + "foot", heel, toe, 0.022 * h, 0.020 * h),
        s.capsule(wear.shoes, side + "foot", ankle - [0, 0.008 * h, 0], toe, 0.024 * h, 0.018 * h),
        s.capsule(SOLE, side + "sole", heel - [0, 0.018 * h, 0], toe - [0, 0.016 * h, 0], 0.0085 * h, 0.008 * h),
    ]


def _face(bones: Skeleton, wear: Wardrobe) -> list[Solid]:
    h, skin = bones.stature, wear.skin
    red, green, blue = skin.colour
    lips = Material((red * 0.82, green * 0.52, blue * 0.52), 0.12)
    white, iris, dark = Material((240, 238, 234), 0.4), Material((64, 46, 36), 0.6), Material((16, 14, 14), 0.7)
    parts = [
        s.ellipsoid(skin, "head", bones.face(0, 0.012, -0.006), (0.046 * h, 0.058 * h, 0.055 * h)),
        s.ellipsoid(skin, "head", bones.face(0, -0.026, 0.008), (0.036 * h, 0.042 * h, 0.041 * h)),
        s.capsule(skin, "head", bones.face(0, 0.006, 0.047), bones.face(0, -0.019, 0.056), 0.0055 * h, 0.0085 * h, blend=0.012),
    ]
    for sign in (1, -1):
        parts += [
            s.capsule(
                lips,
                "mouth",
                bones.face(0, -0.0375, 0.0472),
                bones.face(0.0130 * sign, -0.0345, 0.0440),
                0.0038 * h,
                0.0022 * h,
                blend=0.004,
            ),
            s.ellipsoid(skin, "head", bones.face(0.047 * sign, -0.002, -0.008), (0.006 * h, 0.017 * h, 0.011 * h), blend=0.01),
            s.ellipsoid(white, "eyes", bones.face(0.0185 * sign, 0.004, 0.0425), (0.0100 * h, 0.0058 * h, 0.0065 * h)),
            s.ellipsoid(iris, "iris", bones.face(0.0185 * sign, 0.004, 0.0465), (0.0048 * h, 0.0050 * h, 0.0034 * h)),
            s.ellipsoid(dark, "pupil", bones.face(0.0185 * sign, 0.004, 0.0480), (0.0024 * h, 0.0026 * h, 0.0024 * h)),
            s.capsule(
                wear.hair,
                "brow",
                bones.face(0.009 * sign, 0.0180, 0.0465),
                bones.face(0.029 * sign, 0.0172, 0.0405),
                0.0027 * h,
                0.0020 * h,
            ),
        ]
    return parts


def _hair(bones: Skeleton, wear: Wardrobe) -> list[Solid]:
    h, hair = bones.stature, wear.hair
    tilt = s.rotation("x", -24)
    parts = [
        s.ellipsoid(hair, "hair", bones.face(0, 0.026, -0.016), (0.0505 * h, 0.0490 * h, 0.0580 * h), tilt),
        s.ellipsoid(hair, "hair", bones.face(0.016, 0.056, 0.012), (0.034 * h, 0.021 * h, 0.040 * h), s.rotation("z", -14), blend=0.02),
        s.ellipsoid(hair, "hair", bones.face(-0.024, 0.052, 0.012), (0.024 * h, 0.020 * h, 0.036 * h), s.rotation("z", 24), blend=0.02),
    ]
    if wear.style == "cap":
        cap = Material(wear.top.colour, 0.08)
        parts = [s.ellipsoid(cap, "hair", bones.face(0, 0.032, -0.010), (0.0520 * h, 0.0430 * h, 0.0600 * h), s.rotation("x", -10)),
                 s.ellipsoid(cap, "peak", bones.face(0, 0.034, 0.058), (0.040 * h, 0.0060 * h, 0.034 * h), s.rotation("x", 12)),
                 s.ellipsoid(hair, "nape", bones.face(0, -0.002, -0.026), (0.046 * h, 0.036 * h, 0.040 * h))]  # fmt: skip
    if wear.style == "bun":
        parts.append(s.ellipsoid(hair, "hair", bones.face(0, 0.082, -0.030), (0.024 * h, 0.022 * h, 0.024 * h)))
    if wear.style in ("bob", "long"):
        drop = 0.030 if wear.style == "bob" else 0.085
        for sign in (1, -1):
            parts.append(
                s.capsule(
                    hair, "hair", bones.face(0.042 * sign, 0.025, -0.018), bones.face(0.047 * sign, -drop, -0.020), 0.016 * h, 0.014 * h
                )
            )
        parts.append(s.capsule(hair, "hair", bones.face(0, 0.02, -0.030), bones.face(0, -drop, -0.040), 0.045 * h, 0.034 * h))
    return parts


def draw_robot(seed: int, height_px: int = 1024, view: View = "front") -> Drawing:
    """As `robot`, with coverage and true joints."""
    rng = np.random.default_rng([seed, 2])
    bones = Skeleton(float(rng.uniform(1.60, 1.90)), float(rng.uniform(0.92, 1.18)), view)
    first = seed % len(METALS)
    second = (first + 1 + int(rng.integers(len(METALS) - 1))) % len(METALS)
    shell, trim = Material(METALS[first], 0.55), Material(METALS[second], 0.5)
    parts = [*_robot_trunk(bones, shell, trim), *_robot_head(bones, shell, trim, seed)]
    for side in ("left", "right"):
        parts += _robot_limbs(bones, side, shell, trim)
    if view == "back":
        parts += robot_back(bones, parts, trim, JOINT)
    return _photograph(bones, parts, rng, height_px)


JOINT = Material((52, 54, 60), 0.5)


def _robot_trunk(bones: Skeleton, shell: Material, trim: Material) -> list[Solid]:
    h, b = bones.stature, bones.build
    return [
        s.box(shell, "chest", bones.up(0.745, 0.002), (0.100 * h * b, 0.082 * h, 0.062 * h * b), 0.045 * h),
        s.box(trim, "plate", bones.up(0.765, 0.055 * b), (0.052 * h * b, 0.034 * h, 0.014 * h), 0.010 * h),
        s.ellipsoid(JOINT, "belly", bones.up(0.640), (0.064 * h * b, 0.065 * h, 0.050 * h * b)),
        s.box(shell, "pelvis", bones.up(0.553), (0.086 * h * b, 0.046 * h, 0.056 * h * b), 0.036 * h),
        s.capsule(JOINT, "neck", bones.up(0.81), bones.up(0.89), 0.026 * h),
    ]


def _robot_limbs(bones: Skeleton, side: str, shell: Material, trim: Material) -> list[Solid]:
    j, h, thick = bones.at, bones.stature, 0.4 + 0.6 * bones.build
    at = {name: j[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "heel", "foot_index")}

    def mix(a: str, b: str, t: float) -> Vector:
        return at[a] + t * (at[b] - at[a])

    parts = [
        s.ellipsoid(trim, side + "pad", at["shoulder"], (0.044 * h * thick,) * 3),
        s.capsule(
            shell, side + "upper", mix("shoulder", "elbow", 0.22), mix("shoulder", "elbow", 0.82), 0.029 * h * thick, 0.026 * h * thick
        ),
        s.ellipsoid(JOINT, side + "elbow", at["elbow"], (0.025 * h * thick,) * 3),
        s.capsule(shell, side + "fore", mix("elbow", "wrist", 0.20), mix("elbow", "wrist", 0.85), 0.029 * h * thick, 0.023 * h * thick),
        s.ellipsoid(JOINT, side + "hipball", at["hip"], (0.048 * h * thick,) * 3),
        s.capsule(shell, side + "thigh", mix("hip", "knee", 0.16), mix("hip", "knee", 0.85), 0.046 * h * thick, 0.036 * h * thick),
        s.ellipsoid(trim, side + "knee", at["knee"], (0.034 * h * thick,) * 3),
        s.capsule(shell, side + "shin", mix("knee", "ankle", 0.16), mix("knee", "ankle", 0.88), 0.035 * h * thick, 0.028 * h * thick),
        s.ellipsoid(JOINT, side + "ankle", at["ankle"], (0.024 * h,) * 3),
        s.capsule(trim, side + "foot", at["heel"], at["foot_index"], 0.028 * h, 0.026 * h),
    ]
    return parts + _hand(j, side, Material(tuple(0.8 * c for c in trim.colour), 0.4), h)  # type: ignore[arg-type]


def _robot_head(bones: Skeleton, shell: Material, trim: Material, seed: int) -> list[Solid]:
    h = bones.stature
    face, lamp, dark = Material((226, 206, 190), 0.25), Material((30, 60, 90), 0.7), Material((70, 40, 40), 0.2)
    parts = [
        s.ellipsoid(shell, "skull", bones.face(0, 0.014, -0.008), (0.056 * h, 0.062 * h, 0.060 * h)),
        s.ellipsoid(face, "face", bones.face(0, -0.010, 0.014), (0.040 * h, 0.055 * h, 0.044 * h)),
        s.capsule(face, "face", bones.face(0, 0.004, 0.054), bones.face(0, -0.018, 0.060), 0.005 * h, 0.008 * h, blend=0.012),
    ]
    if seed % 2:
        parts += [s.capsule(JOINT, "aerial", bones.face(0, 0.07, -0.01), bones.face(0, 0.115, -0.01), 0.004 * h),
                  s.ellipsoid(trim, "bulb", bones.face(0, 0.118, -0.01), (0.010 * h,) * 3)]  # fmt: skip
    for sign in (1, -1):
        parts += [
            s.capsule(
                dark,
                "mouth",
                bones.face(0, -0.0385, 0.0545),
                bones.face(0.0130 * sign, -0.0350, 0.0505),
                0.0034 * h,
                0.0022 * h,
                blend=0.004,
            ),
            s.ellipsoid(trim, "ears", bones.face(0.056 * sign, 0.0, -0.006), (0.010 * h, 0.022 * h, 0.022 * h)),
            s.ellipsoid(
                Material((240, 244, 246), 0.4), "eyes", bones.face(0.0185 * sign, 0.004, 0.0500), (0.0105 * h, 0.0085 * h, 0.006 * h)
            ),
            s.ellipsoid(lamp, "iris", bones.face(0.0185 * sign, 0.004, 0.0545), (0.0058 * h, 0.0058 * h, 0.0034 * h)),
            s.capsule(JOINT, "brow", bones.face(0.008 * sign, 0.0208, 0.0530), bones.face(0.029 * sign, 0.020, 0.0460), 0.0026 * h),
        ]
    return parts


def _photograph(bones: Skeleton, parts: list[Solid], rng: np.random.Generator, height_px: int) -> Drawing:
    """Put the figure before a studio backdrop: head and feet 7 % from the edges."""
    width_px = round(height_px * 0.72 / 2) * 2
    yaw = {"front": 0.0, "left": -80.0, "right": 80.0, "back": 180.0}[bones.view]
    camera = s.rotation("x", PITCH_DEG) @ s.rotation("y", yaw)
    px_per_m = 0.84 * height_px / (bones.stature * 1.03)
    foot = (width_px / 2, 0.925 * height_px)
    colour, alpha = s.render([p.turned(camera) for p in parts], height_px, width_px, px_per_m, foot)
    backdrop = studio(rng, height_px, width_px, foot[1] / height_px - 0.10)
    for side in ("left", "right"):
        x, y = _project(camera @ ((bones.at[f"{side}_heel"] + bones.at[f"{side}_foot_index"]) / 2 * [1, 0, 1]), px_per_m, foot)
        backdrop *= 1 - 0.5 * s.soft_disc(height_px, width_px, (x, y), (0.075 * height_px, 0.016 * height_px), 0.010 * height_px)[..., None]
    image = backdrop * (1 - alpha[..., None]) + colour * alpha[..., None] + rng.normal(0, 1.2, (height_px, width_px, 1))
    joints = {name: _project(camera @ at, px_per_m, foot) for name, at in bones.at.items()}
    return Drawing(np.clip(np.round(image), 0, 255).astype(np.uint8), alpha, joints)


def _project(at: Vector, px_per_m: float, foot: tuple[float, float]) -> tuple[float, float]:
    return float(foot[0] + at[0] * px_per_m), float(foot[1] - at[1] * px_per_m)
