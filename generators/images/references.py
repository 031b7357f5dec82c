"""Several reference pictures with roles, as models of the "picture 1, picture 2" kind are told about them."""

from __future__ import annotations

import re
from math import sqrt
from pathlib import Path

import numpy as np

from generators.base import ImageRequest
from generators.inputs import pictures
from manifests import media
from manifests.errors import BadInput, BadOutput
from manifests.media import Image
from manifests.records import Geometry

ROLES = ("character", "clothing", "scene")
"""in the order in which prompts number them"""
NAMED = re.compile(r"\b(?:picture|image)\s+\d", re.IGNORECASE)
SOLID = 128


def roles_of(request: ImageRequest) -> tuple[str, ...]:
    """The roles that the request has pictures for, as the prompt numbers them. Raises BadInput("no_character")."""
    if "character" not in request.pictures:
        raise BadInput("a picture in the role character is needed", "no_character")
    return tuple(role for role in ROLES if role in request.pictures)


def references(request: ImageRequest) -> list[Image]:
    """The pictures themselves, RGB, in that order."""
    return [media.read_image(request.pictures[role]) for role in roles_of(request)]


def told(request: ImageRequest, word: str) -> str:
    """The prompt, with every picture named by its number, and how tall the person is to be.

    The Prompt Weaver names pictures itself ("picture 1 is the character"); a prompt that names none gets such a sentence. `word` is what
    the model's own prompts call a picture.
    """
    prompt = request.prompt.strip()
    if not NAMED.search(prompt):
        names = ", ".join(f"picture {i} is the {role}" for i, role in enumerate(roles_of(request), 1))
        prompt = f"{names[0].upper()}{names[1:]}. {prompt}".strip()
    prompt = re.sub(r"\b(picture|image)(?=\s+\d)", lambda found: _like(word, found.group()), prompt, flags=re.IGNORECASE)
    share = person_share(request)
    return prompt if share is None else f"{prompt} The person takes up about {share:.0%} of the picture's height."


def _like(word: str, model: str) -> str:
    return word.capitalize() if model[0].isupper() else word


def person_share(request: ImageRequest) -> float | None:
    """The asked height of the character in heights of the picture, from 0.05 to 1: the clip's person where it is first seen, times the
    asked scale. None where nobody is seen."""
    seen = np.flatnonzero((request.clip_people.masks_PTHW >= SOLID).any(axis=(0, 2, 3)))
    if not len(seen):
        return None
    rows = np.flatnonzero((request.clip_people.masks_PTHW[:, seen[0]] >= SOLID).any(axis=(0, 2)))
    height = (rows[-1] + 1 - rows[0]) / request.clip_people.size_hw[0]
    return float(np.clip(height * request.scale, 0.05, 1.0))


def working_size(geometry: Geometry, pixels: int | None, multiple: int) -> tuple[int, int]:
    """Height and width that a model paints at: of the geometry's proportions, about `pixels` in all (None: the geometry's own size),
    multiples of `multiple`."""
    scale = sqrt((pixels or geometry.height * geometry.width) / (geometry.height * geometry.width))
    return round(geometry.height * scale / multiple) * multiple or multiple, round(geometry.width * scale / multiple) * multiple or multiple


def as_painted(image_HWC: Image, geometry: Geometry) -> Image:
    """The picture at the geometry's size: scaled to cover it and cropped at the centre."""
    h, w = image_HWC.shape[:2]
    scale = max(geometry.height / h, geometry.width / w)
    tall, wide = max(geometry.height, round(h * scale)), max(geometry.width, round(w * scale))
    top, left = (tall - geometry.height) // 2, (wide - geometry.width) // 2
    return np.ascontiguousarray(pictures.resized(image_HWC, tall, wide)[top : top + geometry.height, left : left + geometry.width])


def read_made(path: Path) -> Image:
    """A picture that somebody else's program wrote. Raises BadOutput by code: no_output, half_written."""
    if not path.is_file() or not path.stat().st_size:
        raise BadOutput("the picture is an empty file", "no_output")
    try:
        return media.read_image(path)
    except BadInput as e:
        raise BadOutput(f"what was written can't be used: {e.message}", "half_written") from e
