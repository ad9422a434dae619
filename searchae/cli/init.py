"""``searchae init``: writes a study file for somebody's images."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from searchae.cli.lazy_imports import importing
from searchae.cli.options import DataDirOption, JsonOption, examples
from searchae.cli.results import print_result
from searchae.cli.terminal import print_line
from searchae.config import (
    LIKES,
    SOURCES_WITHOUT_PATH,
    USUAL,
    DraftImages,
    StudyDraft,
    apply_overrides,
    built_in_studies,
    check_like,
    check_study_name,
    draft_study,
)
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

T = TypeVar("T")


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
        _check_out(out, force=force)
    if like is not None:
        check_like(like)
    if images is None:
        _require_terminal()
        asked = _Questions(changes, data_dir, trials)
        draft, found, out = asked.ask(like, out, force=force)
    else:
        if out is None:
            _check_out(out := default_out(images), force=force)
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


def default_out(images: str) -> Path:
    """Returns the file of a new study of some images: ``studies/photos.toml``."""
    name = Path(images).name.split(".")[0] or Path(images).resolve().name or "images"
    try:
        check_study_name(name)
        name.encode()
    except (UserError, UnicodeEncodeError):
        name = "images"
    if name in SOURCES_WITHOUT_PATH or name in built_in_studies():
        name = f"my-{name}"  # else it would hide a built-in study
    return Path("studies", f"{name}.toml")


def reference(out: Path) -> str:
    """Returns what names a study file in a command: its name below ``./studies``, or its path."""
    in_studies = out.absolute().parent.resolve() == Path("studies").resolve()
    return out.stem if in_studies else str(out)


def look(images: str, changes: Sequence[str], *, data_dir: Path, out: Path) -> Survey:
    """Looks at images; what ``--set`` says of ``[data]`` holds.

    Raises:
        UserError: They are not there, cannot be read, or can be read in two ways.
    """
    from searchae.cli import console
    from searchae.data import survey_images

    document: dict[str, Any] = {"data": {}}
    apply_overrides(document, changes)
    given = document["data"]
    if not isinstance(given, Mapping):
        raise UserError(f"--set data: is a table, not {given!r}: write --set data.KEY=VALUE")
    return survey_images(
        images,
        given,
        data_dir=data_dir,
        study_folder=out.absolute().parent,
        progress=console.print_note,
    )


def drafted(
    found: Survey, like: str, *, out: Path, trials: int | None, changes: Sequence[str]
) -> StudyDraft:
    """Returns the study file.

    Raises:
        UserError: The net of ``like`` does not suit the images, or ``changes`` are wrong.
    """
    about = DraftImages(
        found.keys, found.reasons, found.shape, found.train, found.text, found.splits
    )
    return draft_study(
        about,
        name=shlex.quote(reference(out)),
        like=like,
        trials=trials,
        overrides=changes,
    )


class _Questions:
    """Asks for what was not given.

    Args:
        changes: What ``--set`` says.
        data_dir: The data folder.
        trials: The number of trials; None for that of the study that it is like.
    """

    def __init__(self, changes: list[str], data_dir: Path, trials: int | None) -> None:
        self._changes, self._data_dir, self._trials = changes, data_dir, trials

    def ask(
        self, like: str | None, out: Path | None, *, force: bool
    ) -> tuple[StudyDraft, Survey, Path]:
        """Asks; returns the study file, what was found of the images, and where it shall be."""
        images = ""
        kinds = f"a folder of pictures, an npz, a csv, or {', '.join(SOURCES_WITHOUT_PATH)}"

        def looked(answer: str) -> Survey:
            nonlocal images
            answer = answer.removeprefix("--set ").strip()
            if answer.startswith("data.") and "=" in answer and images:
                self._changes.append(answer)
            else:
                images = answer
            place = out or default_out(images)
            return look(images, self._changes, data_dir=self._data_dir, out=place)

        found = _answered(f"Images ({kinds})", "", looked)
        _say(f"  {found.text}")
        if "image_size" in found.keys and not self._is_set("data.image_size"):
            found = self._sized(found, images, out)

        def draft_like(answer: str) -> StudyDraft:
            check_like(answer)
            place = out or default_out(images)
            return drafted(found, answer, out=place, trials=self._trials, changes=self._changes)

        def known(answer: str) -> str:
            draft_like(answer)
            return answer

        like = like or _answered(f"Net and search as in ({', '.join(LIKES)})", USUAL, known)
        if out is None:

            def named(answer: str) -> Path:
                _check_out(Path(answer), force=force)
                return Path(answer)

            out = _answered("Study file", str(default_out(images)), named)
        return draft_like(like), found, out

    def _sized(self, found: Survey, images: str, out: Path | None) -> Survey:
        def sized(answer: str) -> Survey:
            changes = [*self._changes, f"data.image_size={answer}"]
            if answer == proposed:
                return found
            new = look(images, changes, data_dir=self._data_dir, out=out or default_out(images))
            self._changes[:] = changes
            return new

        size = found.keys["image_size"]
        proposed = str(size)
        return _answered("Pixels a side, or [height, width]", proposed, sized)

    def _is_set(self, key: str) -> bool:
        return any(change.partition("=")[0].strip() == key for change in self._changes)


def _answered(question: str, default: str, use: Callable[[str], T]) -> T:
    """Asks until an answer can be used; returns what ``use`` makes of it."""
    while True:
        shown = f" [{default}]" if default else ""
        print(f"{question}{shown}: ", end="", file=sys.stderr, flush=True)
        try:
            answer = input().strip() or default
        except EOFError:
            _say("")
            raise UserError("the questions were not answered; nothing was written") from None
        if not answer:
            continue
        try:
            return use(answer)
        except UserError as e:
            for line in e.args:
                _say(f"  {line}")


def _say(text: str) -> None:
    print_line(text, file=sys.stderr)


def _require_terminal() -> None:
    streams = (sys.stdin, sys.stderr)
    if not all(stream is not None and not stream.closed and stream.isatty() for stream in streams):
        raise UserError(
            "--images: is missing, and there is no terminal to ask for it: name a folder of "
            f"pictures, an npz, a csv, or {', '.join(SOURCES_WITHOUT_PATH)}, for example: "
            "searchae init --images photos"
        )


def _check_out(out: Path, *, force: bool) -> None:
    """Checks that the study file can be written, before any image is read.

    Raises:
        UserError: It is no name of a study file, or exists and is not to be overwritten.
    """
    if is_standard_output(out):
        return
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file in it: {out / 'mine.toml'}")
    if out.suffix != ".toml":
        raise UserError(
            f"--out {out}: a study file's name ends in .toml: {out.with_name(f'{out.name}.toml')}"
        )
    try:
        check_study_name(out.stem)
    except UserError as e:
        raise UserError(f"--out {out}: {str(e).partition(': ')[2]}") from None
    if os.path.lexists(out) and not force:
        raise UserError(f"--out {out}: exists; another name keeps it, --force overwrites it")


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
