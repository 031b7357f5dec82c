"""The built-in mask extractor: the pose model's rough silhouettes, brought to the picture's edges.

Three passes over the clip, each frame on its own and so on several threads: gather the colours of every body's parts and of what lies
around them; weigh silhouette, colour and bones in a band around the outline, everybody's pixels kept apart; steady the result over
neighbouring frames and snap it to the edges with a guided filter.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import cv2
import numpy as np

from generators.masks.extractor import check_frames
from generators.masks.grid import Box, Grid
from generators.masks.guided import applied, applied_at, coefficients, planes
from generators.masks.parts import ARM, RADIUS, Colours, Parts, bins_of, parts_of
from generators.poses.extractor import Extractor, ExtractorOptions, Facts
from generators.poses.silhouettes import nearest_first
from generators.poses.tracks import Bytes, Floats, People

LEARN_FRAMES = 24
"""colours are gathered from so many frames, spread over the clip"""
BAND = 0.10
"""half width of the band in which the outline may move, in body sizes"""
COLOUR = 0.9
"""weight of the colours' log ratio beside the silhouette's log odds"""
SWAY = 3.0
"""how far colours can move the log odds"""
ON_BONE = 2.0
"""what the middle of a limb adds to the log odds"""
STEADY = 8.0
"""colour difference (of 255) below which a pixel of the next frame is taken for the same"""
EDGE_RADIUS = 0.045
"""of the guided filter, in body sizes"""
EPSILON = 2e-4
CRISP = 1.7
"""how much the filtered mask is steepened around one half"""
CANDIDATE = 64
"""mask value from which a pixel may be somebody's"""
NEARNESS = 6.0
"""what a body size of distance from the bones costs, in log odds, where two people claim a pixel"""

LOG_ODDS = np.log((np.arange(256, dtype=np.float32) + 2) / (257 - np.arange(256, dtype=np.float32)))
SAME = np.exp(-0.5 * (np.arange(256, dtype=np.float32) / STEADY) ** 2)


class EdgeRefiner(Extractor):
    """Implements `generators.masks.extractor.MaskExtractor` with no model of its own."""

    facts: ClassVar[Facts] = Facts(what="the pose model's silhouettes, brought to the picture's edges")
    options_type: ClassVar[type[ExtractorOptions]] = ExtractorOptions

    @classmethod
    def build(cls, options: ExtractorOptions) -> EdgeRefiner:
        return cls()

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads

    def extract(self, frames_THWC: Bytes, people: People) -> Bytes:
        """masks_PTHW. Raises BadInput when the frames are not those of the people."""
        check_frames(frames_THWC, people)
        work = _Work(frames_THWC, people)
        if people.count:
            with ThreadPoolExecutor(self._threads) as pool:
                frames = range(people.frames)
                list(pool.map(work.prepare, frames))
                learnt = list(pool.map(work.colours, np.unique(np.linspace(0, people.frames - 1, LEARN_FRAMES).astype(int)).tolist()))
                work.learn(learnt)
                list(pool.map(work.weigh, frames))
                list(pool.map(work.finish, frames))
        return work.out_PTHW


