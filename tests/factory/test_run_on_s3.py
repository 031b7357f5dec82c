"""A whole run whose store is a real S3 server: the same release, and nothing is repeated without its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Finished, Material, call, tree
from s3_server import KEY, SECRET, S3Server, serving

from manifests.store import Store


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as made:
        yield made


def test_a_run_on_s3_gives_the_same_release_and_is_rebuilt_from_it(
    server: S3Server, finished: Finished, material: Material, tmp_path: Path
) -> None:
    out, store = tmp_path / "out", f"{server.bucket()}/runs/one"
    printed = call("run", material.recipe, "--out", out, "--store", store)
    assert tree(out / "release") == tree(finished.out / "release")
    assert not (out / "store").exists()
    assert {o.key for o in Store(store).outcomes()} == {o.key for o in Store(finished.out / "store").outcomes()}
    (out / "ledger.sqlite").unlink()
    server.trouble(503, count=4)
    again = call("run", material.recipe, "--out", out)
    assert "no generator work was needed" in again
    assert "release unchanged" in again
    assert "accepted" in call("status", out)
    files = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    for secret in (KEY, SECRET):
        assert secret not in printed + again
        assert secret.encode() not in files


def test_a_wrong_bucket_is_told_before_anything_starts(server: S3Server, material: Material, tmp_path: Path) -> None:
    told = call("run", material.recipe, "--out", tmp_path / "out", "--store", "s3://no-such-bucket-here/x", code=2)
    assert "no-such-bucket-here" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out" / "place.json").exists()
