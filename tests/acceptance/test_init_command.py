"""``searchae init`` and ``studies --show``, as typed."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchae.config import DataSpec, load_study_file, study_toml
from tests.conftest import RunCommand, smooth_images
from tests.forked_commands import start_command

pytestmark = pytest.mark.usefixtures("keeps_threads")


def write_pictures(folder: Path, count: int = 24, size_px: int = 20) -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(smooth_images(count, size_px)):
        Image.fromarray(image[: size_px - i % 3]).save(folder / f"{i:02d}.png")


def write_csv(path: Path) -> None:
    images = smooth_images(40, 12, channels=1)[..., 0]
    rows = ([i % 10, *image.ravel()] for i, image in enumerate(images))
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def make_images(folder: Path, kind: str) -> str:
    """Makes images of a kind in a user's folder; returns what names them."""
    grey = smooth_images(40, 12, channels=1)[..., 0]
    if kind == "folder":
        write_pictures(folder / "photos")
        return "photos/"
    if kind == "odd path":
        write_pictures(folder / "Bilder" / 'Fahrt "Übersee" \\ 画')
        return 'Bilder/Fahrt "Übersee" \\ 画'
    if kind == "16 bits":
        (folder / "scans").mkdir()
        for i, image in enumerate(grey):
            Image.fromarray(image.astype(np.uint16) * 257).save(folder / "scans" / f"{i:02d}.png")
        return "scans"
    if kind == "csv":
        write_csv(folder / "rows.csv")
        return "rows.csv"
    if kind == "in the data folder":
        (folder / "studies" / "tiny.toml").unlink()
        return "tiny.npz"
    np.savez(folder / "grey.npz", x_train=grey, x_test=grey[:8])
    return "./grey.npz"


