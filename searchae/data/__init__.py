"""Data sets as uint8 tensors (N, C, H, W) in reproducible splits, identified by a hash.

``splits`` makes and hashes the splits, ``sources`` lists the sources; each has a module.
"""

from searchae.data.decoded_cache import (
    decoded_sums,
    find_decoded,
    find_decoded_test,
    keep_decoded,
)
from searchae.data.npz import as_images
from searchae.data.splits import Splits, describe_splits, load_splits, require_same_data

__all__ = [
    "Splits",
    "as_images",
    "decoded_sums",
    "describe_splits",
    "find_decoded",
    "find_decoded_test",
    "keep_decoded",
    "load_splits",
    "require_same_data",
]
