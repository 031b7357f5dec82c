"""What somebody else's program or workflow can do: only its user knows, so the recipe's entry says it."""

from __future__ import annotations

from pydantic import Field, model_validator

from generators.base import Capabilities, Mode, Options

UNKEYED = frozenset({"modes", "people_max", "gpus", "deterministic", "code_licence", "weights_licence"})
"""what no pixel can depend on, or stands in the request anyway"""


class Declared(Options):
    """Options with the names of `Capabilities`."""

    modes: frozenset[Mode] = Field(min_length=1)
    people_max: int = Field(default=1, ge=1)
    frame_counts: tuple[int, ...] = ()
    frame_step: int = Field(default=1, ge=1)
    frames_max: int | None = Field(default=None, ge=1)
    segments: bool = False
    fps: float | None = Field(default=None, gt=0)
    size_multiple: int = Field(default=1, ge=1)
    sizes: tuple[tuple[int, int], ...] = ()
    own_size: bool = False
    gpus: float = Field(default=0.0, ge=0)
    deterministic: bool = False
    code_licence: str = ""
    weights_licence: str = ""
    """"none" where there are no weights"""

    @model_validator(mode="after")
    def _can_be(self) -> Declared:
        if any(side < 16 or side % 2 for size in self.sizes for side in size):
            raise ValueError(f"sizes are [height, width], even and at least 16, got {[list(size) for size in self.sizes]}")
        self.can()
        return self

    def can(self) -> Capabilities:
        """As declared. A licence that is not named is unclear."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name in Capabilities.model_fields}
        return Capabilities(**own, accept_licence=not (self.code_licence and self.weights_licence))
