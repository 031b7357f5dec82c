"""The part of a recipe that says who decides: the brain, the checker's thresholds, the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from manifests.explain import nearest
from manifests.records import Frozen


class ModelSpec(Frozen):
    """What of a vision-language model can change its answers: it enters the keys of the questions."""

    model: str
    """as the endpoint calls it"""
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=2000, ge=16)
    """of one answer"""
    seed: int | None = None


class EndpointSpec(Frozen):
    """Where a model is served and what may be asked of it: changing any of it repeats nothing."""

    base_url: str
    """of an OpenAI-compatible server, with its /v1"""
    key_env: str = ""
    """name of the environment variable that holds the key; empty: the server wants none"""
    requests_per_min: int | None = Field(default=None, ge=1)
    tokens_per_min: int | None = Field(default=None, ge=1)
    in_flight: int = Field(default=64, ge=1, le=4096)
    """requests under way at once"""
    timeout_s: float = Field(default=120.0, gt=0)
    """of one request"""
    attempts: int = Field(default=8, ge=1, le=64)
    """of one question, when the server is busy, fails or hangs up"""
    price_in: float = Field(default=0.0, ge=0)
    """money per million prompt tokens"""
    price_out: float = Field(default=0.0, ge=0)
    """money per million answer tokens"""
    tokens_per_picture: int = Field(default=4000, ge=0)
    """at most, for one picture: what a request may cost is reserved before it is sent"""


class BrainSpec(Frozen):
    """Who judges where measuring is not enough: the built-in rules, or a vision-language model behind an OpenAI-compatible endpoint."""

    kind: Literal["builtin", "openai"] = "builtin"
    model: ModelSpec | None = None
    endpoint: EndpointSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """A recipe writes all keys side by side; which of them enter the keys of the questions is not the writer's business."""
        if not isinstance(value, Mapping) or "endpoint" in value:  # as a record writes itself
            return value
        kind = value.get("kind", "builtin")
        known = {"kind", *ModelSpec.model_fields, *EndpointSpec.model_fields}
        for key in value:
            if key not in known:
                raise ValueError(f"unknown key {key!r}{nearest(str(key), sorted(known))}")
        if kind != "openai":
            return value
        for key in ("model", "base_url"):
            if not value.get(key):
                raise ValueError(f"{key} is missing; a brain of kind openai needs model and base_url")
        parts = {name: {k: value[k] for k in spec.model_fields if k in value} for name, spec in _BRAIN_PARTS.items()}
        return {"kind": kind, **parts}

    @model_validator(mode="after")
    def _whole(self) -> BrainSpec:
        if (self.kind == "openai") != (self.model is not None and self.endpoint is not None):
            raise ValueError("model and endpoint belong to a brain of kind openai, and only to it")
        return self


_BRAIN_PARTS: dict[str, type[Frozen]] = {"model": ModelSpec, "endpoint": EndpointSpec}


