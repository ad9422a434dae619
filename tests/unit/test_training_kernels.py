"""Compiled convolutions: their values and gradients, how they are built, and life without them."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchae.config.schema import ModelParams
from searchae.errors import UserError
from searchae.models.builder import build_model
from searchae.training import kernels
from searchae.training.fused_forward import Forward, fused_forward, uses_compiled
from searchae.training.fused_layers import CompiledConvolution, UpsampledConvolution
from searchae.training.kernels import build, library
from searchae.training.kernels.convolution import Convolutions
from searchae.training.metrics import Metrics, evaluate
from tests.unit.tiny_training import params, trainer

CPU = torch.device("cpu")
ACTIVATIONS = (
    library.leaky_relu(0.0),
    library.elu(1.0),
    library.TANH,
    library.SIGMOID,
)
POOL = {"channels": (8, 16), "latent_dim": 4, "downsample": "pool"}

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no GNU C compiler")


@pytest.fixture(scope="module")
def narrow_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("narrow")


@pytest.fixture(params=["native", "narrow"])
def compiled(
    request: pytest.FixtureRequest, narrow_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Convolutions:
    """As this machine builds them, and for a CPU with vectors of four."""
    if request.param == "narrow":
        monkeypatch.setenv("XDG_CACHE_HOME", str(narrow_cache))
        monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-DLANES=4"))
    found = Convolutions(build.load())
    if request.param == "narrow":
        assert found.lanes == 4
    return found


@pytest.fixture
def fresh() -> Iterator[None]:
    """A process that has not looked for the library yet."""
    kernels._loaded.cache_clear()
    yield
    kernels._loaded.cache_clear()


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(*size: int) -> Tensor:
    draws = torch.Generator().manual_seed(len(size) + sum(size))
    return torch.randn(size, generator=draws).requires_grad_()


def plain(images: Tensor, weight: Tensor, bias: Tensor | None, *, up: bool, pool: bool) -> Tensor:
    if up:
        images = F.interpolate(images, scale_factor=2)
    outputs = F.conv2d(images, weight, bias, padding=1)
    return F.max_pool2d(outputs, 2) if pool else outputs


def with_gradients(
    run: Callable[..., Tensor], tensors: list[Tensor], *, up: bool, pool: bool
) -> list[Tensor]:
    outputs = run(*tensors, *([None] * (3 - len(tensors))), up=up, pool=pool)
    toward = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view(outputs.shape)
    return [outputs, *torch.autograd.grad(outputs, tensors, toward)]


def assert_near(found: list[Tensor], wanted: list[Tensor]) -> None:
    for mine, own in zip(found, wanted, strict=True):
        assert mine.shape == own.shape
        off = (mine.detach().double() - own.detach()).abs().max()
        assert float(off) <= 1e-4 * max(0.1, float(own.detach().abs().max()))


@pytest.mark.parametrize(
    ("count", "channels", "out", "height", "width"),
    [
        (3, 8, 16, 8, 8),
        (2, 3, 32, 12, 16),  # a first layer
        (9, 32, 24, 8, 8),  # tiles of more than a block
        (2, 5, 7, 6, 10),  # no whole vectors, no whole tiles
        (2, 17, 3, 7, 9),  # odd sizes
        (1, 1, 1, 2, 1),
        (5, 33, 41, 1, 3),
    ],
)
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.usefixtures("threads")
def test_values_and_gradients_are_those_of_float64(
    count: int,
    channels: int,
    out: int,
    height: int,
    width: int,
    *,
    up: bool,
    pool: bool,
    compiled: Convolutions,
) -> None:
    if pool and not up and min(height, width) == 1:
        return  # nothing is left
    tensors = [drawn(count, channels, height, width), drawn(out, channels, 3, 3), drawn(out)]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    wanted = with_gradients(plain, exact, up=up, pool=pool)
    assert_near(with_gradients(compiled, tensors, up=up, pool=pool), wanted)
    # An activation; and the images' own gradient is not wanted.
    images, *rest = tensors
    exact_rest = exact[1:]
    activation = library.leaky_relu(0.1)
    outputs = compiled(images.detach(), *rest, up=up, pool=pool, activation=activation)
    wanted_outputs = F.leaky_relu(plain(exact[0].detach(), *exact_rest, up=up, pool=pool), 0.1)
    toward = torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)
    assert_near(
        [outputs, *torch.autograd.grad(outputs, rest, toward)],
        [wanted_outputs, *torch.autograd.grad(wanted_outputs, exact_rest, toward.double())],
    )
    # Channels last, and without a bias.
    tensors = [t.detach().contiguous(memory_format=torch.channels_last) for t in tensors[:2]]
    tensors = [t.requires_grad_() for t in tensors]
    wanted = with_gradients(plain, exact[:2], up=up, pool=pool)
    assert_near(with_gradients(compiled, tensors, up=up, pool=pool), wanted)


@pytest.mark.parametrize(
    ("activation", "plain_activation"),
    [
        (library.NONE, lambda x: x),
        (library.leaky_relu(0.0), F.relu),
        (library.leaky_relu(0.1), lambda x: F.leaky_relu(x, 0.1)),
        (library.elu(1.0), F.elu),
        (library.elu(0.3), lambda x: F.elu(x, 0.3)),
        (library.TANH, torch.tanh),
        (library.SIGMOID, torch.sigmoid),
    ],
    ids=["none", "relu", "leaky_relu", "elu", "elu-0.3", "tanh", "sigmoid"],
)
@pytest.mark.parametrize("direct", [False, True])
def test_activations_are_torch_s_from_the_smallest_to_the_largest_values(
    activation: library.Activation,
    plain_activation: Callable[[Tensor], Tensor],
    *,
    direct: bool,
    compiled: Convolutions,
) -> None:
    sizes = torch.cat([torch.logspace(-12, 30, 1000), torch.linspace(0, 100, 997)])
    # One input channel, of zeros: what is activated are the biases.
    images = torch.zeros(1, 1, 4, 4, requires_grad=not direct)
    bias = torch.cat([sizes, -sizes]).requires_grad_()
    weight = torch.zeros(len(bias), 1, 3, 3, requires_grad=True)
    outputs = compiled(images, weight, bias, activation=activation)
    exact = bias.detach().double().requires_grad_()
    wanted = plain_activation(exact)
    for row in outputs[0].flatten(1).T:
        assert torch.allclose(row.double(), wanted, rtol=1e-6, atol=1e-37)
    (slopes,) = torch.autograd.grad(outputs.sum(), [bias])
    (wanted_slopes,) = torch.autograd.grad(wanted.sum(), [exact])
    assert torch.allclose(slopes.double() / 16, wanted_slopes, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("threads")
def test_the_same_to_the_bit_each_time(compiled: Convolutions) -> None:
    tensors = [drawn(33, 8, 12, 12), drawn(16, 8, 3, 3), drawn(16)]
    first, second = (with_gradients(compiled, tensors, up=False, pool=True) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_a_first_layer_s_images_need_no_gradient(compiled: Convolutions) -> None:
    images, weight = drawn(2, 3, 8, 8).detach(), drawn(8, 3, 3, 3)
    found = compiled(images, weight, None, up=False, pool=True)
    exact = weight.detach().double().requires_grad_()
    wanted = plain(images.double(), exact, None, up=False, pool=True)
    assert_near(
        [found, *torch.autograd.grad(found.sum(), [weight])],
        [wanted, *torch.autograd.grad(wanted.sum(), [exact])],
    )


def test_no_number_stays_no_number(compiled: Convolutions) -> None:
    images, weight = torch.ones(1, 8, 8, 8), torch.ones(8, 8, 3, 3)
    for row, column in ((4, 4), (4, 5), (5, 4), (5, 5)):
        spoilt = images.clone()
        spoilt[0, 3, row, column] = torch.nan
        for activation in (library.NONE, *ACTIVATIONS):
            outputs = compiled(spoilt, weight, None, up=False, pool=True, activation=activation)
            assert outputs[0, :, 2, 2].isnan().all(), "divergence is seen in the outputs"
            outputs = compiled(spoilt, weight, None, up=True, pool=False, activation=activation)
            assert outputs[0, :, 2 * row, 2 * column].isnan().all()


def test_of_equal_pixels_the_first_is_the_largest_as_in_torch(compiled: Convolutions) -> None:
    images = torch.zeros(1, 8, 4, 4, requires_grad=True)
    weight = torch.zeros(8, 8, 3, 3)
    weight[:, :, 1, 1] = 1
    for run in (compiled, plain):
        outputs = run(images, weight, None, up=False, pool=True)
        (found,) = torch.autograd.grad(outputs.sum(), [images])
        assert torch.equal(found[0, 0].nonzero(), torch.tensor([[0, 0], [0, 2], [2, 0], [2, 2]]))


# -- in a net


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ({}, 5),
        ({"activation": "leaky_relu"}, 5),
        ({"activation": "tanh", "channels": (8, 12)}, 5),
        # All but the first: of few channels, with no pooling right after it.
        ({"batch_norm": True}, 4),
        ({"activation": "gelu"}, 4),
        ({"downsample": "stride"}, 0),
        ({"kernel_size": 5}, 1),
    ],
)
def test_a_whole_net_is_the_model_s_own(more: dict[str, object], taken: int) -> None:
    compiled = kernels.chosen_kernels(CPU, "fp32")
    torch.manual_seed(0)
    model_params = ModelParams(**{**POOL, **more})
    net = build_model(model_params, image_shape=(3, 12, 12))
    run = Forward(net, "fp32", compiled)
    joined = [m for m in [*run._encoder, *run._body] if isinstance(m, CompiledConvolution)]
    assert len(joined) == taken
    assert compiled is not None
    assert uses_compiled(net, compiled) == bool(taken)
    images = torch.rand(40, 3, 12, 12)
    latents, outputs = run(images)
    exact = build_model(model_params, image_shape=(3, 12, 12)).double()
    exact.load_state_dict(net.state_dict())
    wanted = exact.encoder(images.double())
    # As large a gradient as of six images, by which the bound below was set.
    weights, toward = list(net.parameters()), torch.rand(outputs.shape) * 6 / len(images)
    assert_near([latents, outputs], [wanted, exact.decoder(wanted)])
    found = torch.autograd.grad((outputs * toward).sum(), weights)
    own = torch.autograd.grad((exact.decoder(wanted) * toward).sum(), list(exact.parameters()))
    for mine, theirs in zip(found, own, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(8, 8, 3)],
        [nn.Conv2d(8, 8, 3, padding="same")],
        [nn.Conv2d(8, 8, 3, padding=1, stride=2)],
        [nn.Conv2d(8, 8, 3, padding=1, dilation=2)],
        [nn.Conv2d(8, 8, 3, padding=1, groups=2)],
        [nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")],
        [nn.ConvTranspose2d(8, 8, 3, padding=1, stride=2, output_padding=1)],
        [nn.Conv2d(3, 8, 3, padding=1)],
        [nn.Upsample(scale_factor=2, mode="nearest")],
        [nn.Upsample(scale_factor=2, mode="nearest"), nn.ReLU()],
    ],
)
def test_other_layers_stay_as_they_are(layers: list[nn.Module]) -> None:
    assert (
        list(fused_forward(nn.Sequential(*layers), kernels.chosen_kernels(CPU, "fp32"))) == layers
    )


@pytest.mark.parametrize("out", [3, 4, 8, 20])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_upsampling_joins_with_few_outputs_and_with_many(out: int, kind: type[nn.Conv2d]) -> None:
    stack = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), kind(8, out, 3, padding=1))
    (joined,) = fused_forward(stack, kernels.chosen_kernels(CPU, "fp32"))
    assert isinstance(joined, CompiledConvolution)
    images = drawn(8, 8, 5, 6)
    exact = [t.detach().double().requires_grad_() for t in (images, *stack.parameters())]
    own = nn.functional.interpolate(exact[0], scale_factor=2)
    function = F.conv2d if kind is nn.Conv2d else F.conv_transpose2d
    wanted = function(own, exact[1], exact[2], padding=1)
    toward = torch.rand(wanted.shape)
    outputs = joined(images)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert_near(
        [outputs, *torch.autograd.grad((outputs * toward).sum(), [images, *stack.parameters()])],
        [wanted, *torch.autograd.grad((wanted * toward).sum(), exact)],
    )


@pytest.mark.parametrize("size", [(1, 8, 8), (64, 2, 2)])
def test_few_or_tiny_images_are_left_to_torch(
    size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.MaxPool2d(2), nn.LeakyReLU())
    (joined,) = fused_forward(stack, kernels.chosen_kernels(CPU, "fp32"))
    monkeypatch.setattr(Convolutions, "__call__", None)
    images = drawn(size[0], 16, *size[1:]).detach()
    assert torch.equal(joined(images), stack(images))


def test_pooling_of_other_kinds_is_not_joined() -> None:
    compiled = kernels.chosen_kernels(CPU, "fp32")
    for pool in (nn.MaxPool2d(3), nn.MaxPool2d(2, stride=1), nn.MaxPool2d(2, ceil_mode=True)):
        found = list(fused_forward(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), pool), compiled))
        assert isinstance(found[0], CompiledConvolution)
        assert found[1] is pool


def test_a_training_is_near_torch_s_and_resumes_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = params(POOL)
    whole = [r.psnr_db for r in trainer(trial).epochs()]
    torn, resumed = trainer(trial), trainer(trial)
    epochs = torn.epochs()
    assert [next(epochs).psnr_db, next(epochs).psnr_db] == whole[:2]
    resumed.restore(torn.state())
    assert [r.psnr_db for r in resumed.epochs()] == whole[2:]
    monkeypatch.setenv("SEARCHAE_KERNELS", "off")
    by_torch = [r.psnr_db for r in trainer(trial).epochs()]
    assert by_torch != whole, "the kernels took part"
    assert by_torch[0] == pytest.approx(whole[0], abs=0.01)
    assert by_torch == pytest.approx(whole, abs=0.3)


@pytest.mark.parametrize("more", [{}, {"patience": 2, "min_delta_db": 50.0}])
def test_a_trial_s_own_value_is_the_plain_model_s(
    more: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way the kernels measure; they are as good as exact."""
    passes: list[bool] = []
    plain_evaluate = evaluate

    def noted(*args: Any, **rest: Any) -> Metrics:
        passes.append(rest["forward"] is not None)
        return plain_evaluate(*args, **rest)

    monkeypatch.setattr("searchae.training.validation_images.evaluate", noted)
    monkeypatch.setattr("searchae.training.trainer.LEARNED_DB", -math.inf)
    run = trainer(params(POOL, epochs=5, **more))
    for result in run.epochs():
        exact = plain_evaluate(run.model, run._validation.images, batch_size=250)
        assert result.psnr_db == pytest.approx(exact.psnr_db, abs=1e-4)
        assert result.sparsity == pytest.approx(exact.sparsity, abs=0.02)
    assert run.history[-1].psnr_db == exact.psnr_db, "to the bit"
    epochs = len(run.history)
    assert epochs == (3 if more else 5)
    # Only measuring says that a plateau is reached.
    assert passes == [*[True] * (epochs - 1), *([True] if more else []), False]


