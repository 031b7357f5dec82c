"""What to make, as syntax: sources, gallery, slices with quotas, agents, generators, pools and budgets.

A recipe is YAML. Everything is frozen, every unknown key is refused with the nearest known name, and every error names the place.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from manifests.errors import BadRecipe
from manifests.records import Framing, Frozen, Task

MAX_RECIPE_BYTES = 1_000_000
PAPER_MIX: dict[Task, int] = {"animation": 60, "replacement": 20, "pose": 20}
"""the published sampling weights"""


def _as_range(value: Any) -> tuple[float, float]:
    """`3`, `2..6`, `0.5..` and `..4` become a (low, high) pair."""
    try:
        if isinstance(value, tuple | list):
            low, high = value
        elif isinstance(value, str) and ".." in value:
            low, _, high = value.partition("..")
        else:
            low = high = value
        pair = float(low or 0), float(1e9 if high == "" else high)
    except (TypeError, ValueError):
        raise ValueError("a range is a number, low..high, low.. or ..high, got " + repr(value)) from None
    if not 0 <= pair[0] <= pair[1] < math.inf:
        raise ValueError(f"a range goes up from 0 or more, got {value!r}")
    return pair


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Range = Annotated[tuple[float, float], BeforeValidator(_as_range)]
"""Both ends belong to it. Written as `3`, `2..6`, `0.5..` or `..4`."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
"""of slices, generators and pools"""

MOTION_HIGH = 0.35
"""body heights per second; at or above it motion is called high (chosen between standing gestures and walking or dancing)"""


class GeometrySpec(Frozen):
    """Frames, rate and sizes of all pairs."""

    frames: int = Field(default=81, ge=5)
    """4n+1"""
    fps: float = Field(default=16.0, gt=0, le=120)
    sizes: tuple[tuple[int, int], ...] = Field(default=((512, 896), (896, 512)), min_length=1)
    """(height, width), multiples of 32; a span takes the one whose aspect is nearest its clip's"""

    @model_validator(mode="after")
    def _allowed(self) -> GeometrySpec:
        if self.frames % 4 != 1:
            raise ValueError(f"frames must be 4n+1 (5, 9, 13, 17 … 81), got {self.frames}")
        for height, width in self.sizes:
            if height % 32 or width % 32 or min(height, width) < 64:
                raise ValueError(f"sizes are [height, width] in multiples of 32 and at least 64, got [{height}, {width}]")
        return self


class Source(Frozen):
    """Where real clips come from."""

    clips: str
    """a folder, a file or a glob; `samples:clips` are the sample clips"""
    group_by: Literal["folder", "clip"] = "folder"
    """folder: the clips of one subfolder are one source group (same scene or person); clip: each clip is its own group"""
    spans_per_clip: int = Field(default=100, ge=1)
    licence: str = "unknown"


class Gallery(Frozen):
    """Pictures that new characters are made of; a picture's subfolder is its group."""

    characters: str = "samples:characters"
    clothing: str | None = None
    scenes: str | None = None


class SplitSpec(Frozen):
    """Train and validation never share a source group or a gallery picture."""

    validation_fraction: float = Field(default=0.05, ge=0, lt=1)
    """of the groups, by hash"""
    validation_groups: tuple[str, ...] = ()
    """groups that are validation by name"""


class ReferenceSpec(Frozen):
    """The picture of the real person that a pair shows the trainer."""

    min_gap_s: float = Field(default=1.0, ge=0)
    """distance from the span, in the same shot"""
    in_target_max: float = Field(default=0.1, ge=0, le=1)
    """share of a slice's pairs whose reference may be a frame of the span itself"""