class CheckerSpec(Frozen):
    """Thresholds of the hard checks, set on the tuning rows of benchmarks/checker.py. No step key holds them: other ones judge the same
    scores."""

    # the painted picture
    yaw_max_deg: float = Field(default=75.0, gt=0)
    """between the painted character and the clip's person"""
    identity_gap_min: float = Field(default=8.0, ge=0)
    """CIE76 colour difference between the real person and the new character: below it they look the same"""
    real_face_max: float = Field(default=0.36, ge=-1, le=1)
    """SFace cosine between the real person's face and the painted one's: above it they are the same (as SFace's authors say)"""
    face_frames_min: int = Field(default=3, ge=1)
    """frames of the clip that must show a face for that; a single one may be the back of a head"""
    joints_min: float = Field(default=0.75, ge=0, le=1)
    """share of the clip's visible joints that the painted character must show"""
    scale_min: float = Field(default=0.5, gt=0)
    """animation: torso of the painted character over the clip person's"""
    scale_max: float = Field(default=1.9, gt=0)

    # the file
    black_max: float = Field(default=0.05, ge=0, le=1)
    """share of frames that are black and were not in the clip"""
    frozen_max: float = Field(default=0.2, ge=0, le=1)
    """share of the steps in which the clip moves and the video stands"""

    # the people
    presence_min: float = Field(default=0.9, ge=0, le=1)
    """share of the frames that show the real person in which the character must be found"""
    others_kept_min: float = Field(default=0.5, ge=0, le=1)
    """replacement: the same of everybody who stays"""
    stranger_max: float = Field(default=0.3, ge=0, le=1)
    """share of the frames that may show somebody else beside the characters"""
    stranger_size_min: float = Field(default=0.4, ge=0)
    """heights of the smallest character below which somebody is part of the scene"""
    stranger_shadow_max: float = Field(default=0.8, ge=0, le=1)
    """share of a stranger's pixels inside a character's box from which it is a ghost of the character"""
    limb_shown_min: float = Field(default=0.5, ge=0, le=1)
    """how much of an arm, a leg, a forearm or a shank must be there, of what its mask shows in the clip"""
    limb_contrast_min: float = Field(default=0.25, ge=0)
    """how much it must stand out against what lies beside it, over how much the painted one would"""
    limb_frames_min: int = Field(default=6, ge=1)
    """frames in which a limb must be told to be missed"""
    mask_joints_min: float = Field(default=0.85, ge=0, le=1)
    """share of the visible joints that must lie on the character's mask"""
    coverage_min: float = Field(default=0.004, ge=0, le=1)
    """share of the frame that the character's mask covers"""

    # the motion
    limb_error_max_deg: float = Field(default=12.0, gt=0)
    """median angle between the limbs in the clip and in the synthetic video"""
    limb_mean_max_deg: float = Field(default=20.0, gt=0)
    """mean of the same"""
    pck_min: float = Field(default=0.8, ge=0, le=1)
    """share of joints within 0.2 torso lengths of where the clip's motion has them on this body"""
    follows_min: float = Field(default=0.5, ge=-1, le=1)
    """correlation of the limbs' motion with the clip's"""
    still_max_s: float = Field(default=0.4, gt=0)
    """for so long a character may stand while the real person moves"""
    lag_max_frames: int = Field(default=2, ge=0)
    lag_gain_min: float = Field(default=0.1, ge=0, le=2)
    """correlation that a lag must explain to be believed"""
    lag_peak_min: float = Field(default=0.6, ge=0, le=1)
    """correlation at that lag; below it the motion is another one"""
    mirror_margin_deg: float = Field(default=5.0, ge=0)
    """by so much the mirror image's limbs must fit better than the clip's"""
    mirror_margin_pck: float = Field(default=0.05, ge=0, le=1)

    # the looks
    clothes_max: float = Field(default=18.0, gt=0)
    """CIELAB steps between the character's clothes in the video and in its painted picture"""
    clothes_worst_max: float = Field(default=20.0, gt=0)
    """the same in the worst quarter of the video"""
    face_min: float = Field(default=0.1, ge=-1, le=1)
    """SFace cosine between the character's face in the video and in its painted picture"""
    flicker_max_pct: float = Field(default=3.0, gt=0)
    """brightness of the whole picture or the scene, beyond the clip's own"""
    flicker_person_max_pct: float = Field(default=4.0, gt=0)
    """brightness or colour of the characters"""
    flicker_tile_max_pct: float = Field(default=6.0, gt=0)
    """of the sixteenth of the scene that flickers most"""
    warp_ratio_max: float = Field(default=3.0, gt=0)
    """flow-warped error of the scene over the clip's"""
    scene_min: float = Field(default=0.9, ge=-1, le=1)
    """how alike the scene is to the one asked (structure term of SSIM)"""
    scene_worst_min: float = Field(default=0.6, ge=-1, le=1)
    """of its worst tile"""
    scene_gap_max: float = Field(default=8.0, gt=0)
    """levels of 255 between its colours and those asked"""
    scene_gap_worst_max: float = Field(default=25.0, gt=0)
    """of its worst tile"""
    clip_left_max: float = Field(default=0.1, ge=0, le=1)
    """animation: opacity with which the clip's scene may show"""
    person_left_max: float = Field(default=0.3, ge=0, le=1)
    """replacement: opacity with which the real person may show beside the character"""

    confidence_min: float = Field(default=0.35, ge=0, le=1)
    """the generator's own confidence"""
    unsafe_max: float = Field(default=0.95, ge=0, le=1)
    """of a classifier that sees skin rather than meaning: above it a person has to look"""


class AgentsSpec(Frozen):
    """Who decides."""

    brain: BrainSpec = BrainSpec()
    checker: CheckerSpec = CheckerSpec()
    prompts: str | None = None
    """a folder of your own instructions for a brain with eyes: its ROLE.md files take the place of the built-in ones"""
