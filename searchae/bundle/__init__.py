"""A trained autoencoder in a folder: written by ``searchae train``, used from shell and Python.

``config`` says what is in it, ``model`` reads and writes it, ``figures`` measures it, ``pictures``
draws it, ``images`` reads and writes a user's images, ``export`` hands it to other tools,
``workspace`` guards the folder in which it is made.
"""

from searchae.bundle.config import BundleConfig
from searchae.bundle.model import Bundle, load, write

__all__ = ["Bundle", "BundleConfig", "load", "write"]
