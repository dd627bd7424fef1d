"""Quality of a super-resolved tile; one value per tile."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis as ergas,
)
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from asnlsr.physics import unscale

# metric: (label, does a higher value mean better?)
METRICS = {
    "psnr": ("PSNR (dB)", True),
    "ssim": ("SSIM", True),
    "ergas": ("ERGAS", False),
    "sam_deg": ("SAM (deg)", False),
    "rmse": ("RMSE", False),
    "mpsnr": ("MPSNR (dB)", True),
    "sam_rad_deg": ("SAM of radiance (deg)", False),
    "ergas_released": ("ERGAS as released", False),
    "ms_per_tile": ("ms per tile", False),
    "train_minutes": ("training (min)", False),
}


def psnr(estimate: Tensor, truth: Tensor, peak: float) -> Tensor:
    """20 log10(peak / RMSE) over all bands and pixels of a tile: (B,), dB."""
    mse = (estimate - truth).square().mean((1, 2, 3))
    return 10 * torch.log10(peak**2 / mse)


def mean_psnr(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean over bands of the PSNR of a band, its peak the largest true value in it: (B,), dB."""
    mse = (estimate - truth).square().mean((2, 3))  # (B, C)
    return (10 * torch.log10(truth.amax((2, 3)) ** 2 / mse)).mean(1)


def tile_metrics(estimate: Tensor, truth: Tensor, peak: float, scale: int = 4) -> dict[str, Tensor]:
    """Every metric of super-resolved tiles.

    Parameters
    ----------
    estimate, truth : Tensor, (B, C, H, W)
        Normalised log radiance z.
    peak : float
        Largest minus smallest z of the high-resolution test set.
    scale : int
        r, in ERGAS = 100/r sqrt(mean_b (rmse_b / mean_b)^2).

    Returns
    -------
    dict
        Metric to one value per tile, (B,). `psnr`, `ssim`, `rmse`, `sam_deg` are in z, `ergas`,
        `mpsnr`, `sam_rad_deg` in radiance. `ergas_released` is ERGAS of z + 0.5 clamped to 0..1,
        only for comparison with the published table.

    References
    ----------
    Wang et al. 2004 (SSIM, Gaussian window 11 x 11, sigma 1.5); Wald 2000 (ERGAS);
    Yuhas et al. 1992 (SAM).
    """
    radiance, true_radiance = unscale(estimate), unscale(truth)
    shifted, true_shifted = ((z + 0.5).clamp(0, 1) for z in (estimate, truth))
    return {
        "psnr": psnr(estimate, truth, peak),
        "ssim": torch.as_tensor(
            ssim(estimate, truth, sigma=1.5, kernel_size=11, data_range=peak, reduction=None)
        ).reshape(-1),  # torchmetrics squeezes a batch of one
        "rmse": (estimate - truth).square().mean((1, 2, 3)).sqrt(),
        "sam_deg": spectral_angle(estimate, truth).mean((1, 2)) * (180 / math.pi),
        "mpsnr": mean_psnr(radiance, true_radiance),
        "ergas": ergas(radiance, true_radiance, ratio=scale, reduction=None),
        "sam_rad_deg": spectral_angle(radiance, true_radiance).mean((1, 2)) * (180 / math.pi),
        "ergas_released": ergas(shifted, true_shifted, ratio=scale, reduction=None),
    }


def spectral_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between the spectra of two cubes, one value per pixel.

    Uses 2 atan2(|u - v|, |u + v|) of the unit vectors (Kahan 2006), which is exact for small
    angles where arccos loses half of the digits: the angle of x with itself is 0, without a
    floor, and no gradient is NaN. The angle with a zero spectrum is defined as 0.

    Parameters
    ----------
    a, b : Tensor, (B, C, H, W)

    Returns
    -------
    Tensor, (B, H, W), radians
    """
    u, v = F.normalize(a, dim=1), F.normalize(b, dim=1)
    apart, together = _norm(u - v), _norm(u + v)
    defined = (u.square().sum(1) > 0.5) & (v.square().sum(1) > 0.5)  # neither spectrum is zero
    return 2 * torch.atan2(apart.where(defined, 0), together.where(defined, 1))


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm over bands whose gradient at zero is 0 and not NaN."""
    squared = x.square().sum(1)
    return squared.where(squared > 0, 1).sqrt().where(squared > 0, 0)
