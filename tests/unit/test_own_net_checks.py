"""What a net of one's own is checked for before a search, and how messages name its parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from searchae.bundle.validation import check_weight_names
from searchae.config import FACTORY_VARIABLE
from searchae.errors import BundleError, ModelError
from searchae.models import check_own_net
from searchae.models.own_net import own_module
from tests.unit.own_nets import write_net

SHAPE = (1, 8, 8)
NET = """
import random
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.d1 = nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1)
        {init}
    def encode(self, x):
        z = self.c1(x)
        {encode}
        return z
    def decode(self, z):
        x = self.d1(z)
        {decode}
        return x

def build(image_shape):
    return Net()
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def check(
        init: str = "pass", encode: str = "pass", decode: str = "pass", *, code: str = NET
    ) -> Any:
        model = write_net(tmp_path, code.format(init=init, encode=encode, decode=decode))
        monkeypatch.setenv(FACTORY_VARIABLE, str(model.factory))
        return check_own_net(model, image_shape=SHAPE)

    return check


@pytest.fixture
def refused(check: Any) -> Any:
    def refused(init: str = "pass", encode: str = "pass", decode: str = "pass", **code: str) -> str:
        with pytest.raises(ModelError) as caught:
            check(init, encode, decode, **code)
        said = str(caught.value)
        assert "\n" not in said
        assert "encoder.0" not in said, "searchae's names help nobody"
        return said

    return refused


# -- what is not registered

UNREGISTERED = {
    "a layer in a list": ("self.final = [nn.Conv2d(1, 1, 1)]", "x = self.final[0](x)", "final"),
    "a layer in a dict": (
        "self.final = {'last': nn.Conv2d(1, 1, 1)}",
        "x = self.final['last'](x)",
        "final",
    ),
    "a layer that draws nothing": ("self.norms = [nn.GroupNorm(1, 1)]", "x = self.norms[0](x)", ""),
    "a layer whose effect is zero at first": (
        "self.final = [nn.Conv2d(1, 1, 1)]; nn.init.zeros_(self.d1.weight); "
        "nn.init.zeros_(self.d1.bias)",
        "x = self.d1(self.final[0](z[:, :1]).repeat(1, 4, 1, 1))",
        "final",
    ),
    "a tensor": ("self.mask = torch.rand(1, 8, 8)", "x = x * self.mask", "mask"),
    "tensors in a list": ("self.masks = [torch.rand(1, 8, 8)]", "x = x * self.masks[0]", "masks"),
    "a buffer that is not kept": (
        "self.register_buffer('mask', torch.rand(1, 8, 8), persistent=False)",
        "x = x * self.mask",
        "",
    ),
    "a number": ("self.factor = random.random()", "x = x * self.factor", ""),
}


@pytest.mark.parametrize(("init", "decode", "name"), UNREGISTERED.values(), ids=UNREGISTERED)
def test_what_is_not_registered_is_refused(refused: Any, init: str, decode: str, name: str) -> None:
    said = refused(init, decode=decode)
    assert "depends on weights or tensors that are not registered" in said
    assert "nn.ModuleList or nn.ModuleDict" in said
    assert f"({name})" in said or not name


def test_a_layer_outside_of_the_net_is_refused(refused: Any) -> None:
    """It is the same object in each net, so that their results are the same."""
    code = NET.replace("class Net", "FINAL = nn.Conv2d(1, 1, 1)\n\nclass Net")
    assert "not registered" in refused(decode="x = FINAL(x)", code=code)


def test_parameters_that_differ_from_net_to_net_are_named(refused: Any) -> None:
    said = refused(
        "Net.built = getattr(Net, 'built', 0) + 1; "
        "self.middle = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(Net.built)])",
        decode="x = self.middle(x)",
    )
    assert "other parameters or buffers each time" in said
    assert "middle.1.weight" in said


REGISTERED = {
    "a list of modules": ("self.f = nn.ModuleList([nn.Conv2d(1, 1, 1)])", "x = self.f[0](x)"),
    "layers that are listed once more": (
        "self.f = nn.Conv2d(1, 1, 1); self.all = [self.f]",
        "x = self.all[0](x)",
    ),
    "a random buffer": ("self.register_buffer('m', torch.rand(1, 8, 8))", "x = x * self.m"),
    "a constant": ("self.factor = torch.tensor(0.5)", "x = x * self.factor"),
    "a lazy layer": ("self.f = nn.LazyConv2d(1, 1)", "x = self.f(x)"),
    "a layer made at first use": (
        "self.f = None",
        "self.f = nn.Conv2d(1, 1, 1) if self.f is None else self.f; x = self.f(x)",
    ),
    "batch normalisation": ("self.f = nn.BatchNorm2d(1)", "x = self.f(x)"),
    "dropout": ("self.f = nn.Dropout(0.5)", "x = self.f(x)"),
    "noise in training": (
        "pass",
        "x = x + torch.randn_like(x) if self.training else x",
    ),
    "a spectral norm": (
        "self.f = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 1, 3, padding=1))",
        "x = self.f(x)",
    ),
    "an old spectral norm": (
        "self.f = nn.utils.spectral_norm(nn.Conv2d(1, 1, 3, padding=1))",
        "x = self.f(x)",
    ),
    "a recurrent layer": (
        "self.f = nn.GRU(8, 8, batch_first=True)",
        "x = self.f(x[:, 0])[0][:, None]",
    ),
    "bfloat16 inside": (
        "self.f = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.SiLU(), "
        "nn.Conv2d(32, 1, 3, padding=1))",
        "with torch.autocast('cpu', torch.bfloat16): x = self.f(x)",
    ),
}


