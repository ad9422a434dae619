"""Images as uint8 tensors (N, C, H, W) in fixed, hashed splits; one file a source.

``load`` is the way in: ``sources`` says which function reads which source into ``raw`` images,
``splits`` draws the splits. A new source is a function and a line in ``sources``.
"""

from searchae.data.splits import Splits, describe, load, require

__all__ = ["Splits", "describe", "load", "require"]
