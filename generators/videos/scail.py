"""SCAIL-Preview 14B (zai-org): a painted character moves like one person of the clip, in its painted scene.

The model runs in its own environment, by either branch of its repository. `worker: sat` keeps `sample_video.py` loaded and gives it a line
for each request; `worker: wan` starts `generate.py` once for each. Both get the painted picture and a video of the poses as shaded
cylinders, aligned to the character. Arguments and files follow their public code; poses are this project's, not SCAIL-Pose's.
"""

from __future__ import annotations

import re
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from generators import base
from generators.base import Capabilities, Options, Report, VideoGenerator, VideoRequest, frames_covering
from generators.inputs import pictures
from generators.inputs.poses import cylinder_video
from generators.poses.cylinders import CylinderOptions
from generators.poses.people import PeopleTracker
from generators.sources import digest_of_sources, digest_of_weights
from generators.verifying import EXTRA_FRAMES, Written
from generators.videos.puppet.cutout import main_person
from generators.workers import command
from generators.workers.command import CommandOptions, own_folder
from generators.workers.group import torchrun
from generators.workers.prompted import Prompted
from manifests import media
from manifests.errors import BadInput, BadOutput

FPS = 16.0
COUNTS = (65, 81)
SIZE_HW = (512, 896)
HEADS = 40
"""attention heads of the 14B model, which several GPUs divide among them"""
SEEDS = 2**31
"""both scripts hand the seed to NumPy too"""
PROMPT = "A person moves in a video."
"""where a recipe gives none; the model was trained with long ones"""
WANTS_A_LINE = r"\(Ctrl-D quit\)"
ONE_PROCESS = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
"""what the sat branch's own shell script sets"""
UNKEYED = frozenset({"python", "repo", "ckpt_dir", "weights", "gpus", "samples", "timeout_s", "load_timeout_s"})
"""what no pixel can depend on, or counts by its content"""


class ScailOptions(Options):
    """What a recipe says of an installed SCAIL. Paths are those of the machines that run it."""

    worker: Literal["sat", "wan"] = "wan"
    """which branch of the repository `repo` holds"""
    python: str = ""
    """the interpreter of SCAIL's own environment"""
    repo: str = ""
    """the folder with sample_video.py (sat) or generate.py (wan)"""
    env: dict[str, str] = Field(default_factory=dict)
    """variables beside the worker's own"""
    retarget: bool = True
    """poses with the place and proportions of the painted character, where one is found in the picture"""
    size: tuple[int, int] = SIZE_HW
    """height and width of a lying video, turned like the painted picture; sat: must be what the sampling YAML says"""
    frame_counts: tuple[int, ...] = Field(default=COUNTS, min_length=1)
    """4n+1 each; a pair that needs fewer frames than the least is refused"""
    timeout_s: float = Field(default=1500.0, gt=0)
    """for one video, below the pool's"""

    base: tuple[str, ...] = ()
    """sat: the YAML files of `--base`, as they are named from `repo`: model, then sampling with `input_type: cli`"""
    seeds: Literal["process", "request"] = "process"
    """sat: it takes its seed when it starts. "process": it is started with the first request's and stays, so what a seed gives depends on
    the requests before; "request": it is started anew for every other seed"""
    samples: str = "samples"
    """sat: the sampling YAML's `output_dir`, as it is named from `repo`"""
    load_timeout_s: float = Field(default=1200.0, gt=0)
    """sat: until it asks for the first line"""

    weights: str = ""
    """wan: `--ckpt_dir`, the folder with VAE and text encoder"""
    scail_path: str = ""
    """wan: the converted .safetensors"""
    model: str = "SCAIL-14B"
    steps: int | None = Field(default=None, ge=1, le=200)
    """wan: without it the script's own 40; sat has it in its YAML, like the next two"""
    shift: float | None = Field(default=None, gt=0)
    guidance: float | None = Field(default=None, ge=1, le=20)
    gpus: int = Field(default=1, ge=1, le=HEADS)
    """wan: more than one run under torchrun, which parts the sequence among them"""

    @field_validator("python", "repo", "weights", "scail_path")
    @classmethod
    def _absolute(cls, v: str) -> str:
        if v and not Path(v).is_absolute():
            raise ValueError(f"{v!r} must be an absolute path on the machines that run it")
        return v

    @field_validator("frame_counts")
    @classmethod
    def _four_n_plus_one(cls, v: tuple[int, ...]) -> tuple[int, ...]:
        if any(n < 5 or n % 4 != 1 for n in v):
            raise ValueError(f"frame_counts are 4n+1 (65, 81), got {list(v)}")
        return tuple(sorted(v))

    @field_validator("size")
    @classmethod
    def _even(cls, v: tuple[int, int]) -> tuple[int, int]:
        if any(side < 32 or side % 16 for side in v) or v[0] > v[1]:
            raise ValueError(f"size is [height, width] of a lying video, in multiples of 16, got {list(v)}")
        return v

    @model_validator(mode="after")
    def _gpus_fit(self) -> ScailOptions:
        if self.worker == "sat" and self.gpus > 1:
            raise ValueError("worker: sat runs on one GPU; several are for worker: wan")
        if HEADS % self.gpus:
            raise ValueError(f"gpus must divide the model's {HEADS} attention heads, got {self.gpus}")
        return self

    def unsaid(self) -> list[str]:
        """Names of options without which it can be planned but not run."""
        needed = ("python", "repo", *(("base",) if self.worker == "sat" else ("weights", "scail_path")))
        return [name for name in needed if not getattr(self, name)]

    @property
    def script(self) -> str:
        """What is run in `repo`."""
        return "sample_video.py" if self.worker == "sat" else "generate.py"


