"""Random number generators of a training, one for each (seed, purpose, epoch).

No generator's state has to be stored: a resumed training draws the numbers that an uninterrupted
one would have drawn. All generators are on the CPU, whatever device trains, because CUDA's
generators give other numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from searchae.config import training_seed


def named_generator(seed: int, purpose: str, *, epoch: int = 0) -> torch.Generator:
    """Returns a new CPU generator at the start of a random stream.

    Args:
        seed: The training's seed.
        purpose: What the stream is for: ``order``, ``noise``, ...
        epoch: The epoch that the stream belongs to, from 1; 0 for the whole training.
    """
    return torch.Generator().manual_seed(training_seed(seed, purpose, epoch=epoch))


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Seeds torch's global CPU generator for the block and restores its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(training_seed(seed, "init"))
        yield
