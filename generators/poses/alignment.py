"""Driving poses moved onto a reference: its place, its size and its proportions, with the driver's motion.

Published tools do this before they hand poses to a video model (SCAIL-Pose fits scale and offset, Wan-Animate retargets bones); a
model that paints the reference's body moves it best when the drawn bones are that body's.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from generators.poses.figures import LEFT_HIP, RIGHT_HIP, Doubles, Figures, figures
from generators.poses.summary import standing_height
from generators.poses.tracks import Bools, People
from manifests.errors import BadInput

Mean = tuple[int, ...]
"""a place as the mean of landmarks"""

HIPS, SHOULDERS, EARS = (23, 24), (11, 12), (7, 8)
WRISTS = (15, 16)
FACE = tuple(range(11))
BONES: tuple[tuple[str, tuple[tuple[Mean, Mean, tuple[int, ...]], ...]], ...] = (
    ("trunk", ((HIPS, SHOULDERS, (11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, *FACE)),)),
    ("hips", ((HIPS, (23,), (23, 25, 27, 29, 31)), (HIPS, (24,), (24, 26, 28, 30, 32)))),
    ("shoulders", ((SHOULDERS, (11,), (11, 13, 15, 17, 19, 21)), (SHOULDERS, (12,), (12, 14, 16, 18, 20, 22)))),
    ("upper_arms", (((11,), (13,), (13, 15, 17, 19, 21)), ((12,), (14,), (14, 16, 18, 20, 22)))),
    ("forearms", (((13,), (15,), (15, 17, 19, 21)), ((14,), (16,), (16, 18, 20, 22)))),
    ("thighs", (((23,), (25,), (25, 27, 29, 31)), ((24,), (26,), (26, 28, 30, 32)))),
    ("shanks", (((25,), (27,), (27, 29, 31)), ((26,), (28,), (28, 30, 32)))),
    ("neck", ((SHOULDERS, EARS, FACE),)),
)
"""bones by name, left and right alike: where they begin, where they end, and what moves with their end"""
PROPORTION = (0.55, 1.8)
"""bones are stretched by no more, relative to the whole body: beyond it the reference's pose was misread"""
SCALE = (0.05, 20.0)
SEEN = 0.5


def aligned(fig: Figures, reference: People) -> Figures:
    """The same motion by bodies of the reference's proportions, where the reference stands.

    Bones keep their directions; each is as long as the reference's (medians over the clip, from world landmarks; what the reference
    does not show keeps the driver's proportion). Motion through the picture is scaled like the body. In the first frame in which
    somebody is drawn, their hips (or, where either shows none, their neck) lie where the reference has them. The reference picture is
    scaled to cover the rendering and cropped at the centre. Person i follows the reference's person i. Raises BadInput
    ("people_mismatch") when the counts differ.
    """
    if reference.count != fig.count:
        raise BadInput(f"the reference shows {reference.count} people, {fig.count} are driven; give one for each", "people_mismatch")
    moved = [_moved(fig, reference, p) for p in range(fig.count)]
    if not moved:
        return fig
    landmarks, world, hands, faces = (np.stack(part) for part in zip(*moved, strict=True))
    return dataclasses.replace(fig, landmarks_PT33x3=landmarks, world_PT33x3=world, hands_PT2x21x2=hands, faces_PT68x2=faces)


