"""searchae: hyperparameter search for image autoencoders.

The way through the house, in the order of a search::

    studies/svhn.toml -> spec -> claim a trial (ledger) -> sample its parameters (space)
      -> train, epoch by epoch (training) -> report and prune (objective) -> tell (worker)
      -> summary (report)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from searchae.bundle import Bundle

__version__ = "0.1.0"


def load(folder: str | Path, *, device: str = "cpu") -> Bundle:
    """Reads a bundle that ``searchae train --out DIR`` wrote.

    Gives an object with ``encode(images) -> (N, latent_size)``, ``decode(latents)`` and
    ``reconstruct(images)``: images are (N, C, H, W), uint8 or float in [0, 1], in numpy or torch.

    Args:
        folder: The bundle.
        device: Where to run it, such as ``cpu`` or ``cuda``.

    Raises:
        errors.BundleError: The folder is no bundle, or one that is damaged or was altered.
    """
    from searchae import bundle

    return bundle.load_bundle(folder, device=device)
