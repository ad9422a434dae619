"""``searchae mv`` and ``rm``: rename and delete studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae.cli.database import connect_to, storage_url
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import (
    DEFAULT_STORAGE,
    ArtifactsOption,
    JsonOption,
    StorageOption,
    examples,
)
from searchae.cli.results import print_result
from searchae.cli.terminal import print_line
from searchae.errors import UserError
from searchae.formatting import one_line

if TYPE_CHECKING:
    from searchae.study import Removal

app = typer.Typer()

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="The studies' names.", show_default=False),
]
StudiesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--study", "-s", metavar="STUDY", help="The same, as with other commands; repeatable."
    ),
]
OldArgument = Annotated[str, typer.Argument(metavar="OLD", help="The study's name.")]
NewArgument = Annotated[str, typer.Argument(metavar="NEW", help="The name that it gets.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")]


@app.command(epilog=examples("searchae mv svhn svhn-old"))
def mv(
    old: OldArgument,
    new: NewArgument,
    storage: StorageOption = DEFAULT_STORAGE,
    as_json: JsonOption = False,
) -> None:
    """Rename a study, with the lists of its trainings.

    Its files below the artifact folder stay in their folder, and stay its own. To go on with it,
    tune needs the new name as well: --name NEW.
    """
    with importing():
        quiet_optuna()
        from searchae.storage import require_database
        from searchae.study import rename_study

    url = storage_url(storage)
    require_database(url)
    names = rename_study(connect_to(url), old, new)

    def text() -> None:
        for before, after in names.items():
            print_line(f"{before} is now {after}")

    print_result(lambda: {"renamed": names}, text, as_json=as_json)


@app.command(epilog=examples("searchae rm svhn-old", "searchae rm --yes try-1 try-2"))
def rm(
    names: NamesArgument = None,
    study: StudiesOption = None,
    yes: YesOption = False,
    storage: StorageOption = DEFAULT_STORAGE,
    artifacts: ArtifactsOption = Path("artifacts"),
    as_json: JsonOption = False,
) -> None:
    """Delete studies: trials, lists of trainings and files.

    The files are those that searchae has written into the study's folder below --artifacts:
    checkpoints, pictures, logs, measurements and comparisons. Bundles of train are kept.
    """
    with importing():
        quiet_optuna()
        from searchae.storage import require_database
        from searchae.study import plan_removal, removal_text

    asked = [*(names or ()), *(study or ())]
    if not asked:
        raise UserError("rm: say which: searchae rm NAME")
    url = storage_url(storage)
    require_database(url)
    connected = connect_to(url)
    planned: dict[int, Removal] = {}
    for name in asked:  # one that is not there is told of before any is deleted
        planned |= {r.study.id: r for r in plan_removal(connected, name, artifacts)}
    if not yes:
        _ask([removal_text(removal) for removal in planned.values()])
    deleted = []
    for removal in planned.values():
        removal.delete_rows()
        left = removal.delete_files()
        if not as_json:
            print_line(f"deleted {removal_text(removal)}")
            if left:
                print_line(f"{removal.folder} stays, with what is not searchae's: {_few(left)}")
        deleted.append(_document(removal, left))
    print_result(lambda: {"deleted": deleted}, lambda: None, as_json=as_json)


def _ask(lines: list[str]) -> None:
    """Asks whether to delete what the lines say.

    Raises:
        UserError: There is no terminal to ask on.
        typer.Exit: The answer is no.
    """
    if not sys.stdin.isatty():
        raise UserError(
            "there is no terminal to ask on: --yes deletes without asking",
            *(f"  {line}" for line in lines),
        )
    print("To be deleted for good:", file=sys.stderr)
    for line in lines:
        print_line(f"  {one_line(line)}", file=sys.stderr)
    if not typer.confirm("Delete?", err=True):
        print("nothing was deleted", file=sys.stderr)
        raise typer.Exit(1)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _document(removal: Removal, left: list[str]) -> dict[str, Any]:
    return {
        "study": removal.study.name,
        "trials": removal.study.trials,
        "folder": None if removal.folder is None else str(removal.folder),
        "bytes": 0 if removal.kept else removal.size,
        "kept": removal.kept,
        "left": left,
    }
