"""A cache of decoded images that a search writes and its workers map into memory.

The workers of a machine share one copy in the operating system's page cache, and none of them has
to decode the files again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from searchae.data.splits import Splits

logger = logging.getLogger(__name__)

FOLDER = "decoded"
KEPT = 4
"""How many data sets the cache keeps; older ones are removed."""

_PARTS = ("train", "validation")
"""What every worker needs: earlier versions cached no more than this."""
_TEST = "test"
_SUMS = "sha256.json"


def keep_decoded(splits: Splits, data_dir: Path) -> bool:
    """Writes the images to the cache, under their hash.

    Args:
        splits: The images.
        data_dir: The data folder, which contains the cache.

    Returns:
        Whether they are in the cache now. If not, for example on a read-only disk, each worker
        decodes the images itself.
    """
    home = data_dir / FOLDER / splits.hash
    if (home / f"{_TEST}.npy").is_file():
        return True
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=home.parent))
        try:
            sums = {p: _write(draft / f"{p}.npy", getattr(splits, p)) for p in (*_PARTS, _TEST)}
            (draft / _SUMS).write_text(json.dumps(sums))
            draft.chmod(0o755)
            if home.is_dir():  # without the test split; who has mapped its files keeps them
                os.rename(home, draft.with_name(f"{draft.name}-old"))
            os.rename(draft, home)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(draft.with_name(f"{draft.name}-old"), ignore_errors=True)
        for old in sorted(home.parent.glob("[!.]*"), key=_age)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        logger.info("decoded images are not kept: %s", e)
    return home.is_dir()


def find_decoded(hash_: str, data_dir: Path) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Maps cached training and validation images into memory.

    Args:
        hash_: ``Splits.hash`` of the data set.
        data_dir: The data folder, which contains the cache.

    Returns:
        Training and validation images, uint8 (N, C, H, W), channels last in memory. Writing to
        them does not change the cache (copy-on-write). None if they are not cached, or damaged.
    """
    found = _find(hash_, data_dir, _PARTS)
    return None if found is None else (found[0], found[1])


def find_decoded_test(hash_: str, data_dir: Path) -> torch.Tensor | None:
    """Maps cached test images into memory, as ``find_decoded`` does the others."""
    found = _find(hash_, data_dir, (_TEST,))
    return None if found is None else found[0]


def _find(hash_: str, data_dir: Path, parts: Sequence[str]) -> list[torch.Tensor] | None:
    home = data_dir / FOLDER / hash_
    try:
        sums = json.loads((home / _SUMS).read_text())
        if parts == (_TEST,) and _TEST not in sums:  # written by an earlier version
            return None
        return [_read(home / f"{part}.npy", sums[part]) for part in parts]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        logger.warning("decoded images in %s are of no use (%s): reading the source", home, e)
        return None


def _write(path: Path, images: torch.Tensor) -> str:
    # Channels last, as convolutions need them: then no trial has to copy them.
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    np.save(path, rows)
    return hashlib.sha256(rows.data).hexdigest()


def _read(path: Path, sha256: str) -> torch.Tensor:
    rows = np.load(path, mmap_mode="c")
    if hashlib.sha256(rows.data).hexdigest() != sha256:
        raise ValueError(f"{path.name} was changed")
    return torch.from_numpy(rows).permute(0, 3, 1, 2)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # removed by another search meanwhile
        return 0.0
