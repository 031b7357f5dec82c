"""A finished release made anew with another generator: what runs again, what is taken over from the old folder, and what is told of it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import Finished, Material, call, motionpair, tree
from s3_server import serving
from test_run import outcomes, run_until

from factory.earlier import Earlier
from factory.steps import Charge
from manifests.costs import TAKEN
from manifests.ledger import Ledger
from manifests.records import Artifact, digest_of
from manifests.release import Release
from manifests.store import Cost, Outcome, Store
from manifests.verify import verify

GENERATOR = '''
"""The built-in puppet in a brighter light."""

import numpy as np

from generators.base import Report, VideoRequest
from generators.videos.puppet.generator import Puppet
from manifests import media


class Brighter(Puppet):
    def run(self, request: VideoRequest, out):
        report = super().run(request, out)
        frames_THWC, fps = media.read_frames(out)
        media.write_video(out, np.minimum(frames_THWC, 251) + 4, fps)
        return report
'''
NO_RAY = "/dev/null/none"
"""as RAY_TMPDIR: a run that asks for a worker fails"""
CHARGE = Charge("0" * 64, "1" * 64, "walk")


@dataclass(frozen=True)
class Regenerated:
    """A run of the small recipe with one slice's generator swapped, from the finished one's folder."""

    recipe: Path
    out: Path
    planned: str
    printed: str


@pytest.fixture(scope="module")
def regenerated(material: Material, finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Regenerated:
    folder = tmp_path_factory.mktemp("regenerated")
    (folder / "gen.py").write_text(GENERATOR)
    recipe = folder / "brighter.yaml"
    recipe.write_text(material.recipe.read_text().replace("puppet:   {kind: puppet}", 'puppet:   {kind: "gen.py:Brighter"}'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", NO_RAY)
        planned = call("plan", recipe, "--from", finished.out)
    return Regenerated(recipe, folder / "out", planned, call("run", recipe, "--out", folder / "out", "--from", finished.out))


def steps_of(out: Path) -> dict[bool, Counter[tuple[str, str]]]:
    """Whether it was taken over → (step, slice it is charged to) → outcomes, as the ledger has them."""
    found: dict[bool, Counter[tuple[str, str]]] = {False: Counter(), True: Counter()}
    with Ledger(out / "ledger.sqlite") as ledger:
        for step, name, pool in ledger.execute("SELECT step, slice, pool FROM outcomes"):
            found[pool == TAKEN][step, name] += 1
    return found


def shards_of(out: Path) -> dict[str, dict[str, bytes]]:
    """Slice → name → bytes of its shards."""
    release, found = Release.open(out / "release"), dict[str, dict[str, bytes]]()
    for row in release.rows():
        found.setdefault(row.slice, {})[row.shard] = release.shard_path(row.shard).read_bytes()
    return found


def painted(out: Path) -> dict[str, bytes]:
    """Key → bytes of every painted picture."""
    store = Store(out / "store")
    made = [o for o in store.outcomes() if o.step == "generate_image"]
    return {o.key: store.read(Artifact.model_validate(o.answer["picture"])) for o in made}  # type: ignore[index,call-overload]


def line_of(table: str, name: str) -> list[str]:
    """The numbers of a slice's line, in the table that tells what is made again."""
    lines = table[table.index("jobs needed") :].splitlines()
    return next(line for line in lines if line.startswith(name)).split()[1:]


def test_exactly_that_slices_videos_and_inspections_run_again(regenerated: Regenerated, finished: Finished) -> None:
    old, new = steps_of(finished.out)[False], steps_of(regenerated.out)
    videos, pairs = old["generate_video", "walk"], 2
    assert new[False] == Counter(
        {
            ("generate_video", "walk"): videos, ("analyze", "walk"): videos, ("measure_video", "walk"): videos,
            ("draw_masks", "walk"): pairs,
        }
    )  # fmt: skip
    kept = {step for step, _ in old} - {"generate_video"}
    assert kept <= {step for step, _ in new[True]}
    assert sum(new[True].values()) + sum(new[False].values()) == sum(old.values())
    assert f"steps: {sum(new[False].values())} run ({videos} by generators)" in regenerated.printed
    assert f"{sum(new[True].values())} taken over" in regenerated.printed


