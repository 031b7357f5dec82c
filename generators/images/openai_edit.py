"""`kind: openai_edit`: any OpenAI-compatible `images.edit`. Several references go in the order in which the prompt numbers them."""

from __future__ import annotations

import hashlib
import math
import os
import re
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, field_validator, model_validator

from generators import base
from generators.base import Capabilities, ImageGenerator, ImageRequest, Options, Report
from generators.images import references
from generators.images.edit_service import Edit, EditService, Service
from generators.inputs import pictures
from generators.workers.command import own_folder
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe
from manifests.media import Image
from manifests.records import Geometry
from manifests.services import address_trouble, key_from

WHERE = "generators (openai_edit)"
SECRETS = re.compile(r"key|token|secret|password|authorization", re.IGNORECASE)
UNKEYED = frozenset({"base_url", "key_env", "timeout_s", "attempts", "price_per_image"})


class OpenAIEditOptions(Options):
    """What a recipe says of a service."""

    base_url: str = "https://api.openai.com/v1"
    key_env: str = ""
    """the environment variable, of the workers, that holds the key; empty for a service that wants none"""
    model: str = Field(min_length=1)
    quality: str = ""
    """as the service names them: low, high …; empty: not asked"""
    sizes: tuple[tuple[int, int], ...] = ((1024, 1024), (1024, 1536), (1536, 1024))
    """[height, width] that the service paints; the one whose proportions are nearest is asked for. Empty: the geometry's own"""
    other_sizes: bool = False
    """a picture of another size than was asked for is taken too"""
    fields: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """further fields of the request, as input_fidelity: high"""
    seed_field: str = ""
    """the field that takes the seed, where the service has one"""
    negative_field: str = ""
    """the field that takes the negative prompt, where the service has one"""
    mask: str = ""
    """a PNG with alpha, sent with every request: where it is clear, the first picture is painted anew. That is brought to its size"""
    word: str = Field(default="image", pattern=r"^(picture|image)$")
    """what the model's prompts call a reference: picture 1, or image 1"""
    price_per_image: float = Field(default=0.0, ge=0)
    """in the unit of the recipe's budget"""
    attempts: int = Field(default=4, ge=1, le=20)
    """requests for one picture, while the service is busy or in trouble"""
    timeout_s: float = Field(default=600.0, gt=0)
    """for one picture, all attempts together; below the pool's"""

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, v: str) -> str:
        if trouble := address_trouble(v):
            raise ValueError(trouble.removeprefix("base_url "))
        return v

    @field_validator("key_env")
    @classmethod
    def _a_name(cls, v: str) -> str:
        if v and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", v):
            raise ValueError("key_env is the name of an environment variable, never the key itself")
        return v

    @model_validator(mode="after")
    def _consistent(self) -> OpenAIEditOptions:
        if any(not 16 <= side <= 8192 for size in self.sizes for side in size):
            raise ValueError(f"sizes are [height, width] from 16 to 8192, got {[list(size) for size in self.sizes]}")
        if secret := next((name for name in self.fields if SECRETS.search(name)), None):
            raise ValueError(f"fields: {secret} looks like a secret; only key_env may lead to one")
        if twice := {"image", "prompt", "size", "mask", "n", "model", "quality", "stream"} & {*self.fields, self.seed_field}:
            raise ValueError(f"fields: {min(twice)} is sent anyway")
        if self.mask:
            _alpha_of(Path(self.mask))
        return self


def _alpha_of(path: Path) -> tuple[int, int]:
    """Height and width of a mask. Raises ValueError when it can't be one."""
    try:
        image = media.read_image_rgba(path)
    except BadInput as e:
        raise ValueError(f"mask: {e.message}") from None
    if image[..., 3].min() == 255:
        raise ValueError(f"mask {path}: nothing in it is clear, so nothing would be painted; make clear what is to be painted anew")
    return int(image.shape[0]), int(image.shape[1])


