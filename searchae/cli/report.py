"""The command that writes a report, and the trials for other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from searchae.cli.options import (
    DEFAULT_STORAGE,
    ArtifactsOption,
    JsonOption,
    StorageOption,
    StudyNameOption,
    examples,
    importing,
    open_study,
    quiet_optuna,
    show,
)
from searchae.errors import UserError

app = typer.Typer()


@app.command(
    epilog=examples(
        "searchae report -s quickstart --out report.html",
        "searchae report -s svhn --csv trials.csv --tensorboard runs",
    )
)
def report(
    study: StudyNameOption,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="One file that opens offline.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The trials, a line each.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same, typed; needs pyarrow.")
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Scalars by epoch; needs the tensorboard package."),
    ] = None,
    storage: StorageOption = DEFAULT_STORAGE,
    artifacts: ArtifactsOption = Path("artifacts"),
    as_json: JsonOption = False,
) -> None:
    """Write a study's report as one HTML file, or its trials for other tools."""
    if not (out or csv or parquet or tensorboard):
        raise UserError("nothing to write: give --out, --csv, --parquet or --tensorboard")
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

    stored = open_study(storage, study)
    found = collect_findings(stored, artifacts=artifacts)
    written: list[dict[str, Any]] = []

    def write(option: str, path: Path | None, what: str, writing: Callable[[Path], object]) -> None:
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writing(path)
            written.append({"what": what, "path": str(path), "bytes": _size(path)})
        except OSError as e:
            raise UserError(f"{option} {path}: cannot be written: {e.strerror or e}") from e

    write("--out", out, "report", lambda p: write_report(p, found))
    write("--csv", csv, "trials", lambda p: write_csv(p, found.spec, found.runs))
    write("--parquet", parquet, "trials", lambda p: write_parquet(p, found.spec, found.runs))
    write("--tensorboard", tensorboard, "scalars", lambda p: write_tensorboard(p, found.runs))

    if out and found.best and not found.pictures:
        print_note(
            f"no pictures in it: {artifacts} holds none of {study}; --artifacts says where they lie"
        )

    def say() -> None:
        for w in written:
            print(f"{w['what']:8s} {w['path']}  ({_readable(w['bytes'])})")

    show(as_json, lambda: {**found.document(), "written": written}, say)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())


def _readable(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
