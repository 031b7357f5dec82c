"""What to make, as syntax: sources, gallery, slices with quotas, agents, generators, pools and budgets.

A recipe is YAML. Everything is frozen, every unknown key is refused with the nearest known name, and every error names the place.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from manifests.agency import AgentsSpec
from manifests.errors import BadRecipe
from manifests.explain import nearest, validated
from manifests.extraction import ExtractorsSpec, beside_recipe
from manifests.records import PREFERENCE, Framing, Frozen, Mode, Task, mode_of

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


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Value = Annotated[str, BeforeValidator(_as_text)]
"""of an environment variable; whole numbers need no quotes"""

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

    @model_validator(mode="after")
    def _a_preference_is_about_one_person(self) -> Slice:
        if self.task == PREFERENCE and self.where.people != (1.0, 1.0):
            low, high = self.where.people
            raise ValueError(f"where.people: a preference pair shows one person, got {low:g}..{high:g}; write people: 1")
        return self

    @property
    def mode(self) -> Mode:
        """What is asked of its generator."""
        return mode_of(self.task)

    @property
    def rounds(self) -> int:
        """Videos that a pair needs of its generator: a preference pair's loser is a second one, made when the first has passed."""
        return 2 if self.task == PREFERENCE else 1


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


class GeneratorSpec(BaseModel):
    """A generator entry: its kind, how it is planned, and its own options (all other keys, checked against the kind)."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    kind: str
    """a built-in kind, or `path/gen.py:Class`"""
    pool: str | None = None
    """default: the pool of the entry's own name, else `cpu`"""
    seconds_per_pair: float | None = Field(default=None, gt=0)
    """on one worker of its pool, for planning"""
    accept_licence: bool = False
    """whether you may use code and weights whose licence is unclear or restrictive; such a kind does not run without"""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class PoolSpec(Frozen):
    """Identical workers."""

    workers: Range = (1.0, 1.0)
    """a number or `low..high`: so many are kept warm, so many there are at most"""
    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)
    """a part of one (0.5), or whole ones; several lie on one node and are one worker's"""
    accelerator: str | None = None
    memory_gb: float | None = Field(default=None, gt=0)
    """that a worker is counted with where Ray places it"""
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """a cluster's own resources that a worker takes"""
    load_s: float = Field(default=0.0, ge=0)
    """that a new worker needs until it can work, until it was measured; a pool is not changed for less than that pays back"""
    timeout_s: float = Field(default=1800.0, gt=0)
    """for one call"""
    larger: str | None = None
    """the pool that takes over a call for which this one's memory is too small"""
    python: str | None = None
    """an interpreter, by its whole path on the nodes, that its workers run in"""
    image: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$")
    """a container image that its workers run in"""
    command: tuple[str, ...] | None = None
    """an interpreter with its arguments, or what starts one elsewhere; steps run in a child that it starts. No shell reads it"""
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Value] = Field(default_factory=dict)
    """variables of the environment that steps run in"""

    @model_validator(mode="after")
    def _whole(self) -> PoolSpec:
        if self.workers[0] < 1 or any(n != int(n) for n in self.workers):
            raise ValueError(f"workers are whole numbers from 1 on, got {self.workers[0]:g}..{self.workers[1]:g}")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus is a part of one or a whole number, got {self.gpus:g}")
        return self

    @model_validator(mode="after")
    def _one_environment(self) -> PoolSpec:
        given = [name for name in ("python", "image", "command") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: a pool's workers run in one environment; give one of python, image and command")
        if self.command is not None and not all(self.command or [""]):
            raise ValueError("command is a list that begins with a program, [/…/bin/python], without empty words")
        if any("\0" in word for word in (*(self.command or ()), *self.env.values())):
            raise ValueError("command and env may hold no NUL character")
        if self.python is not None and not (self.python.startswith("/") and self.python.isprintable()):
            raise ValueError(f"python is the whole path of an interpreter, /…/bin/python, got {self.python!r}")
        if self.image and any("'" in value for value in self.env.values()):
            raise ValueError("env: with image no value may hold a ' (Ray hands them to podman in such quotes)")
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
    extractors: ExtractorsSpec = ExtractorsSpec()
    generators: dict[Name, GeneratorSpec]
    pools: dict[Name, PoolSpec] = Field(default_factory=dict)
    release: ReleaseSpec = ReleaseSpec()

    @field_validator("mix")
    @classmethod
    def _positive(cls, mix: dict[Task, int]) -> dict[Task, int]:
        if any(v < 0 for v in mix.values()) or not sum(mix.values()):
            raise ValueError(f"mix needs weights of 0 or more that are not all 0, got {mix}")
        if PREFERENCE in mix:
            raise ValueError(f"preference pairs stand outside the mix: leave {PREFERENCE} out, a trainer asks for them alone")
        return mix

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        for name, part in self.slices.items():
            wanted = {"generator": part.generator} | ({} if part.task == "pose" else {"painter": part.painter})
            for role, generator in wanted.items():
                if generator not in self.generators:
                    raise ValueError(
                        f"slices.{name}.{role}: {generator!r} stands not under generators{nearest(generator, self.generators)}"
                    )
        for name, part in self.slices.items():
            if part.task not in self.mix and part.task != PREFERENCE:
                raise ValueError(f"mix has no weight for {part.task}, which slices.{name} makes; give one, 0 if it shall not be sampled")
        endpoint = self.agents.brain.endpoint
        priced = any(spec.options.get("price_per_image") for spec in self.generators.values())
        if self.budget.money is not None and not priced and not (endpoint and endpoint.price_in + endpoint.price_out):
            raise ValueError("budget.money counts what models cost: give agents.brain price_in and price_out, or leave the budget out")
        for name, pool in self.pools.items():
            if pool.larger and (pool.larger == name or pool.larger not in self.pools):
                raise ValueError(f"pools.{name}.larger: {pool.larger!r} is no other pool{nearest(pool.larger, self.pools)}")
        for name, spec in self.generators.items():
            if spec.pool and spec.pool not in self.pools:
                raise ValueError(f"generators.{name}.pool: {spec.pool!r} stands not under pools{nearest(spec.pool, self.pools)}")
        if self.extractors.pool and self.extractors.pool not in self.pools:
            raise ValueError(f"extractors.pool: {self.extractors.pool!r} stands not under pools{nearest(self.extractors.pool, self.pools)}")
        return self

    def pool_of(self, generator: str) -> str:
        """The pool that a generator entry runs on."""
        return self.generators[generator].pool or (generator if generator in self.pools else "cpu")


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
        spec = _with_absolute_files(spec, folder)
        made[name] = _with_absolute_command(spec, folder) if spec.kind == "command" else spec
    agents = recipe.agents
    if agents.prompts:
        place = (folder / Path(agents.prompts).expanduser()).resolve()
        if not place.is_dir():
            raise BadRecipe(f"agents.prompts: {agents.prompts} is no folder beside the recipe.")
        agents = agents.model_copy(update={"prompts": str(place)})
    return recipe.model_copy(update={"generators": made, "agents": agents, "extractors": beside_recipe(recipe.extractors, folder)})


FILES_OF = {"comfyui": "workflow", "openai_edit": "mask"}
"""kind → its option that names a file"""


def _with_absolute_files(spec: GeneratorSpec, folder: Path) -> GeneratorSpec:
    """A file that an entry names is looked for beside the recipe."""
    name = FILES_OF.get(spec.kind, "")
    value = spec.options.get(name)
    return spec.model_copy(update={name: str((folder / Path(value).expanduser()).resolve())}) if isinstance(value, str) and value else spec


def _with_absolute_command(spec: GeneratorSpec, folder: Path) -> GeneratorSpec:
    """A command's `cwd`, and without one the files that its arguments name, are looked for beside the recipe."""
    cwd, argv = spec.options.get("cwd"), spec.options.get("argv")
    if cwd:
        return spec.model_copy(update={"cwd": str((folder / Path(str(cwd)).expanduser()).resolve())})
    if not isinstance(argv, list | tuple):
        return spec

    def placed(part: object, first: bool = False) -> object:
        if isinstance(part, list | tuple):
            return [placed(inner) for inner in part]
        bare = not isinstance(part, str) or not part or (first and "/" not in part)  # a bare program is found on the PATH
        return part if bare or not (folder / str(part)).is_file() else str((folder / str(part)).resolve())

    return spec.model_copy(update={"argv": [placed(part, first=not i) for i, part in enumerate(argv)]})


def parse_recipe(data: Any, where: str = "recipe") -> Recipe:
    """A recipe from parsed YAML. Raises BadRecipe."""
    if not isinstance(data, dict):
        raise BadRecipe(f"{where}: expected a mapping with the keys {', '.join(Recipe.model_fields)}, got {type(data).__name__}.")
    return validated(Recipe, data, where)
