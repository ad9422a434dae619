"""Random number generators of a training, one for each (seed, purpose, epoch).

Between two epochs no generator's state has to be stored: a resumed training draws the numbers that
an uninterrupted one would have drawn. All are on the CPU, whatever device trains, because CUDA's
generators give other numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

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


def torch_generators(device: torch.device) -> dict[str, Tensor]:
    """Returns the states of torch's own generators that modules on a device draw from."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def restore_torch_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Sets torch's own generators to what ``torch_generators`` returned for a device.

    Raises:
        KeyError: The state of one is missing.
        RuntimeError: One of them is no state.
    """
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
