"""Who plays whom: characters cut out of their pictures, one for each view, and which view each frame shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from generators.poses.tracks import People
from generators.videos.puppet.cutout import Figure, figure_of, matte_of, rescaled
from generators.videos.puppet.face import expressive, with_face
from generators.videos.puppet.grading import Look, graded
from generators.videos.puppet.layers import layers_of
from generators.videos.puppet.motion import Motion, motion_of
from generators.videos.puppet.numerics import Array, sampled
from generators.videos.puppet.parts import parts_of
from generators.videos.puppet.portrait import refuse_unusable
from generators.videos.puppet.render import Character, draw
from generators.videos.puppet.retarget import Placement, Pose, drawn_scale, retarget, turned_deg

_ABOUT_FACE_DEG = 105.0
"""median difference in facing from which the driver's left moves the character's right: nothing true can be shown then, but the outline"""
_SWITCH_PRICE_DEG_S = 6.0
"""what a change of views must gain, in degrees nearer times seconds, so that views do not flicker"""
_FADE_S = 0.07
_FINER = 1.15
"""texture pixels for each drawn pixel; a picture much finer than what is drawn would alias"""

_GLANCE_OFF_DEG = 12.0
"""the better of two quick looks at a picture tells its yaw to within so much; on drawn characters it was off by up to 4"""

Picture = tuple[Array, People]
"""RGB, uint8, and its one person"""


@dataclass(frozen=True)
class View:
    """A further picture of a character, read only when some frame may show it."""

    yaws_rad: tuple[float, ...]
    """what quick looks say; one of them is right to within `_GLANCE_OFF_DEG`. None: nothing is known"""
    read: Callable[[], Picture]

    def least_turned_deg(self, motion: Motion) -> Array:
        """How differently driver and picture face the camera at least (T,)."""
        turned = [turned_deg(yaw, motion) for yaw in self.yaws_rad] or [np.zeros(motion.frames)]
        return np.asarray(np.maximum(np.min(turned, axis=0) - _GLANCE_OFF_DEG, 0))


@dataclass(frozen=True)
class Take:
    """One view of a character, with the whole performance."""

    character: Character
    motion: Motion
    rehearsed: Pose
    """on the driver's frames, as `motion`"""
    pose: Pose
    """on the output's frames"""


@dataclass(frozen=True)
class Actor:
    """A character who stands in for one driver."""

    takes: tuple[Take, ...]
    """the painted picture's first"""
    view_T: Array
    """which take each of the driver's frames shows"""
    share_NxV: Array
    """how much of each take an output frame shows; one view but for short cross-fades"""
    on_stage: tuple[float, float]
    """first and last driver frame in which the driver is there"""

    def shown(self, k: int) -> Take:
        """The take that output frame `k` shows most of."""
        return self.takes[int(np.argmax(self.share_NxV[k]))]

    def perform(self, canvas_HWx4: Array, k: int) -> None:
        """Put output frame `k` over a premultiplied float32 canvas, in place."""
        share = self.share_NxV[k]
        shown = [(self.takes[v], float(share[v])) for v in np.flatnonzero(share > 0)]
        if len(shown) == 1:
            draw(canvas_HWx4, shown[0][0].character, shown[0][0].pose, k)
            return
        before, after = canvas_HWx4.copy(), np.zeros_like(canvas_HWx4)
        for take, weight in shown:
            canvas_HWx4[:] = before
            draw(canvas_HWx4, take.character, take.pose, k)
            after += np.float32(weight) * canvas_HWx4
        canvas_HWx4[:] = after

    def graded(self, scene: Look | None, strength: float) -> Actor:
        """The same with its colours moved towards the scene's."""
        return replace(self, takes=tuple(replace(t, character=graded(t.character, scene, strength)) for t in self.takes))


