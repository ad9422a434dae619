"""searchae: hyperparameter search for image autoencoders.

The steps of a search, and the packages that do them::

    studies/svhn.toml -> spec (config) -> checks (tune) -> workers (launch)
      -> each worker: claim a trial (study), sample its parameters (search),
         train and prune it (training, worker), store its result (storage)
      -> summary (study) -> report, train, compare (report, retrain, bundle, compare)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from searchae.bundle import Bundle

__version__ = "0.1.0"


def load(folder: str | Path, *, device: str = "cpu") -> Bundle:
    """Loads a bundle that ``searchae train --out DIR`` wrote.

    Args:
        folder: The bundle's folder.
        device: Where the model runs, such as ``cpu`` or ``cuda``.

    Returns:
        A bundle with ``encode(images) -> (N, latent_size)``, ``decode(latents)`` and
        ``reconstruct(images)``. Images are (N, C, H, W), uint8 or float in [0, 1], as numpy arrays
        or torch tensors.

    Raises:
        errors.BundleError: The folder is not a bundle, or the bundle is damaged or was altered.
    """
    from searchae.bundle import load_bundle

    return load_bundle(folder, device=device)