def test_painted_pictures_and_the_other_slices_shards_are_the_same_bytes(regenerated: Regenerated, finished: Finished) -> None:
    assert painted(finished.out)
    assert painted(regenerated.out) == painted(finished.out)
    old, new = shards_of(finished.out), shards_of(regenerated.out)
    assert set(old) == set(new) == {"walk", "swap", "poses"}
    for name in ("swap", "poses"):
        assert new[name] == old[name], name
    assert set(new["walk"]) == set(old["walk"])
    assert all(new["walk"][shard] != old["walk"][shard] for shard in old["walk"])
    shards = [shard for of_slice in new.values() for shard in of_slice]
    assert len(shards) == len(set(shards)), "a shard holds pairs of two slices"
    assert verify(regenerated.out / "release") == []
    assert Release.open(regenerated.out / "release").info.complete


def test_it_was_told_beforehand_without_a_worker(regenerated: Regenerated, finished: Finished) -> None:
    assert line_of(regenerated.planned, "walk") == ["2", "0", "0", "2", "0", "0", "0.0"]
    assert line_of(regenerated.planned, "poses")[2:] == ["0", "0", "0", "0", "0.0"]
    jobs, unchanged = line_of(regenerated.planned, "swap")[:2]
    assert jobs == unchanged != "0"
    videos = steps_of(finished.out)[False]["generate_video", "walk"]
    assert f"has to run, at least: generate_video {videos}." in regenerated.planned


def test_the_cost_of_what_was_taken_over_is_not_counted_twice(regenerated: Regenerated, finished: Finished) -> None:
    rows = pq.read_table(regenerated.out / "costs.parquet").to_pylist()
    ran, taken = (Counter(n for (_, n), c in steps_of(regenerated.out)[which].items() for _ in range(c)) for which in (False, True))
    for row in rows:
        assert (row["worker_seconds"] > 0) == (row["steps"] > 0), row
    for name in ("walk", "swap", "poses", ""):
        mine = [row for row in rows if (row["slice"] or "") == name]
        assert sum(row["steps"] for row in mine) == ran[name]
        assert sum(row["taken_over"] for row in mine) == taken[name]
    told = call("status", regenerated.out)
    assert re.search(r"generate_image +taken over +4 +0 +0:00 ", told)
    with Ledger(regenerated.out / "ledger.sqlite") as ledger:
        keys = [row[0] for row in ledger.execute("SELECT key FROM outcomes WHERE pool = ?", (TAKEN,))]
        assert all(_is_noted(ledger.lookup(key), Store(finished.out / "store").get_outcome(key)) for key in keys)


def _is_noted(new: Outcome | None, old: Outcome | None) -> bool:
    assert new is not None
    assert old is not None
    return new.earlier == old.cost and new.cost.seconds == 0 and new.answer == old.answer


