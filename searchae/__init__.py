"""searchae: hyperparameter search for image autoencoders.

The steps of a search, and the packages that do them::

    studies/svhn.toml -> spec (config) -> checks (tuning) -> workers (launch)
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


def load(folder: str | Path, *, device: str = "cpu", factory: str = "") -> Bundle:
    """Loads a bundle that ``searchae train --out DIR`` wrote.

    Args:
        folder: The bundle's folder.
        device: Where the model runs, such as ``cpu`` or ``cuda``.
        factory: For a net of one's own, the function that builds it, as ``FILE.py:FUNCTION`` or
            ``PACKAGE.MODULE:FUNCTION``. Code is never taken from a bundle.

    Returns:
        A bundle with ``encode(images) -> (N, latent_size)``, ``decode(latents)`` and
        ``reconstruct(images)``. Images are (N, C, H, W), uint8 or float in [0, 1], as numpy arrays
        or torch tensors.

    Raises:
        errors.BundleError: The folder is not a bundle, the bundle is damaged or was altered, or
            its net is built by another function.
        errors.SpecError: There is no such ``factory``.
    """
    from searchae.bundle import load_bundle
    from searchae.config import allow_factory, find_factory

    if factory:
        allow_factory(find_factory(factory))

    return load_bundle(folder, device=device)
