"""What a net of one's own is checked for before a search, beyond that it can be built."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from searchae.config import ModelParams
from searchae.errors import ModelError
from searchae.models.autoencoder import Autoencoder
from searchae.models.layout import Shape
from searchae.models.own_net import (
    RANDOM,
    arguments_text,
    build_own_net,
    directions,
    evaluating,
    own_module,
    passed_through,
    trial_images,
    tried,
)
from searchae.models.own_net_errors import error_text, few

_SAME = 1e-4
"""Relative difference of two results of the same computation with the same weights."""

_SAME_ALONE = 1e-2
"""The same for other sizes of batches, which may be computed by other algorithms, and in bf16."""


def check_own_net(
    params: ModelParams, *, image_shape: Shape, is_contractive: bool = False
) -> Autoencoder:
    """Checks on the CPU that a net of one's own can be trained, measured and kept.

    Args:
        params: The model's parameters.
        image_shape: (C, H, W) of the images.
        is_contractive: Whether there may be a contractive penalty, which differentiates the encoder
            twice.

    Returns:
        The net.

    Raises:
        ModelError: It cannot, or see ``build_own_net``.
    """
    images = trial_images(image_shape, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        model = _built(params, image_shape, seed=0)
        try:
            made = model.train()(images)
            unregistered = _has_unregistered(model, made)
            if made.requires_grad:
                made.square().mean().backward()
        except Exception as e:
            raise ModelError(
                f"model.factory: training {params.factory} failed: "
                f"{error_text(e, own_module(model))}"
            ) from e
        if is_contractive and model.has_latent:
            _check_second_derivative(model, params, images)
        try:
            net = own_module(model)
            if unregistered:
                raise _unregistered(net)
            _check_gradients(net)
            results = _check_evaluation(net, images)
            again = own_module(_built(params, image_shape, seed=1))
            _check_state(net, again, images, results)
        except ModelError as e:
            raise ModelError(
                f"model.factory: the net of {params.factory}{arguments_text(params)} {e}"
            ) from e
    return model


def _built(params: ModelParams, image_shape: Shape, *, seed: int) -> Autoencoder:
    torch.default_generator.manual_seed(seed)
    return build_own_net(params, image_shape=image_shape)


def _check_second_derivative(model: Autoencoder, params: ModelParams, images: Tensor) -> None:
    """Checks that the encoder can be differentiated twice, which not all of torch's layers can."""
    images = images.clone().requires_grad_()
    try:
        (slopes,) = torch.autograd.grad(model.encoder(images).sum(), images, create_graph=True)
        if slopes.requires_grad:  # not so where nothing that can be trained decides them
            slopes.square().sum().backward()  # type: ignore[no-untyped-call]
    except Exception as e:
        raise ModelError(
            f"train.regularizer: a contractive penalty differentiates the encoder of "
            f"{params.factory} twice, which failed: {error_text(e, own_module(model))}"
        ) from e


def _check_gradients(net: nn.Module) -> None:
    """Checks that each parameter has got a gradient."""
    unused = [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    if unused:
        raise ModelError(
            f"has parameters that get no gradient: {few(unused)}; either its output does not "
            "depend on them (then remove them, or set requires_grad = False), or "
            "torch.no_grad(), detach() or the like cuts them off from it"
        )


def _check_evaluation(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Checks that the results for an image in evaluation mode depend on nothing but the image.

    Returns:
        The results, see ``passed_through``.
    """
    encode, decode = directions(net)
    with evaluating(net):
        latents, made = results = passed_through(net, images)
        if not _difference(results, passed_through(net, images)) <= _SAME:
            raise ModelError(RANDOM)
        for i in range(len(images)):
            alone = tried(net, encode, images[i : i + 1], "encoding one image")
            what = "reconstruction" if decode is None else "latent"
            _check_alone(alone, latents[i : i + 1], what)
            if decode is not None:
                alone = tried(net, decode, latents[i : i + 1], "decoding one latent")
                _check_alone(alone, made[i : i + 1], "reconstruction")
    return results


def _check_alone(alone: Tensor, in_batch: Tensor, what: str) -> None:
    off = _difference((alone,), (in_batch,))
    if not off <= _SAME_ALONE:
        raise ModelError(
            f"gives an image alone another {what} than in a batch with others, in evaluation mode "
            f"(relative difference {off:.2g}): treat each image by itself there, without a mean or "
            "other statistic over the first dimension"
        )


def _check_state(
    net: nn.Module, other: nn.Module, images: Tensor, results: tuple[Tensor, Tensor]
) -> None:
    """Checks that another net has a net's results once it has its state."""
    odd = _shapes(net) ^ _shapes(other)
    if odd:
        raise ModelError(
            "has other parameters or buffers each time it is built with the same arguments: "
            f"{few(sorted({name for name, _ in odd}))}"
        )
    try:
        other.load_state_dict(net.state_dict())
    except Exception as e:
        raise ModelError(f"does not take its own state_dict: {error_text(e, other)}") from e
    with evaluating(other):
        if not _difference(results, passed_through(other, images)) <= _SAME:
            raise _unregistered(net)


def _shapes(net: nn.Module) -> set[tuple[str, tuple[int, ...]]]:
    return {(n, tuple(getattr(v, "shape", ()))) for n, v in net.state_dict().items()}


def _difference(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> float:
    """Returns the largest difference, relative to the largest value of its tensors."""
    largest = 0.0
    for one, other in zip(some, others, strict=True):
        if one.shape != other.shape:
            return math.inf
        scale = float(torch.maximum(one.abs(), other.abs()).max())
        if scale:
            largest = max(float((one - other).abs().max()) / scale, largest)
    return largest


def _unregistered(net: nn.Module) -> ModelError:
    where = list(_plain_attributes(net))
    return ModelError(
        f"depends on weights or tensors that are not registered{f' ({few(where)})' * bool(where)}, "
        "so that they are neither trained nor kept: put layers into nn.ModuleList or "
        "nn.ModuleDict, not into a list or dict; make tensors nn.Parameter or register_buffer them"
    )


def _has_unregistered(model: nn.Module, made: Tensor) -> bool:
    """Returns whether a result comes from parameters that are not of the model."""
    registered = {id(parameter) for parameter in model.parameters()}
    seen, waiting = set(), [made.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in registered:
            return True
    return False


def _plain_attributes(net: nn.Module) -> Iterator[str]:
    """Yields the names of attributes whose layers or tensors torch does not know of."""
    registered = {id(tensor) for tensor in chain(net.parameters(), net.buffers())}
    torchs_own = vars(nn.Module())
    for place, module in net.named_modules():
        for name, value in vars(module).items():
            if name not in torchs_own and any(id(t) not in registered for t in _tensors(value)):
                yield f"{place}.{name}".lstrip(".")


def _tensors(value: object) -> Iterator[Tensor]:
    """Yields the tensors in an attribute: itself, or of a list or dict, or of layers in one."""
    held = value.values() if isinstance(value, dict) else value
    for item in held if isinstance(held, list | tuple | type({}.values())) else [held]:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, nn.Module):
            yield from chain(item.parameters(), item.buffers())
