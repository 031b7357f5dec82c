"""One sample of a hundred is corrupt: what the stream makes of it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from factory.trainer.stream import Bytes, Stream
from manifests.release import Release
from stream_parts import made, mixing


def injected(folder: Path, pairs: int = 400, draws: int = 2000, share: float = 0.01) -> dict[str, object]:
    """Flip a byte in so many pairs and go through the stream; compares with the same stream over whole files."""
    release = made.random_bytes(folder, pairs, 4096)
    with Stream(release, decode=Bytes()) as stream:
        whole = [(s.task, s.key) for s in itertools.islice(stream, draws)]
    bad = {row.key for row in random.Random(0).sample(release.rows(), round(share * pairs))}
    for row in release.rows():
        if row.key in bad:
            path = release.shard_path(row.shard)
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.seek(row.member("target.mp4").offset)
                byte = file.read(1)[0]
                file.seek(row.member("target.mp4").offset)
                file.write(bytes([byte ^ 255]))
    with Stream(Release.open(release.folder), decode=Bytes()) as stream:
        seen = list(itertools.islice(stream, draws))
        report = stream.report()
    expected = [position for position, (_, key) in enumerate(whole) if key in bad]
    return {
        "draws": draws,
        "corrupt_drawn": len(expected),
        "replaced": report.replaced_count,
        "told": sum(sample.replaces in bad for sample in seen),
        "corrupt_given": sum(sample.key in bad for sample in seen),
        "others_moved": sum(s.key != key for s, (_, key) in zip(seen, whole, strict=True) if key not in bad),
        "mix": mixing.of_draws(sample.task for sample in seen),
    }
