"""Autoencoders, built from ``ModelParams``.

``builder`` builds them; ``layout`` computes and checks the sizes of a convolutional net's layers;
``own_net`` wraps nets that people have written, ``own_net_checks`` tries them before a search.
"""

from searchae.models.activations import ACTIVATION_MODULES
from searchae.models.autoencoder import Autoencoder
from searchae.models.builder import build_model, parameter_count
from searchae.models.gaussian import GaussianLatent
from searchae.models.own_net import allowed_factory, own_name
from searchae.models.own_net_checks import check_own_net
from searchae.models.size import ModelSize, build_on_meta, memoryless, model_size

__all__ = [
    "ACTIVATION_MODULES",
    "Autoencoder",
    "GaussianLatent",
    "ModelSize",
    "allowed_factory",
    "build_model",
    "build_on_meta",
    "check_own_net",
    "memoryless",
    "model_size",
    "own_name",
    "parameter_count",
]