class _Work:
    """One clip's way through the passes. Every pass writes only what belongs to its own frame, so their order on threads is all one."""

    def __init__(self, frames_THWC: Bytes, people: People) -> None:
        self.people, self.grid = people, Grid(frames_THWC, people)
        self.out_PTHW = np.zeros(people.masks_PTHW.shape, np.uint8)
        self._seen: list[dict[int, tuple[Box, Parts]]] = [{} for _ in range(people.frames)]
        """per frame: person → where it is and where its parts are"""
        self._weighed: list[dict[int, Bytes]] = [{} for _ in range(people.frames)]
        """per frame: person → mask on the whole working grid"""
        self._evidence: list[Floats] = []
        self._likelihood: list[Floats] = []

    def prepare(self, t: int) -> None:
        """Make the frame small, find everybody's region and parts."""
        self.grid.shrink(t, self.people)
        for p in np.flatnonzero(self.people.present_PT[:, t]).tolist():
            xy, visibility = self.people.landmarks_PT33x3[p, t, :, :2] / self.grid.step, self.people.visibility_PT33[p, t]
            box = self.grid.box_of(self.grid.masks[p][t], xy, visibility)
            if box is None:
                continue
            parts = parts_of(xy - np.array([box.x0, box.y0], np.float32), visibility, box.size_hw)
            if parts is not None:
                self._seen[t][p] = box, parts

    def colours(self, t: int) -> dict[int, Colours]:
        """What the people of one frame look like, where nobody else is near."""
        found = {}
        for p, (box, parts) in self._seen[t].items():
            mask = self.grid.masks[p][t][box.at]
            others = [self.grid.masks[q][t][box.at] for q in self._seen[t] if q != p]
            alone = np.ones(mask.shape, np.bool_)
            for other in others:
                alone &= other < CANDIDATE
            found[p] = Colours()
            found[p].add(bins_of(self.grid.small[t][box.at]), mask, parts, alone)
        return found

    def learn(self, frames: list[dict[int, Colours]]) -> None:
        """Sum the frames' colours up. Counts are whole numbers: the order does not matter."""
        for p in range(self.people.count):
            total = Colours()
            for found in frames:
                if p in found:
                    total.take(found[p])
            self._evidence.append(total.evidence())
            self._likelihood.append(total.likelihood())

    def weigh(self, t: int) -> None:
        """Silhouette, colours and bones as one mask a person; contested pixels go to one of them."""
        odds = {p: self._odds(t, p) for p in self._seen[t]}
        if len(odds) > 1:
            self._share_out(t, odds)
        for p, (box, _) in self._seen[t].items():
            whole = np.zeros(self.grid.size_hw, np.uint8)
            whole[box.at] = 255 / (1 + np.exp(-odds[p])) + 0.5
            self._weighed[t][p] = whole

    def _odds(self, t: int, p: int) -> Floats:
        box, parts = self._seen[t][p]
        mask = self.grid.masks[p][t][box.at]
        odds = LOG_ODDS[mask]
        side = 2 * max(1, round(BAND * parts.size)) + 1
        around = cv2.blur((mask >= 128).astype(np.float32), (side, side))
        band = (around > 0) & (around < 1) | (parts.group_HW >= ARM) & (parts.beyond_HW < 0.3 * RADIUS[parts.group_HW])
        bins = bins_of(self.grid.small[t][box.at])[band]
        odds[band] += COLOUR * np.clip(self._evidence[p][parts.group_HW[band], bins], -SWAY, SWAY)
        odds[parts.core] += ON_BONE
        return np.asarray(odds, np.float32)

    def _share_out(self, t: int, odds: dict[int, Floats]) -> None:
        """In place: a pixel that several people claim stays with the one whose part there has its colour and whose bones are nearest;
        among equals with the nearer person."""
        order = [p for p in nearest_first(self.people.landmarks_PT33x3[:, t]) if p in odds]
        claims = np.zeros(self.grid.size_hw, np.uint8)
        for p in order:
            claims[self._seen[t][p][0].at] += odds[p] > LOG_ODDS[CANDIDATE]
        contested = claims > 1
        if not contested.any():
            return
        best, owner = np.full(self.grid.size_hw, -np.inf, np.float32), np.zeros(self.grid.size_hw, np.intp)
        for row, p in enumerate(order):
            at = self._seen[t][p][0].at
            claim = self._claim(t, p, odds[p], row)
            better = claim > best[at]
            best[at][better], owner[at][better] = claim[better], row
        for row, p in enumerate(order):
            odds[p][(contested & (owner != row))[self._seen[t][p][0].at]] = LOG_ODDS[0]

    def _claim(self, t: int, p: int, odds_HW: Floats, row: int) -> Floats:
        """How strongly a person holds the pixels of its box; -inf where it does not want them."""
        box, parts = self._seen[t][p]
        likely = self._likelihood[p][parts.group_HW, bins_of(self.grid.small[t][box.at])]
        near = NEARNESS * np.maximum(parts.beyond_HW, -0.05)
        claim = cv2.blur(likely, (5, 5)) - near + 0.5 * odds_HW - 0.5 * row
        return np.asarray(np.where(odds_HW > LOG_ODDS[CANDIDATE], claim, -np.inf), np.float32)

    def finish(self, t: int) -> None:
        """Steady the masks, snap them to the edges, write them at the picture's size."""
        for p, (box, parts) in self._seen[t].items():
            guide = planes(self.grid.small[t][box.at])
            steady = self._steadied(t, p, box) * np.float32(1 / 255)
            found = coefficients(guide, steady, max(2, round(EDGE_RADIUS * parts.size)), EPSILON)
            mask = _crisp(applied(found, guide))
            self.out_PTHW[p, t][self.grid.full(box)] = mask if self.grid.step == 1 else self._enlarged(t, box, mask, found)
        if len(self._seen[t]) > 1:
            _keep_apart(self.out_PTHW[:, t])

    def _enlarged(self, t: int, box: Box, mask_HW: Bytes, found_4HW: list[Floats]) -> Bytes:
        """The mask at the picture's size; near its edges from the picture's own pixels."""
        picture = self.grid.frames_THWC[t][self.grid.full(box)]
        height, width = picture.shape[:2]
        size = (mask_HW.shape[1] * self.grid.step, mask_HW.shape[0] * self.grid.step)
        large = np.asarray(cv2.resize(mask_HW, size, interpolation=cv2.INTER_LINEAR), np.uint8)[:height, :width]
        rows, columns = np.divmod(np.flatnonzero((large > 2) & (large < 253)), width)
        if len(rows):
            large[rows, columns] = _crisp(applied_at(found_4HW, picture, rows, columns, self.grid.step))
        return large

    def _steadied(self, t: int, p: int, box: Box) -> Floats:
        """The mean with the neighbouring frames, where the picture did not change."""
        total, weight = self._weighed[t][p][box.at].astype(np.float32), np.ones(box.size_hw, np.float32)
        for near in (t - 1, t + 1):
            if 0 <= near < self.people.frames and p in self._weighed[near]:
                r, g, b = cv2.split(cv2.absdiff(self.grid.small[t][box.at], self.grid.small[near][box.at]))
                same = SAME[cv2.max(cv2.max(r, g), b)]
                total += same * self._weighed[near][p][box.at]
                weight += same
        return np.asarray(total / weight, np.float32)


def _crisp(mask: Floats) -> Bytes:
    """0 to 1 as 0 to 255, steepened around one half."""
    return np.asarray(np.clip((mask - np.float32(0.5)) * np.float32(255 * CRISP) + np.float32(128), 0, 255), np.uint8)


def _keep_apart(masks_PHW: Bytes) -> None:
    """In place: at every pixel that two people still claim, the surer one stays."""
    claims = np.zeros(masks_PHW.shape[1:], np.uint8)
    for mask in masks_PHW:
        claims += mask >= CANDIDATE
    rows, columns = np.nonzero(claims > 1)
    values = masks_PHW[:, rows, columns]
    surest = values.argmax(axis=0)
    masks_PHW[:, rows, columns] = np.where(np.arange(len(values))[:, None] == surest, values, 0)
