"""Random seeds derived from the seed of a study or a training.

No random number depends on a process, a machine or what ran before. The three derivations differ
for historical reasons and must stay as they are: another formula would change every result. Drawn
data sets use numpy's ``SeedSequence`` instead, see ``data/house_numbers.py``.
"""

from __future__ import annotations

import hashlib
import zlib


def training_seed(seed: int, purpose: str, *, epoch: int = 0) -> int:
    """Returns the seed of one random stream of a training.

    Args:
        seed: The training's seed.
        purpose: What the stream is for: ``init``, ``order``, ``noise``, ...
        epoch: The epoch that the stream belongs to, from 1; 0 for the whole training.

    Returns:
        A seed from 0 to 2**63 - 1: the first 8 bytes of a SHA-256, shifted right by one bit.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def split_seed(seed: int, label: str) -> int:
    """Returns the seed of one random permutation that splits or reduces a data set.

    Args:
        seed: The study's seed.
        label: What is drawn: ``test``, ``train_images``, ``test_images`` or ``validation``.

    Returns:
        A seed from 0 to 2**32 - 1: the first 4 bytes of a SHA-256.
    """
    digest = hashlib.sha256(f"{label}:{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def sampler_seed(seed: int, trial_number: int) -> int:
    """Returns the seed of the sampler that chooses one trial's parameters.

    Args:
        seed: The study's seed.
        trial_number: The trial's number, from 0.

    Returns:
        A seed from 0 to 2**32 - 1: a CRC-32.
    """
    return zlib.crc32(f"{seed}/{trial_number}".encode())
