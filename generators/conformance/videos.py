"""The rules asked of video generators and renderers of poses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from generators import verifying
from generators.base import INPUTS, Mode, Report, VideoGenerator, VideoRequest
from generators.conformance.kit import Broken, Kit, NotAsked, copied
from generators.poses.tracks import Bytes
from manifests import media
from manifests.records import Geometry


class VideoKit(Kit[VideoRequest]):
    """For video generators and renderers of poses."""

    generator: VideoGenerator

    def modes(self) -> frozenset[Mode]:
        return self.can.modes - {"image"}

    def out(self) -> Path:
        return self.place() / "an output.mp4"

    def request(self, mode: Mode, people: int = 1) -> VideoRequest:
        folder, sample = self.place(), self.sample
        clip = Path(shutil.copy(sample.clip, folder / "clip.mp4"))
        count = 0 if mode == "pose" else people
        painted = tuple(Path(shutil.copy(path, folder / f"painted{i}.png")) for i, path in enumerate(sample.pictures[:count]))
        return VideoRequest(
            mode=mode, clip=clip, clip_people=copied(sample.people.only(list(range(people)))), painted=painted,
            prompt="a person in a red coat moves", geometry=sample.geometry, seed=7,
        )  # fmt: skip

    def files_of(self, request: VideoRequest) -> list[Path]:
        return [request.clip, *request.painted]

    def life(self, request: VideoRequest, out: Path) -> Report:
        request = self.generator.prepare(request, out.parent / INPUTS)
        self.generator.validate(request)
        return self.generator.run(request, out)

    def check(self, request: VideoRequest, out: Path) -> None:
        asked = VideoGenerator.expected(self.generator, request)
        verifying.check_video(out, asked, request.geometry, request.clip_people)

    def declared(self) -> None:
        if not self.modes() or "image" in self.can.modes:
            raise Broken("declares", f"a video generator makes animation, replacement or pose, got {', '.join(sorted(self.can.modes))}")
        if self.can.frames_for(self.sample.geometry) is None:
            raise Broken("declares", f"by its frame rule it can't make {self.sample.geometry.frames} frames")

    def refusals(self) -> None:
        validate, good = self.generator.validate, self.request(min(self.modes()))
        for mode in sorted({"animation", "replacement", "pose"} - self.can.modes):
            self.refused(f"mode {mode}", lambda mode=mode: validate(self.request(mode)))  # type: ignore[misc]
        everybody, many = good.clip_people, self.can.people_max + 1
        crowd = replace(good, clip_people=everybody.only([0] * many), painted=good.painted * many)
        self.refused(f"{many} people", lambda: validate(crowd))
        if good.painted:
            self.refused("a person without a picture", lambda: validate(replace(good, painted=())))
        for geometry in self._misfits():
            size = f"{geometry.frames} frames of {geometry.height}×{geometry.width} at {geometry.fps:g} fps"
            self.refused(size, lambda g=geometry: validate(replace(good, geometry=g)))  # type: ignore[misc]

    def _misfits(self) -> list[Geometry]:
        """Geometries outside the capabilities, one of each sort."""
        own = self.sample.geometry
        most = max(self.can.frame_counts, default=self.can.frames_max or 0)
        changes: list[dict[str, int]] = [{"frames": most // 4 * 16 + 41}] if most and not self.can.segments else []
        changes += [{"frames": 5}] if self.can.frames_min > 5 else []
        changes += [{"height": own.height + 32}, {"height": own.width, "width": own.height}]
        made = [Geometry.model_validate(own.model_dump() | change) for change in changes]
        return [geometry for geometry in made if self.can.misfits(geometry)]

    def bad_files(self) -> None:
        request = self.request(min(self.modes()))
        asked = self.generator.expected(request)
        size = min(asked.sizes_hw or [(request.geometry.height, request.geometry.width)])
        own, _ = media.read_frames(self.sample.clip)
        at = media.sample_indices(np.arange(len(own)) / request.geometry.fps, asked.frames[0], asked.fps)
        good = np.stack([np.asarray(cv2.resize(frame, size[::-1]), np.uint8) for frame in own[at]])

        def file(name: str, frames: Bytes, fps: float = asked.fps) -> Path:
            path = self.place() / f"{name}.mp4"
            media.write_video(path, frames, fps)
            return path

        def bytes_of(name: str, data: bytes) -> Path:
            path = self.place() / f"{name}.mp4"
            path.write_bytes(data)
            return path

        data = file("good", good).read_bytes()
        wrong = {
            "no file": self.place() / "absent.mp4", "an empty file": bytes_of("empty", b""), "a page of text": bytes_of("text", b"<html>"),
            "half a file": bytes_of("half", data[: len(data) // 2]), "too few frames": file("short", good[: max(1, len(good) // 3)]),
            "another rate": file("rate", good, asked.fps * 1.5), "black frames": file("black", np.zeros_like(good)),
            "a frozen picture": file("frozen", np.repeat(good[:1], len(good), axis=0)),
        }  # fmt: skip
        if asked.sizes_hw is not None:
            wrong["another size"] = file("size", good[:, : size[0] // 4 * 2, : size[1] // 4 * 2])
        for what, path in wrong.items():
            self.rejected(what, lambda path=path: self.generator.verify(request, path))  # type: ignore[misc]

    def several(self) -> None:
        if self.can.people_max < 2:
            raise NotAsked("it takes one character")
        if self.sample.people.count < 2 or len(self.sample.pictures) < 2:
            raise NotAsked("the sample shows one person")
        request, out = self.request(min(self.modes()), people=2), self.out()
        self.life(request, out)
        self.inspected(request, out)
