"""Trials as a data frame: rows for pandas, a CSV file, a Parquet file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from searchae.config import StudySpec
from searchae.errors import NoStudyError, UserError
from searchae.files import atomic_file
from searchae.report.findings import Run, runs_of
from searchae.storage import connect, masked_url, parse_url
from searchae.study import load_study

LAST = ("train_mse", "val_mse", "psnr_of_mse_db", "sparsity")
"""Of the history: the last epoch's."""


def trials(study: str, storage: str = "sqlite:///searchae.db") -> list[dict[str, Any]]:
    """A study's trials, a row each: ``pandas.DataFrame(trials("svhn"))``.

    Args:
        study: Its name.
        storage: The database's URL.

    Returns:
        See ``rows``.

    Raises:
        StorageError: The database cannot be read, or the study is not in it.
    """
    url = parse_url(storage)
    # Connecting would make the file.
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise NoStudyError(f"{masked_url(storage)}: there is no such database")
    stored = load_study(connect(storage), study)
    return rows(stored.spec, runs_of(stored))


def rows(spec: StudySpec, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row a trial, all with the same keys in the same order.

    Times are ISO 8601 in UTC. Parameters are called ``params_NAME``, as in Optuna's own frames;
    lists are written as JSON.

    Returns:
        Rows that ``pandas.DataFrame`` takes as they are.
    """
    return [_row(spec, run) for run in runs]


def write_csv(path: Path, spec: StudySpec, runs: Sequence[Run]) -> None:
    """Writes the rows as CSV; what is not known is left empty.

    Raises:
        OSError: The file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(spec), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(spec, runs))
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def write_parquet(path: Path, spec: StudySpec, runs: Sequence[Run]) -> None:
    """Writes the rows as Parquet, each column with its type.

    Raises:
        UserError: pyarrow is not installed.
        OSError: The file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(
            "--parquet needs pyarrow: pip install 'searchae[parquet]', or use --csv"
        ) from None
    schema = pyarrow.schema([(name, _type(pyarrow, kind)) for name, kind in _columns(spec).items()])
    table = pyarrow.Table.from_pylist(rows(spec, runs), schema=schema)
    with atomic_file(path) as file:
        parquet.write_table(table, file)


def _columns(spec: StudySpec) -> dict[str, type]:
    """Every column's name and type."""
    return {
        "number": int,
        "state": str,
        "outcome": str,
        "psnr_db": float,
        "epochs": int,
        "seconds": float,
        "started": str,
        "ended": str,
        "host": str,
        "device": str,
        "precision": str,
        "kernels": str,
        **dict.fromkeys(LAST, float),
        **{f"params_{p.name}": _kind(p.choices, integer=p.integer) for p in spec.space},
    }


def _kind(choices: Sequence[Any], *, integer: bool) -> type:
    if not choices:
        return int if integer else float
    kinds = {type(c) for c in choices}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 and kinds <= {bool, int, float, str} else str


def _type(pyarrow: Any, kind: type) -> Any:
    types = {
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        bool: pyarrow.bool_(),
        str: pyarrow.string(),
    }
    return types[kind]


def _row(spec: StudySpec, run: Run) -> dict[str, Any]:
    row = run.row
    params = {}
    for p in spec.space:
        kind, value = _kind(p.choices, integer=p.integer), row.params.get(p.name)
        as_text = kind is str and value is not None and not isinstance(value, str)
        params[f"params_{p.name}"] = json.dumps(value) if as_text else value
    return {
        "number": row.number,
        "state": row.state,
        "outcome": row.outcome or None,
        "psnr_db": row.psnr_db,
        "epochs": row.epochs,
        "seconds": row.seconds,
        "started": _utc(run.started),
        "ended": _utc(run.ended),
        **{name: run.runtime.get(name) for name in ("host", "device", "precision", "kernels")},
        **{name: run.history[name][-1] if run.history else None for name in LAST},
        **params,
    }


def _utc(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="seconds") if time else None
