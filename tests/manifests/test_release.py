import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import webdataset

from manifests import media
from manifests.errors import BadInput, Damaged, OutOfSpace
from manifests.records import Artifact
from manifests.release import Release, resolve
from manifests.sealing import write_release
from manifests.store import Store
from manifests.verify import verify


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def files(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return tiny.parts(store, tmp_path_factory.mktemp("parts"))


@pytest.fixture
def sealed(store: Store, files: dict[str, Artifact], tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", tiny.pairs(files, 25), store, tiny.meta())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def edit(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_release_is_whole(sealed: Path) -> None:
    assert sealed.name == "0001"
    assert verify(sealed) == verify(sealed.parent) == verify(sealed, decode=False) == []
    assert [p.name for p in sorted((sealed / "shards").iterdir())] == [*(f"train-0000{i}.tar" for i in range(4)), "validation-00004.tar"]
    info = Release.open(sealed).info
    assert info.counts["train"] == {
        "animation": {"animation_slice": 12},
        "replacement": {"replacement_slice": 4},
        "pose": {"pose_slice": 4},
    }
    assert info.counts["validation"]["pose"] == {"pose_slice": 1}
    assert info.left_out_counts == {"rejected": {"blurred": 1}}
    assert info.reference_in_target == 3
    assert json.loads((sealed / "left_out.jsonl").read_text())["job"] == tiny.sha("lost")


def test_plain_webdataset_reads_every_sample(sealed: Path, store: Store, files: dict[str, Artifact]) -> None:
    urls = [str(p) for p in sorted((sealed / "shards").iterdir())]
    samples = {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False)}
    assert len(samples) == 25
    for pair, _ in tiny.pairs(files, 25):
        for name, artifact in pair.members().items():
            assert samples[pair.key][name] == store.read(artifact)
        record = json.loads(samples[pair.key]["json"])
        assert record["caption"] == pair.caption
        assert record["boxes"][0]["hands"] == [[1.0, 2.0, 3.0, 4.0]]
        assert "driving" not in record


def test_headers_tell_nothing_of_the_machine(sealed: Path) -> None:
    with tarfile.open(sealed / "shards" / "train-00000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    key = members[0].name.split(".")[0]
    names = ("driving.mp4", "target.mp4", "driving_mask.mp4", "reference.png", "reference_mask.png", "json")
    assert [m.name for m in members[:6]] == [f"{key}.{name}" for name in names]


def test_members_are_read_at_their_offsets(sealed: Path, store: Store, files: dict[str, Artifact]) -> None:
    release = Release.open(sealed.parent)
    by_key = {row.key: row for row in release.rows()}
    for pair, _ in tiny.pairs(files, 25):
        row = by_key[pair.key]
        assert (row.caption, row.fps, row.frames, row.group) == (pair.caption, 16.0, 5, pair.group)
        for name, artifact in pair.members().items():
            assert release.read_member(row, name, check=True) == store.read(artifact)
    with pytest.raises(BadInput, match=r"no member 'ghost.mp4'; it has driving.mp4"):
        release.read_member(row, "ghost.mp4")
    raw = pq.read_table(sealed / "manifest.parquet").to_pylist()[0]
    with (sealed / "shards" / raw["shard"]).open("rb") as shard:
        shard.seek(raw["members"][0]["offset"])
        assert shard.read(raw["members"][0]["size"]) == release.read_member(by_key[raw["key"]], "driving.mp4")


def test_sealing_again_writes_nothing_and_elsewhere_the_same(
    sealed: Path, store: Store, files: dict[str, Artifact], tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in sealed.rglob("*")}
    assert write_release(sealed.parent, tiny.pairs(files, 25), store, tiny.meta()) == sealed
    assert {p: p.stat().st_mtime_ns for p in sealed.rglob("*")} == before
    other = write_release(tmp_path / "elsewhere", tiny.pairs(files, 25), store, tiny.meta())
    assert tree(other) == tree(sealed)


def test_the_next_revision_shares_unchanged_shards(sealed: Path, store: Store, files: dict[str, Artifact]) -> None:
    edit(sealed / "shards" / "train-00001.tar", b"damaged")
    second = write_release(sealed.parent, tiny.pairs(files, 28), store, tiny.meta())
    assert second.name == "0002"
    assert resolve(sealed.parent) == resolve(sealed.parent.parent) == second
    assert verify(second) == []
    same = {p.name for p in (second / "shards").iterdir() if p.stat().st_nlink == 2}
    assert same == {"train-00000.tar", "train-00002.tar", "train-00003.tar", "validation-00004.tar"}
    changed = write_release(sealed.parent, tiny.pairs(files, 28), store, tiny.meta(mix={"animation": 1}))
    assert changed.name == "0003"


def test_a_large_block_rolls_over(store: Store, tmp_path: Path, files: dict[str, Artifact]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (352, 352, 3), np.uint8)
    large = store.put(media.encode_png(noise), ".png")
    mask = store.put(media.encode_png(np.full((352, 352, 3), 255, np.uint8)), ".png")
    pairs = [(tiny.pair(i, files, task="animation", references=(large,), reference_masks=(mask,)), 0) for i in range(6)]
    pairs = [(p.model_copy(update={"driving_mask": files["driving_mask_animation"]}), block) for p, block in pairs]
    folder = write_release(tmp_path, pairs, store, tiny.meta(shard_mb=1))
    info = Release.open(folder).info
    assert [s.name for s in info.shards] == ["train-00000.tar", "train-00000_01.tar", "train-00000_02.tar"]
    assert all(s.size <= 1_000_000 for s in info.shards)
    assert verify(folder) == []


DYING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import tiny
from manifests.sealing import write_release
from manifests.store import Store
calls = 0
def deadly(name, function):
    def call(*a, **k):
        global calls
        calls += 1
        if calls == {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*a, **k)
    setattr(os, name, call)
store = Store({store!r})
files = tiny.parts(store, Path({parts!r}))
for name in ("replace", "fsync", "link"):
    deadly(name, getattr(os, name))
write_release({root!r}, tiny.pairs(files, 25), store, tiny.meta())
"""


@pytest.mark.parametrize("after", [1, 6, 13, 17, 18])
def test_a_killed_sealing_leaves_the_same_bytes_when_done_again(
    after: int, sealed: Path, store: Store, files: dict[str, Artifact], tmp_path: Path
) -> None:
    root = tmp_path / "killed"
    fill = {"tests": str(Path(tiny.__file__).parent), "after": after, "store": store.url, "parts": str(tmp_path / "p"), "root": str(root)}
    done = subprocess.run([sys.executable, "-c", DYING.format(**fill)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    assert (root / "0001").is_dir()
    with pytest.raises(BadInput, match="no sealed release"):
        resolve(root)
    assert tree(write_release(root, tiny.pairs(files, 25), store, tiny.meta())) == tree(sealed)
    assert [p.name for p in root.iterdir()] == ["0001"]


def test_a_deleted_byte_is_named(sealed: Path) -> None:
    release = Release.open(sealed)
    row = next(r for r in release.rows() if r.shard == "train-00002.tar" and r.members[0].offset > 5000)
    path, member = sealed / "shards" / row.shard, row.member("target.mp4")
    data = path.read_bytes()
    edit(path, data[: member.offset + 7] + data[member.offset + 8 :])
    problems = verify(sealed)
    assert [(p.shard, p.key, p.member) for p in problems] == [(row.shard, row.key, "target.mp4")]
    assert f"the shard has {len(data) - 1} bytes" in str(problems[0])
    with pytest.raises(Damaged, match=f"{row.key}.target.mp4 in shard train-00002.tar"):
        release.read_member(row, "target.mp4", check=True)


@pytest.mark.parametrize(("where", "what"), [(0, "digest"), (-400, "header"), ("padding", "padding")])
def test_a_flipped_bit_is_named(sealed: Path, where: int | str, what: str) -> None:
    row = Release.open(sealed).rows()[3]
    member = row.member("driving_mask.mp4")
    place = member.offset + (member.size if isinstance(where, str) else where)
    data = bytearray((sealed / "shards" / row.shard).read_bytes())
    data[place] ^= 4
    edit(sealed / "shards" / row.shard, bytes(data))
    problems = verify(sealed, decode=False)
    assert [(p.shard, p.key, p.member) for p in problems] == [(row.shard, row.key, "driving_mask.mp4")]
    assert what in problems[0].what


@pytest.mark.parametrize("size", [0, 700, -1, -1024])
def test_a_shard_cut_short_is_named(sealed: Path, size: int) -> None:
    path = sealed / "shards" / "train-00001.tar"
    edit(path, path.read_bytes()[:size])
    problems = verify(sealed)
    assert {p.shard for p in problems} == {"train-00001.tar"}


def test_a_folder_in_a_shards_place_is_named(sealed: Path) -> None:
    shard = sealed / "shards" / "train-00001.tar"
    shard.unlink()
    shard.mkdir()
    assert [(p.shard, p.what) for p in verify(sealed, decode=False)] == [(shard.name, "is no file")]


def test_a_longer_a_missing_and_a_strange_shard_are_named(sealed: Path) -> None:
    shards = sealed / "shards"
    edit(shards / "train-00001.tar", (shards / "train-00001.tar").read_bytes() + b"\0")
    (shards / "train-00002.tar").unlink()
    (shards / "strange.tar").touch()
    assert {p.shard for p in verify(sealed)} == {"train-00001.tar", "train-00002.tar", "strange.tar"}


def test_edited_index_files_are_noticed(sealed: Path) -> None:
    text = (sealed / "dataset.json").read_text()
    edit(sealed / "dataset.json", text.replace('"animation": 60', '"animation": 61').encode())
    assert "content digest" in str(verify(sealed)[0])
    edit(sealed / "dataset.json", text.encode())
    edit(sealed / "left_out.jsonl", b"")
    assert verify(sealed)[0].member == "left_out.jsonl"
    data = (sealed / "manifest.parquet").read_bytes()
    edit(sealed / "manifest.parquet", data[:100])
    assert any("manifest.parquet is damaged" in str(p) for p in verify(sealed))
    edit(sealed / "dataset.json", text.encode()[:50])
    assert "dataset.json is damaged" in str(verify(sealed)[0])


def test_a_manifest_cannot_point_outside(sealed: Path) -> None:
    release = Release.open(sealed)
    for name in ("../dataset.json", "/etc/x.tar", "a/../b.tar", "train"):
        with pytest.raises(Damaged, match="names a shard"):
            release.shard_path(name)


def bad_pair(files: dict[str, Artifact], store: Store, folder: Path, harm: str) -> dict[str, object]:
    if harm == "same":
        return {"driving": files["video1"], "target": files["video1"]}
    if harm == "remuxed":
        data = store.read(files["video1"]) + b"\0\0\0\x08free"  # an empty box: another file, the same pictures
        return {"driving": store.put(data, ".mp4"), "target": files["video1"]}
    if harm == "polarity":
        return {"driving_mask": files["driving_mask_replacement"]}
    if harm == "frames":
        media.write_video(folder / "long.mp4", np.zeros((9, 64, 64, 3), np.uint8), 16.0)
        return {"driving": store.put(folder / "long.mp4", ".mp4")}
    if harm == "size":
        return {"reference_masks": (store.put(media.encode_png(np.full((32, 64, 3), 255, np.uint8)), ".png"),)}
    if harm == "colours":
        return {"reference_masks": (store.put(media.encode_png(np.full((64, 64, 3), 254, np.uint8)), ".png"),)}
    if harm == "slot":
        return {"reference_masks": (store.put(media.encode_png(np.full((64, 64, 3), (255, 0, 0), np.uint8)), ".png"),)}
    return {"target": store.put(b"no video at all" * 50, ".mp4")}


@pytest.mark.parametrize(
    ("harm", "member", "what"),
    [
        ("same", "driving.mp4", "target's own file"),
        ("remuxed", "driving.mp4", "same as the target"),
        ("polarity", "driving_mask.mp4", "background"),
        ("frames", "driving.mp4", "has 9 frames"),
        ("size", "reference_mask.png", "64×32, its reference 64×64"),
        ("colours", "reference_mask.png", "outside the palette"),
        ("slot", "reference_mask.png", "slots [1]"),
        ("garbage", "target.mp4", "can't be decoded"),
    ],
)
def test_a_pair_that_breaks_its_promises_is_named(
    harm: str, member: str, what: str, store: Store, files: dict[str, Artifact], tmp_path: Path
) -> None:
    pair = tiny.pair(0, files, **bad_pair(files, store, tmp_path, harm))
    folder = write_release(tmp_path / "r", [(pair, 0), (tiny.pair(1, files), 0)], store, tiny.meta())
    problems = verify(folder)
    assert [(p.shard, p.key, p.member) for p in problems] == [("train-00000.tar", pair.key, member)]
    assert what in problems[0].what
    assert bool(verify(folder, decode=False)) == (harm == "same")


def test_leaks_over_the_split_and_unmet_quotas_are_told(store: Store, files: dict[str, Artifact], tmp_path: Path) -> None:
    pairs = [(tiny.pair(0, files), 0), (tiny.pair(20, files, group="scene0"), 4), (tiny.pair(2, files, job=tiny.sha(0)), 0)]
    folder = write_release(tmp_path, pairs, store, tiny.meta(quotas={"animation_slice": 9}))
    told = " ".join(map(str, verify(folder)))
    assert "'scene0' is on both sides" in told
    assert "animation_slice has 2 of 9" in told
    assert "same job" in told


def test_what_cannot_be_sealed_is_refused(store: Store, files: dict[str, Artifact], tmp_path: Path) -> None:
    one = (tiny.pair(0, files), 0)
    with pytest.raises(BadInput, match="more than once"):
        write_release(tmp_path, [one, one], store, tiny.meta())
    with pytest.raises(BadInput, match="nothing to seal"):
        write_release(tmp_path, [], store, tiny.meta())
    with pytest.raises(BadInput, match="mix"):
        write_release(tmp_path, [one], store, tiny.meta(mix={"pose": 0}))
    lost = tiny.pair(0, files, target=Artifact(digest="0" * 64, size=5, suffix=".mp4"))
    with pytest.raises(Damaged, match=f"{lost.key}.target.mp4 can't be sealed"):
        write_release(tmp_path / "r", [(lost, 0)], store, tiny.meta())
    assert write_release(tmp_path / "r", [one], store, tiny.meta()).name == "0001"
    (tmp_path / "file").touch()
    with pytest.raises(OutOfSpace, match="can't seal"):
        write_release(tmp_path / "file" / "r", [one], store, tiny.meta())
    with pytest.raises(BadInput, match="no sealed release"):
        verify(tmp_path / "nothing")


def test_a_release_of_another_format_is_refused(sealed: Path) -> None:
    edit(sealed / "dataset.json", (sealed / "dataset.json").read_bytes().replace(b'"format": 1', b'"format": 3'))
    with pytest.raises(BadInput, match="format 3, this version reads 1 and 2"):
        Release.open(sealed)


def test_tar_and_index_agree_with_python_tarfile(sealed: Path) -> None:
    for row in Release.open(sealed).rows():
        data = (sealed / "shards" / row.shard).read_bytes()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in row.members:
                found = tar.getmember(f"{row.key}.{member.name}")
                assert (found.offset_data, found.size) == (member.offset, member.size)
    assert os.stat(sealed / "dataset.json").st_mode & 0o222 == 0
