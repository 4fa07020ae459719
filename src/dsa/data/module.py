"""The DataModule: batches of a source as a pure function of (seed, stage, step)."""

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from dsa.checks import at_least
from dsa.data.batch import Batch, Source
from dsa.data.hashing import generator


class DataModule:
    """Training batches by number, and the fixed evaluation batches, of one source.

    Nothing here holds a position: a resumed run asks for its step again and gets the same bytes. The generator
    is apart from those of initialisation. Evaluation is the same for every seed, stage and condition.

    It is none of Lightning's: the LightningModules ask it for loaders, with the step that they are at, and a plan
    needs its fingerprint without the seconds that Lightning takes to import.

    Args:
        source: a text or a task.
        seq_len: tokens per row.
        batch_size: rows per training batch, over all processes together.
        eval_batches: evaluation batches, over all processes together.
        seed: of the training batches.
        eval_batch_size: rows per evaluation batch; batch_size where None.
        settings: an option's own keys (data.path, data.gap, ...): its yaml hands them on to the source.

    Raises:
        ValueError: a number is impossible, or the source cannot give rows of this length.
    """

    def __init__(
        self,
        source: Source,
        seq_len: int,
        batch_size: int,
        eval_batches: int,
        seed: int,
        eval_batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        self.source = source
        self.settings = settings
        self.seed = at_least(seed, 0, "data.seed")
        self.seq_len = at_least(seq_len, 1, "seq_len", "a row needs at least one token")
        self.batch_size = at_least(batch_size, 1, "data.batch_size", "a batch needs at least one row")
        self.eval_batches = at_least(eval_batches, 1, "data.eval_batches", "without one nothing is evaluated")
        eval_rows = batch_size if eval_batch_size is None else eval_batch_size
        self.eval_batch_size = at_least(eval_rows, 1, "data.eval_batch_size", "a batch needs at least one row")
        source.check(seq_len)
        self.vocab_size = source.vocab_size
        self.fingerprint = source.fingerprint
        self.description = source.description
        self.chance_loss = source.chance_loss
        self.unigram_loss = source.unigram_loss

    def batch(self, stage: str, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The rank's contiguous share of training batch `step` of `stage`: the same rows for any `world`.

        Raises:
            ValueError: the processes cannot share the batch equally.
        """
        return self._parts(stage, step, world)[rank]

    def _parts(self, stage: str, step: int, count: int) -> list[Batch]:
        """A training batch, drawn once, in equal parts."""
        share = _share(self.batch_size, count, "data.batch_size")
        whole = self.source.sample(self.batch_size, self.seq_len, generator("train", self.seed, stage, step))
        return [_rows(whole, slice(part * share, (part + 1) * share)) for part in range(count)]

    def train_loader(
        self, stage: str, start: int, rank: int = 0, world: int = 1, accumulate: int = 1
    ) -> DataLoader[Batch]:
        """Endless batches of `stage`, from step `start`, each handed out in `accumulate` micro-batches."""
        parts = world * accumulate
        if self.batch_size % parts and not self.batch_size % world:
            raise ValueError(
                f"trainer.accumulate = {accumulate}: the {self.batch_size // world} rows of data.batch_size that a "
                "process has cannot be taken in so many equal parts. Give a divisor of them."
            )
        _share(self.batch_size, parts, "data.batch_size")
        return _loader(
            lambda: (batch for step in itertools.count(start) for batch in self._parts(stage, step, parts)[rank::world])
        )

    def eval_loader(self, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
        """The rank's evaluation batches: every `world`-th one.

        Raises:
            ValueError: the processes would not get equally many.
        """
        _share(self.eval_batches, world, "data.eval_batches")
        return _loader(lambda: iter(self._evaluation[rank::world]))

    @cached_property
    def _evaluation(self) -> list[Batch]:
        size = self.eval_batch_size
        whole = self.source.evaluation(self.eval_batches * size, self.seq_len)
        return [_rows(whole, slice(i * size, (i + 1) * size)) for i in range(self.eval_batches)]


class _Batches(IterableDataset[Batch]):
    """Iterable, so that Lightning puts no sampler of its own before it."""

    def __init__(self, begin: Callable[[], Iterator[Batch]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[Batch]:
        return self.begin()


def _loader(begin: Callable[[], Iterator[Batch]]) -> DataLoader[Batch]:
    return DataLoader(_Batches(begin), batch_size=None, num_workers=0)


def _rows(batch: Batch, rows: slice) -> Batch:
    more = (None if part is None else part[rows] for part in batch[2:])
    return Batch(batch.tokens[rows], batch.targets[rows], *more)


def _share(total: int, world: int, setting: str) -> int:
    if total % world:
        raise ValueError(
            f"{setting} = {total}: {world} processes cannot share it equally. "
            f"Give a multiple of {world}, or another trainer.devices."
        )
    return total // world
