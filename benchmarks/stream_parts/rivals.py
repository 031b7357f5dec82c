"""Other loaders over the same samples: each gets the form of data that it wants, mixes three tasks and hands out dictionaries of bytes.

A rival is opened over a folder that `prepare` made and gives `samples(workers)`: an endless iterator and something to close. What is not
installed is left out (`pip install 'motionpair[rivals]'` in an environment of its own).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from manifests.records import MODES
from manifests.release import Release
from stream_parts.made import MIX

Sample = dict[str, Any]
TOTAL = sum(MIX.values())


def available(release: Release, folder: Path) -> dict[str, Callable[[int], contextlib.AbstractContextManager[Iterator[Sample]]]]:
    """Rivals that are installed, ready to be started with a number of worker processes."""
    found = {}
    for name, prepare in (("webdataset", _webdataset), ("mosaicml_streaming", _mosaicml), ("energon", _energon), ("litdata", _litdata)):
        try:
            (folder / name).mkdir()
            found[name] = prepare(release, folder / name)
        except ImportError as error:
            print(f"{name} is left out: {error}", flush=True)
    return found


def task_of(sample: Sample) -> str:
    """From the pair's own record, whatever the loader."""
    return str(json.loads(bytes(sample["json"]))["task"])


def _shards(release: Release) -> dict[str, list[Path]]:
    """Shards by task; each holds one task only."""
    first = {row.shard: row.task for row in release.rows()}
    return {task: [release.shard_path(name) for name, other in first.items() if other == task] for task in MODES}


def _records(release: Release, task: str) -> Iterator[Sample]:
    """Samples as dictionaries of bytes, for those that copy them into a form of their own."""
    for row in release.rows():
        if row.task == task:
            yield {member.name: release.read_member(row, member.name) for member in row.members}


def _loader(dataset: Any, workers: int) -> Iterator[Sample]:
    """Torch's loader, one sample at a time; without workers the data set itself."""
    from torch.utils.data import DataLoader

    if not workers:
        return iter(dataset)
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=4))


def _webdataset(release: Release, folder: Path) -> Callable[[int], Any]:
    import webdataset

    shards = {task: [str(path) for path in paths] for task, paths in _shards(release).items()}

    @contextlib.contextmanager
    def start(workers: int) -> Iterator[Iterator[Sample]]:
        random.seed(0)
        # Every worker goes over all shards: with as few shards as here, splitting them leaves workers without any.
        parts = [webdataset.WebDataset(shards[t], shardshuffle=False, workersplitter=None, empty_check=False).repeat() for t in MIX]
        mixed = webdataset.RandomMix(parts, probs=[weight / TOTAL for weight in MIX.values()])
        yield _loader(mixed, workers)

    return start


def _mosaicml(release: Release, folder: Path) -> Callable[[int], Any]:
    _operators()
    import streaming

    for task in MIX:
        columns = dict.fromkeys(next(_records(release, task)), "bytes")
        with streaming.MDSWriter(out=str(folder / task), columns=columns, size_limit=1 << 28) as out:
            for sample in _records(release, task):
                out.write(sample)

    @contextlib.contextmanager
    def start(workers: int, batch: int = 10) -> Iterator[Iterator[Sample]]:
        """Of batches of 10 the mix can be exact; at 8 its rounding shows."""
        streaming.base.util.clean_stale_shared_memory()
        parts = [streaming.Stream(local=str(folder / task), proportion=weight / TOTAL) for task, weight in MIX.items()]
        data = streaming.StreamingDataset(streams=parts, batch_size=batch, epoch_size=100_000, batching_method="stratified", shuffle=True)
        yield _loader(data, workers)

    return start


def _energon(release: Release, folder: Path) -> Callable[[int], Any]:
    from megatron import energon
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors import BaseWebdatasetFactory

    for task, paths in _shards(release).items():
        (folder / task).mkdir()
        for path in paths:
            os.symlink(path, folder / task / path.name)
        names = [path.name for path in paths]
        BaseWebdatasetFactory.prepare_dataset(EPath(folder / task), names, split_parts_ratio=[("train", 1.0)], shuffle_seed=None, workers=2)
        (folder / task / ".nv-meta" / "dataset.yaml").write_text("__module__: megatron.energon\n__class__: CrudeWebdataset\n")

    @energon.stateless
    def _cooked(sample: Sample) -> Sample:
        return sample

    blend = "".join(f"      - weight: {weight}\n        path: ./{task}\n" for task, weight in MIX.items())
    whole = folder / "mix.yaml"
    whole.write_text(f"__module__: megatron.energon\n__class__: MetadatasetV2\nsplits:\n  train:\n    blend:\n{blend}")

    class Encoder(energon.DefaultTaskEncoder):  # type: ignore[misc]
        cookers = (energon.Cooker(_cooked),)
        decoder = None

    @contextlib.contextmanager
    def start(workers: int) -> Iterator[Iterator[Sample]]:
        setting = energon.WorkerConfig(rank=0, world_size=1, num_workers=workers)
        data = energon.get_train_dataset(
            whole, worker_config=setting, batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None, task_encoder=Encoder()
        )  # fmt: skip
        yield iter(energon.get_savable_loader(data))

    return start


def _litdata(release: Release, folder: Path) -> Callable[[int], Any]:
    _operators()
    import litdata
    from litdata.streaming.cache import Cache

    for task in MIX:
        cache = Cache(str(folder / task), chunk_bytes="256MB")
        for number, sample in enumerate(_records(release, task)):
            cache[number] = sample
        cache.done()
        cache.merge()

    @contextlib.contextmanager
    def start(workers: int) -> Iterator[Iterator[Sample]]:
        def once() -> Iterator[Sample]:
            parts = [litdata.StreamingDataset(str(folder / task), shuffle=True, seed=0) for task in MIX]
            mixed = litdata.CombinedStreamingDataset(parts, weights=[w / TOTAL for w in MIX.values()], iterate_over_all=False, seed=0)
            loader = litdata.StreamingDataLoader(mixed, batch_size=1, num_workers=workers, collate_fn=_only)
            for _ in itertools.count():
                yield from loader

        yield once()

    return start


def _only(samples: list[Sample]) -> Sample:
    return samples[0]


def _operators() -> None:
    """A torchvision that was built for another torch can't be imported for want of two operators, which nobody here calls."""
    import torch

    names = [name for name in ("nms", "qnms") if not hasattr(torch.ops.torchvision, name)]
    for name in names:
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