@pytest.mark.parametrize(
    ("kind", "like", "data"),
    [
        (
            "folder",
            "conv",
            {"name": "folder", "path": "photos", "image_size": 16, "validation": 0.2},
        ),
        (
            "odd path",
            "dense",
            {
                "name": "folder",
                "path": 'Bilder/Fahrt "Übersee" \\ 画',
                "image_size": 16,
                "validation": 0.2,
            },
        ),
        (
            "16 bits",
            "conv-bn",
            {
                "name": "folder",
                "path": "scans",
                "image_size": 12,
                "grayscale": True,
                "bits": 16,
                "validation": 0.2,
            },
        ),
        ("csv", "same-size", {"name": "csv", "path": "rows.csv", "validation": 0.2}),
        ("npz", "pool-conv", {"name": "npz", "path": "grey.npz", "validation": 0.2}),
        (
            "in the data folder",
            "gap-conv",
            {"name": "npz", "path": "tiny.npz", "validation": 0.2},
        ),
    ],
)
def test_the_study_says_what_was_found_and_can_be_run_as_it_stands(
    folder: Path, command_line: RunCommand, kind: str, like: str, data: dict[str, object]
) -> None:
    images = make_images(folder, kind)
    written = command_line("init", "--images", images, "--like", like, "--json")
    assert written.returncode == 0, written.stderr
    document = json.loads(written.stdout)
    spec = load_study_file(folder / document["path"], environment={})
    assert spec.data == DataSpec.model_validate(data)
    assert spec.document() == document["spec"]
    show, check, search = (shlex.split(line) for line in document["next"])
    assert search == check[:-1]
    planned = command_line(*check[1:], "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    for split in ("train", "validation", "test"):
        assert plan["splits"][split] == document[split]
    assert plan["splits"]["image_shape"] == document["image_shape"]
    assert "changes nothing here" not in planned.stderr
    shown = command_line(*show[1:])
    assert shown.returncode == 0, shown.stderr
    assert Path(show[-1]).exists()


def test_what_follows_can_be_pasted(folder: Path, command_line: RunCommand) -> None:
    write_pictures(folder / "my photos")
    done = command_line("init", "--images", "my photos", "--trials", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    commands = [line for line in lines if line.startswith("searchae ")]
    assert commands == [
        "searchae data 'studies/my photos.toml' --show 'my photos.png'",
        "searchae tune -s 'my photos' --dry-run",
        "searchae tune -s 'my photos'",
    ]
    assert lines[-3:] == commands
    assert "written    studies/my photos.toml" in lines


def test_a_study_elsewhere_is_named_by_its_path(folder: Path, command_line: RunCommand) -> None:
    out = folder / "new" / "a.toml"
    done = command_line(
        *("init", "--images", "mnist", "--out", str(out), "--data-dir", "other", "--json")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["next"][2] == f"searchae tune -s {out} --data-dir other"


def test_a_data_set_does_not_hide_the_built_in_study(
    folder: Path, command_line: RunCommand
) -> None:
    done = command_line("init", "--images", "svhn")
    assert done.returncode == 0, done.stderr
    assert (folder / "studies" / "my-svhn.toml").exists()
    assert not list((folder / "data").glob("*svhn*")), "nothing is fetched"
    hiding = command_line("init", "--images", "svhn", "--out", "studies/svhn.toml")
    assert "-s svhn names this file now, no longer the built-in study" in hiding.stderr


def test_nothing_is_overwritten_without_being_told(folder: Path, command_line: RunCommand) -> None:
    mine = folder / "studies" / "tiny.toml"
    before = mine.read_text()
    refused = command_line("init", "--images", "tiny.npz")
    assert refused.returncode == 2
    assert "--out studies/tiny.toml: exists" in refused.stderr
    assert mine.read_text() == before
    forced = command_line("init", "--images", "tiny.npz", "--force")
    assert forced.returncode == 0, forced.stderr
    assert mine.read_text() != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--images: is missing, and there is no terminal to ask for it"),
        (["--images", "nowhere"], "'nowhere' was not found"),
        (["--images", "studies"], "there is no image in it"),
        (["--images", "mnist", "--like", "con"], "did you mean 'conv'"),
        (["--images", "mnist", "--out", "x"], "a study file's name ends in .toml: x.toml"),
        (["--images", "mnist", "--out", "studies"], "is a folder"),
        (["--images", "mnist", "--out", "tiny.toml/x.toml"], "cannot be written"),
        (["--images", "mnist", "--set", "train.lr=1"], "train.lr: unknown key"),
        (["--images", "mnist", "--set", "data=1"], "--set data"),
        (["--images", "tiny.npz", "--image-size", "2", "--force"], "data.image_size"),
    ],
)
def test_mistakes_are_told_in_a_line(
    folder: Path, searchae: RunCommand, words: list[str], said: str
) -> None:
    (folder / "tiny.toml").touch()
    before = sorted(folder.rglob("*"))
    done = searchae("init", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.rglob("*")) == before


def test_standard_output_gets_the_file_and_nothing_else(searchae: RunCommand) -> None:
    done = searchae("init", "--images", "mnist", "--out", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Written by searchae init")
    assert done.stdout.rstrip().splitlines()[-1].startswith("pruner")


def answer(folder: Path, *answers: str, words: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Answers ``searchae init`` on a terminal; returns its exit code, output and what was asked."""
    ours, theirs = pty.openpty()
    process = start_command(
        *("init", *words),
        cwd=folder,
        env=dict(os.environ),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    said, at = "", 0
    left = list(answers)
    while select.select([ours], [], [], 60)[0]:
        try:
            said += os.read(ours, 4096).decode()
        except OSError:  # the other end is closed
            break
        if said[at:].endswith(": ") and left:
            at = len(said)
            os.write(ours, f"{left.pop(0)}\n".encode())
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    return process.wait(60), out, said


def test_on_a_terminal_it_asks_until_it_is_told(folder: Path) -> None:
    write_pictures(folder / "photos")
    code, out, said = answer(
        folder, "fotos", "photos", "x", "8", "konv", "dense", "studies/tiny.toml", ""
    )
    assert code == 0, said
    assert "'fotos' was not found" in said
    assert "24 pictures of 20x18 to 20x20 pixels, in colour" in said
    assert "not 'x'" in said
    assert "did you mean 'conv'" in said
    assert "--out studies/tiny.toml: exists" in said
    assert "written    studies/photos.toml" in out
    spec = load_study_file(folder / "studies" / "photos.toml", environment={})
    assert spec.data.image_size == 8
    assert spec.fixed["model"]["kind"] == "dense"


def test_on_a_terminal_a_doubt_is_settled_by_a_key(folder: Path) -> None:
    deep = np.linspace(0, 4000, 40 * 144).astype(np.uint16).reshape(40, 12, 12)
    np.savez(folder / "deep.npz", images=deep)
    code, _, said = answer(
        folder,
        *("deep.npz", "data.whit=4095", "--set data.white=4095", "", ""),
        words=("--trials", "9"),
    )
    assert code == 0, said
    assert "did you mean 'white'?" in said
    assert "--set data.white=4095" in said
    spec = load_study_file(folder / "studies" / "deep.toml", environment={})
    assert (spec.data.white, spec.data.bits, spec.search.trials) == (4095, 16, 9)


def test_the_end_of_the_input_ends_it(folder: Path) -> None:
    code, _, said = answer(folder, "\x04")
    assert code == 2
    assert "the questions were not answered; nothing was written" in said


def test_a_study_file_is_shown_as_it_is(folder: Path, searchae: RunCommand) -> None:
    mine = folder / "studies" / "tiny.toml"
    mine.write_text("# mine, broken\n[data\n")
    done = searchae("studies", "--show", "tiny")
    assert (done.returncode, done.stdout) == (0, mine.read_text())
    assert done.stderr.strip().endswith("studies/tiny.toml")
    built_in = searchae("studies", "--show", "svhn", "--json")
    shown = json.loads(built_in.stdout)
    assert Path(shown["path"]).read_text() == shown["text"]
    unknown = searchae("studies", "--show", "tinny")
    assert unknown.returncode == 2
    assert "did you mean 'tiny'?" in unknown.stderr


def test_a_study_without_its_file_is_shown_as_it_was_stored(
    folder: Path, command_line: RunCommand
) -> None:
    done = command_line("tune", "-s", "tiny", "--trials", "1", "--workers", "1")
    assert done.returncode == 0, done.stderr
    spec = load_study_file(folder / "studies" / "tiny.toml", environment={})
    (folder / "studies" / "tiny.toml").unlink()
    shown = command_line("studies", "--show", "tiny")
    assert shown.returncode == 0, shown.stderr
    assert "there is no file tiny.toml; this is what study 'tiny' stored" in shown.stderr
    (folder / "again.toml").write_text(shown.stdout)
    again = load_study_file(folder / "again.toml", environment={})
    assert (again.space, again.fixed) == (spec.space, spec.fixed)
    assert shown.stdout == study_toml(again.document())
    unknown = command_line("studies", "--show", "tinny")
    assert unknown.returncode == 2
    assert "nor in sqlite:///searchae.db; did you mean 'tiny'?" in unknown.stderr
