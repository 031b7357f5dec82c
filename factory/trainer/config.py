"""What to train, as syntax. YAML; frozen; an unknown key is refused with the nearest name. Defaults: SCAIL-2's published fine-tune.

data: {releases: [out/latents]}
model: {preset: 14b, weights: Wan2.1-I2V-14B-720P}
out: runs/first
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from factory.trainer.adapters import LoraConfig
from factory.trainer.dpo import DpoConfig
from factory.trainer.model import PRESETS, ModelConfig
from manifests.errors import BadRecipe
from manifests.explain import nearest, validated
from manifests.records import Frozen


class DataConfig(Frozen):
    """Which samples, in which order. See docs/streaming.md."""

    releases: tuple[str, ...] = Field(min_length=1)
    """latent releases: folders or addresses (s3://…)"""
    split: Literal["train", "validation"] = "train"
    seed: int = 0
    mix: dict[str, int] | None = None
    """weights of tasks; default: the releases' own"""
    tasks: tuple[str, ...] | None = None
    shapes: dict[str, int] | None = None
    global_batch: int = Field(default=64, ge=1)
    """samples a step, over all ranks; it stays when the number of ranks changes, and so does the order"""
    micro_batch: int = Field(default=1, ge=1)
    """samples at once on a rank, all of one shape"""
    threads: int = Field(default=2, ge=1)
    prefetch_gb: float = Field(default=2.0, gt=0)
    cache: str | None = None
    """a folder for samples of remote releases"""
    cache_gb: float = Field(default=64.0, gt=0)


class DrawsConfig(Frozen):
    """What is drawn for every sample, and how often. See factory/trainer/conditioning.py."""

    text_drop: float = Field(default=0.1, ge=0, le=1)
    history: float = Field(default=0.15, ge=0, le=1)
    history_of_chunks: float = Field(default=0.5, ge=0, le=1)
    augment_end_to_end: float = Field(default=0.56, ge=0, le=1)
    augment_pose: float = Field(default=0.75, ge=0, le=1)


class ModelChoice(Frozen):
    """A preset, with whatever shall be another size."""

    preset: str = "14b"
    weights: str | None = None
    """a .safetensors file or a folder: SCAIL-2, or Wan2.1 as the start of training; none: at random"""
    seed: int = 0
    """of random weights"""
    dim: int | None = None
    ffn_dim: int | None = None
    heads: int | None = None
    layers: int | None = None
    text_dim: int | None = None
    text_tokens: int | None = None
    image_dim: int | None = None
    look_at_picture: bool = True
    """false: without the reference's CLIP features"""

    @model_validator(mode="after")
    def _known(self) -> ModelChoice:
        if self.preset not in PRESETS:
            raise ValueError(f"no preset {self.preset!r}{nearest(self.preset, PRESETS)}")
        return self

    def config(self) -> ModelConfig:
        """All sizes."""
        names = ("dim", "ffn_dim", "heads", "layers", "text_dim", "text_tokens", "image_dim")
        said = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if not self.look_at_picture:
            said["image_dim"] = None
        return ModelConfig.model_validate(PRESETS[self.preset].model_dump() | said)


class OptimizerConfig(Frozen):
    """AdamW."""

    lr: float = Field(default=2e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=0.1, gt=0)
    """of the gradients' norm"""
    warmup_steps: int = Field(default=0, ge=0)
    """the learning rate rises in equal steps, then stays"""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """decay of a running mean of the weights, kept beside them; none: not kept"""


class ParallelConfig(Frozen):
    """How the model is spread. Ranks = replicate × shard × context; shard is what is left."""

    context: int = Field(default=1, ge=1)
    """ranks that share each sequence; a divisor of the heads"""
    replicate: int = Field(default=1, ge=1)
    """whole copies of the sharded model, each over its own ranks"""
    checkpointing: Literal["none", "selective", "full"] = "full"
    """what the backward pass computes again: nothing, all but attention and every other matrix product, or whole blocks"""
    compile: bool = False
    """each block by torch.compile"""
    param_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """what is computed in; the weights that are updated stay float32"""
    reduce_dtype: Literal["bfloat16", "float32"] = "float32"


class CheckpointConfig(Frozen):
    """Model, optimizer, stream and step."""

    every_steps: int = Field(default=250, ge=1)
    keep: int = Field(default=3, ge=1)
    background: bool = True
    """written while training goes on"""
    export: Literal["none", "last", "all"] = "last"
    """also as one .safetensors file with published names (with LoRA: the adapters): never, at the end, or at every checkpoint"""


class ProbeConfig(Frozen):
    """Losses at fixed σ and noise, on the same pairs every time, at the beginning, now and then, and at the end."""

    every_steps: int = Field(default=500, ge=1)
    pairs: int = Field(default=2, ge=1)
    """of each task"""
    sigmas: tuple[float, ...] = Field(default=(0.3, 0.6, 0.9), min_length=1)
    split: Literal["train", "validation"] = "train"


class LogConfig(Frozen):
    """Terminal, TensorBoard, and W&B where asked for."""

    every_steps: int = Field(default=10, ge=1)
    tensorboard: bool = True
    wandb_project: str | None = None
    peak_tflops: float | None = Field(default=None, gt=0)
    """of one device, for MFU; default: known GPUs by name"""


class TrainConfig(Frozen):
    """One run."""

    data: DataConfig
    out: str
    """folder for checkpoints and logs; the run goes on from the newest checkpoint there"""
    steps: int | None = Field(default=None, ge=1)
    """default: 1,000 of flow matching, 400 of DPO"""
    objective: Literal["flow", "dpo"] = "flow"
    model: ModelChoice = Field(default_factory=ModelChoice)
    draws: DrawsConfig = Field(default_factory=DrawsConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    logs: LogConfig = Field(default_factory=LogConfig)
    probe: ProbeConfig | None = None
    """none: not done"""
    lora: LoraConfig | None = None
    dpo: DpoConfig = Field(default_factory=DpoConfig)

    @property
    def total_steps(self) -> int:
        return self.steps or (400 if self.objective == "dpo" else 1000)

    @model_validator(mode="after")
    def _together(self) -> TrainConfig:
        if self.data.global_batch % self.data.micro_batch:
            raise ValueError(f"data.global_batch {self.data.global_batch} must be a multiple of data.micro_batch {self.data.micro_batch}")
        if self.probe and self.objective == "dpo":
            raise ValueError("probe measures flow matching; leave it out of DPO")
        self.model.config()
        return self


def load_config(path: str | Path) -> TrainConfig:
    """Read a configuration. Raises BadRecipe with a line for every mistake."""
    file = Path(path)
    if not file.is_file():
        raise BadRecipe(f"{path}: no such file; give a configuration in YAML")
    try:
        data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise BadRecipe(f"{path}: expected a mapping with the keys {', '.join(TrainConfig.model_fields)}, got {type(data).__name__}")
    return validated(TrainConfig, data, str(path))