def _moved(fig: Figures, reference: People, p: int) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    flat, deep = fig.landmarks_PT33x3[p], fig.world_PT33x3[p]
    here = np.flatnonzero(fig.drawn_PT19[p].any(axis=-1))
    model = figures(reference, *reference.size_hw)
    shown = np.flatnonzero(model.drawn_PT19[p].any(axis=-1))
    if not len(here) or not len(shown):
        return flat, deep, fig.hands_PT2x21x2[p], fig.faces_PT68x2[p]
    model_flat = _covering(model.landmarks_PT33x3[p, shown[0]], model.size_hw, fig.size_hw)
    model_deep, model_seen = model.world_PT33x3[p, shown[0]], model.weight_PT33[p, shown[0]] >= SEEN
    tall = standing_height(deep[here].astype(np.float32), flat[here].astype(np.float32))
    model_tall = standing_height(model_deep[None].astype(np.float32), model_flat[None].astype(np.float32))
    scale = float(np.clip(model_tall / tall, *SCALE))
    shares = {name: _proportion(deep[here], model_deep, model_seen, pairs) for name, pairs in BONES}
    new_flat, new_deep = _rebuilt(flat * scale, shares), _rebuilt(deep, shares)

    hips_seen = fig.drawn_PT19[p, here[0], [RIGHT_HIP, LEFT_HIP]].all() and model_seen[list(HIPS)].all()
    anchor = list(HIPS) if hips_seen else list(SHOULDERS)
    new_flat[..., :2] += model_flat[anchor, :2].mean(axis=0) - new_flat[here[0], anchor, :2].mean(axis=0)

    hands, faces = np.empty_like(fig.hands_PT2x21x2[p]), fig.faces_PT68x2[p]
    for side, wrist in enumerate(WRISTS):
        hands[:, side] = _carried(fig.hands_PT2x21x2[p, :, side], flat[:, wrist], new_flat[:, wrist], scale * shares["forearms"])
    head, new_head = flat[:, list(EARS)].mean(axis=1), new_flat[:, list(EARS)].mean(axis=1)
    return new_flat, new_deep, hands, _carried(faces, head, new_head, scale * shares["neck"])


def _covering(landmarks_33x3: Doubles, size_hw: tuple[int, int], wanted_hw: tuple[int, int]) -> Doubles:
    """Pixels of a picture of `size_hw` as pixels of one of `wanted_hw` that it covers, cropped at the centre."""
    scale = max(wanted_hw[0] / size_hw[0], wanted_hw[1] / size_hw[1])
    out = landmarks_33x3 * scale
    out[:, 0] += (wanted_hw[1] - size_hw[1] * scale) / 2
    out[:, 1] += (wanted_hw[0] - size_hw[0] * scale) / 2
    return out


def _proportion(deep_T33x3: Doubles, model_33x3: Doubles, seen_33: Bools, pairs: tuple[tuple[Mean, Mean, tuple[int, ...]], ...]) -> float:
    """How much longer the reference's bone is than the driver's (median over the frames, mean of those sides that are seen)."""
    lengths, wanted = [], []
    for begin, end, _ in pairs:
        if seen_33[list(begin)].all() and seen_33[list(end)].all():
            lengths.append(float(np.median(_length(deep_T33x3, begin, end))))
            wanted.append(float(_length(model_33x3, begin, end)))
    if not lengths or min(sum(lengths), sum(wanted)) < 1e-3:
        return 1.0
    return float(np.clip(sum(wanted) / sum(lengths), *PROPORTION))


def _length(points_33x3: Doubles, begin: Mean, end: Mean) -> Doubles:
    return np.asarray(
        np.linalg.norm(points_33x3[..., list(end), :].mean(axis=-2) - points_33x3[..., list(begin), :].mean(axis=-2), axis=-1)
    )


def _rebuilt(points_T33x3: Doubles, shares: dict[str, float]) -> Doubles:
    """Every bone stretched by its share along its own direction; what hangs on its end moves along. The head grows with the neck."""
    out = points_T33x3.copy()
    for name, pairs in BONES:
        for begin, end, follow in pairs:
            bone = points_T33x3[:, list(end)].mean(axis=1) - points_T33x3[:, list(begin)].mean(axis=1)
            out[:, list(follow)] += (shares[name] - 1.0) * bone[:, None]
    head = out[:, list(EARS)].mean(axis=1, keepdims=True)
    out[:, list(FACE)] = head + (out[:, list(FACE)] - head) * shares["neck"]
    return out


def _carried(points_TNx2: Doubles, old_Tx3: Doubles, new_Tx3: Doubles, scale: float) -> Doubles:
    """Points that hang on a joint, moved with it and scaled about it."""
    return (points_TNx2 - old_Tx3[:, None, :2]) * scale + new_Tx3[:, None, :2]
