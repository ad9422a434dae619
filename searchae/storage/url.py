"""Database URLs: parsing, masking, and a check of a SQLite file's folder."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from searchae.errors import NoStudyError, StorageError

log = logging.getLogger(__name__)


_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "glusterfs",
    "ceph",
    "fuse.sshfs",
    "9p",
    "beegfs",
    "gpfs",
}


_POSTGRESQL = re.compile(r"postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
_DRIVER = "postgresql+psycopg"
_KINDS = ("sqlite", "postgresql", "postgres")
_SQLITE_OPTIONS = frozenset({"timeout", "cached_statements", "isolation_level"})
_SECRETS = re.compile("pass|pwd|secret|token|key$", re.IGNORECASE)
"""Names of options that hold secrets, also of those that the driver refuses with the URL."""
_names: dict[URL, str] = {}


def parse_url(text: URL | str) -> URL:
    """Parses a database URL; one of PostgreSQL gets the driver psycopg.

    Args:
        text: ``sqlite:///file``, or what PostgreSQL's own clients take: ``postgresql://...``,
            ``postgres://...``, several hosts, or ``host=... dbname=...``. A driver that other
            programs need, such as ``+psycopg2``, makes no difference. A parsed URL is returned as
            it is.

    Raises:
        StorageError: The text is not a URL, or names a database that searchae does not support.
            The message has nothing of a text that could not be read, which may hold a password.
    """
    if isinstance(text, URL):
        return text
    if not is_text(text):
        raise StorageError("--storage: holds bytes that are no UTF-8; name the database otherwise")
    _check_scheme(text)
    _check_signs(text)
    try:
        if _POSTGRESQL.match(text):
            url = _postgresql_url(_POSTGRESQL.sub("postgresql://", text, count=1))
        elif "://" not in text and re.match(r"\s*\w+\s*=", text):
            url = _from_connection_string(text)
        else:
            url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        # Not chained: SQLAlchemy's message may contain the text, and so a password.
        raise StorageError(f"--storage: {_unreadable(text)}") from None
    if url.drivername == "sqlite+pysqlite":
        url = url.set(drivername="sqlite")
    if url.drivername not in ("sqlite", _DRIVER):
        raise _unsupported(url.drivername)
    if url.drivername == "sqlite":
        _check_sqlite(url)
    return url


def is_text(text: str) -> bool:
    """Whether a text is one; Python decodes a file's name that is no UTF-8 to lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_scheme(text: str) -> None:
    """Refuses other databases, before anything is said of how to write their URL.

    Raises:
        StorageError: It is one.
    """
    scheme, found, _ = text.partition("://")
    kind = scheme.lower().partition("+")[0]
    if found and re.fullmatch(r"[a-z][a-z\d.-]*", kind) and kind not in _KINDS:
        raise _unsupported(kind)


def _unsupported(kind: str) -> StorageError:
    return StorageError(f"--storage: {kind} is not supported; use sqlite or postgresql")


def _unreadable(text: str) -> str:
    if _POSTGRESQL.match(text):
        return (
            "the URL of PostgreSQL cannot be read; write postgresql://user@host:5432/database, the "
            "port as a number, and in a password @ / : # ? % as %40 %2F %3A %23 %3F %25"
        )
    return f"not a database URL; write {_sqlite_advice(text)} or postgresql://user@host/database"


def _check_sqlite(url: URL) -> None:
    """Refuses a URL of SQLite that names no file, or options that there are not.

    Raises:
        StorageError: It does.
    """
    file = url.database
    if file in (None, "", ":memory:"):
        raise StorageError(
            f"--storage: three slashes come before the file: {_sqlite_advice(str(url.host))}"
            if url.host
            else "--storage: workers cannot share an in-memory SQLite; give it a file"
        )
    if str(file).startswith("~"):
        raise StorageError(
            "--storage: ~ is not the home folder in a URL; write "
            f"sqlite:///{os.path.expanduser(str(file))}"
        )
    if unknown := sorted(set(url.query) - _SQLITE_OPTIONS):
        raise StorageError(
            f"--storage: {', '.join(unknown)} after the ? of the URL: there is no such option for "
            f"sqlite; write sqlite:///{file}"
        )


def _check_signs(text: str) -> None:
    """Refuses a URL whose password could end at more than one place.

    Raises:
        StorageError: It has several ``@``; nothing of it is shown.
    """
    scheme, found, rest = text.partition("://")
    if found and not scheme.lower().startswith("sqlite") and rest.count("@") > 1:
        raise StorageError(
            "--storage: the URL has more than one @, so that its password cannot be told from its "
            "host. Only the @ before the host stands as it is: write one in the user's name, the "
            "password or elsewhere as %40, and there also % as %25, / as %2F, # as %23, ? as %3F "
            "and : as %3A"
        )


