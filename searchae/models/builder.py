"""Builds models from their parameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from searchae.config import ModelParams
from searchae.errors import ModelError
from searchae.models import conv, dense
from searchae.models.autoencoder import Autoencoder
from searchae.models.k_sparse import make_k_sparse
from searchae.models.layout import ConvLayer, Shape, conv_layout
from searchae.models.own_net import build_own_net


def build_model(
    params: ModelParams, *, image_shape: Shape, active_latents: int | None = None
) -> Autoencoder:
    """Builds an autoencoder with torch's default initialisation and global random generator.

    Args:
        params: The model's parameters.
        image_shape: (C, H, W) of the images; reconstructions have exactly this shape.
        active_latents: How many values of a latent are kept, ``TrainParams.k_sparse``; None for all
            of them. It changes neither the parameters nor their initialisation.

    Raises:
        ModelError: The model cannot be built for such images.
    """
    model = _build(params, image_shape)
    if active_latents is not None:
        if params.variational:
            raise ModelError("train.active_latents: is not for variational nets")
        make_k_sparse(model, active_latents)
    return model


def _build(params: ModelParams, image_shape: Shape) -> Autoencoder:
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ModelError(f"images must be (channels, height, width), not {tuple(image_shape)}")
    if params.variational:
        _check_variational(params)
    if params.kind == "python":
        return build_own_net(params, image_shape=image_shape)
    if params.kind == "dense":
        return _join(
            params,
            encoder=dense.encoder(params, image_shape=image_shape),
            decoder=dense.decoder(params, image_shape=image_shape),
            image_shape=image_shape,
            latent_size=params.latent_dim,
        )
    layout = conv_layout(params, image_shape=image_shape)
    _check_norm(params, [*layout.encoder, *layout.decoder[:-1]])
    return _join(
        params,
        encoder=conv.encoder(params, layout=layout, image_shape=image_shape),
        decoder=conv.decoder(params, layout=layout),
        image_shape=image_shape,
        latent_size=conv.latent_size(params, layout=layout),
    )


def _check_norm(params: ModelParams, layers: Sequence[ConvLayer]) -> None:
    if params.group_norm and params.batch_norm:
        raise ModelError("model.group_norm: not together with batch_norm")
    odd = [x.channels for x in layers if params.group_norm and x.channels % params.group_norm]
    if odd:
        raise ModelError(
            f"model.group_norm: {params.group_norm} groups, but a layer has {odd[0]} channels, "
            "which is no multiple of that"
        )


def _check_variational(params: ModelParams) -> None:
    if params.latent_activation != "none":
        raise ModelError('model.variational: needs latent_activation = "none"')
    if params.kind == "conv" and params.bottleneck != "dense":
        raise ModelError('model.variational: needs bottleneck = "dense"')


def parameter_count(model: nn.Module) -> int:
    """Returns the number of a model's trainable parameters, including biases and norms."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _join(
    params: ModelParams,
    *,
    encoder: nn.Sequential,
    decoder: nn.Sequential,
    image_shape: Shape,
    latent_size: int,
) -> Autoencoder:
    return Autoencoder(
        encoder,
        decoder,
        image_shape=image_shape,
        latent_size=latent_size,
        symmetric=params.image_range == "symmetric",
    )
