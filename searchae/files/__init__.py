"""Files: on disks, in folders that others can write, and in object stores."""

from searchae.files.artifacts import (
    AnyPath,
    ArtifactFolder,
    ArtifactPath,
    artifact_folder,
    artifact_path,
    below,
    files_here,
)
from searchae.files.backoff import Backoff
from searchae.files.disk import (
    SharedFolder,
    UnsafeFileError,
    atomic_file,
    is_standard_output,
    open_input,
    output_file,
    remove_unfinished,
)
from searchae.files.remote import (
    PATIENT_S,
    RemoteError,
    RemoteFolder,
    RemotePath,
    credentials,
    library_of,
)

__all__ = [
    "PATIENT_S",
    "AnyPath",
    "ArtifactFolder",
    "ArtifactPath",
    "Backoff",
    "RemoteError",
    "RemoteFolder",
    "RemotePath",
    "SharedFolder",
    "UnsafeFileError",
    "artifact_folder",
    "artifact_path",
    "atomic_file",
    "below",
    "credentials",
    "files_here",
    "is_standard_output",
    "library_of",
    "open_input",
    "output_file",
    "remove_unfinished",
]
