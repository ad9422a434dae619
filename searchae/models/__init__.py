"""Autoencoders with ``encode`` and ``decode``, built from ``ModelParams``.

``plan`` works out every layer and size without torch; ``conv`` and ``dense`` turn that into
modules; ``autoencoder`` joins an encoder and a decoder; ``builder`` is the way in.
"""

from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build, parameter_count

__all__ = ["Autoencoder", "build", "parameter_count"]