def actor_of(painted: Picture, views: Sequence[View], driver: People, track: int, placement: Placement, at_N: Array) -> Actor:
    """The actor for one driver. views: further ones of the painted character, at any size.

    Raises BadInput as `figure_of`, `matte_of` and `refuse_unusable` do.
    """
    motion = motion_of(driver, track)
    home = figure_of(*painted, 0)
    factor = _FINER * drawn_scale(home, motion) if placement.like_driver else 1.0
    if factor < 0.9:
        home = figure_of(*rescaled(*painted, factor), 0)
    figures, view_T = _nearest(home, views, motion)
    takes = []
    for v, figure in enumerate(figures):
        frames = view_T == v
        away = frames.any() and float(np.median(turned_deg(figure.yaw_rad, motion)[frames])) > _ABOUT_FACE_DEG
        played = motion_of(driver, track, about_face=True) if away else motion
        pose = retarget(figure, played, placement, home)
        character = _character(figure)
        pose = expressive(pose, figure, character.rig, driver, track)
        takes.append(Take(character, played, pose, pose.at(at_N)))
    there = np.flatnonzero(driver.present_PT[track])
    return Actor(tuple(takes), view_T, sampled(_faded(view_T, len(takes), motion.fps), at_N), (float(there[0]), float(there[-1])))


def _nearest(home: Figure, views: Sequence[View], motion: Motion) -> tuple[list[Figure], Array]:
    """The painted figure and those views that any frame shows, and which of these each frame shows (T,).

    A view that is not chosen when it is taken to face as the driver does, as nearly as it possibly can, is not read at all.
    """
    figures = {0: home}
    turned_VT = np.stack([turned_deg(home.yaw_rad, motion), *(view.least_turned_deg(motion) for view in views)])
    view_T = chosen_views(turned_VT, motion.fps)
    while unread := sorted(set(view_T.tolist()) - set(figures)):
        for v in unread:
            figures[v] = _as_tall_as(home, *views[v - 1].read())
            turned_VT[v] = turned_deg(figures[v].yaw_rad, motion)
        view_T = chosen_views(turned_VT, motion.fps)
    shown = [v for v in sorted(figures) if v == 0 or (view_T == v).any()]
    return [figures[v] for v in shown], np.searchsorted(shown, view_T)


def _character(figure: Figure) -> Character:
    matte = matte_of(figure)
    parts = parts_of(figure, matte.solid_HW)
    refuse_unusable(figure, parts)
    layers, rig = with_face(figure, layers_of(figure, matte, parts))
    return Character(figure, layers, matte.alpha_HW, rig)


def _stature_px(figure: Figure, bones: set[str]) -> float:
    return figure.scale * sum(figure.lengths_m[b] for b in bones)


def _as_tall_as(home: Figure, image_HWC: Array, people: People) -> Figure:
    """Another view at the size at which the body is as tall as in the first picture."""
    figure = figure_of(image_HWC, people, 0)
    legs = {f"{side}_{bone}" for side in ("left", "right") for bone in ("thigh", "shin")}
    bones = {"spine", "head"} | (legs if legs <= home.bones & figure.bones else set())
    return figure_of(*rescaled(image_HWC, people, _stature_px(home, bones) / _stature_px(figure, bones)), 0)


def chosen_views(turned_VT: Array, fps: float) -> Array:
    """The view to show in each frame (T,): least sum of degrees turned away, where every change of views has its price (Viterbi, 1967)."""
    views, frames = turned_VT.shape
    price = _SWITCH_PRICE_DEG_S * fps * (1 - np.eye(views))
    total, came_from = turned_VT[:, 0].astype(float), np.zeros((frames, views), int)
    for t in range(1, frames):
        through = total[:, None] + price
        came_from[t] = through.argmin(0)
        total = through.min(0) + turned_VT[:, t]
    path = [int(total.argmin())]
    for t in range(frames - 1, 0, -1):
        path.append(int(came_from[t, path[-1]]))
    return np.array(path[::-1])


def _faded(view_T: Array, views: int, fps: float) -> Array:
    """Shares (T, V) of the views: a running mean of the choice over the fade."""
    one_hot = np.eye(views)[view_T]
    half = max(1, round(_FADE_S * fps / 2)) if views > 1 else 0
    padded = np.concatenate([one_hot[:1]] * half + [one_hot] + [one_hot[-1:]] * half)
    return np.asarray(np.mean([padded[i : i + len(view_T)] for i in range(2 * half + 1)], 0))
