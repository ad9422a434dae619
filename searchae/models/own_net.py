"""Nets of people's own, ``kind = "python"``: built by a function, wrapped as an ``Autoencoder``."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from searchae.config import FACTORY_VARIABLE, ModelParams, NetFactory, factory_hint, find_factory
from searchae.errors import ModelError, SpecError
from searchae.models.autoencoder import Autoencoder
from searchae.models.layout import Shape
from searchae.models.own_net_errors import error_text, few

Build = Callable[..., Any]

_SAME = 1e-4
"""Two reconstructions that differ by less are the same but for rounding."""

_IMAGES = 2  # of a trial pass through the net: the fewest that show how batches are treated

_PLACE = "encoder.0.net"
"""Where the ``Autoencoder`` that ``build_own_net`` returns holds the net."""

RANDOM = (
    "gives other results for the same images at each call in evaluation mode, so that no figure of "
    "it could be measured again: draw random numbers (dropout, noise, masks, sampling) only where "
    "self.training is true"
)
"""What is said of a net that draws random numbers while it evaluates."""


def build_own_net(params: ModelParams, *, image_shape: Shape) -> Autoencoder:
    """Builds a net by the function that ``model.factory`` names, and checks what it does.

    The function is called with ``image_shape``, (C, H, W), and the values of ``[model.args]`` by
    name. It returns a module with

    - methods ``encode`` and ``decode``: images float32 (N, C, H, W) to latents float (N, ...), and
      back; or
    - modules ``encoder`` and ``decoder`` that do so; or
    - neither: then it maps images to reconstructions, and has no latent.

    Reconstructions may also be (N, C * H * W). Images are in the net's own range, see
    ``model.image_range``. A net that has a ``forward`` besides the first two must come to the same
    with it, since it is not used.

    Args:
        params: The model's parameters.
        image_shape: (C, H, W) of the images.

    Raises:
        ModelError: The function may not be run here, failed, or returned something else.
    """
    name = str(params.factory)
    build = allowed_factory(name, str(params.factory_sha256))
    _check_arguments(build, params)
    try:
        net = build(image_shape=tuple(image_shape), **params.args)
    except Exception as e:
        raise ModelError(
            f"model.factory: {name}{arguments_text(params)} failed: {error_text(e)}"
        ) from e
    if not isinstance(net, nn.Module):
        raise ModelError(f"model.factory: {name} returned a {type(net).__name__}, no nn.Module")
    try:
        return _wrapped(net, params, image_shape)
    except ModelError as e:
        raise ModelError(f"model.factory: the net of {name}{arguments_text(params)} {e}") from e


def own_module(model: Autoencoder) -> nn.Module:
    """Returns the net that ``build_own_net`` has wrapped, whose names are those of its author."""
    return model.get_submodule(_PLACE)


def own_name(name: str) -> str:
    """Returns a weight's name as the author of a net knows it; that of another net unchanged."""
    return name.removeprefix(f"{_PLACE}.")


def _check_arguments(build: Build, params: ModelParams) -> None:
    """Checks that a function takes the arguments that it will be given.

    Raises:
        ModelError: It does not; the message says which it takes.
    """
    try:
        signature = inspect.signature(build)
    except ValueError:  # a function that is not written in Python
        return
    try:
        signature.bind(image_shape=(1, 1, 1), **params.args)
    except TypeError as e:
        given = ", ".join(["image_shape", *params.args])
        raise ModelError(
            f"model.factory: {params.factory}{signature} is given image_shape=(C, H, W) and the "
            f"values of [model.args], all by name ({given}): {e}"
        ) from e


class _Part(nn.Module):
    """One direction of a net.

    Args:
        net: The net.
        call: Its method or module.
        owns: Whether the net is registered here: its parameters must be counted once.
    """

    def __init__(self, net: nn.Module, call: Callable[[Tensor], Tensor], *, owns: bool) -> None:
        super().__init__()
        if owns:
            self.net = net
        self._call = [call]  # in a list, so that a module is not registered twice

    def forward(self, values: Tensor) -> Tensor:
        """Maps images to latents, or latents to images."""
        return self._call[0](values)


