"""A user's images and latents on disk, a bundle's pictures, and its exports."""

from __future__ import annotations

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
from searchae.bundle.model import Bundle
from searchae.config.schema import DataSpec, TrainParams
from searchae.errors import BundleError, DataError
from tests.unit import bundles


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return searchae.load(bundles.write(tmp_path_factory.mktemp("bundle")))


def read(path: Path, array: str = "", **changes: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    source = images.open_images(path, bundles.config(**changes), array=array)
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


def test_images_of_another_size_are_refused_with_how_to_change_them(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    with pytest.raises(BundleError, match=r"a.png: 20x10 pixels .*takes 16x16 .*resize"):
        read(tmp_path)
    np.savez(tmp_path / "x.npz", images=bundles.images(2, (1, 16, 16)))
    with pytest.raises(BundleError, match=r"with 1 channel, .*takes 16x16 pixels with 3 channels"):
        read(tmp_path / "x.npz")


def test_colour_is_turned_grey_only_where_the_training_did_so(tmp_path: Path) -> None:
    colours = bundles.images(1).transpose(0, 2, 3, 1)[0]
    Image.fromarray(colours).save(tmp_path / "a.png")
    with pytest.raises(BundleError, match=r"a.png: is in colour"):
        read(tmp_path, image_shape=(1, 16, 16))
    with pytest.raises(BundleError, match=r"16x16 pixels with 3 channels, .* 8x8 .* 1 channel:"):
        read(tmp_path, image_shape=(1, 8, 8))
    data = DataSpec(name="folder", path="x", grayscale=True)
    got, _ = read(tmp_path, image_shape=(1, 16, 16), data=data)
    np.testing.assert_array_equal(got[0, 0], np.asarray(Image.fromarray(colours).convert("L")))


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 65535, np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path, image_shape=(1, 16, 16))[0].min() == 255


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npz", b"PK\x03\x04cut", "is damaged, or not an npz"),
        ("x.npz", b"", "is damaged, or not an npz"),
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
    with pytest.raises(DataError, match="no PNG or JPEG"):
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
        images.check_output_path(tmp_path / "out")


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
    np.testing.assert_array_equal(images.as_uint8((levels / 255).astype(np.float32)), levels)


# Pictures


def test_the_picture_shows_originals_above_reconstructions(tmp_path: Path, model: Bundle) -> None:
    given = bundles.images(16)
    plots.write_reconstructions_picture(
        tmp_path / "r.png", model, torch.from_numpy(given), title="tiny, trial 3"
    )
    canvas = np.asarray(Image.open(tmp_path / "r.png"))
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
        below, images.as_uint8(model.reconstruct(given))[0].transpose(1, 2, 0)
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
def test_an_export_gives_what_the_bundle_gives_for_any_batch(
    tmp_path: Path, model: Bundle, part: ExportPart, suffix: str
) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
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
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_without_the_packages_of_onnx_the_error_says_what_to_install(
    tmp_path: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"needs .*onnxruntime: pip install 'searchae\[onnx\]'"):
        export_bundle(model, tmp_path / "net.onnx")


def test_an_export_to_something_else_is_refused(tmp_path: Path, model: Bundle) -> None:
    with pytest.raises(BundleError, match=r"ends in .pt2 or .onnx"):
        export_bundle(model, tmp_path / "net.pth")
