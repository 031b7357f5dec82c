"""What the tests of stores put into them, whatever they are on."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from manifests.records import Artifact
from manifests.store import Outcome, Store

DATA = b"a pair of motions" * 1000


def outcome(number: int = 0, **more: object) -> Outcome:
    fields = {"key": hashlib.sha256(str(number).encode()).hexdigest(), "step": "paint", "status": "ok", "answer": {"n": number}, **more}
    return Outcome.model_validate(fields)


def kept_in_every_way(store: Store, folder: Path) -> Artifact:
    """`DATA` as bytes, as a file and as a stream is one artifact, which is found again."""
    file = folder / "x.bin"
    file.write_bytes(DATA)
    for data in (DATA, file, io.BytesIO(DATA)):
        artifact = store.put(data, ".mp4")
        assert artifact == Artifact(digest=hashlib.sha256(DATA).hexdigest(), size=len(DATA), suffix=".mp4")
    assert store.has(artifact)
    assert store.read(artifact) == store.get(artifact.digest) == DATA
    assert store.find(artifact.digest) == artifact
    return artifact
