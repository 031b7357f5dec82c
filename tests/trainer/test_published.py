"""Latent shards of others, made with tarfile and the published members: what `motionpair adopt` finds, and what the stream reads."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from made_pairs import made

from factory.trainer.augment import Augmentation, drawn
from factory.trainer.conditioning import Conditioned, Conditioning, FromLatents
from factory.trainer.draws import Draws
from factory.trainer.encoding import encode
from factory.trainer.latent_sample import pack, packed
from factory.trainer.published import index_shards
from factory.trainer.stream import Source, Stream
from factory.trainer.vae import BlockTransformStandIn
from manifests import latents as names
from manifests.errors import BadInput, Damaged
from manifests.latents import INDEX
from manifests.records import MODES, Task


def members(task: Task, key: str) -> dict[str, bytes]:
    pair = made(task, key=key, caption=f"{key}: a long description")
    return pack(encode(pair, BlockTransformStandIn(), drawn(Draws(0, key), Augmentation()), first_frame=True), 1)


@pytest.fixture(scope="module")
def samples() -> dict[str, dict[str, bytes]]:
    """Six samples: two of each task, one of them with a key that goes on where another one ends."""
    return {f"{task}_{n}_{i:05d}": members(task, f"{task}_{n}_{i:05d}") for i, task in enumerate(MODES) for n in (0, 1)}


def write(path: Path, samples: dict[str, dict[str, bytes]], mtime: int = 1_700_000_000) -> None:
    """As others write: with times, owners and PAX headers."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for key, files in samples.items():
            for name, data in files.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size, info.mtime, info.uname = len(data), mtime, "jürgen"
                tar.addfile(info, io.BytesIO(data))


