"""Randomness by name: every stream follows from (seed, purpose, epoch).

No state of a generator has to be stored, so that a resumed training draws what an undisturbed
one would have drawn. The generators are the CPU's on every device: CUDA draws other numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, purpose: str, *, epoch: int = 0) -> int:
    """A seed from 0 to 2**63 - 1 that differs for each seed, purpose and epoch."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def named_generator(seed: int, purpose: str, *, epoch: int = 0) -> torch.Generator:
    """A CPU generator at the start of that stream."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, epoch=epoch))


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Within it torch's global CPU generator is at (seed, "init"); afterwards as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "init"))
        yield