class Where(Frozen):
    """Which spans of the index a slice takes."""

    people: Range = (1.0, 6.0)
    """1 to 6: there are six binding slots"""
    motion: Literal["low", "high"] | Range = (0.0, 1e9)
    """energy in body heights per second; low and high meet at 0.35"""
    framing: Annotated[tuple[Framing, ...], BeforeValidator(_as_tuple)] = ("close", "half", "full")
    yaw_max_deg: float = Field(default=180.0, ge=0, le=180)
    """largest median body yaw away from the camera"""

    @model_validator(mode="after")
    def _people_have_slots(self) -> Where:
        if not 1 <= self.people[0] <= self.people[1] <= 6:
            raise ValueError(f"people lie between 1 and 6, got {self.people[0]:g}..{self.people[1]:g}; write 1..6 or less")
        return self

    def motion_range(self) -> tuple[float, float]:
        if self.motion == "low":
            return 0.0, MOTION_HIGH
        return (MOTION_HIGH, 1e9) if self.motion == "high" else self.motion


class Slice(Frozen):
    """One part of the dataset."""

    task: Task
    generator: str
    painter: str = "painter"
    """the image generator, unless the task is pose"""
    quota: int = Field(ge=1)
    where: Where = Where()
    acceptance: float = Field(default=0.6, gt=0, le=1)
    """assumed share of attempts that pass; for planning only"""
    repeats: int = Field(default=1, ge=1, le=100)
    """how often one span may be used, each time with another seed and shortlist"""


class JobBudget(Frozen):
    """What one pair may cost."""

    candidates: int = Field(default=3, ge=1, le=16)
    image_attempts: int = Field(default=3, ge=1, le=16)
    video_attempts: int = Field(default=2, ge=1, le=16)


class RunBudget(Frozen):
    """When to stop admitting jobs; those in flight are finished."""

    gpu_hours: float | None = Field(default=None, gt=0)
    money: float | None = Field(default=None, gt=0)
    """for questions to a model, in the currency of its prices; what a cut connection may have cost counts in full"""


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
    tokens_per_picture: int = Field(default=2000, ge=0)
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
        if not isinstance(value, Mapping) or isinstance(value.get("model"), Mapping | ModelSpec):
            return value
        kind = value.get("kind", "builtin")
        known = {"kind", *ModelSpec.model_fields, *EndpointSpec.model_fields}
        for key in value:
            if key not in known:
                raise ValueError(f"unknown key {key!r}{_nearest(str(key), sorted(known))}")
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
    """Thresholds of the hard checks. All of them enter the step keys of the inspections. Chosen on benchmarks/checker.py's tuning scene."""

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
    frozen_max: float = Field(default=0.15, ge=0, le=1)
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
    limb_shown_min: float = Field(default=0.7, ge=0, le=1)
    """how much of an arm or leg must be there, of what a limb's mask shows in the clip"""
    limb_frames_min: int = Field(default=6, ge=1)
    """frames in which a limb must be told to be missed"""
    mask_joints_min: float = Field(default=0.85, ge=0, le=1)
    """share of the visible joints that must lie on the character's mask"""
    coverage_min: float = Field(default=0.004, ge=0, le=1)
    """share of the frame that the character's mask covers"""

    # the motion
    limb_error_max_deg: float = Field(default=20.0, gt=0)
    """median angle between the limbs in the clip and in the synthetic video"""
    limb_mean_max_deg: float = Field(default=25.0, gt=0)
    """mean of the same"""
    pck_min: float = Field(default=0.7, ge=0, le=1)
    """share of joints within 0.2 torso lengths of where the clip's motion has them on this body"""
    follows_min: float = Field(default=0.5, ge=-1, le=1)
    """correlation of the limbs' motion with the clip's"""
    still_max_s: float = Field(default=0.4, gt=0)
    """for so long a character may stand while the real person moves"""
    lag_max_frames: int = Field(default=2, ge=0)
    lag_gain_min: float = Field(default=0.05, ge=0, le=2)
    """correlation that a lag must explain to be believed"""
    lag_peak_min: float = Field(default=0.6, ge=0, le=1)
    """correlation at that lag; below it the motion is another one"""
    mirror_margin_deg: float = Field(default=2.0, ge=0)
    """by so much the mirror image's limbs must fit better than the clip's"""
    mirror_margin_pck: float = Field(default=0.03, ge=0, le=1)

    # the looks
    clothes_max: float = Field(default=15.0, gt=0)
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
    scene_min: float = Field(default=0.8, ge=-1, le=1)
    """how alike the scene is to the one asked (structure term of SSIM)"""
    scene_worst_min: float = Field(default=0.5, ge=-1, le=1)
    """of its worst tile"""
    scene_gap_max: float = Field(default=8.0, gt=0)
    """levels of 255 between its colours and those asked"""
    scene_gap_worst_max: float = Field(default=25.0, gt=0)
    """of its worst tile"""
    clip_left_max: float = Field(default=0.1, ge=0, le=1)
    """animation: opacity with which the clip's scene may show"""
    person_left_max: float = Field(default=0.4, ge=0, le=1)
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


