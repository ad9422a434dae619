"""A user's images and latents on disk, a bundle's pictures, and its exports."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import searchae
from searchae.bundle import images, plots
from searchae.bundle.export import ExportPart, export_bundle
from searchae.bundle.model import Bundle, bundle_from_weights
from searchae.config.data_spec import DataSpec
from searchae.config.schema import TrainParams
from searchae.data.folder import load_folder
from searchae.errors import BundleError, DataError
from tests.conftest import smooth_images
from tests.unit import bundles


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return searchae.load(bundles.write(tmp_path_factory.mktemp("bundle")))


def silent(message: str) -> None: ...


def read(path: Path, array: str = "", **changes: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    source = images.open_images(path, bundles.config(**changes), array=array, progress=silent)
    got = np.concatenate(list(source.batches))
    assert len(got) == source.count
    return got, source.names


def test_an_npz_is_read_as_a_study_reads_it(tmp_path: Path) -> None:
    given = bundles.images(5)
    np.savez(tmp_path / "x.npz", images=given.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(read(tmp_path / "x.npz")[0], given)
    np.savez(tmp_path / "y.npz", x_test=given / 255)
    np.testing.assert_array_equal(read(tmp_path / "y.npz")[0], given)


def test_of_two_arrays_one_must_be_named(tmp_path: Path) -> None:
    given = bundles.images(5)
    np.savez(tmp_path / "x.npz", x_train=given[:3], x_test=given[3:], other=given[:1])
    with pytest.raises(DataError, match="holds x_test and x_train: say which with --array"):
        read(tmp_path / "x.npz")
    np.testing.assert_array_equal(read(tmp_path / "x.npz", "x_test")[0], given[3:])
    np.testing.assert_array_equal(read(tmp_path / "x.npz", "other")[0], given[:1])
    with pytest.raises(DataError, match="has no array z; it holds x_train, x_test, other"):
        read(tmp_path / "x.npz", "z")


def test_a_folder_is_read_in_the_order_of_its_paths_with_colours_as_in_training(
    tmp_path: Path,
) -> None:
    given = bundles.images(4).transpose(0, 2, 3, 1)
    (tmp_path / "b").mkdir()
    Image.fromarray(given[0]).save(tmp_path / "a.png")
    Image.fromarray(given[1]).convert("RGBA").save(tmp_path / "b" / "c.png")
    Image.fromarray(given[2, ..., 0]).save(tmp_path / "z.PNG")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    got, names = read(tmp_path)
    assert names == ("a.png", "b/c.png", "z.PNG")
    np.testing.assert_array_equal(got[0], given[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(got[1], given[1].transpose(2, 0, 1))
    np.testing.assert_array_equal(got[2], np.stack([given[2, ..., 0]] * 3))


def test_pictures_of_another_size_are_prepared_as_the_training_s_were(tmp_path: Path) -> None:
    for i in range(3):
        picture = smooth_images(1, 40 + i, seed=i)[0, :, : 30 + i]
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "p" / f"{i}.png")
    Image.new("RGBA", (50, 20)).save(tmp_path / "p" / "clear.png")
    spec = DataSpec(name="folder", path=str(tmp_path / "p"), image_size=16, background="black")
    trained_on = load_folder(spec, tmp_path, 0, silent).train
    said: list[str] = []
    source = images.open_images(tmp_path / "p", bundles.config(data=spec), progress=said.append)
    np.testing.assert_array_equal(np.concatenate(list(source.batches)), trained_on)
    assert said == [
        f"{tmp_path / 'p'}: 1 image is transparent, shown on black (data.background)",
        f"{tmp_path / 'p'}: 4 images, each resized and cut to the square in the middle (16x16 "
        "pixels); as the training's images were",
    ]


def test_a_folder_of_the_net_s_size_is_taken_without_a_word(tmp_path: Path) -> None:
    Image.fromarray(smooth_images(1)[0]).save(tmp_path / "a.png")
    said: list[str] = []
    list(images.open_images(tmp_path, bundles.config(), progress=said.append).batches)
    assert said == []


def test_an_npz_of_another_size_is_prepared_only_where_the_training_says_how(
    tmp_path: Path,
) -> None:
    given = smooth_images(2, 24)
    np.savez(tmp_path / "x.npz", images=given)
    with pytest.raises(BundleError, match=r"24x24 pixels with 3 channels, .*takes 16x16 pixels"):
        read(tmp_path / "x.npz")
    got, _ = read(tmp_path / "x.npz", data=DataSpec(name="folder", path="x", image_size=16))
    assert got.shape == (2, 3, 16, 16)
    assert np.abs(got.mean((2, 3)) - given.mean((1, 2))).max() < 3, "the same picture, smaller"


def test_the_value_of_white_is_the_training_s(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.eye(16, dtype=np.uint8)[None])
    spec = DataSpec(name="npz", path="x", white=1)
    got, _ = read(tmp_path / "x.npz", image_shape=(1, 16, 16), data=spec)
    assert np.array_equal(got[0, 0], 255 * np.eye(16))


def test_colour_is_turned_grey_for_a_grey_net_and_that_is_said(tmp_path: Path) -> None:
    colours = bundles.images(1).transpose(0, 2, 3, 1)[0]
    Image.fromarray(colours).save(tmp_path / "a.png")
    said: list[str] = []
    config = bundles.config(image_shape=(1, 16, 16))
    source = images.open_images(tmp_path, config, progress=said.append)
    got = np.concatenate(list(source.batches))
    np.testing.assert_array_equal(got[0, 0], np.asarray(Image.fromarray(colours).convert("L")))
    assert len(said) == 1
    assert "in grey); the training's images (npz) were taken as they are" in said[0]


def test_every_picture_that_cannot_be_read_is_named_before_anything_is_written(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "good.png")
    for name in ("bad1.png", "bad2.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)2 of 3 files cannot be read.*bad1.*bad2"):
        images.open_images(tmp_path, bundles.config(), progress=silent)


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 65535, np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path, image_shape=(1, 16, 16))[0].min() == 255


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npz", b"PK\x03\x04cut", "is damaged, not an npz"),
        ("x.npz", b"", "is damaged, not an npz"),
        ("x.txt", b"", "give an .npz file, or a folder"),
        ("none.npz", None, "no such file or folder"),
    ],
)
def test_what_holds_no_images_is_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / name)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no image in it"):
        read(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(DataError, match=r"a.png: cannot be read as an image"):
        read(tmp_path)


def test_latents_with_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", latents=np.array([object()]))
    with pytest.raises(DataError, match="latents cannot be read"):
        images.read_latents(tmp_path / "z.npz")
    np.savez(tmp_path / "z.npz", images=np.zeros(3))
    with pytest.raises(DataError, match=r"needs an array latents .* but holds images"):
        images.read_latents(tmp_path / "z.npz")


def test_images_go_back_to_files_of_their_names(tmp_path: Path) -> None:
    given = bundles.images(3)
    names = ("a.png", "b/c.jpg", "b/d.PNG")
    images.write_images(tmp_path / "out", iter([given[:2], given[2:]]), names)
    got, found = read(tmp_path / "out")
    assert found == ("a.png", "b/c.jpg.png", "b/d.PNG")
    np.testing.assert_array_equal(got, given)
    with pytest.raises(DataError, match="holds something already"):
        images.check_output_path(tmp_path / "out", given=tmp_path)


def test_a_file_that_exists_is_replaced_only_if_asked_for_and_the_input_never(
    tmp_path: Path,
) -> None:
    old, new, link = (tmp_path / name for name in ("old.npz", "new.npz", "link.npz"))
    old.write_bytes(b"x")
    link.symlink_to(old)
    images.check_output_path(new, given=old)
    images.check_output_path(old, given=tmp_path, overwrite=True)
    for path in (old, link):
        with pytest.raises(DataError, match="exists already; --overwrite replaces it"):
            images.check_output_path(path, given=tmp_path)
        with pytest.raises(DataError, match="is the input; give another file"):
            images.check_output_path(path, given=old, overwrite=True)


def test_without_names_images_are_numbered_and_grey_stays_grey(tmp_path: Path) -> None:
    given = bundles.images(2, (1, 16, 16))
    images.write_images(tmp_path / "out", iter([given]), ())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png"]
    np.testing.assert_array_equal(read(tmp_path / "out", image_shape=(1, 16, 16))[0], given)


@pytest.mark.parametrize("name", ["../x.png", "/tmp/x.png", "a/../../x.png", "", "a\0.png"])
def test_names_in_a_file_of_latents_never_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="lead out of the folder"):
        images.write_images(tmp_path / "in" / "out", iter([bundles.images(1)]), [name])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_levels_are_rounded() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        images.as_levels((levels / 255).astype(np.float32), bundles.config()), levels
    )


def test_transparent_arrays_are_put_on_the_background_of_the_training(tmp_path: Path) -> None:
    clear = np.zeros((5, 20, 24, 4), np.uint8)
    clear[..., :3] = 77
    np.savez(tmp_path / "x.npz", images=clear)
    spec = DataSpec(name="folder", path="photos", image_size=16, background="white")
    assert np.all(read(tmp_path / "x.npz", data=spec)[0] == 255)


def test_bits_that_the_source_has_not_change_nothing_in_a_bundle() -> None:
    config = bundles.config(data=DataSpec(name="csv", path="x.csv", bits=16))
    assert images.as_levels(np.ones(3, np.float32), config).dtype == np.uint8


# Pictures


def test_the_picture_shows_originals_above_reconstructions(tmp_path: Path, model: Bundle) -> None:
    given = bundles.images(16)
    plots.write_reconstructions_picture(
        tmp_path / "r.png", model, torch.from_numpy(given), title="tiny, trial 3"
    )
    canvas = np.asarray(Image.open(tmp_path / "r.png").convert("RGB"))
    large = given[0].transpose(1, 2, 0).repeat(6, axis=0).repeat(6, axis=1)
    at = [
        (y, x)
        for y in range(canvas.shape[0] - 96)
        for x in range(100, 140)
        if (canvas[y : y + 96, x : x + 96] == large).all()
    ]
    assert len(at) == 1, "the first original, each of its pixels a square"
    y, x = at[0]
    below = canvas[y + 96 + 6 : y + 96 + 6 + 96, x : x + 96][::6, ::6]
    np.testing.assert_array_equal(
        below, images.as_levels(model.reconstruct(given), model.config)[0].transpose(1, 2, 0)
    )


def test_the_picture_of_a_denoiser_shows_the_noisy_input_too(tmp_path: Path, model: Bundle) -> None:
    given = torch.from_numpy(bundles.images(3))
    plots.write_reconstructions_picture(tmp_path / "clean.png", model, given, title="")
    noisy = searchae.load(bundles.write(tmp_path / "n", train=TrainParams(noise_std=0.2)))
    plots.write_reconstructions_picture(tmp_path / "noisy.png", noisy, given, title="")
    heights = [Image.open(tmp_path / f"{n}.png").height for n in ("clean", "noisy")]
    assert heights[1] - heights[0] == 96 + 6


# Exports


@pytest.mark.parametrize("part", ["autoencoder", "encoder", "decoder"])
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("active", [None, 3])
def test_an_export_gives_what_the_bundle_gives_for_any_batch(
    tmp_path: Path, model: Bundle, part: ExportPart, suffix: str, active: int | None
) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    if active is not None:
        train = TrainParams(regularizer="clip+k-sparse", active_latents=active)
        model = bundle_from_weights(
            bundles.config(train=train), model.model.state_dict(), device=torch.device("cpu")
        )
    out = tmp_path / f"net{suffix}"
    told = export_bundle(model, out, part=part)
    assert told["max_difference"] <= 1e-5
    assert [p.name for p in tmp_path.iterdir()] == [out.name], "one file, nothing beside it"
    pixels = torch.from_numpy(bundles.images(11)) / 255
    given = model.encode(pixels) if part == "decoder" else pixels
    wanted = [model.encode(pixels), model.reconstruct(pixels)]
    wanted = {"autoencoder": wanted, "encoder": wanted[:1], "decoder": wanted[1:]}[part]
    if suffix == ".pt2":
        found = [o.detach() for o in torch.export.load(out).module()(given)]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        assert [o.name for o in session.get_outputs()] == told["outputs"]
        found = [
            torch.from_numpy(o)
            for o in session.run(None, {session.get_inputs()[0].name: given.numpy()})
        ]
    if active is not None and part != "decoder":
        assert (found[0].count_nonzero(1) == active).all()
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_without_the_packages_of_onnx_the_error_says_what_to_install(
    tmp_path: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"needs .*onnxruntime: pip install '\.\[onnx\]'"):
        export_bundle(model, tmp_path / "net.onnx")


def test_an_export_to_something_else_is_refused(tmp_path: Path, model: Bundle) -> None:
    with pytest.raises(BundleError, match=r"ends in .pt2 or .onnx"):
        export_bundle(model, tmp_path / "net.pth")


@pytest.mark.parametrize("reads", [read, images.read_latents])
def test_a_pipe_of_images_or_latents_is_refused(tmp_path: Path, reads: Any) -> None:
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"x\.npz: it is a pipe or a device, not a regular file"):
        reads(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_a_bundle_is_refused(tmp_path: Path, name: str) -> None:
    folder = bundles.write(tmp_path / "bundle")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match="it is a pipe or a device"):
        searchae.load(folder)
