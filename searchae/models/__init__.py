"""Autoencoders, built from ``ModelParams``.

``builder`` builds them; ``layout`` computes and checks the sizes of a convolutional net's layers.
"""

from searchae.models.activations import ACTIVATION_MODULES
from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build_model, parameter_count
from searchae.models.size import ModelSize, build_on_meta, model_size

__all__ = [
    "ACTIVATION_MODULES",
    "Autoencoder",
    "ModelSize",
    "build_model",
    "build_on_meta",
    "model_size",
    "parameter_count",
]
