"""The model against what the facts say: sizes, order of tokens, rotary positions, and what depends on what."""

from __future__ import annotations

import cmath
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import SMALL, WITH_PICTURE, inputs, lively, numbers

from factory.trainer import rope, weights
from factory.trainer.model import PRESETS, Inputs, build
from factory.trainer.positions import Layout, positions
from manifests.errors import BadInput


def test_sizes_of_the_presets() -> None:
    big = build(PRESETS["14b"], device="meta")
    assert sum(p.numel() for p in big.parameters()) == 16_395_544_384  # 16.40 B with all embeddings
    assert len(big.state_dict()) == 1303 + 4
    assert sum(p.numel() for p in build(PRESETS["1.3b"], device="meta").parameters()) == pytest.approx(1.56e9, rel=0.01)
    assert sum(p.numel() for p in build(PRESETS["tiny"]).parameters()) < 3e6


# --- rotary positions, against loops over single numbers


def slow_turn(position: tuple[int, int, int], channels: int) -> list[complex]:
    """e^(i · angle) of every pair of channels at one place."""
    side = 2 * (channels // 6)
    out = []
    for place, width in zip(position, (channels - 2 * side, side, side), strict=True):
        out += [cmath.exp(1j * place / 10000 ** (2 * i / width)) for i in range(width // 2)]
    return out


def slow_sequence(mode: Layout, more: int, frames: int, height: int, width: int, channels: int) -> list[list[complex]]:
    """Token by token, from the facts' table of offsets."""
    moved = 120 if mode == "replacement" else 0
    start = more if mode == "replacement" else more + 1
    rows = []
    for picture in range(more + 1):
        rows += [slow_turn((picture, moved + y, x), channels) for y in range(height) for x in range(width)]
    rows += [slow_turn((start + t, y, x), channels) for t in range(frames) for y in range(height) for x in range(width)]
    for t in range(frames):
        for y in range(0, height, 2):
            for x in range(0, width, 2):
                four = [slow_turn((start + t, y + b, 120 + x + a), channels) for b in (0, 1) for a in (0, 1)]
                rows.append([sum(values) / 4 for values in zip(*four, strict=True)])
    return rows


@pytest.mark.parametrize("mode", ["animation", "replacement"])
@pytest.mark.parametrize("more", [0, 2])
def test_rotary_tables(mode: Layout, more: int) -> None:
    cos, sin = rope.sequence(positions(mode, more), 3, 4, 6, 32)
    expected = torch.tensor(slow_sequence(mode, more, 3, 4, 6, 32), dtype=torch.complex128)
    assert cos.shape == ((more + 1) * 24 + 3 * 24 + 3 * 6, 16)
    torch.testing.assert_close(torch.complex(cos.double(), sin.double()), expected, atol=1e-6, rtol=0)


def test_driving_tokens_turn_by_less_than_their_length() -> None:
    cos, sin = rope.sequence(positions("animation", 0), 1, 4, 6, 32)
    length = (cos**2 + sin**2).sqrt()
    torch.testing.assert_close(length[:48], torch.ones(48, 16))
    fastest = math.cos(0.5)  # a radian a token, on either side of the middle
    assert float(length[48:].min()) == pytest.approx(fastest, abs=1e-6)
    assert length[48:].max() <= 1 + 1e-6


def test_turning_pairs_of_neighbouring_channels() -> None:
    cos, sin = rope.sequence(positions("animation", 0), 1, 2, 2, 12)
    x_BNHC = numbers(0, 2, len(cos), 3, 12)
    turned = rope.turned(x_BNHC, rope.Rotary(cos[None, :, None], sin[None, :, None], len(cos)))
    as_complex = torch.view_as_complex(x_BNHC.unflatten(-1, (-1, 2)).contiguous()) * torch.complex(cos, sin)[None, :, None]
    torch.testing.assert_close(turned, torch.view_as_real(as_complex).flatten(-2))


# --- what depends on what


def test_gradients_reach_all_that_is_seen_and_nothing_else() -> None:
    model, given = lively(WITH_PICTURE), inputs(more=1)
    tensors = {name: value.clone().requires_grad_() for name, value in vars(given).items() if isinstance(value, torch.Tensor)}
    model(Inputs(**{**vars(given), **tensors})).square().sum().backward()
    assert all(tensor.grad is not None and bool(tensor.grad.abs().sum() > 0) for tensor in tensors.values())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_masks_at_zero_say_nothing_until_they_are_trained() -> None:
    model = build(SMALL)
    with torch.no_grad():
        model.proj_out.weight.normal_()
        one, other = inputs(), inputs()
        other = Inputs(**{**vars(other), "reference_mask_B28SHW": other.reference_mask_B28SHW + 1})
        assert torch.equal(model(one), model(other))
        model.patch_embedding_mask.weight.normal_()
        assert not torch.allclose(model(one), model(other))


def test_only_the_videos_tokens_are_read_out() -> None:
    model, given = lively(), inputs(more=1)
    seen: list[torch.Tensor] = []
    model.proj_out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert model(given).shape == (1, 16, 2, 8, 12)
    assert seen[0].shape == (1, 2 * 4 * 6, SMALL.dim)
    whole: list[torch.Tensor] = []
    model.blocks[-1].register_forward_hook(lambda *args: whole.append(args[2]))
    model(given)
    assert whole[0].shape[1] == (2 + 2) * 24 + 2 * 6


def test_a_batch_is_its_samples_whatever_their_modes() -> None:
    model, both = lively(), inputs(("animation", "replacement"))
    with torch.no_grad():
        together = model(both)
        for i in range(2):
            alone = {name: value[i : i + 1] for name, value in vars(both).items() if value is not None}
            torch.testing.assert_close(model(Inputs(**alone)), together[i : i + 1], atol=1e-5, rtol=1e-5)
        swapped = Inputs(**{**vars(both), "positions": both.positions[::-1]})
        assert not torch.allclose(model(swapped), together, atol=1e-3)


def test_patches_come_back_in_their_places() -> None:
    """A read-out that copies: what patch_embedding takes apart is put together again."""
    model, given = lively(), inputs()
    video = given.noisy_B20THW[:, :16]
    patches = video.unflatten(3, (-1, 2)).unflatten(5, (-1, 2)).permute(0, 2, 3, 5, 4, 6, 1)
    torch.testing.assert_close(model._unpatched(patches.reshape(1, -1, 64), given), video)


def test_a_model_that_looks_at_pictures_wants_them() -> None:
    without = Inputs(**{**vars(inputs()), "picture_BLC": None})
    with pytest.raises(BadInput, match="--image"):
        build(WITH_PICTURE)(without)


# --- published weights


def published(model: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + weights.published_of(name): tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_published_weights_go_in_and_come_out(tmp_path: Path, prefix: str) -> None:
    model, file = lively(WITH_PICTURE), tmp_path / "published.safetensors"
    save_file(published(model, prefix), file)
    other = build(WITH_PICTURE, seed=1)
    assert weights.load(other, weights.open_weights(file)) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    weights.save(other.state_dict(), tmp_path / "out" / "again.safetensors", "float32")
    again = load_file(tmp_path / "out" / "again.safetensors")
    assert {name: tensor.shape for name, tensor in again.items()} == {name: t.shape for name, t in published(model).items()}
    assert all(torch.equal(again[name], tensor) for name, tensor in published(model).items())


def test_published_names() -> None:
    names = set(published(build(PRESETS["14b"], device="meta")))
    assert {
        "patch_embedding.weight", "patch_embedding_pose.bias", "patch_embedding_mask.weight", "text_embedding.0.weight",
        "text_embedding.2.bias", "time_embedding.0.weight", "time_embedding.2.weight", "time_projection.1.weight", "head.head.weight",
        "head.modulation", "img_emb.proj.0.weight", "img_emb.proj.1.weight", "img_emb.proj.3.weight", "img_emb.proj.4.bias",
        "blocks.39.self_attn.q.weight", "blocks.0.self_attn.norm_q.weight", "blocks.0.self_attn.o.bias", "blocks.0.cross_attn.k_img.weight",
        "blocks.0.cross_attn.v_img.bias", "blocks.0.cross_attn.norm_k_img.weight", "blocks.0.cross_attn.norm_k.weight",
        "blocks.0.norm3.weight", "blocks.0.ffn.0.weight", "blocks.0.ffn.2.bias", "blocks.7.modulation",
    } <= names  # fmt: skip
    assert not [name for name in names if "attn1" in name or "condition_embedder" in name or "scale_shift" in name]


def test_names_of_diffusers_are_taken_too_and_from_several_files(tmp_path: Path) -> None:
    model = lively()
    state = model.state_dict()
    half = len(state) // 2
    (tmp_path / "transformer").mkdir()
    for i, part in enumerate((list(state)[:half], list(state)[half:])):
        save_file({name: state[name] for name in part}, tmp_path / "transformer" / f"model-{i}.safetensors")
    other = build(SMALL, seed=1)
    weights.load(other, weights.open_weights(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("channels", [36, 16])
def test_wan_as_the_start_of_training(tmp_path: Path, channels: int) -> None:
    model, file = lively(WITH_PICTURE), tmp_path / "wan.safetensors"
    state = {name: tensor for name, tensor in published(model).items() if "_pose" not in name and "_mask" not in name}
    state["patch_embedding.weight"] = numbers(7, WITH_PICTURE.dim, channels, 1, 2, 2)
    save_file(state, file)
    other = lively(WITH_PICTURE, seed=1)
    told = weights.load(other, weights.open_weights(file))
    kept = min(channels, 20)
    assert f"first {kept} of {channels}" in told[0]
    assert torch.equal(other.patch_embedding.weight[:, :kept], state["patch_embedding.weight"][:, :kept])
    assert not other.patch_embedding.weight[:, kept:].any()
    assert torch.equal(other.patch_embedding_pose.weight, other.patch_embedding.weight)
    assert torch.equal(other.patch_embedding_pose.bias, other.patch_embedding.bias)
    assert not other.patch_embedding_mask.weight.any()
    assert not other.patch_embedding_mask.bias.any()


def test_weights_that_do_not_fit_are_told_in_one_line(tmp_path: Path) -> None:
    state = published(lively())
    file = tmp_path / "bad.safetensors"

    def message(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, file)
        model = build(SMALL)
        before = [p.clone() for p in model.parameters()]
        with pytest.raises(BadInput) as error:
            weights.load(model, weights.open_weights(file))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "1 missing (proj_out.bias)" in message({name: t for name, t in state.items() if name != "head.head.bias"})
    assert "4 unknown (audio0, audio1, audio2, …)" in message(state | {f"audio{i}": torch.zeros(1) for i in range(4)})
    assert "expected (64, 24)" in message(state | {"head.head.weight": torch.zeros(64, 25)})
    assert "quantised" in message(state | {"head.head.weight": torch.zeros(64, 24, dtype=torch.float8_e4m3fn)})
    with pytest.raises(BadInput, match="holds no weights"):
        weights.open_weights(tmp_path / "nothing")
