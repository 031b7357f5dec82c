"""Wan2.2-Animate 14B by its own repository, in its own environment: `generate.py --task animate-14B`, on several GPUs under torchrun.

It is started once for each request. Arguments and files follow its public code. That code takes no prompt for this task, writes 30 fps,
and ends well when it could not save its video.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, field_validator

from generators import base
from generators.base import Capabilities, Report, VideoRequest
from generators.sources import digest_of_sources, digest_of_weights
from generators.videos.wan_animate_inputs import Animated, AnimateOptions, reference
from generators.workers import command
from generators.workers.command import CommandOptions, own_folder
from generators.workers.group import torchrun
from manifests import media

TASK = "animate-14B"
SCRIPT = "generate.py"
HEADS = 40
"""attention heads of the model, which several GPUs divide among them"""
SEEDS = 2**31
FILES = {"pose": "src_pose", "face": "src_face", "background": "src_bg", "mask": "src_mask"}
"""what the program calls the derived videos"""
UNKEYED = frozenset({"python", "repo", "weights", "gpus", "offload", "timeout_s"})
"""what no pixel can depend on, or counts by its content"""


class WanAnimateCLIOptions(AnimateOptions):
    """What a recipe says of an installed Wan2.2. Paths are those of the machines that run it."""

    python: str = ""
    """the interpreter of Wan's own environment"""
    repo: str = ""
    """the folder with generate.py"""
    weights: str = ""
    """`--ckpt_dir`: Wan2.2-Animate-14B as its authors publish it, not the Diffusers edition"""
    env: dict[str, str] = Field(default_factory=dict)
    """variables beside the worker's own"""
    gpus: int = Field(default=1, ge=1, le=HEADS)
    """more than one run under torchrun, which parts the model and the sequence among them"""
    relighting: bool = True
    """replacement: with the LoRA that fits the character to the scene's light, as the published commands do"""
    shift: float | None = Field(default=None, gt=0)
    """without it the repository's own 5"""
    offload: bool | None = None
    """`--offload_model`; without it on one GPU yes, on several no"""
    timeout_s: float = Field(default=1500.0, gt=0)
    """for one video with all loading, below the pool's"""

    @field_validator("python", "repo", "weights")
    @classmethod
    def _absolute(cls, v: str) -> str:
        if v and not Path(v).is_absolute():
            raise ValueError(f"{v!r} must be an absolute path on the machines that run it")
        return v

    @field_validator("gpus")
    @classmethod
    def _divides(cls, v: int) -> int:
        if HEADS % v:
            raise ValueError(f"gpus must divide the model's {HEADS} attention heads, got {v}")
        return v

    def unsaid(self) -> list[str]:
        """Names of options without which it can be planned but not run."""
        return [name for name in ("python", "repo", "weights") if not getattr(self, name)]


class WanAnimateCLI(Animated):
    """A painted character moves like the clip's person, in its own scene or in the clip's. Prompts are not used."""

    options_type: ClassVar[type[base.Options]] = WanAnimateCLIOptions

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        own = cast(WanAnimateCLIOptions, options)
        return cls.capabilities.model_copy(update={"frames_max": own.segment_frames, "gpus": float(own.gpus)})

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The repository counts by its sources, weights by their content; where they lie, GPUs and time limits do not count."""
        kept = {name: value for name, value in options.items() if name not in UNKEYED}
        kept["program"] = digest_of_sources(str(options.get("repo", "")))
        if options.get("weights"):
            kept["weights"] = digest_of_weights(str(options["weights"]))
        return kept

    @classmethod
    def missing(cls, options: base.Options | None = None) -> list[str]:
        """Also the interpreter, the repository and the weights."""
        out = super().missing(options)
        if not isinstance(options, WanAnimateCLIOptions) or options.unsaid():
            return [*out, "no Wan2.2: its options say where it is installed"]
        places = [options.python, str(Path(options.repo, SCRIPT)), options.weights]
        return out + [f"no {place}" for place in places if not Path(place).exists()]

    def unsaid(self) -> list[str]:
        """Where Wan2.2 is installed."""
        return self._set.unsaid()

    @property
    def _set(self) -> WanAnimateCLIOptions:
        return cast(WanAnimateCLIOptions, self.options)

    def setup(self) -> None:
        """Load what reads the painted picture. The model is loaded by each start of the program."""
        if self._set.retarget:
            self._tracker.setup()

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Have the program write its video. `prepare` comes first. Raises BadInput, and as `workers.command`."""
        videos = self.given(request)
        with own_folder(out) as folder:
            source = folder / "in"
            for name, path in videos.items():
                command.copied(path, source, FILES[name])
            media.write_png(source / "src_ref.png", reference(request))
            program = CommandOptions(
                argv=(*self._command(request), "--src_root_path", "{source}", "--save_file", "{out}"), cwd=self._set.repo,
                env={"PYTHONUNBUFFERED": "1", **self._set.env}, timeout_s=self._set.timeout_s, modes=frozenset({request.mode}),
            )  # fmt: skip
            command.call(program, {"source": str(source)}, folder / "out", out)
        return Report(reasons=self.reasons(request))

    def _command(self, request: VideoRequest) -> list[str]:
        own = self._set
        settings = {
            "--task": TASK, "--ckpt_dir": own.weights, "--refert_num": own.overlap, "--frame_num": own.segment_frames,
            "--base_seed": request.seed % SEEDS, "--sample_steps": own.steps, "--sample_shift": own.shift,
            "--sample_guide_scale": own.guidance, "--offload_model": own.offload,
            "--ulysses_size": own.gpus if own.gpus > 1 else None,
        }  # fmt: skip
        flags = {
            "--replace_flag": request.mode == "replacement", "--use_relighting_lora": request.mode == "replacement" and own.relighting,
            "--dit_fsdp": own.gpus > 1, "--t5_fsdp": own.gpus > 1,
        }  # fmt: skip
        start = torchrun(own.python, own.gpus, SCRIPT) if own.gpus > 1 else [own.python, SCRIPT]
        given = [part for name, value in settings.items() if value is not None for part in (name, str(value))]
        return [*start, *given, *(name for name, wanted in flags.items() if wanted)]
