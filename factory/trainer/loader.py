"""The stream as a data set of torch, for trainers that want one. The only module of the stream that imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset

from factory.trainer.stream import Stream


class StreamDataset(IterableDataset[Any]):  # type: ignore[misc]
    """For torch's DataLoader and torchdata's StatefulDataLoader; its state is the stream's.

    Give the loader `batch_size=stream.micro_batch`, so that a batch has one shape, or None for single samples. The stream reads ahead on
    threads of its own: `num_workers=0` is the fastest, as worker processes have to copy every sample. With workers, each takes every n-th
    step, and a state holds for as many workers, ranks and the same micro-batch only.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.stream)

    def state_dict(self) -> dict[str, Any]:
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stream.load_state_dict(state)