class GeneratorSpec(BaseModel):
    """A generator entry: its kind, how it is planned, and its own options (all other keys, checked against the kind)."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    kind: str
    """a built-in kind, or `path/gen.py:Class`"""
    pool: str | None = None
    """default: the pool of the entry's own name, else `cpu`"""
    seconds_per_pair: float | None = Field(default=None, gt=0)
    """on one worker of its pool, for planning"""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class PoolSpec(Frozen):
    """Identical workers."""

    workers: Range = (1.0, 1.0)
    """a number or `low..high`; this version starts the low number and never more than the high one"""
    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)
    """a part of one (0.5), or whole ones"""
    accelerator: str | None = None
    timeout_s: float = Field(default=1800.0, gt=0)
    """for one call"""

    @model_validator(mode="after")
    def _whole(self) -> PoolSpec:
        if self.workers[0] < 1 or any(n != int(n) for n in self.workers):
            raise ValueError(f"workers are whole numbers from 1 on, got {self.workers[0]:g}..{self.workers[1]:g}")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus is a part of one or a whole number, got {self.gpus:g}")
        return self


class DuplicateSpec(Frozen):
    """When two pairs are the same one twice; see agents/measures/duplicates.py."""

    bits_max: float = Field(default=10.0, ge=0, le=64)
    """of 64 that differ on average: up to it two clips, or two painted pictures, show the same in another encoding"""
    colour_max: float = Field(default=6.0, ge=0)
    """CIE76 colour difference up to which two painted pictures that look alike are the same"""


class ReleaseSpec(Frozen):
    shard_mb: int = Field(default=1024, ge=1)


class Recipe(Frozen):
    """The whole recipe."""

    recipe: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    seed: int = Field(ge=0)
    geometry: GeometrySpec = GeometrySpec()
    sources: tuple[Source, ...] = Field(min_length=1)
    gallery: Gallery = Gallery()
    split: SplitSpec = SplitSpec()
    reference: ReferenceSpec = ReferenceSpec()
    duplicates: DuplicateSpec = DuplicateSpec()
    slices: dict[Name, Slice] = Field(min_length=1)
    mix: dict[Task, int] = Field(default_factory=lambda: dict(PAPER_MIX))
    budget_per_job: JobBudget = JobBudget()
    budget: RunBudget = RunBudget()
    agents: AgentsSpec = AgentsSpec()
    generators: dict[Name, GeneratorSpec]
    pools: dict[Name, PoolSpec] = Field(default_factory=dict)
    release: ReleaseSpec = ReleaseSpec()

    @field_validator("mix")
    @classmethod
    def _positive(cls, mix: dict[Task, int]) -> dict[Task, int]:
        if any(v < 0 for v in mix.values()) or not sum(mix.values()):
            raise ValueError(f"mix needs weights of 0 or more that are not all 0, got {mix}")
        return mix

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        for name, part in self.slices.items():
            wanted = {"generator": part.generator} | ({} if part.task == "pose" else {"painter": part.painter})
            for role, generator in wanted.items():
                if generator not in self.generators:
                    raise ValueError(
                        f"slices.{name}.{role}: {generator!r} stands not under generators{_nearest(generator, self.generators)}"
                    )
        for name, part in self.slices.items():
            if part.task not in self.mix:
                raise ValueError(f"mix has no weight for {part.task}, which slices.{name} makes; give one, 0 if it shall not be sampled")
        for name, spec in self.generators.items():
            if spec.pool and spec.pool not in self.pools:
                raise ValueError(f"generators.{name}.pool: {spec.pool!r} stands not under pools{_nearest(spec.pool, self.pools)}")
        return self

    def pool_of(self, generator: str) -> str:
        """The pool that a generator entry runs on."""
        return self.generators[generator].pool or (generator if generator in self.pools else "cpu")