class OpenAIEdit(ImageGenerator):
    """Has a service paint a character from its picture, and from pictures of clothing and scene where given."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"image"}), roles=frozenset(references.ROLES), code_licence="Apache-2.0", weights_licence="the service's terms"
    )
    options_type: ClassVar[type[base.Options]] = OpenAIEditOptions
    paid: ClassVar[bool] = True

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The model and what is asked of it; neither address nor key, price or patience. A mask counts by its content."""
        kept = {name: value for name, value in options.items() if name not in UNKEYED}
        if mask := options.get("mask"):
            try:
                kept["mask"] = hashlib.sha256(Path(str(mask)).read_bytes()).hexdigest()
            except OSError as e:
                raise BadRecipe(
                    f"{WHERE}: mask {mask} can't be read: {e.strerror}; it has to lie under the same path on every node."
                ) from e
        return kept

    @classmethod
    def missing(cls, options: base.Options | None = None) -> list[str]:
        """Also the key."""
        variable = options.key_env if isinstance(options, OpenAIEditOptions) else ""
        return super().missing(options) + ([f"no environment variable {variable}"] if variable and not os.environ.get(variable) else [])

    def __init__(self, options: base.Options) -> None:
        super().__init__(options)
        self._service: EditService | None = None

    @property
    def _set(self) -> OpenAIEditOptions:
        return cast(OpenAIEditOptions, self.options)

    def setup(self) -> None:
        """Read the key. Raises BadRecipe where there is none."""
        if self._service is None:
            own = self._set
            about = Service(own.base_url, own.model, own.attempts, own.timeout_s, own.price_per_image, WHERE)
            self._service = EditService(about, key_from(own.key_env, own.base_url, WHERE))

    def validate(self, request: ImageRequest) -> None:
        super().validate(request)
        references.roles_of(request)

    def run(self, request: ImageRequest, out: Path) -> Report:
        """Write a PNG of the geometry's size. Raises as `EditService.edited`, and BadOutput by code: half_written, wrong_size."""
        self.validate(request)
        self.setup()
        assert self._service is not None
        size = self._size(request.geometry)
        made = self._service.edited(self._asked(request, size), self.book, self.booked_to)
        with own_folder(out) as folder:
            (folder / "answer").write_bytes(made)
            painted = references.read_made(folder / "answer")
        if painted.shape[:2] != size and not self._set.other_sizes:
            got = f"{painted.shape[1]}×{painted.shape[0]}"
            raise BadOutput(f"the picture is {got}, asked was {size[1]}×{size[0]}; with other_sizes: true it is taken", "wrong_size")
        media.write_png(out, references.as_painted(painted, request.geometry))
        return Report()

    def _size(self, geometry: Geometry) -> tuple[int, int]:
        """The allowed size whose proportions are nearest, of equals the smallest that is not below the geometry."""
        own = (geometry.height, geometry.width)

        def unlike(size: tuple[int, int]) -> tuple[float, bool, int]:
            off = abs(math.log(size[1] / size[0] * own[0] / own[1]))
            small = size[0] < own[0] or size[1] < own[1]
            return round(off, 6), small, -size[0] * size[1] if small else size[0] * size[1]

        return min(self._set.sizes, key=unlike, default=own)

    def _asked(self, request: ImageRequest, size_hw: tuple[int, int]) -> Edit:
        own, shown = self._set, references.references(request)
        fields = {**own.fields, **({"quality": own.quality} if own.quality else {})}
        if own.seed_field:
            fields[own.seed_field] = request.seed
        if own.negative_field and request.negative:
            fields[own.negative_field] = request.negative
        mask = Path(own.mask).read_bytes() if own.mask else None
        if own.mask:
            shown[0] = _within(shown[0], _alpha_of(Path(own.mask)))
        return Edit([media.encode_png(picture) for picture in shown], references.told(request, own.word), size_hw, mask, fields)


def _within(picture: Image, size_hw: tuple[int, int]) -> Image:
    return pictures.letterboxed(picture, *size_hw, fill=int(picture[0, 0].mean()))
