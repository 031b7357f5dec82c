"""`motionpair latents` as a user runs it, really killed and run again; and latent samples as bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
import webdataset
from made_models import made_models
from made_pairs import made
from typer.testing import CliRunner

from factory import steps
from factory.cli import app
from factory.trainer.augment import Augmentation, drawn
from factory.trainer.conditioning import Conditioned, Conditioning, FromLatents, condition, condition_pixels
from factory.trainer.decode import Raw
from factory.trainer.draws import Draws
from factory.trainer.encoders import ClipPicture, HashedWordsStandIn, Umt5
from factory.trainer.encoding import encode, encode_driving
from factory.trainer.latent_sample import Driving, Latents, check_shapes, pack, packed, unpack, unpacked
from factory.trainer.stream import Stream
from factory.trainer.vae import BlockTransformStandIn, WanVae, to_pixels
from factory.work.latents import encode_latents
from manifests import latents as names
from manifests import media
from manifests.errors import BadInput, Damaged
from manifests.records import MODES, FrameBoxes, Task
from manifests.release import Release
from manifests.sealing import write_release
from manifests.store import Store
from manifests.verify import verify

PAIRS = 14
VAE = BlockTransformStandIn()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "factory.cli", "--debug", "latents", *map(str, arguments), "--level", "1"]


def run(*arguments: object) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pixel release, and its latents by an undisturbed run. Its preference pair has none."""
    folder = tmp_path_factory.mktemp("latents")
    store = Store(folder / "store")
    files = tiny.parts(store, folder / "parts")
    liked = [(tiny.preference(100, files), 99)]
    write_release(folder / "pixels", [*tiny.pairs(files, PAIRS), *liked], store, tiny.meta(quotas={"preferences": 1}))
    write_release(folder / "liked", liked, store, tiny.meta())
    assert f"{PAIRS} run, 0 reused" in run(folder / "pixels", "--to", folder / "out")
    return folder


def outcomes(out: Path) -> int:
    return sum(1 for _ in (out / "store" / "outcomes").rglob("*.json"))


def test_a_killed_command_goes_on_and_seals_the_same_bytes(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(command(base / "pixels", "--to", out), start_new_session=True, stderr=subprocess.DEVNULL) as child:
        ends = time.monotonic() + 120
        while outcomes(out) < 3 and time.monotonic() < ends:
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGKILL)
    there = outcomes(out)
    assert 3 <= there < PAIRS, "killed in the middle"
    assert not (out / "release").exists()
    time.sleep(1)  # workers end with their driver; one may still write what it was at
    said = run(base / "pixels", "--to", out)
    ran = int(said.split("steps: ")[1].split(" run")[0])
    assert 0 < ran <= PAIRS - there
    assert files_of(out / "release") == files_of(base / "out" / "release")


def test_asked_again_it_does_nothing(base: Path) -> None:
    said = run(base / "pixels", "--to", base / "out")
    assert f"0 run, {PAIRS} reused" in said
    assert "unchanged" in said


def test_the_key_covers_the_code_that_makes_latents() -> None:
    for module in ("factory.work.latents", "factory.trainer.masks28", "factory.trainer.vae", "factory.trainer.augment", "manifests.masks"):
        assert module in hashed(encode_latents.modules), module


def hashed(modules: tuple[str, ...]) -> set[str]:
    """Modules whose source is in a step's key: an edit to any of them changes it."""
    found: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in found and steps._hashed(name):
            found.add(name)
            todo += steps._module(name)[1]
    return found


