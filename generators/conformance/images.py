"""The rules asked of image generators."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from generators import verifying
from generators.base import INPUTS, ImageGenerator, ImageRequest, Mode, Report, scene_beside
from generators.conformance.kit import Broken, Kit, copied
from manifests import media


class ImageKit(Kit[ImageRequest]):
    """For image generators."""

    generator: ImageGenerator

    def modes(self) -> frozenset[Mode]:
        return frozenset({"animation", "replacement"})

    def out(self) -> Path:
        return self.place() / "an output.png"

    def request(self, mode: Mode, people: int = 1) -> ImageRequest:
        folder, sample = self.place(), self.sample
        return ImageRequest(
            pictures={"character": Path(shutil.copy(sample.pictures[0], folder / "character.png"))}, prompt="a person in a red coat",
            negative="blurred", scale=1.0, geometry=sample.geometry, clip_people=copied(sample.people.only([0])), mode=mode, seed=7,
        )  # fmt: skip

    def files_of(self, request: ImageRequest) -> list[Path]:
        return sorted(request.pictures.values())

    def life(self, request: ImageRequest, out: Path) -> Report:
        request = self.generator.prepare(request, out.parent / INPUTS)
        self.generator.validate(request)
        return self.generator.run(request, out)

    def check(self, request: ImageRequest, out: Path) -> None:
        size = (request.geometry.height, request.geometry.width)
        verifying.check_picture(out, size)
        verifying.check_scene(scene_beside(out), size)

    def declared(self) -> None:
        if self.can.modes != {"image"}:
            raise Broken("declares", f"an image generator makes images, got {', '.join(sorted(self.can.modes))}")
        if "character" not in self.can.roles:
            raise Broken("declares", f"roles lack character: {', '.join(sorted(self.can.roles)) or 'none'}")

    def refusals(self) -> None:
        good = self.request("animation")
        stranger = replace(good, pictures={**good.pictures, "no_such_role": good.pictures["character"]})
        self.refused("an unknown role", lambda: self.generator.validate(stranger))

    def bad_files(self) -> None:
        request = self.request("animation")
        shape = (request.geometry.height, request.geometry.width, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        data = media.encode_png(noise)
        for what, content in {
            "an empty file": b"", "a page of text": b"<html>", "half a file": data[: len(data) // 2],
            "another size": media.encode_png(noise[: shape[0] // 2]), "a black picture": media.encode_png(np.zeros_like(noise)),
        }.items():  # fmt: skip
            path = self.out()
            path.write_bytes(content)
            self.rejected(what, lambda path=path: self.generator.verify(request, path))  # type: ignore[misc]
        self.rejected("no file", lambda: self.generator.verify(request, self.out()))
