"""Data sets as tensors (N, C, H, W) in reproducible splits, identified by a hash.

``splits`` makes and hashes the splits, ``sources`` lists the sources; each has a module.
"""

from searchae.data.array_file import write_array_file
from searchae.data.contact_sheet import write_contact_sheet
from searchae.data.decoded_cache import (
    decoded_folder,
    decoded_sums,
    find_decoded,
    find_decoded_test,
    keep_decoded,
)
from searchae.data.disk import absolute_paths, moved_paths
from searchae.data.large_images import gather, is_large, parts, release
from searchae.data.npz import as_images
from searchae.data.npz_file import open_npz
from searchae.data.picture_files import find_pictures
from searchae.data.pictures import Preparation, prepare, read_pictures, require_readable
from searchae.data.raw_images import as_rgb, level_type
from searchae.data.splits import (
    Splits,
    describe_splits,
    load_splits,
    require_same_data,
    split_warnings,
)
from searchae.data.survey import Survey, survey_images

__all__ = [
    "Preparation",
    "Splits",
    "Survey",
    "absolute_paths",
    "as_images",
    "as_rgb",
    "decoded_folder",
    "decoded_sums",
    "describe_splits",
    "find_decoded",
    "find_decoded_test",
    "find_pictures",
    "gather",
    "is_large",
    "keep_decoded",
    "level_type",
    "load_splits",
    "moved_paths",
    "open_npz",
    "parts",
    "prepare",
    "read_pictures",
    "release",
    "require_readable",
    "require_same_data",
    "split_warnings",
    "survey_images",
    "write_array_file",
    "write_contact_sheet",
]
