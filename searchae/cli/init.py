"""``searchae init``: writes a study file for somebody's images."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae.cli.init_questions import (
    Questions,
    check_out,
    default_out,
    drafted,
    look,
    reference,
    require_terminal,
)
from searchae.cli.lazy_imports import importing
from searchae.cli.options import DataDirOption, JsonOption, examples
from searchae.cli.results import print_result
from searchae.cli.terminal import print_line
from searchae.config import USUAL, StudyDraft, built_in_studies, check_like
from searchae.errors import UserError
from searchae.files import is_standard_output, output_file

if TYPE_CHECKING:
    from searchae.data import Survey

app = typer.Typer()

ImagesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|FILE|NAME",
        help="A folder of pictures, an npz, a csv, or svhn, mnist, cifar10, house-numbers.",
        show_default="asked for on a terminal",
    ),
]
LikeOption = Annotated[
    str | None,
    typer.Option(
        metavar="STUDY",
        help="The built-in study whose net and search it gets: conv (the usual one), dense, "
        "pool-conv, pool-conv-8x8, conv-bn, gap-conv, same-size, svhn, mnist, cifar10, quickstart.",
        show_default=USUAL,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        help="The study file.",
        show_default="studies/ and the images' name",
    ),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Side of the square that pictures of a folder become.",
        show_default="theirs, 64 at most",
    ),
]
TrialsOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Trials.", show_default="as in --like")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Write this instead: --set data.white=4095; repeatable.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]


@app.command(
    epilog=examples(
        "searchae init",
        "searchae init --images photos",
        "searchae init --images photos --image-size 48 --like pool-conv --out studies/small.toml",
        "searchae init --images scans.npz --set data.white=4095 --set train.epochs=50",
    )
)
def init(
    images: ImagesOption = None,
    like: LikeOption = None,
    out: OutOption = None,
    image_size: ImageSizeOption = None,
    trials: TrialsOption = None,
    overrides: SetOption = None,
    data_dir: DataDirOption = Path("data"),
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a study file for your images, with comments.

    It looks at the images first: their sizes, colours, bits and number. On a terminal, without
    --images, it asks; else everything but --images has a default. Nothing is fetched or trained.
    """
    with importing():
        from searchae.cli import console

    changes = list(overrides or [])
    if image_size is not None:
        changes.append(f"data.image_size={image_size}")
    if out is not None:
        check_out(out, force=force)
    if like is not None:
        check_like(like)
    if images is None:
        require_terminal()
        asked = Questions(changes, data_dir, trials)
        draft, found, out = asked.ask(like, out, force=force)
    else:
        if out is None:
            check_out(out := default_out(images), force=force)
        found = look(images, changes, data_dir=data_dir, out=out)
        draft = drafted(found, like or USUAL, out=out, trials=trials, changes=changes)
    if is_standard_output(out):
        sys.stdout.flush()
        print(draft.text, end="")
        return
    _write(out, draft.text, force=force)
    if out.stem in built_in_studies() and reference(out) == out.stem:
        console.print_note(f"-s {out.stem} names this file now, no longer the built-in study")
    document = _document(out, draft, found, data_dir)
    print_result(lambda: document, lambda: _print_written(document, found.text), as_json=as_json)


def _write(out: Path, text: str, *, force: bool) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if force:
            with output_file(out) as file:
                file.write(text.encode())
        else:
            with out.open("xb") as new:  # what another process has just made is left alone, too
                new.write(text.encode())
    except OSError as e:
        raise UserError(f"--out {out}: cannot be written: {e.strerror or e}") from e


def _document(out: Path, draft: StudyDraft, found: Survey, data_dir: Path) -> dict[str, Any]:
    return {
        "path": str(out),
        "source": found.spec.name,
        "train": found.train,
        "validation": found.validation,
        "test": found.test,
        "image_shape": list(found.shape),
        "spec": draft.spec.document(),
        "next": _next_commands(out, data_dir),
    }


def _next_commands(out: Path, data_dir: Path) -> list[str]:
    where = [] if data_dir == Path("data") else ["--data-dir", str(data_dir)]
    study = reference(out)
    sheet = f"{out.stem}.png"
    commands = (
        ["data", str(out), "--show", sheet],
        ["tune", "-s", study, "--dry-run"],
        ["tune", "-s", study],
    )
    return [shlex.join(["searchae", *words, *where]) for words in commands]


def _print_written(document: Mapping[str, Any], text: str) -> None:
    channels, height, width = document["image_shape"]
    print_line(f"images     {text}")
    print_line(
        f"splits     {document['train']:,} train, {document['validation']:,} validation, "
        f"{document['test']:,} test"
    )
    print_line(f"nets get   {width}x{height} pixels, {channels} {_channels(channels)}")
    print_line(f"written    {document['path']}")
    print_line("next       a picture of what was read; what would run, and how long; the search:")
    for command in document["next"]:
        print_line(command)


def _channels(count: int) -> str:
    return "channel" if count == 1 else "channels"
