"""The stand-in autoencoder, and the real classes with tiny random weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_models import made_models

from factory.trainer.encoders import ClipPicture, HashedWordsStandIn, Umt5, cleaned
from factory.trainer.vae import KEPT, MODEL, SPREAD, BlockTransformStandIn, WanVae, cosines, to_frames, to_pixels
from manifests.errors import BadInput


def footage(frames: int = 9, height: int = 64, width: int = 96) -> np.ndarray:
    """A soft scene that pans, and a brighter disc that crosses it."""
    rng = np.random.default_rng(1)
    rough = (rng.integers(40, 200, (6, 12, 1)) + rng.integers(-15, 16, (6, 12, 3))).astype(np.uint8)
    wide = cv2.resize(rough, (width + 4 * frames, height), interpolation=cv2.INTER_CUBIC)
    out = np.stack([wide[:, 2 * t : 2 * t + width] for t in range(frames)])
    for t in range(frames):
        cv2.circle(out[t], (10 + 6 * t, height // 2), height // 6, (250, 240, 220), -1, cv2.LINE_AA)
    return out


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((one.astype(np.float64) - other) ** 2).mean()))


def test_the_stand_in_keeps_the_strongest_of_the_model() -> None:
    def variances(size: int, correlation: float) -> np.ndarray:
        lags = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
        return np.diag(cosines(size) @ correlation**lags @ cosines(size).T)

    time, side = variances(4, MODEL["time"]), variances(8, MODEL["space"])
    of = {
        (c, t, y, x): share * time[t] * side[y] * side[x]
        for c, share in enumerate(MODEL["colours"])
        for t in range(4)
        for y in range(8)
        for x in range(8)
    }
    kept = [of[index] for index in KEPT]
    assert len(set(KEPT)) == 16
    assert kept == sorted(kept, reverse=True) or np.allclose(kept, sorted(kept, reverse=True))
    assert min(kept) >= max(variance for index, variance in of.items() if index not in KEPT) * (1 - 1e-9)
    assert np.allclose(SPREAD, 0.5 * np.sqrt(kept), atol=0.006)
    assert 0.93 < sum(kept) / sum(of.values()) < 0.94


def test_the_stand_in_has_the_geometry_and_loses_detail_only() -> None:
    vae, video = BlockTransformStandIn(), footage()
    latents = vae.encode(to_pixels(video))
    assert latents.shape == (16, 3, 8, 12)
    back = to_frames(vae.decode(latents))
    assert back.shape == video.shape
    assert psnr(back, video) > 24
    assert psnr(back[0], video[0]) > 24
    pale = vae.encode(0.5 * to_pixels(video))  # so that nothing is cut off at white
    assert torch.allclose(vae.encode(vae.decode(pale)), pale, atol=1e-4)
    assert not np.array_equal(back, video)


def test_the_stand_in_sees_no_later_frame() -> None:
    """The first latent frame is the first frame alone; the second the next four."""
    vae, video = BlockTransformStandIn(), footage()
    whole = vae.encode(to_pixels(video))
    assert torch.equal(vae.encode(to_pixels(video[:1])), whole[:, :1])
    assert torch.equal(vae.encode(to_pixels(video[:5])), whole[:, :2])
    flat = vae.encode(to_pixels(np.full((1, 16, 16, 3), 128, np.uint8)))
    assert flat[1:].abs().max() < 1e-6


def test_no_order_of_adding_up_shows_in_the_stand_in() -> None:
    """Plain areas have coefficients near 0, of which float sums leave noise; the same blocks at other places, alone or among others."""
    flat = np.random.default_rng(3).integers(0, 256, (1, 4, 6, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    vae = BlockTransformStandIn()
    whole = vae.encode(to_pixels(flat))
    for y in range(8):
        for x in range(12):
            alone = vae.encode(to_pixels(flat[:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]))
            assert torch.equal(alone[:, 0, 0, 0], whole[:, 0, y, x])
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert torch.equal(vae.encode(to_pixels(flat)), whole)
    exact = vae._basis.sum(1) / vae._basis.abs().sum(1)
    assert exact[1:3].abs().max() == 0  # a wave over a plain area is 0 to the last bit


def test_the_stand_in_gives_the_same_bytes_elsewhere() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import hashlib, torch, test_vae as t; torch.set_num_threads(1);"
        "print(hashlib.sha256(t.BlockTransformStandIn().encode(t.to_pixels(t.footage())).numpy().tobytes()).hexdigest())"
    )
    paths = str(Path(__file__).parent), str(Path(__file__).parents[1])
    runs = [subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1] != ""


@pytest.mark.parametrize("shape", [(3, 4, 16, 16), (3, 5, 12, 16), (1, 5, 16, 16)])
def test_pixels_without_latents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        BlockTransformStandIn().encode(torch.zeros(shape))


def test_words_stand_for_themselves() -> None:
    words = HashedWordsStandIn()
    one, other = words.encode("A man  walks\n&amp; talks"), words.encode("a man sits")
    assert cleaned(" A man  walks\n&amp;amp; talks ") == "A man walks & talks"
    assert one.shape == (6, 64)
    assert torch.equal(one[:2], other[:2])
    assert not torch.allclose(one[2], other[2])
    assert words.encode("").shape == (1, 64)
    assert words.encode("word " * 2000).shape == (512, 64)


# --- the real classes


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_models(tmp_path_factory.mktemp("models"))


def test_wans_autoencoder_has_the_stand_ins_geometry(models: Path) -> None:
    vae, video = WanVae(models), to_pixels(footage(5, 32, 48))
    latents = vae.encode(video)
    assert latents.shape == BlockTransformStandIn().encode(video).shape == (16, 2, 4, 6)
    assert torch.equal(vae.encode(video), latents)
    assert torch.allclose(vae.encode(video[:, :1]), latents[:, :1], atol=1e-4)
    decoded = vae.decode(latents)
    assert decoded.shape == video.shape
    assert decoded.abs().max() <= 1


def test_wans_latents_are_normalised_by_its_configuration(models: Path) -> None:
    from diffusers import AutoencoderKLWan

    raw = AutoencoderKLWan.from_pretrained(models / "vae")
    video = to_pixels(footage(5, 32, 48))
    with torch.no_grad():
        mode = raw.encode(video[None]).latent_dist.mode()[0]
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (raw.config.latents_mean, raw.config.latents_std))
    assert torch.allclose(WanVae(models / "vae").encode(video), (mode - mean) / std, atol=1e-6)


def test_an_autoencoder_of_another_geometry_is_refused(models: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKLWan

    AutoencoderKLWan(base_dim=8, z_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="16 channels"):
        WanVae(tmp_path)
    with pytest.raises(BadInput, match="no AutoencoderKLWan"):
        WanVae(models / "tokenizer")


def test_captions_are_encoded_padded_and_trimmed(models: Path) -> None:
    text = Umt5(models)
    got = text.encode("a man walks")
    assert got.shape == (4, 32)  # three words and the end mark
    assert text.encode("").shape == (1, 32)
    assert text.encode("a man " * 600).shape == (512, 32)
    assert torch.allclose(text.encode(" a  man\nwalks"), got)
    assert not torch.allclose(text.encode("a man sings"), got)


def test_pictures_have_the_features_of_the_last_layer_but_one(models: Path) -> None:
    from transformers import CLIPVisionModel

    picture = footage(1)[0]
    got = ClipPicture(models).encode(picture)
    assert got.shape == (5, 32)  # 2×2 patches and the class token
    raw = CLIPVisionModel.from_pretrained(models / "image_encoder")
    assert raw.config.num_hidden_layers == 3
    assert torch.equal(ClipPicture(models / "image_encoder").encode(picture), got)
    assert not torch.allclose(ClipPicture(models).encode(picture[::-1]), got)
    with pytest.raises(BadInput, match="no image_encoder"):
        ClipPicture(models / "nowhere")
