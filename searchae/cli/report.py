"""``searchae report``: writes a report, and the trials for other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from searchae.cli.database import open_study, storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import (
    DEFAULT_STORAGE,
    ArtifactsOption,
    JsonOption,
    StorageOption,
    StudyNameOption,
    examples,
)
from searchae.cli.results import print_result, require_html, require_suffix
from searchae.cli.terminal import print_line
from searchae.errors import UserError
from searchae.files import is_standard_output

app = typer.Typer()

OutOption = Annotated[
    Path | None, typer.Option(metavar="FILE.html", help="One file that opens offline.")
]
CsvOption = Annotated[Path | None, typer.Option(metavar="FILE", help="The trials, a line each.")]
ParquetOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The same, typed; needs pyarrow.")
]
TensorboardOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Scalars by epoch; needs the tensorboard package."),
]


@app.command(
    epilog=examples(
        "searchae report -s quickstart --out report.html",
        "searchae report -s svhn --csv trials.csv --tensorboard runs",
    )
)
def report(
    study: StudyNameOption,
    out: OutOption = None,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    tensorboard: TensorboardOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    artifacts: ArtifactsOption = Path("artifacts"),
    as_json: JsonOption = False,
) -> None:
    """Write a study's report as HTML, or its trials as a table."""
    if not (out or csv or parquet or tensorboard):
        raise UserError("nothing to write: give --out, --csv, --parquet or --tensorboard")
    require_html(out)
    require_suffix("--csv", csv, "a CSV file", ".csv", ".txt")
    require_suffix("--parquet", parquet, "a Parquet file", ".parquet", ".pq")
    with importing():
        quiet_optuna()
        from searchae.cli.console import print_note
        from searchae.report import (
            collect_findings,
            write_csv,
            write_parquet,
            write_report,
            write_tensorboard,
        )
        from searchae.study import require_searched

    stored = open_study(storage_url(storage), study, writes=False)
    if out:
        require_searched(stored)
    found = collect_findings(stored, artifacts=artifacts)
    spec, runs = found.spec, found.runs
    written = [
        *_write("--out", out, "report", lambda p: write_report(p, found)),
        *_write("--csv", csv, "trials", lambda p: write_csv(p, spec, runs)),
        *_write("--parquet", parquet, "trials", lambda p: write_parquet(p, spec, runs)),
        *_write("--tensorboard", tensorboard, "scalars", lambda p: write_tensorboard(p, runs)),
    ]
    if out and found.best and not found.pictures:
        print_note(
            f"no pictures in it: {artifacts} holds none of {study}; --artifacts says where they lie"
        )
    document = {**found.document(), "written": written}
    print_result(lambda: document, lambda: _print_written(written), as_json=as_json)


def _write(
    option: str, path: Path | None, what: str, writer: Callable[[Path], object]
) -> list[dict[str, Any]]:
    """Writes one output if its option is given.

    Args:
        option: The option's name.
        path: Its value; a file or a folder.
        what: What is written.
        writer: Writes it to a path.

    Returns:
        One entry for the list of what was written, or none.

    Raises:
        UserError: The output cannot be written.
    """
    if path is None:
        return []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(path)
        return [{"what": what, "path": str(path), "bytes": _size(path)}]
    except OSError as e:
        raise UserError(f"{option} {path}: cannot be written: {e.strerror or e}") from e


def _print_written(written: list[dict[str, Any]]) -> None:
    for entry in written:
        if is_standard_output(Path(entry["path"])):
            continue  # the line would stand within the output
        size = f"  ({_format_size(entry['bytes'])})" if entry["bytes"] else ""  # a pipe has none
        print_line(f"{entry['what']:8s} {entry['path']}{size}")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())


def _format_size(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
