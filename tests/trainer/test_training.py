"""Training on one rank and on several: the same numbers, and nothing lost in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import latent_release
import pytest
import torch
import yaml
from safetensors.torch import load_file

HERE = Path(__file__).parent
SPREAD = {
    "sharded": (2, {"param_dtype": "float32", "checkpointing": "none"}),
    "context": (2, {"param_dtype": "float32", "checkpointing": "none", "context": 2}),
    "everything": (4, {"param_dtype": "float32", "checkpointing": "selective", "context": 2, "replicate": 2}),
    "recomputed": (2, {"param_dtype": "float32", "checkpointing": "full"}),
}
SIZES = {"preset": "tiny", "dim": 24, "ffn_dim": 32, "heads": 2, "layers": 2, "text_dim": 8, "text_tokens": 6}


def config(folder: Path, out: str, steps: int, **more: object) -> str:
    said = {
        "data": {"releases": [str(folder / "release")], "global_batch": 4}, "model": SIZES, "out": str(folder / out), "steps": steps,
        "optimizer": {"lr": 0.01, "clip": 1.0, "ema": 0.9}, "parallel": {"param_dtype": "float32"},
        "checkpoints": {"every_steps": 2, "keep": 9}, "logs": {"every_steps": 2, "tensorboard": False},
    } | more  # fmt: skip
    file = folder / f"{out}-{steps}-{len(list(folder.glob('*.yaml')))}.yaml"
    file.write_text(yaml.safe_dump(said))
    return str(file)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that takes several processes, in one go."""
    folder = tmp_path_factory.mktemp("training")
    latent_release.build(folder)
    trained = str(folder / "straight" / "model-00000006.safetensors")
    with_lora = {"lora": {"rank": 2}, "optimizer": {"lr": 0.01, "clip": 1.0}, "model": SIZES | {"weights": trained}}
    jobs = [
        (1, config(folder, "straight", 6)),
        (1, config(folder, "resumed", 2)), (1, config(folder, "resumed", 6)),
        (1, config(folder, "resharded", 2)), (2, config(folder, "resharded", 4)), (4, config(folder, "resharded", 6)),
        (2, config(folder, "lora", 2, **with_lora)), (1, config(folder, "lora", 4, **with_lora)),
        (1, config(folder, "lora1", 4, **with_lora)),
    ]  # fmt: skip
    (folder / "jobs.json").write_text(json.dumps({"spread": SPREAD, "train": jobs}))
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / "ranks.py"), str(folder)], env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    (folder / "output").write_text(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", SPREAD)
def test_gradients_on_several_ranks_are_those_of_one(ran: Path, name: str) -> None:
    found = json.loads((ran / f"{name}.json").read_text())
    assert found["flow"] < 1e-5
    assert found["dpo"] < 1e-5


def weights(ran: Path, out: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(next((ran / out).glob(f"*-{step:08d}.safetensors")))


def about(ran: Path, out: str, step: int) -> dict[str, object]:
    return json.loads((ran / out / "checkpoints" / f"{step:08d}" / "about.json").read_text())


def tensors(ran: Path, out: str, step: int) -> dict[str, torch.Tensor]:
    """All that a checkpoint holds: weights, optimizer, running mean."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    file = ran / f"{out}-{step}.pt"
    dcp_to_torch_save(ran / out / "checkpoints" / f"{step:08d}", file)
    flat: dict[str, torch.Tensor] = {}

    def walk(value: object, name: str) -> None:
        if isinstance(value, torch.Tensor):
            flat[name] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}/{key}")

    walk(torch.load(file), out)
    return {name.removeprefix(out): tensor for name, tensor in flat.items()}


def test_a_resumed_run_is_bit_for_bit_the_one_that_was_not_interrupted(ran: Path) -> None:
    straight, resumed = tensors(ran, "straight", 6), tensors(ran, "resumed", 6)
    assert straight.keys() == resumed.keys()
    assert len([name for name in straight if name.startswith("/optimizer")]) > 50
    assert len([name for name in straight if name.startswith("/ema")]) > 50
    assert not [name for name, tensor in straight.items() if not torch.equal(tensor, resumed[name])]
    assert about(ran, "straight", 6) == about(ran, "resumed", 6)


def test_on_other_numbers_of_ranks_the_run_goes_on_as_it_would_have(ran: Path) -> None:
    straight, resharded = tensors(ran, "straight", 6), tensors(ran, "resharded", 6)
    assert straight.keys() == resharded.keys()
    for name, tensor in straight.items():
        torch.testing.assert_close(resharded[name], tensor, atol=2e-5, rtol=1e-4, msg=name)
    assert about(ran, "straight", 6)["stream"]["position"] == about(ran, "resharded", 6)["stream"]["position"] == 24  # type: ignore[index]


def test_adapters_are_saved_alone_and_trained_alike_on_two_ranks(ran: Path) -> None:
    two, one = weights(ran, "lora", 4), weights(ran, "lora1", 4)
    assert two.keys() == one.keys()
    assert "diffusion_model.blocks.0.self_attn.q.lora_A.weight" in one
    assert all(".lora_" in name for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name].float(), tensor.float(), atol=2e-3, rtol=1e-2, msg=name)
    assert any(bool(tensor.any()) for name, tensor in one.items() if "lora_B" in name)


def test_training_tells_loss_by_task_and_pace(ran: Path) -> None:
    line = next(line for line in (ran / "output").read_text().splitlines() if line.startswith("step 6"))
    assert {"loss/animation", "loss/replacement", "grad_norm", "tokens_per_s", "data_wait", "lr"} <= set(line.split())
