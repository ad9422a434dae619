"""Images as uint8 tensors (N, C, H, W) in fixed, hashed splits; one file a source."""

from searchae.data.decoded_cache import find_decoded, keep_decoded
from searchae.data.npz import as_images
from searchae.data.splits import Splits, describe_splits, load_splits, require_same_data

__all__ = [
    "Splits",
    "as_images",
    "describe_splits",
    "find_decoded",
    "keep_decoded",
    "load_splits",
    "require_same_data",
]