# -- whether there are any


def test_who_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.kernels_of(CPU, "fp32") == "winograd"
    assert kernels.kernels_of(CPU, "bf16") == "torch"
    assert kernels.kernels_of(torch.device("cuda"), "fp32") == "torch"
    monkeypatch.setenv("SEARCHAE_KERNELS", "off")
    assert kernels.kernels_of(CPU, "fp32") == "torch"
    monkeypatch.setenv("SEARCHAE_KERNELS", "on")
    with pytest.raises(UserError, match="SEARCHAE_KERNELS=on: use auto or off"):
        kernels.chosen_kernels(CPU, "fp32")


@pytest.mark.parametrize(
    "fault", ["no compiler", "another compiler", "a compiler that fails", "no cache"]
)
@pytest.mark.usefixtures("fresh")
def test_without_them_torch_does_it(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if fault == "no compiler":
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    elif fault in ("another compiler", "a compiler that fails"):
        answer = "Debian clang" if fault == "another compiler" else "Free Software Foundation"
        for name in ("gcc", "cc"):
            (tmp_path / name).write_text(f'#!/bin/sh\ntest "$1" = --version && echo {answer}\n')
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("CC", raising=False)
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernels.kernels_of(CPU, "fp32") == "torch"
    assert len([r.psnr_db for r in trainer(params(POOL, epochs=1)).epochs()]) == 1


@pytest.mark.usefixtures("fresh")
def test_a_library_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / "wrong.c"
    text = build.SOURCE.read_text()
    assert text.count("y[1] = b + 2 * e;") == 1
    wrong.write_text(text.replace("y[1] = b + 2 * e;", "y[1] = b + 3 * e;"))
    monkeypatch.setattr(build, "SOURCE", wrong)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.chosen_kernels(CPU, "fp32") is None
    assert "compiled convolutions are not used: they differ from PyTorch's" in caplog.text


@pytest.mark.usefixtures("fresh")
def test_a_spoilt_library_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "searchae"
    assert kernels.kernels_of(CPU, "fp32") == "winograd"
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) // 2])  # loading it would kill the process
    kernels._loaded.cache_clear()
    assert kernels.kernels_of(CPU, "fp32") == "winograd"
    assert "is damaged: it is built again" in caplog.text
    assert [p.read_bytes() for p in folder.iterdir()] == [whole]


