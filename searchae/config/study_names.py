"""Which texts can name a study: its name becomes a folder's, a log's and a job's."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from searchae.errors import UserError

LONGEST_NAME = 200
"""Bytes of a study's name in UTF-8: 255 of a file system, less what is appended to its folder's."""

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def check_study_name(name: str, *, option: str = "--name") -> None:
    """Checks that a new study can have a name.

    Args:
        name: The name.
        option: What it was given as.

    Raises:
        UserError: It cannot be the name of a folder, or holds characters that are not shown.
    """
    if fault := _fault(name):
        shown = ascii(name) if len(name) <= LONGEST_NAME else f"{name[:20]!a}..."
        raise UserError(
            f"{option} {shown}: {fault}. The name of a study "
            "is the name of its folder below --artifacts; give one of letters, digits, - and _"
        )


def folder_name(study: str) -> str:
    """Returns a name for a study's folder: its own where that is possible.

    Earlier versions and other programs may have made a study of any name, such as ``../x``.

    Args:
        study: The study's name.
    """
    if not _fault(study):
        return study
    digest = hashlib.sha256(study.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', study)[:80]}-{digest}"


def is_folder_name(text: object) -> bool:
    """Whether something that was read from a database can be a study's folder."""
    return isinstance(text, str) and not _fault(text, longest=255)


def _fault(name: str, *, longest: int = LONGEST_NAME) -> str:
    """Returns why a text cannot name a folder; an empty text if it can."""
    if not name.strip():
        return "it is empty"
    if any(unicodedata.category(c) in _HIDDEN_CATEGORIES for c in name):
        return "it holds characters that are not shown"
    if "/" in name or name in (".", ".."):
        return "it is a path"
    if len(name.encode()) > longest:
        return f"it is longer than {longest} bytes"
    return ""
