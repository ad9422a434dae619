"""A trained autoencoder in a folder: written by ``searchae train``, used from shell and Python."""

from searchae.bundle.config import BundleConfig, write_json
from searchae.bundle.evaluation import (
    SPLITS,
    compression,
    evaluate_bundle,
    machine,
    measure_bundle,
    metrics_document,
    psnrs,
)
from searchae.bundle.export import PARTS, export_bundle
from searchae.bundle.images import (
    Images,
    as_uint8,
    check_output,
    open_images,
    read_latents,
    write_arrays,
    write_images,
)
from searchae.bundle.model import BATCH, Bundle, from_weights, load_bundle, write_bundle
from searchae.bundle.plots import curves_page, reconstructions_picture
from searchae.bundle.workspace import Workspace

__all__ = [
    "BATCH",
    "PARTS",
    "SPLITS",
    "Bundle",
    "BundleConfig",
    "Images",
    "Workspace",
    "as_uint8",
    "check_output",
    "compression",
    "curves_page",
    "evaluate_bundle",
    "export_bundle",
    "from_weights",
    "load_bundle",
    "machine",
    "measure_bundle",
    "metrics_document",
    "open_images",
    "psnrs",
    "read_latents",
    "reconstructions_picture",
    "write_arrays",
    "write_bundle",
    "write_images",
    "write_json",
]
