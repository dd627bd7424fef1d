"""Losses on normalised log radiance z."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from asnlsr.metrics import mmd, spectral_angle
from asnlsr.models.layers import SuperResolution
from asnlsr.physics import unscale

SAM_WEIGHT = 0.1  # weight of the angle (radians) beside the mean absolute error


def fidelity(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error + 0.1 mean spectral angle (radians); 0 for an empty batch."""
    if len(truth) == 0:
        return estimate.new_zeros(())  # pixel shuffle has no gradient of an empty batch
    estimate = estimate.to(truth.dtype)  # bfloat16 would round angles to hundredths
    angle = spectral_angle(estimate, truth).mean()
    return F.l1_loss(estimate, truth) + SAM_WEIGHT * angle


RADIANCE_WEIGHT = 0.3  # weight of the relative error in radiance beside that in z
_LEAST = 1e-6  # mean square of an error that hardly counts


def log_errors(estimate: Tensor, truth: Tensor) -> Tensor:
    """Logarithm of the mean square over pixels, averaged over bands and tiles (B, C, H, W).

    Of the error in z, as in PSNR, and in radiance relative to its mean, as in ERGAS. So a tile
    of fine texture, whose error is large whatever is learned, does not rule: a network that
    lowers it learns that texture by heart.
    """
    radiance = unscale(truth)
    relative = (unscale(estimate) - radiance) / radiance.mean((2, 3), keepdim=True)
    in_z, in_radiance = (
        (error.square().mean((2, 3)) + _LEAST).log().mean()
        for error in (estimate - truth, relative)
    )
    return in_z + RADIANCE_WEIGHT * in_radiance


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the covariances of features (n, K) and (m, K), over 4 K^2.

    References
    ----------
    Sun & Saenko 2016, "Deep CORAL", equation 1.
    """
    apart = torch.cov(source.T) - torch.cov(target.T)
    return apart.square().sum() / (4 * source.shape[1] ** 2)


# Weights with which either, unaligned, is as large as the super-resolution loss of a `demo` run.
ALIGNMENTS = {"coral": (coral, 1e4), "mmd": (mmd, 0.02)}
ALIGN_EVERY = 3  # every third pixel of a crop: MMD compares all pairs


def training_losses(
    output: SuperResolution, batch: dict[str, Tensor], super_resolve: bool = True, align: str = ""
) -> dict[str, Tensor]:
    """Return the terms of the training objective; their sum is minimised.

    Parameters
    ----------
    output : SuperResolution
        Of the network on `batch["lr"]`, with `sr` for its source tiles only.
    batch : dict
        `lr` (B, C, h, w), source tiles first; `hr` (B_source, C, r h, r w), source tiles only;
        `domain` (B,), 0 source and 1 target.
        Of a progressive network also `lr_x2` (B_source, C, r h / 2, r w / 2).
    super_resolve : bool
        False in the unmixing warm-up, where only the reconstruction counts.
    align : str
        Loss of `ALIGNMENTS` between the abundances of the source and of the target tiles.
    """
    losses = {}
    if output.reconstruction is not None:
        losses["loss_unmix"] = fidelity(output.reconstruction, batch["lr"])
    if super_resolve:
        single_image = output.reconstruction is None  # those are trained without the angle
        loss = F.l1_loss if single_image else fidelity
        loss = log_errors if "bands" in batch else loss
        losses["loss_sr"] = loss(output.sr, batch["hr"])
        if output.sr_half is not None:
            losses["loss_half"] = F.l1_loss(output.sr_half, batch["lr_x2"])
        if output.domain_logits is not None:
            losses["loss_domain"] = F.cross_entropy(output.domain_logits, batch["domain"])
        if align and output.abundances is not None:
            distance, weight = ALIGNMENTS[align]
            pixels = output.abundances.flatten(2)[:, :, ::ALIGN_EVERY].transpose(1, 2)  # (B, n, K)
            sources = len(batch["hr"])
            domains = [part.flatten(0, 1) for part in (pixels[:sources], pixels[sources:])]
            if all(map(len, domains)):  # a batch of recipe `published` may lack one
                losses["loss_align"] = weight * distance(*domains)
    return losses
