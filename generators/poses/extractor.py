"""The contract of pose extractors, which say who is where in a video, and what they and mask extractors declare of themselves."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from generators.poses.tracks import Bytes, People
from generators.weights import gpu_here
from manifests.records import Frozen

if TYPE_CHECKING:
    from generators.masks.extractor import MaskExtractor


class Facts(Frozen):
    """What is known of an extractor when a run is planned."""

    what: str
    """what it makes, in a few words"""
    code_licence: str = "Apache-2.0"
    weights_licence: str = "none"
    accept_licence: bool = False
    """a licence is missing, unclear or restrictive: the recipe has to say `accept_licence: true`"""
    gpus: float = Field(default=0.0, ge=0)
    gives: frozenset[str] = frozenset()
    """what its people have beside poses and masks: "meshes" """


class ExtractorOptions(Frozen):
    """Base of an extractor's options as they stand in the recipe."""


class PoseOptions(ExtractorOptions):
    """Of every pose extractor."""

    max_people: int = Field(default=6, ge=1, le=16)
    """the tallest so many"""


class Extractor:
    """What pose and mask extractors declare. Constructing one is cheap; models are loaded by `setup` or on first use."""

    facts: ClassVar[Facts]
    options_type: ClassVar[type[ExtractorOptions]]
    weights: ClassVar[tuple[str, ...]] = ()
    """names in generators.weights whose digests enter the step key"""
    requires: ClassVar[tuple[str, ...]] = ()
    """modules beyond the project's own dependencies that it imports"""

    @classmethod
    def facts_with(cls, options: ExtractorOptions) -> Facts:
        """What holds with these options; `device: cpu` needs no GPU."""
        on_cpu = getattr(options, "device", "") == "cpu"
        return cls.facts.model_copy(update={"gpus": 0.0}) if on_cpu else cls.facts

    @classmethod
    def keyed(cls, options: ExtractorOptions) -> dict[str, Any]:
        """What of the options may change poses or masks: that enters the step key. By default all of them but the device."""
        return options.model_dump(mode="json", exclude={"device"})

    @classmethod
    def missing(cls, options: ExtractorOptions | None = None) -> list[str]:
        """What this machine lacks to run it, a short line each. Without options as far as that can be told."""
        facts = cls.facts if options is None else cls.facts_with(options)
        lacking = [f"no Python package {name}" for name in cls.requires if importlib.util.find_spec(name) is None]
        return lacking + (["no GPU"] if facts.gpus and not gpu_here() else [])


class PoseExtractor(Extractor, ABC):
    """Says who is where in a video or picture. The built-in one is `generators.poses.people.PeopleTracker`.

    People keep their identity through a video and come in the order of `People`. What is not known of a body is filled in as plausibly as
    the kind can and gets no visibility. Masks are drawn by the mask extractor that it was built with.
    """

    @classmethod
    @abstractmethod
    def build(cls, options: ExtractorOptions, masks: MaskExtractor) -> PoseExtractor:
        """One that is not set up yet. `options` are of its `options_type`."""

    @abstractmethod
    def setup(self) -> None:
        """Load the models. Raises Transient where libraries or weights can't be had: another machine, or this one later, may have them."""

    @abstractmethod
    def track(self, frames_THWC: Bytes, fps: float) -> People:
        """The people of a video, by first appearance, then left to right. `details` is None where it reads no hands and faces itself.

        Raises BadInput for what are no RGB frames, BadOutput when a model answers with what can't be poses.
        """

    @abstractmethod
    def still(self, image_HWC: Bytes) -> People:
        """The people of one picture, left to right (T = 1). Nobody: `count` is 0. Raises as `track`."""