def _postgresql_url(text: str) -> URL:
    """Parses ``postgresql://...``.

    Raises:
        ArgumentError: It is no such URL.
        ValueError: The same.
    """
    try:
        url = make_url(text)
    except ValueError:  # several hosts, each with its port
        return _from_connection_string(text)
    password = url.query.get("password")
    if url.password is None and isinstance(password, str):
        url = url.set(password=password).difference_update_query(["password"])
    return url.set(drivername=_DRIVER)


def _from_connection_string(text: str) -> URL:
    """Parses what psql takes: ``host=... dbname=...``, or a URL with several hosts.

    Raises:
        ValueError: It is no such text.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = {key: str(value) for key, value in conninfo_to_dict(text).items()}
    except ProgrammingError:
        raise ValueError from None
    hosts, ports = (found.pop(key, "").split(",") for key in ("host", "port"))
    if not all(port.isdecimal() for port in ports if port):
        raise ValueError
    one = len(hosts) == 1
    if not one:  # as SQLAlchemy writes them
        ports = ports * len(hosts) if len(ports) == 1 else ports
        pairs = zip(hosts, ports, strict=True)
        several = tuple(f"{host}:{port}" if port else host for host, port in pairs)
    user, password, database = (found.pop(k, None) for k in ("user", "password", "dbname"))
    return URL.create(
        _DRIVER,
        username=user,
        password=password,
        host=hosts[0] or None if one else None,
        port=int(ports[0]) if one and ports[0] else None,
        database=database,
        query=found if one else {**found, "host": several},
    )


def _sqlite_advice(text: str) -> str:
    """Returns the URL of the file that a text seems to mean."""
    file = re.sub(r"^sqlite:/*", "", text)
    if not file.endswith((".db", ".sqlite", ".sqlite3")) or not re.fullmatch(r"[\w./~ -]+", file):
        file = "searchae.db"
    return f"sqlite:///{os.path.expanduser(file)}"


def name_url(url: URL, name: str) -> None:
    """Has a URL shown by a name, which the user gave instead of it."""
    _names[url] = name


def is_managed(url: URL) -> bool:
    """Whether a database is one that searchae runs on this machine; see ``storage.managed``."""
    return url in _names


def masked_url(url: URL | str) -> str:
    """Returns the URL without its passwords, for messages and logs; or its name, if it has one."""
    url = parse_url(url)
    if url in _names:
        return _names[url]
    secret = {k: "***" for k in url.query if _SECRETS.search(k)}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def database_exists(url: URL | str) -> bool:
    """Tells whether a SQLite file exists; for other databases, which it cannot tell, True."""
    url = parse_url(url)
    return not is_sqlite(url) or Path(str(url.database)).exists()


def is_sqlite(url: URL | str) -> bool:
    """Tells whether a database is a SQLite file, which only processes of one machine can share."""
    return parse_url(url).get_backend_name() == "sqlite"


def check_file(url: URL, *, writes: bool = True) -> bool:
    """Checks the folder of a SQLite file; warns if it lies on a network file system.

    Args:
        url: The database.
        writes: Whether it has to be written.

    Returns:
        Whether it can be written.

    Raises:
        StorageError: The folder does not exist, or has to be written and cannot; or the database is
            no regular file.
    """
    folder = Path(str(url.database)).resolve().parent
    if not folder.is_dir():
        raise StorageError(f"{masked_url(url)}: the folder {folder} does not exist")
    file = Path(str(url.database))
    if file.exists() and not file.is_file():
        what = "a folder" if file.is_dir() else "a pipe or a device"
        raise StorageError(f"{masked_url(url)}: is {what}, not a regular file; name another file")
    can_write = os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))
    if writes and not can_write:
        what = f"the file {file}" if os.access(folder, os.W_OK) else f"the folder {folder}"
        raise StorageError(f"{masked_url(url)}: {what} cannot be written")
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        log.warning(
            "%s lies on a network file system (%s), where SQLite's locks do not hold; "
            "use PostgreSQL for several machines",
            masked_url(url),
            kind,
        )
    return can_write


def _file_system(folder: Path) -> str:
    """Returns the type of a folder's file system as in /proc/mounts, or ``unknown``."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    parents = {str(folder), *map(str, folder.parents)}
    return max(
        ((m, kind) for m, kind in mounts if m in parents),
        default=("", "unknown"),
        key=lambda found: len(found[0]),
    )[1]


def require_database(url: URL) -> None:
    """Checks that the database exists; connecting would create a SQLite file.

    Raises:
        NoStudyError: It does not exist.
    """
    if not database_exists(url):
        raise NoStudyError(
            f"{masked_url(url)}: there is no database at {Path(str(url.database)).resolve()}. Type "
            "this in the folder where the search ran, or name the database with --storage; "
            "`searchae tune` makes one"
        )
