"""What ``searchae init`` asks on a terminal, and what it makes of the answers."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
from searchae.errors import SpecError, UserError
from searchae.files import is_standard_output

if TYPE_CHECKING:
    from searchae.data import Survey

T = TypeVar("T")


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


def check_out(out: Path, *, force: bool) -> None:
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


class Questions:
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
            before = list(self._changes)
            if answer.startswith("data.") and "=" in answer and images:
                self._changes.append(answer)
            else:
                images = answer
            place = out or default_out(images)
            try:
                return look(images, self._changes, data_dir=self._data_dir, out=place)
            except SpecError:  # the key or its value is wrong: it is asked for again
                self._changes[:] = before
                raise

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

        if like is not None:
            known(like)
        like = like or _answered(f"Net and search as in ({', '.join(LIKES)})", USUAL, known)
        if out is None:

            def named(answer: str) -> Path:
                check_out(Path(answer), force=force)
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


def require_terminal() -> None:
    """Checks that there is a terminal to ask on.

    Raises:
        UserError: There is none.
    """
    streams = (sys.stdin, sys.stderr)
    if not all(stream is not None and not stream.closed and stream.isatty() for stream in streams):
        raise UserError(
            "--images: is missing, and there is no terminal to ask for it: name a folder of "
            f"pictures, an npz, a csv, or {', '.join(SOURCES_WITHOUT_PATH)}, for example: "
            "searchae init --images photos"
        )
