"""Recipe `warm`: the starts that make networks train reliably. All of it is ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OPEN_RELU = 5.0  # the softmax does not see it, but the ReLU before it stays open
NOISE_FLOOR = 0.03  # principal components weaker than this share of the first are not whitened
LAYER_TILES = 16  # enough to tell how far the outputs of a layer spread
STAGE_END = 0.1  # spread of what the last convolution of a stage gives to the enlargement


@torch.no_grad()
def start_unmixing(network: Any, lr: Tensor) -> None:  # noqa: ANN401
    """Start encoder and endmembers from the data, so that unmixing is learnt in seconds.

    The encoder starts as a network of single pixels (off-centre taps zero) that sees whitened
    spectra, every layer scaled to unit-variance inputs of the next (Salimans & Kingma 2016).
    Endmembers are pixels, each the farthest from those before it, so that their hull covers
    the data. A constant on all logits, invisible to the softmax, keeps the ReLU before it from
    dying, which is how abundances collapse.

    Parameters
    ----------
    network : SNLSR
        Changed in place.
    lr : Tensor, (n, C, h, w)
        Low-resolution training tiles, normalised log radiance.
    """
    lr = network.match(lr)
    pixels = lr.movedim(1, -1).flatten(0, -2)  # (n h w, C)
    network.decoder.weight[:, :, 0, 0] = far_apart(pixels, network.decoder.in_channels).T
    x, first = lr, True
    for layer in network.encoder.layers:
        if isinstance(layer, nn.Conv2d):
            middle = layer.kernel_size[0] // 2
            taps = layer.weight[:, :, middle, middle].clone()
            if first:
                taps = torch.randn_like(taps) @ whitening(pixels)
            layer.weight.zero_()
            layer.weight[:, :, middle, middle] = taps
            standardise(layer, None, layer(x))
            first = False
        x = layer(x)
    network.encoder.layers[-1].bias += OPEN_RELU


def standardise(layer: Any, _: object, y: Tensor) -> Tensor:  # noqa: ANN401
    """Scale a convolution so that its outputs `y` (B, C, h, w) get mean 0 and variance 1.

    As a forward hook, it also hands these outputs on.
    """
    std, mean = y.std((0, 2, 3)), y.mean((0, 2, 3))
    layer.weight /= std[:, None, None, None]
    layer.bias[:] = (layer.bias - mean) / std
    return (y - mean[:, None, None]) / std[:, None, None]


def far_apart(pixels: Tensor, count: int) -> Tensor:
    """Choose `count` spectra of (P, C), each the farthest from the mean and those before it."""
    chosen = [pixels.mean(0)]
    distance = torch.full((len(pixels),), torch.inf, device=pixels.device)
    while len(chosen) <= count:
        distance = torch.minimum(distance, (pixels - chosen[-1]).norm(dim=1))
        chosen.append(pixels[distance.argmax()])
    return torch.stack(chosen[1:])


def whitening(pixels: Tensor) -> Tensor:
    """Matrix (C, C) that gives the principal components of (P, C) unit variance."""
    covariance = torch.cov(pixels.T.double())
    variance, axes = torch.linalg.eigh(covariance)
    floor = NOISE_FLOOR**2 * variance[-1]
    scaled: Tensor = axes / variance.clamp(min=floor).sqrt()
    return scaled.T.to(pixels.dtype)


@torch.no_grad()
def start_super_resolution(network: Any, lr: Tensor) -> None:  # noqa: ANN401
    """Start the super-resolution branch from what the warm-up has learnt.

    The first convolution starts with kernels that sum to zero and are divided by the spread of
    each abundance: the branch sees local contrast of about unit variance, and not the level,
    which differs between scenes and domains. A last convolution of zeros makes the network
    start as its bicubic skip.

    Parameters
    ----------
    network : SNLSR
        Changed in place.
    lr : Tensor, (n, C, h, w)
        Low-resolution training tiles, normalised log radiance.
    """
    tiles = [network.encoder(network.match(tile[None])) for tile in lr]
    abundances = torch.cat(tiles).transpose(0, 1).flatten(1)
    head, tail = network.sr.head, network.sr.tail
    head.weight -= head.weight.mean((2, 3), keepdim=True)
    head.weight /= abundances.std(1).clamp(min=1e-3)[:, None, None]
    nn.init.zeros_(tail.weight)
    nn.init.zeros_(tail.bias)


@torch.no_grad()
def start_contrast(network: Any, lr: Tensor) -> None:  # noqa: ANN401
    """Start SRFormer from local contrast of unit variance, and as its bicubic skip.

    The missing detail goes with differences between neighbours, small beside the level, which
    is what random kernels answer to; from those, and at the learning rate of the other
    networks, it is still at bicubic after 1,200 steps.

    Parameters
    ----------
    network : SRFormer
        Changed in place.
    lr : Tensor, (n, C, h, w)
        Low-resolution training tiles, normalised log radiance.
    """
    head, tail = network.head, network.tail
    head.weight -= head.weight.mean((2, 3), keepdim=True)
    head.weight /= head(lr).std((0, 2, 3))[:, None, None, None]
    for parameter in (head.bias, tail.weight, tail.bias):
        nn.init.zeros_(parameter)


@torch.no_grad()
def start_stages(network: Any, lr: Tensor) -> None:  # noqa: ANN401
    """Start RCAM from local contrast, its layers scaled, and as its bicubic skip.

    Some thirty layers of single pixels hand on the level of the bands and hardly their detail:
    from random weights RCAM is still at bicubic after 1,000 steps. Here the convolutions over
    neighbours start with kernels that sum to zero, and the outputs of each layer with zero mean
    and unit variance (Salimans & Kingma 2016). From whitened spectra, as in `start_unmixing`, it
    learns the noise of single tiles and stays at bicubic too.

    Parameters
    ----------
    network : RCAM
        Changed in place.
    lr : Tensor, (n, C, h, w)
        Low-resolution training tiles, normalised log radiance.
    """
    hooks = []
    for stage in network.stages:
        for name, layer in stage.named_modules():
            if isinstance(layer, nn.Conv2d) and "gate" not in name:
                if layer.kernel_size[0] > 1:
                    layer.weight -= layer.weight.mean((2, 3), keepdim=True)
                hooks.append(layer.register_forward_hook(standardise))
        for parameter in stage.up.parameters():
            nn.init.zeros_(parameter)
    network(lr[:: -(-len(lr) // LAYER_TILES)])
    for hook in hooks:
        hook.remove()
    for stage in network.stages:
        for parameter in stage.blocks[-1].fuse[0].parameters():
            parameter *= STAGE_END
