"""Installs this searchae on a host, in an environment of its own.

The wheel is made from the package that runs here, without a build tool or a network. What searchae
needs comes from the host's own Python if that has it all, else from the host's package index.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import searchae
from searchae import __version__
from searchae.errors import UserError
from searchae.launch.ssh_connection import Connection, HostError
from searchae.launch.ssh_hosts import HostState

INSTALL_S = 1800.0
"""Seconds for an installation, which may fetch torch."""
WHEEL = f"searchae-{__version__}-py3-none-any.whl"


@cache
def package_files() -> dict[str, bytes]:
    """Returns the files of this package by their path in a wheel."""
    root = Path(searchae.__file__).parent
    folders = {"searchae": root}
    if not (root / "studies").exists():  # a checkout, where they lie beside the package
        folders["searchae/studies"] = root.parent / "studies"
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for name, folder in folders.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@cache
def environment_name() -> str:
    """Returns the name of the environment on a host: it tells the code, not only its version."""
    digest = hashlib.sha256()
    for name, content in package_files().items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"{__version__}-{digest.hexdigest()[:12]}"


def build_wheel() -> bytes:
    """Returns a wheel of this package.

    Raises:
        UserError: It runs from a folder, without having been installed.
    """
    try:
        installed = distribution("searchae")
    except PackageNotFoundError:
        raise UserError(
            "--install: searchae is not installed here, so that its dependencies are not known; "
            "pip install it"
        ) from None
    about = f"searchae-{__version__}.dist-info"
    files = {
        **package_files(),
        f"{about}/METADATA": (installed.read_text("METADATA") or "").encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": b"[console_scripts]\nsearchae = searchae.__main__:main\n",
    }
    record = "".join(
        f"{name},sha256={_record_hash(content)},{len(content)}\n" for name, content in files.items()
    )
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return buffer.getvalue()


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def install(
    connection: Connection,
    state: HostState,
    note: Callable[[str], None],
    further: Sequence[str] = (),
) -> None:
    """Installs searchae on a host.

    Args:
        connection: To the host.
        state: The host, which was found to lack it.
        note: Told what is done.
        further: Packages that are needed as well.

    Raises:
        HostError: It has no Python that can run it, or pip failed.
        UserError: There is nothing that can be installed.
    """
    base, name = state.found["base"], state.host.target
    if not base:
        raise HostError("--install: needs Python 3.11 or later there; install it first")
    where = f"{state.found['home']}/venvs/{environment_name()}"
    needs = f"with the packages of {base}"
    if state.found["base_missing"]:
        needs = f"with pip, because {base} lacks {', '.join(state.found['base_missing'])}"
    note(f"{name}: installing searchae {__version__} into {where}, {needs}")
    wheel = build_wheel()
    request = {
        "do": "install",
        "venv": environment_name(),
        "python": base,
        "use_pip": bool(state.found["base_missing"]),
        "further": list(further),
        "wheel": WHEEL,
        "size": len(wheel),
    }
    with connection.calling(request, timeout_s=INSTALL_S) as call:
        call.write(wheel)
        problem = call.answer()["problem"]
    if problem:
        raise HostError(f"--install: {problem}")