def test_each_pair_that_can_not_be_encoded_is_told_and_the_others_are_sealed(tmp_path: Path) -> None:
    """No hands is no fault. A mask of another length, a target that drives itself and an empty caption are; so is a shard with a changed
    byte, which may be restored: that pair is undecided, and the next run makes it."""
    store = Store(tmp_path / "store")
    files = tiny.parts(store, tmp_path / "parts")
    media.write_lossless(tmp_path / "long.mp4", np.repeat(tiny.mask_frames("animation", "driving")[:1], 9, 0), 16.0)
    long = store.put(tmp_path / "long.mp4", ".mp4")
    changes: list[dict[str, object]] = [
        {"boxes": (FrameBoxes(),) * 5}, {"driving_mask": long}, {"target": files["video0"], "driving": files["video0"]}, {"caption": " "},
        {}, {"boxes": ()},
    ]  # fmt: skip
    pairs = [tiny.pair(5 * i, files, **change) for i, change in enumerate(changes)]
    release = write_release(tmp_path / "pixels", [(pair, 0) for pair in pairs], store, tiny.meta())
    place = next(row for row in Release.open(release).rows() if row.key == pairs[4].key)
    path = release / "shards" / place.shard
    whole, at = path.read_bytes(), place.member("target.mp4").offset + 50
    path.chmod(0o644)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    done = subprocess.run(command(tmp_path / "pixels", "--to", tmp_path / "out"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 3, done.stderr
    for word, pair in (("size_mismatch", pairs[1]), ("not_reverse_driven", pairs[2]), ("no_caption", pairs[3]), ("damaged", pairs[4])):
        assert any(word in line and pair.key in line for line in done.stdout.splitlines()), (word, done.stdout)
    latents = Release.open(tmp_path / "out")
    assert [row.key for row in latents.rows()] == [pairs[0].key, pairs[5].key]
    assert unpacked(latents.read_member(latents.rows()[0], names.HANDS)).sum() == 0
    assert latents.info.left_out_counts["undecided"] == {"transient": 1}
    assert not latents.info.complete
    path.write_bytes(whole)
    again = subprocess.run(command(tmp_path / "pixels", "--to", tmp_path / "out"), capture_output=True, text=True, timeout=300)
    assert "1 run" in again.stdout
    assert pairs[4].key in {row.key for row in Release.open(tmp_path / "out").rows()}


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["{empty}"], 1, "no sealed release"),
    (["{half}"], 1, "no sealed release"),
    (["{cut}"], 1, "is damaged or missing"),
    (["{latents}"], 1, "is a latent release already"),
    (["{pixels}", "--vae", "{empty}"], 2, "no AutoencoderKLWan there"),
    (["{pixels}", "--vae", "none"], 2, "need an autoencoder"),
    (["{pixels}", "--image", "stand-in"], 2, "there is none"),
    (["{pixels}", "--text", "{pixels}/nowhere"], 2, "no UMT5EncoderModel there"),
    (["{pixels}", "--dtype", "float16"], 2, "allowed are float32 and bfloat16"),
])  # fmt: skip
def test_what_can_not_be_is_told_in_one_line(base: Path, tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    """half: a sealing that was killed; cut: its manifest was lost."""
    places = {
        "empty": tmp_path / "empty",
        "half": tmp_path / "half",
        "cut": tmp_path / "cut",
        "latents": base / "out",
        "pixels": base / "pixels",
    }
    places["empty"].mkdir()
    shutil.copytree(base / "pixels" / "0001", places["half"] / "0001", ignore=shutil.ignore_patterns("dataset.json"))
    shutil.copytree(base / "pixels" / "0001", places["cut"] / "0001", ignore=shutil.ignore_patterns("manifest.parquet"))
    asked = ["latents", *(argument.format(**places) for argument in arguments), "--to", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == code, done.output
    (line,) = done.stderr.strip().splitlines()
    assert words in line


def test_an_interrupted_command_says_how_to_go_on(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(command(base / "pixels", "--to", out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        ends = time.monotonic() + 120
        while outcomes(out) < 2 and time.monotonic() < ends:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Run the same command again to resume." in told.strip().splitlines()[-1]
    assert not (out / "release").exists()


def test_the_latent_release_is_whole_and_tells_what_it_is_of(base: Path) -> None:
    assert verify(base / "out") == []
    pixels, latents = Release.open(base / "pixels"), Release.open(base / "out")
    assert latents.info.mix == pixels.info.mix
    sources = [row for row in pixels.rows() if row.task != "preference"]
    assert [row.key for row in latents.rows()] == [row.key for row in sources]
    for row, of in zip(latents.rows(), sources, strict=True):
        record = json.loads(latents.read_member(row, "json", check=True))
        assert record["made_of"] == {m.name: m.sha256 for m in of.members if m.name != "json"}
        assert record["encoders"]["vae"]["kind"] == "stand-in"
        assert record["caption"] == row.caption == of.caption
        assert (row.height, row.width, row.frames, row.split, row.task) == (of.height, of.width, of.frames, of.split, of.task)


def test_the_stream_reads_latents_as_it_reads_pixels(base: Path) -> None:
    how = Conditioning(text_drop=0, augmentation=Augmentation(end_to_end=0, pose=0))
    with Stream(base / "out", seed=3, decode=FromLatents(how)) as latents, Stream(base / "pixels", seed=3) as pixels:
        for _ in range(6):
            got, pair = next(latents), next(pixels)
            assert isinstance(got, Conditioned)
            assert (got.key, got.task) == (pair.key, pair.task)
            decoded = condition_pixels(pair, VAE, Draws(0, "x"), how, HashedWordsStandIn())
            assert torch.allclose(got.video_16THW, decoded.video_16THW, rtol=2**-8, atol=1e-6)
            assert torch.allclose(got.driving_20Thw, decoded.driving_20Thw, rtol=2**-8, atol=1e-6)
            assert torch.equal(got.driving_mask_28Thw, decoded.driving_mask_28Thw)  # multiples of 1/64 are exact in bfloat16
            assert torch.equal(got.reference_mask_28SHW, decoded.reference_mask_28SHW)
            assert torch.equal(got.loss_mask_16THW, decoded.loss_mask_16THW) or got.history_frames
            assert got.positions == decoded.positions
    with Stream(base / "out", seed=3, decode=FromLatents(how)) as again:
        first = next(again)
        assert first.sigma == pytest.approx(next(iter(Stream(base / "out", seed=3, decode=FromLatents(how)))).sigma, abs=0)


def by_position(release: Path, rank: int, world_size: int, steps: int, **options: object) -> dict[int, str]:
    """Position of the global stream → digest of all that was drawn and read for it."""
    out: dict[int, str] = {}
    with Stream(release, seed=3, rank=rank, world_size=world_size, decode=Placed(), **options) as stream:
        for _ in range(steps):
            position, sample = next(stream)
            tensors = b"".join(value.numpy().tobytes() for value in vars(sample).values() if isinstance(value, torch.Tensor))
            about = f"{sample.key} {sample.sigma!r} {sample.augmented} {sample.history_frames} {sample.caption}"
            out[position] = hashlib.sha256(tensors + about.encode()).hexdigest()
    return out


class Placed(FromLatents):
    """Samples with their positions."""

    def __call__(self, raw: Raw) -> tuple[int, Conditioned]:  # type: ignore[override]
        return raw.position, super().__call__(raw)


def test_draws_stay_with_their_samples_on_other_ranks_and_after_a_restart(base: Path) -> None:
    """60 positions: several epochs, so the same pair comes with other noise; by one rank, by three, and from the middle on with others."""
    whole = by_position(base / "out", 0, 1, 60)
    assert len(set(whole.values())) == 60
    by_three = {position: digest for rank in range(3) for position, digest in by_position(base / "out", rank, 3, 20).items()}
    assert by_three == whole
    later = {
        position: digest for rank in range(2) for position, digest in by_position(base / "out", rank, 2, 15, position=30, threads=1).items()
    }
    assert later == {position: digest for position, digest in whole.items() if position >= 30}


def test_real_classes_by_name_run_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoencoderKLWan, UMT5EncoderModel and CLIPVisionModel with tiny random weights; other weights make other latents, and a model that
    can't be loaded ends the run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "beside_torch"), prepend=os.pathsep)
    models = made_models(tmp_path / "models")
    store = Store(tmp_path / "store")
    write_release(tmp_path / "pixels", tiny.pairs(tiny.parts(store, tmp_path / "parts"), 3), store, tiny.meta())
    encoders = ("--vae", models, "--text", models, "--image", models)
    assert "3 run, 0 reused" in run(tmp_path / "pixels", "--to", tmp_path / "out", *encoders)
    with Stream(tmp_path / "pixels", tasks=("animation",)) as stream:
        pair = next(stream)
    release = Release.open(tmp_path / "out")
    row = next(row for row in release.rows() if row.key == pair.key)
    record = json.loads(release.read_member(row, "json"))
    assert [record["encoders"][name]["kind"] for name in ("vae", "text", "image")] == [
        "AutoencoderKLWan",
        "UMT5EncoderModel",
        "CLIPVisionModel",
    ]
    got = unpack(row.key, {member.name: release.read_member(row, member.name) for member in row.members})
    assert torch.allclose(got.video_16THW, WanVae(models).encode(to_pixels(pair.target_THWC)), rtol=0.02, atol=0.02)
    assert got.words_LC is not None
    assert torch.allclose(got.words_LC, Umt5(models).encode(pair.caption), rtol=0.02, atol=0.02)
    assert got.picture_LC is not None
    assert torch.allclose(got.picture_LC, ClipPicture(models).encode(pair.references[0]), rtol=0.02, atol=0.02)
    weights = models / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    assert "3 run, 0 reused" in run(tmp_path / "pixels", "--to", tmp_path / "out", *encoders)
    weights.write_bytes(data[: len(data) // 2])
    done = subprocess.run(command(tmp_path / "pixels", "--to", tmp_path / "out", *encoders), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "--vae can't be loaded on a worker" in done.stderr.splitlines()[-1]


def test_webdataset_reads_the_published_members(base: Path) -> None:
    shards = sorted(str(path) for path in (base / "out" / "release" / "0001" / "shards").glob("train-*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) > 5
    for sample in samples:
        assert {*names.NEEDED, names.FIRST, names.FACES, names.TEXT, names.FRAMES, names.ID, names.META} <= set(sample)
        video = torch.load(io.BytesIO(pa.CompressedInputStream(pa.BufferReader(sample[names.VIDEO]), "zstd").read()), weights_only=True)
        assert (video.dtype, tuple(video.shape)) == (torch.bfloat16, (16, 2, 8, 8))
        assert sample[names.FRAMES] == b"2"
        hands = unpacked(sample[names.HANDS])
        assert tuple(hands.shape) == (2, 16, 8, 8)
        assert hands[:, :, 0, 0].eq(1).all()


def test_damage_is_found(base: Path, tmp_path: Path) -> None:
    release = Release.open(base / "out")
    data = release.read_member(release.rows()[0], names.VIDEO)
    for broken in (data[:-20], b"", b"junk", pa.Codec("zstd").compress(b"no tensor at all", asbytes=True)):
        with pytest.raises(Damaged):
            unpacked(broken)


# --- one sample as bytes


def latents(task: Task = "animation", references: int = 1, warped: bool = True) -> Latents:
    pair = made(task, people=2, references=references)
    return encode(pair, VAE, drawn(Draws(0, "x"), Augmentation()) if warped else None, HashedWordsStandIn(), first_frame=True)


def tensors_of(sample: Latents) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}
    for field in dataclasses.fields(sample):
        value = getattr(sample, field.name)
        if isinstance(value, Driving):
            out |= {f"{field.name}.{name}": tensor for name, tensor in vars(value).items()}
        elif isinstance(value, torch.Tensor):
            out[field.name] = value
    return out


@pytest.mark.parametrize("task", MODES)
@pytest.mark.parametrize("references", [1, 3])
def test_packed_and_unpacked_it_is_the_same_but_for_rounding(task: Task, references: int) -> None:
    sample = latents(task, references)
    back = unpack(sample.key, pack(sample, 1))
    assert (back.key, back.task, back.caption) == (sample.key, task, sample.caption)
    expected, got = tensors_of(sample), tensors_of(back)
    assert set(expected) == set(got)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor.to(torch.bfloat16).float()), name
        if "mask" in name or name.startswith(("hands", "faces", "text")):
            assert torch.equal(got[name], tensor), name


def test_every_member_has_its_place_in_a_shard() -> None:
    sample = dataclasses.replace(latents("animation", 3), picture_LC=torch.zeros(5, 32))
    assert set(pack(sample, 1)) == set(names.ORDER) - {names.LOSER}


def test_the_references_pixels_are_exact_in_their_eight_bits() -> None:
    sample = latents()
    back = unpack("x", pack(sample, 1)).reference_pixels_3HW
    levels = ((back + 1) * 127.5).round()
    assert torch.equal(levels, ((sample.reference_pixels_3HW + 1) * 127.5).round())


def test_the_same_sample_has_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import test_latents as t;"
        "print(t.hashlib.sha256(b''.join(t.pack(t.latents('pose', 2)).values())).hexdigest())"
    )
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code, str(here), str(here.parent)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(b"".join(pack(latents("pose", 2)).values())).hexdigest()


def test_a_published_sample_without_our_members_is_read() -> None:
    published = {
        name: data
        for name, data in pack(latents("replacement"), 1).items()
        if name not in (names.WORDS, names.NO_WORDS, names.PICTURE, names.MORE_REFERENCES, names.MORE_MASKS)
    }
    got = condition(unpack("shard_1_00012", published), Draws(0, "x"))
    assert (got.task, got.words_LC, got.positions.reference) == ("replacement", None, (0, 120, 0))
    old = {name: data for name, data in published.items() if name not in (names.DRIVING_AUG, names.MASK_AUG, names.FACES, names.TEXT)}
    always = Conditioning(augmentation=Augmentation(end_to_end=1, replacement=True))
    assert not condition(unpack("x", old), Draws(0, "x"), always).augmented


@pytest.mark.parametrize(("change", "words"), [
    ({names.HANDS: None}, "has no latent_hands_mask"),
    ({names.VIDEO: packed(torch.zeros(4, 3, 8, 12), 1)}, "expected \\(16, T, H, W\\)"),
    ({names.DRIVING: packed(torch.zeros(16, 3, 8, 12), 1)}, "instead of \\(16, 3, 4, 6\\)"),
    ({names.REF_MASK_FLAG: b"maybe"}, "expected \"True\" or \"False\""),
])  # fmt: skip
def test_samples_that_are_none_are_refused(change: dict[str, bytes | None], words: str) -> None:
    members = {name: data for name, data in (pack(latents(), 1) | change).items() if data is not None}
    with pytest.raises(Damaged, match=words):
        unpack("x", members)


def test_a_pair_without_a_caption_is_not_packed() -> None:
    with pytest.raises(BadInput, match="caption"):
        pack(dataclasses.replace(latents(), caption=" "))


def test_nothing_in_a_tensors_bytes_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    buffer = io.BytesIO()
    torch.save(Trap(), buffer)
    with pytest.raises(Damaged):
        unpacked(pa.Codec("zstd").compress(buffer.getvalue(), asbytes=True))
    assert not (tmp_path / "ran").exists()


def test_shapes_of_a_sample_are_held_against_each_other() -> None:
    sample = latents()
    check_shapes(sample)
    with pytest.raises(Damaged, match="hands"):
        check_shapes(dataclasses.replace(sample, hands_T16HW=torch.zeros(2, 16, 8, 12)))


def test_the_driving_mask_of_the_augmented_video_is_moved_with_it() -> None:
    """The two people's planes, read off both masks: the moved one's middle is the clean one's, moved by the warp."""
    pair = made(people=2)
    warp = drawn(Draws(0, "x"), Augmentation())
    clean, moved = (encode_driving(pair, VAE, w).mask_28Thw for w in (None, warp))
    rows, columns = np.mgrid[: clean.shape[2], : clean.shape[3]]

    def middle(mask_28Thw: torch.Tensor, plane: int) -> tuple[float, float]:
        weights = mask_28Thw[plane, 0].numpy()
        return float((weights * columns).sum() / weights.sum()), float((weights * rows).sum() / weights.sum())

    for plane in (3, 1):  # blue, red
        (x, y), (to_x, to_y) = middle(clean, plane), middle(moved, plane)
        matrix = warp.matrix((34 + 8, 34), 96, 64)  # the people's box: x 8 to 76, y 12 to 56
        expected = matrix @ [16 * x + 8, 16 * y + 8, 1]
        assert (16 * to_x + 8, 16 * to_y + 8) == pytest.approx(expected, abs=4)


def test_preference_pairs_alone_are_refused(base: Path, tmp_path: Path) -> None:
    done = subprocess.run(command(base / "liked", "--to", tmp_path), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "holds preference pairs alone" in done.stderr
