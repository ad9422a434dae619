"""A bundle from Python: what it takes and gives, and what it refuses to load."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import searchae
from searchae.bundle.evaluation import compression_ratios, latent_statistics
from searchae.bundle.model import Bundle
from searchae.bundle.plots import principal_plane
from searchae.errors import BundleError
from searchae.models.builder import build_model
from tests.unit import bundles


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.write(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Bundle:
    return searchae.load(folder)


def test_it_gives_what_the_net_gives(model: Bundle) -> None:
    images = bundles.images(20)
    net = build_model(model.config.model, image_shape=(3, 16, 16)).eval()
    net.load_state_dict(bundles.weights(model.config))
    with torch.inference_mode():
        expected = net.encode(torch.from_numpy(images) / 255)
        pictures = net.decode(expected)
    z = model.encode(images)
    assert (z.dtype, z.shape) == (np.dtype("float32"), (20, 8))
    np.testing.assert_allclose(z, expected.numpy(), atol=1e-6)
    decoded = model.decode(z)
    assert (decoded.dtype, decoded.shape) == (np.dtype("float32"), (20, 3, 16, 16))
    np.testing.assert_allclose(decoded, pictures.numpy(), atol=1e-6)
    np.testing.assert_array_equal(model.reconstruct(images), decoded)
    assert (model.latent_size, model.image_shape) == (8, (3, 16, 16))


def test_tensors_give_tensors_and_arrays_give_arrays(model: Bundle) -> None:
    images = bundles.images(3)
    from_tensor = model.encode(torch.from_numpy(images))
    assert isinstance(from_tensor, torch.Tensor)
    assert isinstance(model.decode(from_tensor), torch.Tensor)
    np.testing.assert_array_equal(from_tensor.numpy(), model.encode(images))
    assert not from_tensor.requires_grad


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
def test_uint8_and_float_images_are_the_same_images(model: Bundle, dtype: str) -> None:
    images = bundles.images(4)
    floats = (images / np.float32(255)).astype(dtype)
    np.testing.assert_allclose(model.encode(floats), model.encode(images), atol=1e-6)


def test_a_large_array_is_worked_through_in_batches(model: Bundle) -> None:
    images = bundles.images(601)
    seen: list[int] = []
    hook = model.model.encoder.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    z = model.encode(images)
    hook.remove()
    assert seen == [250, 250, 101]
    np.testing.assert_allclose(z[550:], model.encode(images[550:]), atol=1e-6)


def test_a_view_with_any_strides_is_taken_and_left_as_it_was(model: Bundle) -> None:
    last = bundles.images(4).transpose(0, 2, 3, 1).copy()
    view = last.transpose(0, 3, 1, 2)[::-1]
    before = view.copy()
    np.testing.assert_array_equal(model.encode(view), model.encode(before))
    np.testing.assert_array_equal(view, before)


def test_no_images_give_no_latents(model: Bundle) -> None:
    assert model.encode(bundles.images(0)).shape == (0, 8)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((4, 16, 16, 3), r"\(N, 3, 16, 16\): move the channels first, images.transpose\(0, 3"),
        ((3, 16, 16), r"for one image, give images\[None\]"),
        ((4, 1, 16, 16), r"\(4, 1, 16, 16\).*takes \(N, 3, 16, 16\)"),
        ((4, 3, 32, 32), r"\(4, 3, 32, 32\)"),
        ((4, 768), r"\(4, 768\)"),
    ],
)
def test_images_of_another_shape_are_refused_with_what_to_do(
    model: Bundle, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        model.encode(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.full((1, 3, 16, 16), 200.0), "values from 200 to 200: .*divide by 255"),
        (np.full((1, 3, 16, 16), -0.1), "values from -0.1"),
        (np.full((1, 3, 16, 16), np.nan), "values from nan"),
        (np.zeros((1, 3, 16, 16), np.int64), "int64: give uint8"),
        (np.zeros((1, 3, 16, 16), np.uint16), "uint16: give uint8"),
        (np.zeros((1, 3, 16, 16), "O"), "not object"),
        ([[0.0]], "not list"),
    ],
)
def test_images_of_another_kind_are_refused(model: Bundle, images: Any, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        model.encode(images)


@pytest.mark.parametrize(
    ("latents", "said"),
    [
        (np.zeros((2, 9), np.float32), r"\(2, 9\).*takes \(N, 8\)"),
        (np.zeros(8, np.float32), r"takes \(N, 8\)"),
        (np.full((1, 8), np.inf), "NaN or infinity"),
        (np.zeros((1, 8), np.int32), "int32: give floats"),
    ],
)
def test_latents_of_another_kind_are_refused(model: Bundle, latents: Any, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        model.decode(latents)


# What is damaged or altered


def altered(config: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        document = json.loads(path.read_text())
        config(document)
        path.write_text(json.dumps(document))

    return change


def cut(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "is not a bundle: it has no config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        (cut("config.json"), "config.json: is damaged: it is not JSON"),
        (cut("model.safetensors"), "damaged or was replaced"),
        (flip, "damaged or was replaced"),
        (lambda f: (f / "config.json").write_text("[]"), "format None"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "is not JSON"),
        (altered(lambda d: d.update(format=2)), "format 2, this searchae reads 1"),
        (altered(lambda d: d.update(more=1)), "more: unknown key\n"),
        (
            altered(lambda d: d["model"].update(activation="sine")),
            r"model.activation: 'sine' is not known",
        ),
        (altered(lambda d: d["train"].update(clip=-1)), "train.clip: must be above 0"),
        (altered(lambda d: d.update(latent_size=9)), "latent_size is 9, the net's is 8"),
        (altered(lambda d: d["model"].update(channels=[4, 9])), "describes has"),
        (
            altered(lambda d: d["model"].update(batch_norm=True)),
            "is not of the net that config.json describes",
        ),
        (altered(lambda d: d["model"].update(kind="dense")), "describes has"),
        # Terabytes, if the net were built to see that it does not fit.
        (altered(lambda d: d["model"].update(latent_dim=2**31 - 1)), "describes has"),
        (
            altered(lambda d: d["model"].update(channels=[8], downsample="pool", kernel_size=4)),
            "cannot be built: model.kernel_size",
        ),
        (altered(lambda d: d["train"].update(clip=0.001)), "outside the clip of 0.001"),
    ],
)
def test_a_bundle_that_is_damaged_or_altered_is_refused(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    folder = bundles.write(tmp_path / "bundle")
    searchae.load(folder)
    change(folder)
    with pytest.raises(BundleError, match=said) as raised:
        searchae.load(folder)
    assert str(folder) in str(raised.value), "the error says which one"


def replaced(folder: Path, content: bytes) -> None:
    """Other weights, and a configuration that vouches for them."""
    (folder / "model.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    altered(lambda d: d.update(weights_sha256=sha256))(folder)


@pytest.mark.parametrize(
    ("value", "said"), [(torch.nan, "NaN or infinity"), (0.75, "0.75, outside the clip of 0.5")]
)
def test_weights_that_the_training_cannot_have_left_are_refused(
    tmp_path: Path, value: float, said: str
) -> None:
    folder = bundles.write(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in tensors if n.endswith("weight"))
    tensors[name].view(-1)[0] = value
    save_file(tensors, tmp_path / "other.safetensors")
    replaced(folder, (tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(BundleError, match=said):
        searchae.load(folder)


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_pickle_in_the_place_of_the_weights_is_never_loaded(tmp_path: Path) -> None:
    folder, trace = bundles.write(tmp_path / "bundle"), tmp_path / "trace"
    content = pickle.dumps(Bomb(trace))
    replaced(folder, content)
    with pytest.raises(BundleError, match="not a safetensors file"):
        searchae.load(folder)
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists(), "it would have gone off"


def test_weights_outside_the_clip_are_not_written(tmp_path: Path) -> None:
    config = bundles.config()
    weights = bundles.weights(config)
    next(iter(weights.values())).view(-1)[0] = 0.6
    with pytest.raises(BundleError, match="outside the clip"):
        searchae.bundle.write_bundle(tmp_path, config, weights)
    assert list(tmp_path.iterdir()) == []


def test_batch_norms_come_back_with_their_running_means(tmp_path: Path) -> None:
    from searchae.config.schema import ModelParams

    net = ModelParams(channels=(4, 8), latent_dim=8, batch_norm=True)
    config = bundles.config(model=net)
    weights = bundles.weights(config)
    mean = next(n for n in weights if n.endswith("running_mean"))
    weights[mean] = torch.arange(4.0)
    searchae.bundle.write_bundle(tmp_path, config, weights)
    loaded = searchae.load(tmp_path).model.state_dict()
    assert {n: v.tolist() for n, v in loaded.items()} == {n: v.tolist() for n, v in weights.items()}


# Figures


def test_the_compression_is_counted_in_values_and_in_bytes(model: Bundle) -> None:
    assert compression_ratios(model) == {
        "image_values": 768,
        "latent_values": 8,
        "ratio": 96.0,
        "image_bytes": 768,
        "latent_bytes": 32,
        "bytes_ratio": 24.0,
    }


def test_latent_statistics_are_those_of_all_latents_at_once(model: Bundle) -> None:
    images = bundles.images(300)
    z = model.encode(images).astype(np.float64)
    found = latent_statistics(model, torch.from_numpy(images))
    each = found.pop("per_latent")
    expected = {"mean": z.mean(), "std": z.std(), "min": z.min(), "max": z.max()}
    assert found == pytest.approx({**expected, "near_zero": (abs(z) < 1e-3).mean()})
    np.testing.assert_allclose(each["mean"], z.mean(0))
    np.testing.assert_allclose(each["std"], z.std(0), atol=1e-9)
    np.testing.assert_allclose(each["min"], z.min(0))
    np.testing.assert_allclose(each["max"], z.max(0))
    np.testing.assert_allclose(each["near_zero"], (abs(z) < 1e-3).mean(0))


def test_the_plane_holds_the_two_largest_variances() -> None:
    draw = np.random.default_rng(0)
    z = draw.normal(size=(500, 6)) @ draw.normal(size=(6, 6)) + 3
    plane, share = principal_plane(z)
    largest = np.sort(np.linalg.eigvalsh(np.cov(z.T)))[::-1]
    np.testing.assert_allclose(plane.var(0, ddof=1), largest[:2])
    assert share == pytest.approx(largest[:2].sum() / largest.sum())


def test_a_single_latent_or_none_that_varies_still_has_a_plane() -> None:
    plane, share = principal_plane(np.arange(5.0)[:, None])
    assert plane.shape == (5, 2)
    assert share == pytest.approx(1)
    assert principal_plane(np.ones((5, 3)))[1] == 1
