"""Trials as a table: rows for ``pandas.DataFrame``, a CSV file or a Parquet file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from searchae.config import StudySpec
from searchae.errors import UserError, install_text
from searchae.files import output_file
from searchae.report.findings import TrialRun, read_trial_runs
from searchae.storage import connect, open_url, require_database
from searchae.study import StoredStudy, load_study

LAST_EPOCH_COLUMNS = ("train_mse", "val_mse", "psnr_of_mse_db", "sparsity")
"""Columns of the history whose value after the last epoch is in the table."""


def trials(study: str, storage: str = "sqlite:///searchae.db") -> list[dict[str, Any]]:
    """Returns one row per trial of a study, for example for ``pandas.DataFrame(trials("svhn"))``.

    Args:
        study: The study's name.
        storage: The database's URL.

    Returns:
        One dict per trial; see ``rows``.

    Raises:
        NoStudyError: There is no such database, or no such study in it.
        StorageError: The database cannot be read, or searchae did not make the study.
    """
    url = open_url(storage)
    require_database(url)
    return trial_rows(load_study(connect(url, writes=False), study))


def trial_rows(stored: StoredStudy) -> list[dict[str, Any]]:
    """Returns one row per trial of a study; see ``rows``."""
    return rows(stored.spec, read_trial_runs(stored))


def rows(spec: StudySpec, runs: Sequence[TrialRun]) -> list[dict[str, Any]]:
    """Returns one row per trial, all with the same keys in the same order.

    Times are in UTC, in ISO 8601 format. Parameters are named ``params_NAME``, as in Optuna's
    ``Study.trials_dataframe``. Lists are JSON text.

    Args:
        spec: The study's specification.
        runs: The trials.
    """
    return [_row(spec, run) for run in runs]


def write_csv(path: Path, spec: StudySpec, runs: Sequence[TrialRun]) -> None:
    """Writes the rows as a CSV file; unknown values are empty.

    Args:
        path: The file.
        spec: The study's specification.
        runs: The trials.

    Raises:
        OSError: The file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _columns(spec), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(spec, runs))
    with output_file(path) as file:
        file.write(text.getvalue().encode())


def write_parquet(path: Path, spec: StudySpec, runs: Sequence[TrialRun]) -> None:
    """Writes the rows as a Parquet file with typed columns.

    Args:
        path: The file.
        spec: The study's specification.
        runs: The trials.

    Raises:
        UserError: pyarrow is not installed.
        OSError: The file cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(
            f"--parquet needs pyarrow: {install_text('parquet')}, or use --csv"
        ) from None
    schema = pyarrow.schema(
        [(name, _pyarrow_type(pyarrow, kind)) for name, kind in _columns(spec).items()]
    )
    table = pyarrow.Table.from_pylist(rows(spec, runs), schema=schema)
    with output_file(path) as file:
        parquet.write_table(table, file)


def _columns(spec: StudySpec) -> dict[str, type]:
    """Returns the type of each column, by name."""
    return {
        "number": int,
        "state": str,
        "outcome": str,
        "psnr_db": float,
        "epochs": float if spec.search.reports_per_epoch > 1 else int,
        "seconds": float,
        "started": str,
        "ended": str,
        "host": str,
        "device": str,
        "precision": str,
        "kernels": str,
        **dict.fromkeys(LAST_EPOCH_COLUMNS, float),
        **dict.fromkeys(_size_objectives(spec), float),
        **{f"params_{p.name}": _parameter_type(p.choices, integer=p.integer) for p in spec.space},
    }


def _parameter_type(choices: Sequence[Any], *, integer: bool) -> type:
    if not choices:
        return int if integer else float
    kinds = {type(c) for c in choices}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 and kinds <= {bool, int, float, str} else str


def _pyarrow_type(pyarrow: Any, kind: type) -> Any:
    types = {
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        bool: pyarrow.bool_(),
        str: pyarrow.string(),
    }
    return types[kind]


def _row(spec: StudySpec, run: TrialRun) -> dict[str, Any]:
    row = run.row
    params = {}
    for p in spec.space:
        kind, value = _parameter_type(p.choices, integer=p.integer), row.params.get(p.name)
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
        **{name: run.history[name][-1] if run.history else None for name in LAST_EPOCH_COLUMNS},
        **{name: row.values.get(name) for name in _size_objectives(spec)},
        **params,
    }


def _size_objectives(spec: StudySpec) -> list[str]:
    """Returns the objectives that are no columns otherwise: ``parameters``, ``latent_dim``."""
    return [o for o in spec.search.objectives if o not in ("psnr", "sparsity")]


def _utc(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="seconds") if time else None