@pytest.mark.parametrize(("init", "decode"), REGISTERED.values(), ids=REGISTERED)
def test_nets_that_can_be_trained_are_not_refused(check: Any, init: str, decode: str) -> None:
    assert check(init, decode=decode).has_latent


def test_the_checks_use_up_no_random_numbers(check: Any) -> None:
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    check()
    assert torch.equal(torch.rand(2), drawn)


# -- what else the result for an image may depend on


def test_random_numbers_in_evaluation_mode_are_refused(refused: Any) -> None:
    said = refused(encode="z = z + torch.randn_like(z)")
    assert "other results for the same images at each call in evaluation mode" in said
    assert "only where self.training is true" in said
    forward = NET.replace(
        "    def encode",
        "    def forward(self, x):\n        return self.decode(self.encode(x))\n    def encode",
    )
    assert "at each call in evaluation mode" in refused(
        decode="x = nn.functional.dropout(x)", code=forward
    )


@pytest.mark.parametrize(
    ("part", "body"),
    [
        ("encode", "z = z - z.mean(0)"),
        ("encode", "z = z.cumsum(0)"),
        ("encode", "z = z.flatten(1).softmax(0).reshape(z.shape)"),
        ("decode", "x = x * z.mean().sigmoid()"),
        ("decode", "x = nn.functional.batch_norm(x, None, None, training=True)"),
    ],
)
def test_a_result_that_depends_on_other_images_is_refused(
    refused: Any, part: str, body: str
) -> None:
    said = refused(**{part: body})
    what = {"encode": "latent", "decode": "reconstruction"}[part]
    assert f"gives an image alone another {what} than in a batch with others" in said


def test_a_net_that_cannot_take_one_image_is_refused(refused: Any) -> None:
    said = refused(
        encode="z = z.flatten(1).squeeze()",
        decode="pass",
        code=NET.replace("self.d1(z)", "self.d1(z.reshape(-1, 4, 4, 4))"),
    )
    assert "returned the shape (64,) for (1, 1, 8, 8), encoding one image" in said


# -- gradients


@pytest.mark.parametrize(
    "encode", ["z = z.detach()", "with torch.no_grad(): z = self.c1(x)"], ids=["detach", "no_grad"]
)
def test_parameters_without_a_gradient_are_named_with_both_causes(
    refused: Any, encode: str
) -> None:
    said = refused(encode=encode)
    assert "get no gradient: c1.weight, c1.bias; either its output does not depend on them" in said
    assert "or torch.no_grad(), detach() or the like cuts them off" in said


def test_a_net_whose_output_has_no_gradient_at_all_says_the_same(refused: Any) -> None:
    assert "get no gradient: c1.weight, c1.bias, d1.weight, d1.bias;" in refused(
        decode="x = x.detach()"
    )


# -- where it failed


def test_an_error_names_the_line_of_the_user_s_file_and_the_layer(
    refused: Any, tmp_path: Path
) -> None:
    said = refused("self.wrong = nn.Linear(33, 4)", encode="z = self.wrong(z.flatten(1))")
    lines = (tmp_path / "nets.py").read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if "self.wrong(" in text)
    assert "shapes cannot be multiplied" in said
    assert said.endswith(f", in wrong (Linear), line {line} of {tmp_path / 'nets.py'}")


def test_an_error_in_torch_s_own_containers_names_the_layer(refused: Any) -> None:
    said = refused(
        "self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(33, 4)); self.decoder = nn.Sigmoid()",
        code=NET.replace("def encode", "def unused").replace("def decode", "def unused_too"),
    )
    assert said.endswith(", in encoder.1 (Linear)")


def test_an_error_in_a_file_beside_it_names_that_file(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "layers_that_fail.py").write_text(
        "import torch\n\ndef upscale(x):\n    return torch.cat([x, x[:, :, 1:]])\n"
    )
    code = "from layers_that_fail import upscale\n" + NET
    said = refused(decode="x = upscale(x)", code=code)
    assert said.endswith(f", line 4 of {tmp_path / 'layers_that_fail.py'}")


def test_a_failed_training_step_names_the_line_too(refused: Any, tmp_path: Path) -> None:
    said = refused(decode="x = self.c1(z) if self.training else x")
    assert f"training {tmp_path / 'nets.py'}:build failed: RuntimeError" in said
    assert re.search(r", in c1 \(Conv2d\), line \d+ of .*nets\.py$", said)


def test_a_syntax_error_names_no_line_of_searchae(refused: Any) -> None:
    assert refused(code="def build(:").endswith("(nets.py, line 1)")


def test_a_bundle_s_weights_are_named_as_in_the_net(check: Any) -> None:
    model = check()
    assert "c1.weight" in own_module(model).state_dict()
    weights = model.state_dict()
    del weights["encoder.0.net.c1.weight"]
    with pytest.raises(BundleError, match=r": c1\.weight is missing"):
        check_weight_names(model.state_dict(), weights)