def test_the_new_folder_stands_by_itself(regenerated: Regenerated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the old folder, and without its own ledger."""
    out = tmp_path / "out"
    shutil.copytree(regenerated.out, out)
    for file in out.glob("ledger.sqlite*"):
        file.unlink()
    monkeypatch.setenv("RAY_TMPDIR", NO_RAY)
    printed = call("run", regenerated.recipe, "--out", out)
    assert "steps: 0 run (0 by generators)" in printed
    assert "release unchanged" in printed
    assert steps_of(out) == steps_of(regenerated.out), "what was taken over is still known as such"


def test_the_same_recipe_is_taken_over_whole_from_a_folder_that_is_at_work(
    finished: Finished, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", NO_RAY)
    old, out = tmp_path / "old", tmp_path / "out"
    shutil.copytree(finished.out, old)
    before = state_of(old)
    with (old / ".lock").open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a run that works there
        printed = call("run", material.recipe, "--out", out, "--from", old)
    assert "steps: 0 run (0 by generators)" in printed
    assert tree(out / "release") == tree(finished.out / "release")
    assert state_of(old) == before
    found = next((out / "store" / "objects").rglob("*.mp4"))
    assert found.stat().st_nlink == 2, "on one filesystem files are linked"
    assert "0:00" in next(line for line in call("status", out).splitlines() if line.startswith("all "))


def test_killed_while_it_takes_over_it_goes_on_and_comes_to_the_same_bytes(
    finished: Finished, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", NO_RAY)
    out = tmp_path / "out"
    command = motionpair("run", material.recipe, "--out", out, "--from", finished.out)
    for count in (3, 25):
        code, _ = run_until(command, lambda count=count: len(outcomes(out)) >= count, signal.SIGKILL)  # type: ignore[misc]
        assert code == -signal.SIGKILL
    assert len(outcomes(out)) < len(outcomes(finished.out)), "it was killed too late to show anything"
    call(*command[3:])
    assert tree(out / "release") == tree(finished.out / "release")
    assert set(outcomes(out)) == set(outcomes(finished.out))


def state_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Path → size, time of change and mode of every file."""
    seen = {p.relative_to(folder).as_posix(): p.stat() for p in folder.rglob("*")}
    return {name: (s.st_size, s.st_mtime_ns, s.st_mode) for name, s in seen.items() if not name.startswith("store/tmp")}


def test_one_store_for_both_folders(finished: Finished, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", NO_RAY)
    old, out = tmp_path / "old", tmp_path / "out"
    shutil.copytree(finished.out, old)
    assert "steps: 0 run" in call("run", material.recipe, "--out", out, "--store", old / "store", "--from", old)
    assert tree(out / "release") == tree(finished.out / "release")
    assert not (out / "store").exists()


def test_from_an_object_store(finished: Finished, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", NO_RAY)
    old, out, mine = tmp_path / "old", tmp_path / "out", Store(finished.out / "store")
    old.mkdir()
    with serving() as server:
        url = f"{server.bucket()}/runs/one"
        theirs = Store(url)
        for outcome in mine.outcomes():
            for artifact in outcome.artifacts:
                theirs.put(mine.read(artifact), artifact.suffix)
            theirs.put_outcome(outcome)
        (old / "place.json").write_text(json.dumps({"store": url}))
        planned = call("plan", material.recipe, "--from", old)
        assert "has to run, at least: nothing" in planned
        assert line_of(planned, "walk")[:2] == ["2", "2"]
        assert "steps: 0 run (0 by generators)" in call("run", material.recipe, "--out", out, "--from", old)
    assert tree(out / "release") == tree(finished.out / "release")
    assert sorted(p.name for p in old.iterdir()) == ["place.json"]


# --- what can't be taken over


@dataclass(frozen=True)
class Made:
    """A folder with one outcome that has one artifact."""

    folder: Path
    store: Store
    outcome: Outcome

    @property
    def file(self) -> Path:
        artifact = self.outcome.artifacts[0]
        return self.folder / "store" / "objects" / artifact.digest[:2] / f"{artifact.digest}{artifact.suffix}"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    store = Store(tmp_path / "old" / "store")
    artifact = store.put(b"some video" * 1000, ".mp4")
    cost = Cost(seconds=90, gpu_seconds=720, accelerator="H100", pool="scail")
    about = {"answer": {"video": artifact.model_dump(mode="json")}, "artifacts": (artifact,), "cost": cost}
    return Made(tmp_path / "old", store, store.put_outcome(Outcome(key=digest_of("a"), step="generate_video", status="ok", **about)))


def spoil_artifact(made: Made) -> None:
    made.file.chmod(0o644)
    made.file.write_bytes(bytes(made.outcome.artifacts[0].size))


def lose_artifact(made: Made) -> None:
    made.file.unlink()


def spoil_outcome(made: Made) -> None:
    path = made.folder / "store" / "outcomes" / made.outcome.key[:2] / f"{made.outcome.key}.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"seconds":90', '"seconds":91'))


@pytest.mark.parametrize("harm", [spoil_artifact, lose_artifact, spoil_outcome])
def test_what_is_damaged_or_gone_is_not_taken_and_stays_as_it_is(made: Made, harm: Callable[[Made], None], tmp_path: Path) -> None:
    harm(made)
    before, new = tree(made.folder), Store(tmp_path / "new")
    earlier = Earlier(made.folder)
    assert earlier.take(made.outcome.key, new, CHARGE) is None
    assert earlier.spoilt == {made.outcome.key}
    assert not list(new.outcomes())
    assert tree(tmp_path / "new") == {}, "nothing half-taken is left"
    assert tree(made.folder) == before
    assert earlier.take(digest_of("b"), new, CHARGE) is None
    assert earlier.spoilt == {made.outcome.key}, "what was never there is not spoilt"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one filesystem", "two filesystems"])
def test_files_are_linked_where_that_can_be_and_copied_elsewhere(made: Made, elsewhere: bool, tmp_path: Path) -> None:
    other = Path("/dev/shm", f"motionpair-test-{os.getpid()}")
    folder = other if elsewhere else tmp_path / "new"
    if elsewhere and (not other.parent.is_dir() or os.stat(other.parent).st_dev == os.stat(tmp_path).st_dev):
        pytest.skip("no second filesystem")
    mode = made.file.stat().st_mode
    try:
        new = Store(folder / "store")
        taken = Earlier(made.folder).take(made.outcome.key, new, CHARGE)
        assert taken == new.get_outcome(made.outcome.key)
        assert taken is not None
        assert new.read(made.outcome.artifacts[0]) == made.store.read(made.outcome.artifacts[0])
        assert (made.file.stat().st_nlink, made.file.stat().st_mode) == (1 if elsewhere else 2, mode)
        assert taken.cost == Cost(pool=TAKEN, job=CHARGE.job, slice="walk")
        again = Earlier(folder).take(made.outcome.key, Store(tmp_path / "third"), CHARGE)
        assert again is not None
        assert taken.earlier == again.earlier == made.outcome.cost, "what it took goes along from folder to folder"
    finally:
        shutil.rmtree(other, ignore_errors=True)


def test_a_file_in_the_new_folder_can_be_lost_without_harm_to_the_old_one(made: Made, tmp_path: Path) -> None:
    new, artifact = Store(tmp_path / "new"), made.outcome.artifacts[0]
    Earlier(made.folder).take(made.outcome.key, new, CHARGE)
    new.put(b"some video" * 1000, ".mp4")  # made again: in place of the link
    assert made.file.stat().st_nlink == 1
    assert made.store.read(artifact) == new.read(artifact)


def test_a_folder_without_a_run_and_one_folder_for_both_are_refused(finished: Finished, material: Material, tmp_path: Path) -> None:
    told = call("run", material.recipe, "--out", tmp_path / "out", "--from", tmp_path, code=2)
    assert "no run has worked there" in told
    assert not (tmp_path / "out").exists()
    told = call("run", material.recipe, "--out", finished.out, "--from", finished.out, code=2)
    assert "--from and --out are one folder" in told
    assert "no run has worked there" in call("plan", material.recipe, "--from", tmp_path, code=2)


def test_gpu_hours_of_what_is_made_again_are_told_where_known(regenerated: Regenerated, finished: Finished, tmp_path: Path) -> None:
    """Videos of half an hour on two GPUs each; of the other slice's generator nobody says how long it takes."""
    own, recipe = regenerated.recipe.parent / "gen.py", tmp_path / "costly.yaml"
    text = regenerated.recipe.read_text().replace("kind: puppet, fps", f'kind: "{own}:Brighter", pool: big, fps')
    text = text.replace('"gen.py:Brighter"', f'"{own}:Brighter", seconds_per_pair: 1800, pool: big')
    recipe.write_text(text.replace("pools: {cpu:", "pools: {big: {gpus: 2}, cpu:"))
    printed = call("plan", recipe, "--from", finished.out)
    assert line_of(printed, "walk") == ["2", "0", "0", "2", "0", "0", "2.0"]
    assert line_of(printed, "swap") == ["2", "0", "0", "2", "0", "0", "unknown"]
