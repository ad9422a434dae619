"""``searchae data``: fetches a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.lazy_imports import importing
from searchae.cli.options import DataDirOption, JsonOption, examples
from searchae.cli.results import print_result
from searchae.errors import UserError, nearest
from searchae.files import is_standard_output

if TYPE_CHECKING:
    from searchae.config import StudySpec

app = typer.Typer()

NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A data set (mnist), or a study file whose data it is."),
]
ShowOption = Annotated[
    Path | None,
    typer.Option(
        "--show", metavar="FILE.png", help="Write sample images of each split to this file."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set data.white=255"),
]


@app.command(
    epilog=examples(
        "searchae data mnist",
        "searchae data house-numbers --show digits.png",
        "searchae data ./my-study.toml",
    )
)
def data(
    name: NameArgument,
    data_dir: DataDirOption = Path("data"),
    show: ShowOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch and check a data set, and show its splits."""
    with importing():
        from searchae.cli import console
        from searchae.data import (
            absolute_paths,
            describe_splits,
            load_splits,
            split_warnings,
            write_contact_sheet,
        )

    spec, folder = _spec_of(name, overrides or [])
    source = absolute_paths(
        spec.data, data_dir=data_dir, study_folder=folder, progress=console.print_note
    )
    splits = load_splits(source, data_dir=data_dir, seed=spec.seed, progress=console.print_note)
    if show is not None:
        try:
            write_contact_sheet(show, splits)
        except OSError as e:
            raise UserError(f"--show {show}: cannot be written: {e.strerror or e}") from e
        channels = {
            2: ", and beside each its second channel",
            4: ", and beside each its fourth channel, in grey",
        }
        shown = channels.get(splits.image_shape[0], "")
        console.print_note(f"{show}: images of each split, as they were read{shown}")
    for warning in split_warnings(splits):
        console.print_note(f"warning: {warning}")
    document = {"name": spec.data.name, **describe_splits(splits)}
    if show is None or not is_standard_output(show):  # else it would stand within the picture
        print_result(lambda: document, lambda: console.print_splits(document), as_json=as_json)


def _spec_of(name: str, overrides: list[str]) -> tuple[StudySpec, Path | None]:
    """Returns the study of a file and the file's folder, or one with the data set of that name."""
    from searchae.cli.console import print_note
    from searchae.config import (
        SOURCES_WITHOUT_PATH,
        find_study_file,
        load_data_set,
        load_study_file,
        note_on_study_file,
        study_files,
    )

    known = {*SOURCES_WITHOUT_PATH, *study_files()}
    if name in SOURCES_WITHOUT_PATH:
        return load_data_set(name, overrides=overrides), None
    is_path = "/" in name or name.endswith(".toml")
    if name in known or is_path or Path(f"{name}.toml").is_file():
        path = find_study_file(name)
        if text := note_on_study_file(name):
            print_note(text)
        return load_study_file(path, overrides=overrides), path.parent
    if Path(name).is_dir():
        find_study_file(f"./{name}")  # says what to do with images
    if Path(name).is_file():
        find_study_file(name)
    if name in ("npz", "csv", "folder"):
        raise UserError(
            f"{name!r} is the kind of images of your own: `searchae init --images PATH` writes a "
            "study file that names them; then give the study file"
        )
    raise UserError(f"{name!r} is neither a data set nor a study file; {nearest(name, known)}")