def _wrapped(net: nn.Module, params: ModelParams, image_shape: Shape) -> Autoencoder:
    _check_parameters(net)
    encode, decode = directions(net)
    images = trial_images(image_shape, next(net.parameters()).device)
    with evaluating(net):
        latents, made = passed_through(net, images)
        latent_shape = tuple(latents.shape[1:])
        if decode is not None:
            _check_forward(net, made, images)
    _check_images(made, image_shape)
    decoder: list[nn.Module] = [nn.Unflatten(1, latent_shape)] if len(latent_shape) > 1 else []
    if decode is not None:
        decoder.append(_Part(net, decode, owns=False))
    if made.ndim == 2:
        decoder.append(nn.Unflatten(1, image_shape))
    return Autoencoder(
        nn.Sequential(_Part(net, encode, owns=True), nn.Flatten()),
        nn.Sequential(*decoder),
        image_shape=image_shape,
        latent_size=math.prod(latent_shape),
        symmetric=params.image_range == "symmetric",
        has_latent=decode is not None,
    )


def passed_through(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns latents and reconstructions; of a net without a latent, reconstructions twice.

    Raises:
        ModelError: See ``tried``.
    """
    encode, decode = directions(net)
    latents = tried(net, encode, images, "encoding images")
    return latents, latents if decode is None else tried(net, decode, latents, "decoding latents")


def directions(
    net: nn.Module,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None]:
    """Returns what encodes and what decodes; in a net without a latent, what does both."""
    for names in (("encode", "decode"), ("encoder", "decoder")):
        encode, decode = (getattr(net, name, None) for name in names)
        if callable(encode) and callable(decode):
            return encode, decode
    return net, None


def _check_forward(net: nn.Module, made: Tensor, images: Tensor) -> None:
    """Checks that a net's own ``forward`` does the same as encoding and decoding.

    Raises:
        ModelError: It makes other images than ``made``, which encoding and decoding made.
    """
    if type(net).forward is nn.Module.forward or made.is_meta:
        return
    try:
        whole = net(images)
    except Exception:  # noqa: BLE001  # it needs more than images, or is not meant to be called
        return
    whole = whole[0] if isinstance(whole, tuple | list) and whole else whole
    if not isinstance(whole, Tensor) or whole.numel() != made.numel():
        return
    off = float((whole.reshape(made.shape) - made).abs().max())
    if not off < _SAME:
        if not torch.equal(passed_through(net, images)[1], made):
            raise ModelError(RANDOM)
        raise ModelError(
            f"makes other images with forward than with encode and decode (they differ by up to "
            f"{off:.2g}), and searchae trains encode and decode: move what forward adds, such as a "
            "sigmoid, into decode (or the decoder)"
        )


def _check_parameters(net: nn.Module) -> None:
    named = [(n, p) for n, p in net.named_parameters(remove_duplicate=False) if p.requires_grad]
    if not named:
        raise ModelError("has no trainable parameters")
    names: dict[int, list[str]] = {}
    for name, parameter in named:
        names.setdefault(id(parameter), []).append(name)
        if parameter.dtype != torch.float32:
            raise ModelError(f"has {name} in {parameter.dtype}; parameters must be float32")
    shared = next((n for n in names.values() if len(n) > 1), None)
    if shared:
        raise ModelError(
            f"has one parameter under several names ({few(shared)}), which a bundle cannot hold; "
            "register the module once"
        )
    if len({p.device for _, p in named}) > 1:
        raise ModelError("has parameters on several devices; build them all on the default one")


def tried(net: nn.Module, part: Callable[[Tensor], Tensor], given: Tensor, what: str) -> Tensor:
    """Calls one direction of a net, and checks what it returns.

    Args:
        net: The net.
        part: Its method or module, from ``directions``.
        given: Images or latents, (N, ...).
        what: What this is, for the message.

    Raises:
        ModelError: It failed, or did not return finite floats of the shape (N, ...).
    """
    try:
        made = part(given)
    except Exception as e:
        raise ModelError(
            f"failed at {what} of shape {tuple(given.shape)}: {error_text(e, net)}"
        ) from e
    if not isinstance(made, Tensor) or not made.is_floating_point():
        kind = made.dtype if isinstance(made, Tensor) else f"a {type(made).__name__}"
        hint = ""
        if isinstance(made, tuple | list):
            hint = "; a variational net of your own cannot be trained (model.variational = true is)"
        raise ModelError(f"returned {kind}, not a tensor of floats, {what}{hint}")
    if made.ndim < 2 or len(made) != len(given) or not made.numel():
        raise ModelError(
            f"returned the shape {tuple(made.shape)} for {tuple(given.shape)}, {what}: "
            "the first dimension must be the images"
        )
    if not made.is_meta and not made.isfinite().all():
        raise ModelError(f"returned NaN or infinity, {what}")
    return made


def _check_images(made: Tensor, image_shape: Shape) -> None:
    if tuple(made.shape[1:]) not in (tuple(image_shape), (math.prod(image_shape),)):
        raise ModelError(
            f"returns images of shape {tuple(made.shape[1:])} for images of shape "
            f"{tuple(image_shape)}"
        )


def trial_images(image_shape: Shape, device: torch.device) -> Tensor:
    """Returns two images, (2, C, H, W) in [0, 1], that have no value in common."""
    count = _IMAGES * math.prod(image_shape)
    return torch.linspace(0, 1, count, device=device).reshape(_IMAGES, *image_shape)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within the block, the net evaluates, and uses up no random numbers of the CPU."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def allowed_factory(name: str, sha256: str, *, known: str = "") -> Build:
    """Returns a function that builds a net, if this process may run it.

    Args:
        name: As ``model.factory`` has it.
        sha256: SHA-256 of its file, in hexadecimal.
        known: Where the file was when the study was made, for the error.

    Raises:
        ModelError: It may not, it is another one, or it cannot be loaded.
    """
    allowed = os.environ.get(FACTORY_VARIABLE, "")
    if not allowed:
        raise ModelError(
            f"the net is built by {name}, and code is never taken from a database or a bundle: "
            f"name the file here with --factory {factory_hint(name, sha256, known=known)} (in "
            f"Python: factory=; or {FACTORY_VARIABLE})"
        )
    try:
        factory = find_factory(allowed)
    except SpecError as e:
        raise ModelError(*e.args) from e
    if factory.function != name.rpartition(":")[2]:
        raise ModelError(f"--factory {allowed}: the net is built by another function, {name}")
    if factory.sha256 != sha256:
        raise ModelError(
            f"--factory {allowed}: the file differs from the one that the study was made with "
            f"(SHA-256 {factory.sha256[:12]}, not {sha256[:12]}); its results "
            "would not be comparable: use that file as it was (a copy beside a bundle keeps it), "
            "or a new study (--name)"
        )
    return _loaded(factory)


@lru_cache
def _loaded(factory: NetFactory) -> Build:
    try:
        module = import_module(factory.module) if factory.module else _run(factory)
        build = getattr(module, factory.function, None)
    except Exception as e:
        raise ModelError(f"model.factory: {factory.path} cannot be loaded: {error_text(e)}") from e
    if not callable(build):
        there = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise ModelError(
            f"model.factory: {factory.path} has no function {factory.function}; it has {few(there)}"
        )
    found: Build = build
    return found


def _run(factory: NetFactory) -> ModuleType:
    """Runs the content that was hashed, as a module that can import files beside it."""
    module = ModuleType(f"searchae_net_{factory.sha256[:16]}")
    module.__file__ = str(factory.path)
    sys.modules[module.__name__] = module
    if (folder := str(factory.path.parent)) not in sys.path:
        sys.path.append(folder)
    exec(compile(factory.source, factory.path, "exec"), module.__dict__)
    return module


def arguments_text(params: ModelParams) -> str:
    """Returns the arguments that a net is built with, for messages."""
    return f" ({', '.join(f'{k}={v!r}' for k, v in params.args.items())})" if params.args else ""
