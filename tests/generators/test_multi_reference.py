"""Qwen-Image-Edit and FLUX.2 (Klein and [dev]) through the real diffusers pipelines with tiny random weights; prompts without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from posing import people_at

from generators.base import ImageGenerator, ImageRequest
from generators.images import references
from generators.images.flux2 import Flux2, Flux2Options
from generators.images.qwen_edit import QwenEdit, QwenEditOptions
from manifests import media
from manifests.errors import BadInput, BadOutput, Transient
from manifests.records import Geometry

GEOMETRY = Geometry(frames=5, height=64, width=96)
TINY = {"device": "cpu", "dtype": "float32", "steps": 2, "pixels": None}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> ImageRequest:
    """Three references of different shapes; the clip's person is half as tall as the picture."""
    folder = tmp_path_factory.mktemp("references")
    pictures = {}
    for role, (h, w) in {"scene": (100, 180), "character": (160, 80), "clothing": (90, 90)}.items():
        coarse = np.random.default_rng(len(role)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        pictures[role] = folder / f"{role}.png"
        media.write_png(pictures[role], cv2.resize(coarse, (w, h)).astype(np.uint8))
    people = people_at((250, 160), frames=5)
    masks = np.zeros((1, 5, 64, 96), np.uint8)
    masks[:, :, 20:52, 40:50] = 255
    return ImageRequest(
        pictures, "picture 1 is the character; Picture 2 is the clothing", "blur", 1.0, GEOMETRY,
        dataclasses.replace(people, masks_PTHW=masks), "animation", 3,
    )  # fmt: skip


def tiny_generators(folder: Path) -> dict[str, ImageGenerator]:
    tiny_models = pytest.importorskip("tiny_models")
    qwen = QwenEditOptions(weights=f"file:{tiny_models.qwen_edit(folder / 'qwen')}", **TINY)
    flux = Flux2Options(weights=f"file:{tiny_models.flux2_klein(folder / 'flux')}", **TINY)
    dev = Flux2Options(weights=f"file:{tiny_models.flux2_dev(folder / 'dev')}", **TINY)
    return {"qwen_edit": QwenEdit(qwen), "flux2": Flux2(flux), "flux2_dev": Flux2(dev)}


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ImageGenerator]]:
    pytest.importorskip("torch", reason="needs the extra diffusers")
    pytest.importorskip("diffusers", reason="needs the extra diffusers")
    import tiny_models

    made = tiny_generators(tmp_path_factory.mktemp("tiny"))
    with tiny_models.small_references():
        for generator in made.values():
            generator.setup()
        yield made


@pytest.mark.parametrize("kind", ["qwen_edit", "flux2", "flux2_dev"])
def test_three_references_become_one_picture(kind: str, generators: dict[str, ImageGenerator], asked: ImageRequest, tmp_path: Path) -> None:
    """Every reference, its place in the list, the words and the seed change the picture; the same request gives the same bytes."""
    generator = generators[kind]

    def painted(**changed: object) -> bytes:
        generator.make(dataclasses.replace(asked, **changed), tmp_path / "a.png")  # type: ignore[arg-type]
        assert media.read_image(tmp_path / "a.png").shape == (64, 96, 3)
        return (tmp_path / "a.png").read_bytes()

    def without(role: str) -> dict[str, Path]:
        return {name: path for name, path in asked.pictures.items() if name != role}

    swapped = {**asked.pictures, "clothing": asked.pictures["scene"], "scene": asked.pictures["clothing"]}
    seen = {
        "as it is": painted(), "seed": painted(seed=4), "prompt": painted(prompt="picture 1, no more"), "scale": painted(scale=1.5),
        "no scene": painted(pictures=without("scene")), "no clothing": painted(pictures=without("clothing")),
        "swapped": painted(pictures=swapped),
    }  # fmt: skip
    if kind == "qwen_edit":
        seen["negative"] = painted(negative="hands")
    assert len(set(seen.values())) == len(seen)
    assert painted(pictures=dict(reversed(asked.pictures.items()))) == seen["as it is"], "the order is the roles', not the mapping's"


def test_the_weights_say_which_pipeline_of_the_family(generators: dict[str, ImageGenerator]) -> None:
    loaded = {name: type(generators[name]._pipe).__name__ for name in ("flux2", "flux2_dev")}  # type: ignore[attr-defined]
    assert loaded == {"flux2": "Flux2KleinPipeline", "flux2_dev": "Flux2Pipeline"}