def _nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(sorted(known)) or 'none'})"


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML itself would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe. Raises BadRecipe with one line per mistake: what was got, what may stand there, the nearest name.

    A path that is no file but the name of a bundled recipe (`quickstart`, `motionpair-60k`) is taken from the package.
    """
    file = Path(path)
    bundled = Path(__file__).parent / "recipes" / f"{file.stem}.yaml"
    if not file.is_file() and file.name in (file.stem, bundled.name) and bundled.is_file():
        file = bundled
    if not file.is_file():
        names = sorted(p.stem for p in bundled.parent.glob("*.yaml"))
        raise BadRecipe(f"{path}: no such recipe. Give a .yaml file or the name of a bundled one: {', '.join(names)}.")
    if file.stat().st_size > MAX_RECIPE_BYTES:
        raise BadRecipe(f"{path}: {file.stat().st_size} bytes; a recipe has at most {MAX_RECIPE_BYTES}.")
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), _OnceLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BadRecipe(f"{path}: not valid YAML: {' '.join(str(e).split())}") from None
    return _with_absolute_places(parse_recipe(data, str(path)), file.parent)


def _with_absolute_places(recipe: Recipe, folder: Path) -> Recipe:
    """`path/gen.py:Class` is looked for beside the recipe first, then below the working directory, and means the same file everywhere."""
    made = {}
    for name, spec in recipe.generators.items():
        file, _, cls = spec.kind.rpartition(":")
        if file.endswith(".py"):
            beside = folder / Path(file).expanduser()
            place = (beside if beside.is_file() else Path(file).expanduser()).resolve()
            spec = spec.model_copy(update={"kind": f"{place}:{cls}"})
        made[name] = spec
    agents = recipe.agents
    if agents.prompts:
        place = (folder / Path(agents.prompts).expanduser()).resolve()
        if not place.is_dir():
            raise BadRecipe(f"agents.prompts: {agents.prompts} is no folder beside the recipe.")
        agents = agents.model_copy(update={"prompts": str(place)})
    return recipe.model_copy(update={"generators": made, "agents": agents})


def parse_recipe(data: Any, where: str = "recipe") -> Recipe:
    """A recipe from parsed YAML. Raises BadRecipe."""
    if not isinstance(data, dict):
        raise BadRecipe(f"{where}: expected a mapping with the keys {', '.join(Recipe.model_fields)}, got {type(data).__name__}.")
    return validated(Recipe, data, where)


M = typing.TypeVar("M", bound=BaseModel)


def validated(model: type[M], data: Any, where: str) -> M:
    """`data` as `model`. Raises BadRecipe with a readable line for every mistake."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        errors = e.errors()
        inner = [err for err in errors if not any(o["loc"][: len(err["loc"])] == err["loc"] and o is not err for o in errors)]
        inner.sort(key=lambda err: err["type"] == "missing")  # a misspelt key is the likelier cause of a missing one
        raise BadRecipe("\n".join(dict.fromkeys(f"{where}: {_explain(model, err)}" for err in inner))) from None


def _explain(model: type[BaseModel], error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    place = ".".join(part for part in loc if "[" not in part and not part.startswith("tuple")) or "(top)"
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, loc[:-1])
        return f"{place}: unknown key{_nearest(loc[-1], fields)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "value_error":
        return f"{place}: {message}" if place != "(top)" else message
    return f"{place}: got {error['input']!r}; {message[0].lower()}{message[1:]}"


def _fields_at(model: type[BaseModel], loc: list[str]) -> list[str]:
    """The keys allowed at a place, found by walking the annotations along the error's location."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            if part not in current.model_fields:
                return []
            current = current.model_fields[part].annotation
        else:
            current = _inside(current)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inside(annotation: Any) -> Any:
    """The value type of dict[...], tuple[...] or a union."""
    args = [a for a in typing.get_args(annotation) if a is not Ellipsis and a is not types.NoneType]
    return args[-1] if args else annotation