class Scail(VideoGenerator):
    """A painted character moves like the clip's person."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"animation"}), frame_counts=COUNTS, frames_min=COUNTS[0], fps=FPS, sizes=(SIZE_HW, SIZE_HW[::-1]),
        orientation="reference", gpus=1, inputs=frozenset({"reference", "pose"}), code_licence="Apache-2.0", weights_licence="unknown",
        accept_licence=True,
    )  # fmt: skip
    options_type: ClassVar[type[base.Options]] = ScailOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark")

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        own = cast(ScailOptions, options)
        counts, (height, width) = own.frame_counts, own.size
        sizes = tuple(dict.fromkeys([(height, width), (width, height)]))
        change = {"frame_counts": counts, "frames_min": counts[0], "sizes": sizes, "gpus": float(own.gpus)}
        return cls.capabilities.model_copy(update=change)

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The repository counts by its sources and settings, weights by their content; where they lie and time limits do not count."""
        kept = {name: value for name, value in options.items() if name not in UNKEYED}
        kept["program"] = digest_of_sources(str(options.get("repo", "")))
        for name in ("weights", "scail_path"):
            if options.get(name):
                kept[name] = digest_of_weights(str(options[name]))
        return kept

    @classmethod
    def missing(cls, options: base.Options | None = None) -> list[str]:
        """Also the interpreter, the repository and the weights."""
        out = super().missing(options)
        if not isinstance(options, ScailOptions) or options.unsaid():
            return [*out, "no SCAIL: its options say where it is installed"]
        places = [options.python, str(Path(options.repo, options.script))]
        places += [options.weights, options.scail_path] if options.worker == "wan" else [str(Path(options.repo, b)) for b in options.base]
        return out + [f"no {place}" for place in places if not Path(place).exists()]

    def unsaid(self) -> list[str]:
        """Where SCAIL is installed."""
        return self._set.unsaid()

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._tracker = PeopleTracker()
        self._program: Prompted | None = None
        self._seed: int | None = None

    @property
    def _set(self) -> ScailOptions:
        return cast(ScailOptions, self.options)

    def setup(self) -> None:
        """Load what reads the painted picture. The model is started with the first request, whose seed it takes."""
        if self._set.retarget:
            self._tracker.setup()

    def end(self) -> None:
        """End the program that stays, if there is one. It also ends with this process."""
        if self._program:
            self._program.end()

    # --- one request

    def size_for(self, request: VideoRequest) -> tuple[int, int]:
        """Height and width, turned like the painted picture, which has the pair's size."""
        return pictures.oriented(self._set.size, (request.geometry.height, request.geometry.width))

    def validate(self, request: VideoRequest) -> None:
        """As the base; the person must be in the clip ("driver_absent"), and the prompt must be one that the program can be given."""
        super().validate(request)
        if not request.clip_people.present_PT.any():
            raise BadInput("the driven person is in no frame of the clip; choose another one", "driver_absent")
        if "\0" in request.prompt or "@@" in request.prompt or re.search(WANTS_A_LINE, request.prompt):
            raise BadInput("the prompt holds a zero byte or words that separate SCAIL's input (@@); write another", "bad_prompt")

    def prepare(self, request: VideoRequest, folder: Path) -> VideoRequest:
        """Write the reference and the pose video at the model's size, rate and number of frames. Raises BadInput as `validate`."""
        self.validate(request)
        picture, (height, width), g = media.read_image(request.painted[0]), self.size_for(request), request.geometry
        if request.reference_people is None and self._set.retarget:
            self._tracker.setup()
            found = self._tracker.still(pictures.letterboxed(picture, g.height, g.width))
            request = replace(request, reference_people=found.only([main_person(found)]) if found.count else None)
        folder.mkdir(parents=True, exist_ok=True)
        media.write_png(folder / "ref.png", pictures.framed(picture, height, width))
        frames = self.can.frames_for(g)
        assert frames is not None  # validate has refused it
        drawn = cylinder_video(request.clip_people, height, width, FPS, frames, CylinderOptions(), request.reference_people)
        pose = folder / ("rendered.mp4" if request.reference_people is None else "rendered_aligned.mp4")
        media.write_video(pose, drawn, FPS)
        return replace(request, inputs={**request.inputs, "reference": folder / "ref.png", "pose": pose})

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Have the program write its video. `prepare` comes first. Raises as `workers.prompted` and `workers.command`."""
        if missing := sorted(self.can.inputs - set(request.inputs)):
            raise BadInput(f"the inputs {', '.join(missing)} are missing; call `prepare` before `run`, or `make`", "inputs_missing")
        with own_folder(out) as folder:
            (self._by_line if self._set.worker == "sat" else self._by_start)(request, folder, out)
        return Report(reasons=("not_retargeted",) if self._set.retarget and request.reference_people is None else ())

    def expected(self, request: VideoRequest) -> Written:
        """As the base, turned like the reference."""
        need = frames_covering(request.geometry, FPS)
        made = self.can.frames_for(request.geometry) or need
        return Written((need, max(made, need + EXTRA_FRAMES)), FPS, frozenset({self.size_for(request)}))

    # --- sat: a line for each request

    def _by_line(self, request: VideoRequest, folder: Path, out: Path) -> None:
        case = folder / f"case-{uuid.uuid4().hex}"  # its output is named after it: no two may collide, of this worker or another
        case.mkdir()
        for path in (request.inputs["reference"], request.inputs["pose"]):
            shutil.copyfile(path, case / path.name)
        samples = Path(self._set.repo, self._set.samples, case.name)
        try:
            self._started(request.seed % SEEDS).ask(f"{_in_one_line(request.prompt)}@@{case}")
            made = samples / f"{case.name}_output_000000.mp4"
            if made.is_symlink() or not made.is_file():
                raise BadOutput(f"sample_video.py asked for the next line without having written {made.name}", "no_output")
            shutil.copyfile(made, out)
        finally:
            shutil.rmtree(samples, ignore_errors=True)

    def _started(self, seed: int) -> Prompted:
        own = self._set
        if self._program and self._program.alive and (own.seeds == "process" or seed == self._seed):
            return self._program
        self.end()
        self._seed = seed
        argv = [own.python, own.script, "--base", *own.base, "--seed", str(seed)]
        self._program = Prompted(argv, WANTS_A_LINE, own.repo, {**ONE_PROCESS, **own.env}, own.timeout_s, own.load_timeout_s)
        return self._program

    # --- wan: a start for each request

    def _by_start(self, request: VideoRequest, folder: Path, out: Path) -> None:
        own, (height, width) = self._set, self.size_for(request)
        start = torchrun(own.python, own.gpus, own.script) if own.gpus > 1 else [own.python, own.script]
        spread = ["--dit_fsdp", "--t5_fsdp", "--ulysses_size", str(own.gpus)] if own.gpus > 1 else []
        settings = {"--sample_steps": own.steps, "--sample_shift": own.shift, "--sample_guide_scale": own.guidance}
        given = [part for name, value in settings.items() if value is not None for part in (name, f"{value:g}")]
        files = {name: command.copied(request.inputs[name], folder / "in", name) for name in ("reference", "pose")}
        program = CommandOptions(
            argv=(
                *start, "--model", own.model, "--ckpt_dir", own.weights, "--scail_path", own.scail_path, "--image", "{reference}",
                "--pose", "{pose}", "--prompt={prompt}", "--target_h", str(height), "--target_w", str(width), "--base_seed",
                str(request.seed % SEEDS), *given, *spread, "--save_file", "{out}",
            ),
            cwd=own.repo, env={"PYTHONUNBUFFERED": "1", **own.env}, timeout_s=own.timeout_s, modes=frozenset({"animation"}),
        )  # fmt: skip
        command.call(program, {**files, "prompt": _in_one_line(request.prompt)}, folder / "out", out)


def _in_one_line(prompt: str) -> str:
    return " ".join(prompt.split()) or PROMPT