def shards(folder: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    folder.mkdir()
    keys = list(samples)
    write(folder / "part-000.tar", {key: samples[key] for key in keys[:4]})
    write(folder / "part-001.tar", {f"deep/er/{key}": samples[key] for key in keys[4:]})
    return folder


def test_the_stream_reads_shards_of_others(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    folder = shards(tmp_path / "theirs", samples)
    found = index_shards(folder)
    assert (found.samples, found.shards, found.skipped) == ({"animation": 2, "replacement": 2, "pose": 2}, 2, ())
    how = Conditioning(history=0, history_of_chunks=1, augmentation=Augmentation(end_to_end=1, pose=1))
    with Stream(folder, decode=FromLatents(how)) as stream:
        got = [next(stream) for _ in range(10)]
    assert [one.task for one in got].count("animation") == 6
    for one in got:
        assert isinstance(one, Conditioned)
        assert one.key.rpartition("/")[2] in samples
        assert one.task in one.key
        assert one.history_frames == (2 if "_1_" in one.key else 0)
        assert one.augmented
        assert one.positions.reference == ((0, 120, 0) if one.task == "replacement" else (0, 0, 0))


def test_same_files_same_index_and_a_stream_resumes_in_it(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    one, other = shards(tmp_path / "one", samples), shards(tmp_path / "other", samples)
    assert index_shards(one, threads=1).path.read_bytes() == index_shards(other, threads=4).path.read_bytes()
    with Stream(one, decode=FromLatents()) as stream:
        for _ in range(5):
            next(stream)
        state, expected = stream.state_dict(), next(stream)
    with Stream(other, decode=FromLatents()) as stream:
        stream.load_state_dict(state)
        got = next(stream)
    assert (got.key, got.sigma) == (expected.key, expected.sigma)
    assert torch.equal(got.noisy_20THW, expected.noisy_20THW)


def test_theirs_and_ours_are_mixed(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    one, other = shards(tmp_path / "one", samples), tmp_path / "other"
    other.mkdir()
    write(other / "more.tar", {f"more_{i}": members("pose", f"more_{i}") for i in range(2)})
    for folder in (one, other):
        index_shards(folder)
    sources = [Source(one), Source(other, weight=3)]
    with Stream(sources, mix={"animation": 60, "replacement": 20, "pose": 20}, decode=FromLatents()) as stream:
        keys = [next(stream).key for _ in range(40)]
    assert sum(key.startswith("more_") for key in keys) == 6


def test_what_published_readers_skip_in_silence_is_told(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    good, *others = samples.items()
    changes: dict[str, dict[str, bytes | None]] = {
        "no_text": {names.CAPTION: None}, "empty_text": {names.CAPTION: b" \n"}, "no_hands": {names.HANDS: None},
        "flag": {names.REF_MASK_FLAG: b"1"}, "frames": {names.FRAMES: b"many"},
        "shape": {names.REFERENCE: packed(torch.zeros(16, 8, 8), 1)}, "junk": {names.REFERENCE: b"junk"},
    }  # fmt: skip
    bad = {key: {n: data for n, data in (others[0][1] | change).items() if data is not None} for key, change in changes.items()}
    write(tmp_path / "a.tar", dict([good]) | bad)
    write(tmp_path / "b.tar", dict([good]))
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "c.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "e.tar").write_bytes(b"")
    found = index_shards(tmp_path)
    assert found.samples == {"animation": 1}
    told = [(one.shard, one.key, one.why.split(";")[0][:40]) for one in found.skipped]
    assert [key for _, key, _ in told if key] == [*changes, good[0], good[0]]  # b's is there twice; c's is cut off
    assert {shard for shard, key, _ in told if not key} == {"c.tar", "d.tar", "e.tar"}
    words = " ".join(one.why for one in found.skipped)
    for word in (
        "has no recaption",
        "empty recaption",
        "has no latent_hands_mask",
        "count of latent frames",
        "(16, 1, H, W)",
        "key of a sample in a",
    ):
        assert word in words


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    path = tmp_path / "a.tar"
    write(path, samples)
    with tarfile.open(path) as tar:
        third = [info.offset for info in tar if info.name.endswith(names.VIDEO)][2]
    data = bytearray(path.read_bytes())
    data[third : third + 512] = b"\xff" * 512
    path.write_bytes(data)
    found = index_shards(tmp_path)
    assert sum(found.samples.values()) == 2
    assert any(not one.key and "byte" in one.why for one in found.skipped)


def test_an_index_of_other_files_is_refused(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    folder = shards(tmp_path / "theirs", samples)
    index_shards(folder)
    (folder / "part-001.tar").write_bytes(b"short")
    with pytest.raises(Damaged, match="adopt"):
        Stream(folder)
    index = folder / INDEX
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(Damaged, match="damaged"):
        Stream(folder)


def test_a_sample_that_was_damaged_since_is_replaced(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    folder = shards(tmp_path / "theirs", samples)
    index_shards(folder)
    path = folder / "part-000.tar"
    data = bytearray(path.read_bytes())
    data[4000] ^= 1  # in the first sample's video
    path.write_bytes(data)
    with Stream(folder, decode=FromLatents()) as stream:
        for _ in range(10):
            next(stream)
        assert {one.key for one in stream.replaced} == {next(iter(samples))}


def test_the_command_tells_in_one_line(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "factory.cli", "adopt", str(folder)], capture_output=True, text=True, timeout=120)

    write(tmp_path / "a.tar", dict(list(samples.items())[:1]))
    done = run(tmp_path)
    assert done.returncode == 0
    assert "indexed: 1 animation in 1 shards, left out 0" in done.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = run(empty)
    assert nothing.returncode == 1
    assert len(nothing.stderr.strip().splitlines()) == 1
    assert "no *.tar" in nothing.stderr


def test_nothing_usable_is_no_index(tmp_path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    key, files = next(iter(samples.items()))
    write(tmp_path / "a.tar", {key: {name: data for name, data in files.items() if name != names.CAPTION}})
    with pytest.raises(BadInput, match="has no recaption"):
        index_shards(tmp_path)
    assert not (tmp_path / INDEX).exists()


def test_a_replacement_of_others_takes_its_augmented_driving(samples: dict[str, dict[str, bytes]]) -> None:
    """Ours has the clean one in its place; who stored another means it to be used."""
    from factory.trainer.conditioning import condition
    from factory.trainer.latent_sample import unpack

    always = Conditioning(augmentation=Augmentation(end_to_end=1))
    key, files = next((key, files) for key, files in samples.items() if "replacement" in key)
    theirs = unpack(key, files)
    assert condition(theirs, Draws(0, key), always).augmented
    ours = unpack(key, pack(dataclasses.replace(theirs, augmented=None), 1))
    assert ours.augmented is None
    assert not condition(ours, Draws(0, key), always).augmented
