"""The file with the last result of ``searchae compare``, which the report tells."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from searchae.files import PATIENT_S, AnyPath, ArtifactPath, artifact_folder, below
from searchae.study import COMPARISON, StoredStudy

log = logging.getLogger(__name__)

LARGEST_COMPARISON = 2**26
"""Bytes of the largest file that is read."""


class _Side(BaseModel):
    name: str
    psnr_db: float
    ssim: float
    mse: float
    sparsity: float
    trials: list[int]


class _Verdict(BaseModel):
    parameter: str
    sentence: str
    notes: list[str]
    sides: list[_Side]


class _Curve(BaseModel):
    sentence: str


class _Comparison(BaseModel):
    """What the report reads of the file."""

    data_hash: str
    seeds: list[int]
    comparisons: list[_Verdict]
    notes: list[str] = []
    l1_curve: _Curve | None = None


def comparison_file(artifacts: AnyPath, stored: StoredStudy) -> AnyPath:
    """Returns the path of the file."""
    return below(artifacts, stored.folder, "compare", "comparison.json")


def write_comparison_file(
    artifacts: ArtifactPath, stored: StoredStudy, document: Mapping[str, Any]
) -> None:
    """Writes the file, and its checksum to the study.

    Args:
        artifacts: The folder that all workers share.
        stored: The study.
        document: The result, as JSON values.

    Raises:
        OSError: The file cannot be written.
    """
    content = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    file = comparison_file(artifacts, stored)
    with artifact_folder(file.parent, patience_s=PATIENT_S).writing(file.name) as out:
        out.write(content)
    stored.study.set_user_attr(COMPARISON, hashlib.sha256(content).hexdigest())


def read_comparison(artifacts: ArtifactPath, stored: StoredStudy) -> dict[str, Any] | None:
    """Reads the last comparison of a study.

    Args:
        artifacts: The folder that all workers share.
        stored: The study.

    Returns:
        The document; None without one. A file that is damaged, of another study or of other images
        is passed over with a warning.
    """
    file = comparison_file(artifacts, stored)
    try:
        folder = artifact_folder(file.parent)
        with folder.reading(file.name, limit=LARGEST_COMPARISON) as opened:
            content = opened.read()
        if fault := _fault(content, stored):
            log.warning("%s: is %s; it is not used: run compare again", file, fault)
            return None
        found: dict[str, Any] = json.loads(content)
        _Comparison.model_validate(found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as e:
        reason = f"{e.error_count()} faults" if isinstance(e, ValidationError) else e
        log.warning("%s: is damaged (%s); it is not used: run compare again", file, reason)
        return None
    if found["data_hash"] != stored.data_hash:
        log.warning("%s: is of other images; it is not used: run compare again", file)
        return None
    return found


def _fault(content: bytes, stored: StoredStudy) -> str:
    """Returns why a file is not the one that the study's last comparison wrote."""
    expected = stored.study.user_attrs.get(COMPARISON)
    # In a study of an earlier version, no comparison has left a checksum.
    if expected is None and not stored.identity:
        return ""
    if hashlib.sha256(content).hexdigest() == expected:
        return ""
    return "damaged, or of another study"
