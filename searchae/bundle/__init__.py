"""Bundles: folders with a trained autoencoder, which ``searchae train`` writes."""

from searchae.bundle.config import BundleConfig, write_json
from searchae.bundle.evaluation import (
    EVALUATION_SPLITS,
    compression_ratios,
    evaluate_bundle,
    image_psnrs_db,
    machine_info,
    measure_bundle,
    metrics_document,
)
from searchae.bundle.export import EXPORT_PARTS, export_bundle
from searchae.bundle.images import (
    ImageArray,
    as_levels,
    check_not_there,
    check_output_path,
    open_images,
    read_latents,
    write_images,
    write_npz,
)
from searchae.bundle.model import (
    Bundle,
    bundle_from_weights,
    load_bundle,
    write_bundle,
)
from searchae.bundle.output_folder import CHECKPOINTS_FOLDER, METRICS_FILE, Workspace
from searchae.bundle.plots import write_curves_page, write_reconstructions_picture

__all__ = [
    "CHECKPOINTS_FOLDER",
    "EVALUATION_SPLITS",
    "EXPORT_PARTS",
    "METRICS_FILE",
    "Bundle",
    "BundleConfig",
    "ImageArray",
    "Workspace",
    "as_levels",
    "bundle_from_weights",
    "check_not_there",
    "check_output_path",
    "compression_ratios",
    "evaluate_bundle",
    "export_bundle",
    "image_psnrs_db",
    "load_bundle",
    "machine_info",
    "measure_bundle",
    "metrics_document",
    "open_images",
    "read_latents",
    "write_bundle",
    "write_curves_page",
    "write_images",
    "write_json",
    "write_npz",
    "write_reconstructions_picture",
]