@pytest.mark.usefixtures("fresh")
def test_a_built_library_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels.kernels_of(CPU, "fp32") == "winograd"
    monkeypatch.setenv("PATH", str(tmp_path))
    kernels._loaded.cache_clear()
    assert kernels.kernels_of(CPU, "fp32") == "winograd"


@pytest.mark.parametrize("kind", ["writable by others", "somebody else's"])
@pytest.mark.usefixtures("fresh")
def test_what_others_may_have_put_into_the_cache_is_not_run(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "searchae"
    folder.mkdir()
    if kind == "writable by others":
        folder.chmod(0o777)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert kernels.kernels_of(CPU, "fp32") == "torch"
    assert f"{folder} belongs to somebody else, or others may write to it" in caplog.text
    assert list(folder.iterdir()) == []


@pytest.mark.fleet
def test_several_workers_that_build_at_once(tmp_path: Path) -> None:
    code = (
        "import torch; from searchae.training.kernels import kernels_of; "
        "print(kernels_of(torch.device('cpu'), 'fp32'))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    workers = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [w.communicate()[0].decode().strip() for w in workers] == ["winograd"] * 2
    (left,) = (tmp_path / "searchae").iterdir()
    assert re.fullmatch(r"winograd-[0-9a-f]{16}-[0-9a-f]{16}\.so", left.name)


def test_more_threads_need_torch_s_own(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(library, "_openmp_parallel", lambda: None)
    assert kernels.kernels_of(CPU, "fp32") == ("winograd" if threads == 1 else "torch")


def test_without_kernels_upsampling_is_joined_as_before() -> None:
    stack = nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(8, 8, 3, padding=1)
    )
    assert [type(m) for m in fused_forward(stack)] == [UpsampledConvolution]