def test_the_area_that_is_painted_is_scaled_to_the_geometry(
    generators: dict[str, ImageGenerator], asked: ImageRequest, tmp_path: Path
) -> None:
    larger = Flux2(generators["flux2"].options.model_copy(update={"pixels": 128 * 192, "steps": 1}))
    larger.make(asked, tmp_path / "a.png")
    assert media.read_image(tmp_path / "a.png").shape == (64, 96, 3)


def test_weights_that_give_no_numbers_are_told(generators: dict[str, ImageGenerator], asked: ImageRequest, tmp_path: Path) -> None:
    import torch

    broken = Flux2(generators["flux2"].options)
    broken.setup()
    with torch.no_grad():
        next(broken._pipe.transformer.parameters()).fill_(float("nan"))
    with pytest.raises(BadOutput) as e:
        broken.make(asked, tmp_path / "a.png")
    assert e.value.code == "not_finite"
    assert not (tmp_path / "a.png").exists()


def test_weights_of_another_family(generators: dict[str, ImageGenerator]) -> None:
    weights = generators["qwen_edit"].options.weights  # type: ignore[attr-defined]
    with pytest.raises(Transient, match="QwenImageEditPlusPipeline, not for Flux2"):
        Flux2(Flux2Options(weights=weights, **TINY)).setup()


def test_prompts_name_every_picture(asked: ImageRequest) -> None:
    tall = " The person takes up about 50% of the picture's height."
    assert references.roles_of(asked) == ("character", "clothing", "scene")
    assert references.told(asked, "picture") == "picture 1 is the character; Picture 2 is the clothing" + tall
    assert references.told(asked, "image") == "image 1 is the character; Image 2 is the clothing" + tall
    bare = dataclasses.replace(asked, prompt="She stands.", scale=1.5)
    named = "Image 1 is the character, image 2 is the clothing, image 3 is the scene. She stands."
    assert references.told(bare, "image") == named + tall.replace("50", "75")
    nobody = dataclasses.replace(asked, clip_people=asked.clip_people.only([]))
    assert references.told(nobody, "picture").endswith("clothing")


@pytest.mark.parametrize(
    ("geometry", "pixels", "size"),
    [
        ((512, 896), 1024 * 1024, (768, 1360)),
        ((896, 512), None, (896, 512)),
        ((288, 512), 256 * 256, (192, 336)),
        ((64, 4096), 4096, (16, 512)),
    ],
)
def test_sizes_to_paint_at(geometry: tuple[int, int], pixels: int | None, size: tuple[int, int]) -> None:
    g = Geometry(frames=5, height=geometry[0], width=geometry[1])
    assert references.working_size(g, pixels, 16) == size
    made = references.as_painted(np.zeros((*size, 3), np.uint8), g)
    assert made.shape == (*geometry, 3)


def test_pictures_that_flux_does_not_take(asked: ImageRequest, tmp_path: Path) -> None:
    from generators.images.flux2 import _usable

    assert _usable(np.zeros((3000, 2000, 3), np.uint8)).shape == (1248, 832, 3)
    assert _usable(np.zeros((100, 90, 3), np.uint8)).shape == (96, 80, 3)
    for shape in ((64, 600, 3), (60, 100, 3)):
        with pytest.raises(BadInput) as e:
            _usable(np.zeros(shape, np.uint8))
        assert e.value.code == "picture_size"


def test_what_they_can_not_do(asked: ImageRequest, tmp_path: Path) -> None:
    for generator in (QwenEdit(), Flux2()):
        with pytest.raises(BadInput) as e:
            generator.validate(dataclasses.replace(asked, pictures={"scene": asked.pictures["scene"]}))
        assert e.value.code == "no_character"
        with pytest.raises(BadInput) as e:
            generator.validate(dataclasses.replace(asked, pictures={**asked.pictures, "hat": asked.pictures["scene"]}))
        assert e.value.code == "role_unsupported"


def test_licences_follow_the_weights() -> None:
    assert Flux2().can.accept_licence
    free = Flux2(Flux2Options(weights="hf:black-forest-labs/FLUX.2-klein-4B", device="cpu")).can
    assert (free.accept_licence, free.weights_licence, free.gpus) == (False, "Apache-2.0", 0)
    assert not QwenEdit().can.accept_licence
    assert QwenEdit().can.gpus == 1
