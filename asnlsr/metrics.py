"""Quality of a super-resolved tile, one value per tile; and how far two domains are apart."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

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
    "psnr_clean": ("PSNR, noise-free truth (dB)", True),  # of simulated scenes, by `evaluate`
}


def psnr(estimate: Tensor, truth: Tensor, peak: float) -> Tensor:
    """20 log10(peak / RMSE) over all bands and pixels of a tile: (B,), dB."""
    mse = (estimate - truth).square().mean((1, 2, 3))
    return 10 * torch.log10(peak**2 / mse)


def mean_psnr(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean over bands of the PSNR of a band, its peak the largest true value in it: (B,), dB."""
    mse = (estimate - truth).square().mean((2, 3))  # (B, C)
    return (10 * torch.log10(truth.amax((2, 3)) ** 2 / mse)).mean(1)


def ssim(estimate: Tensor, truth: Tensor, peak: float) -> Tensor:
    """Structural similarity, Gaussian window 11 x 11 with sigma 1.5: (B,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow

    each = structural_similarity_index_measure(
        estimate, truth, sigma=1.5, kernel_size=11, data_range=peak, reduction=None
    )
    return torch.as_tensor(each).reshape(-1)  # torchmetrics squeezes a batch of one


def ergas(estimate: Tensor, truth: Tensor, scale: int) -> Tensor:
    """100/r sqrt(mean_b (rmse_b / mean_b)^2) of bands b of a tile: (B,)."""
    relative = (estimate - truth).square().mean((2, 3)) / truth.mean((2, 3)).square()
    return 100 / scale * relative.mean(1).sqrt()


def tile_metrics(estimate: Tensor, truth: Tensor, peak: float, scale: int = 4) -> dict[str, Tensor]:
    """Every metric of super-resolved tiles.

    Parameters
    ----------
    estimate, truth : Tensor, (B, C, H, W)
        Normalised log radiance z.
    peak : float
        Largest minus smallest z of the high-resolution test set.
    scale : int
        r of ERGAS.

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
        "ssim": ssim(estimate, truth, peak),
        "rmse": (estimate - truth).square().mean((1, 2, 3)).sqrt(),
        "sam_deg": spectral_angle(estimate, truth).mean((1, 2)) * (180 / math.pi),
        "mpsnr": mean_psnr(radiance, true_radiance),
        "ergas": ergas(radiance, true_radiance, scale),
        "sam_rad_deg": spectral_angle(radiance, true_radiance).mean((1, 2)) * (180 / math.pi),
        "ergas_released": ergas(shifted, true_shifted, scale),
    }


def spectral_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between the spectra of two cubes, one value per pixel.

    Uses 2 atan2(|u - v|, |u + v|) of the unit vectors (Kahan 2006), which is exact for small
    angles where arccos loses half of the digits: the angle of x with itself is 0, without a
    floor, and no gradient is NaN. The angle with a zero spectrum is defined as 0, that with NaN
    is NaN.

    Parameters
    ----------
    a, b : Tensor, (B, C, H, W)

    Returns
    -------
    Tensor, (B, H, W), radians
    """
    u, v = F.normalize(a, dim=1), F.normalize(b, dim=1)
    apart, together = _norm(u - v), _norm(u + v)
    zero = u.square().sum(1) * v.square().sum(1) < 0.5  # either spectrum; not where one is NaN
    return 2 * torch.atan2(apart.where(~zero, 0), together.where(~zero, 1))


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm over bands whose gradient at zero is 0 and not NaN."""
    squared = x.square().sum(1)
    zero = squared == 0  # NaN stays
    return squared.where(~zero, 1).sqrt().where(~zero, 0)


def mmd(source: Tensor, target: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel.

    The kernel is exp(-d^2 / (2 s^2)) with s the median distance in the joint sample. The
    estimate may be slightly negative where the distributions are equal. It has a gradient.

    Parameters
    ----------
    source, target : Tensor, (n, K) and (m, K)
        Of features that are all equal the discrepancy is 0.

    References
    ----------
    Gretton et al. 2012, JMLR 13, equation 3; Long et al. 2015 as a loss of features.
    """
    source, target = torch.as_tensor(source), torch.as_tensor(target)
    joint, n, m = torch.cat([source, target]), len(source), len(target)
    exact = "donot_use_mm_for_euclid_dist"  # equal points have the distance 0
    squared = torch.cdist(joint, joint, compute_mode=exact).square()
    with torch.no_grad():  # the kernel's width is a yardstick, no way to lower the loss
        apart = squared[squared > 0]
        width = 2 * apart.median() if len(apart) else 1.0
    kernel = torch.exp(-squared / width)
    within_source = (kernel[:n, :n].sum() - n) / (n * (n - 1))
    within_target = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return within_source + within_target - 2 * kernel[:n, n:].mean()


def pixels(maps: Tensor, count: int | None = None, seed: int = 0) -> Tensor:
    """Spectra of abundance maps (n, K, h, w) as rows (count, K), drawn without replacement."""
    rows = maps.movedim(1, -1).reshape(-1, maps.shape[1])
    if count is None or count >= len(rows):
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]


def proxy_a_distance(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Proxy A-distance 2 (1 - 2 error) of a logistic domain classifier.

    Parameters
    ----------
    train, test : pair of Tensor, (n, K)
        Source and target features; `test` from tiles that are not in `train`.

    Returns
    -------
    float
        2 where the domains can be told apart without an error, about 0 where not at all. The
        error is the mean of the two domains' own errors, so their sizes do not matter.

    References
    ----------
    Ben-David et al. 2007, "Analysis of representations for domain adaptation".
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and seldom needed
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    fitted, tested = (np.repeat([0, 1], list(map(len, parts))) for parts in (train, test))
    classifier.fit(np.concatenate(train), fitted)
    right = balanced_accuracy_score(tested, classifier.predict(np.concatenate(test)))
    return 2 * (1 - 2 * (1 - float(right)))


def domain_distances(source: Tensor, target: Tensor, count: int = 1000) -> dict[str, float]:
    """How far apart the abundances of two domains are, of pixels and of tile means.

    Parameters
    ----------
    source, target : Tensor, (n, K, h, w)
        Abundances of the same n >= 2 tiles in both domains.
    count : int
        Pixels per domain, the same places in both.

    Returns
    -------
    dict
        `pad_pixels`, `pad_tiles`: proxy A-distance, the classifier fitted on every other tile
        and tested on the rest, and the other way round. `mmd_pixels`, `mmd_tiles`: squared MMD.
        `overlap`: sum over materials of the smaller of the two mean abundances, 1 where equal.
    """
    means = [maps.mean((2, 3)) for maps in (source, target)]
    drawn = [[pixels(maps[n::2], count // 2) for maps in (source, target)] for n in (0, 1)]
    halves = [[maps[n::2] for maps in means] for n in (0, 1)]
    return {
        "pad_pixels": _held_out(drawn),
        "pad_tiles": _held_out(halves),
        "mmd_pixels": float(mmd(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))),
        "mmd_tiles": float(mmd(*means)),
        "overlap": float(torch.minimum(*(part.mean(0) for part in means)).sum()),
    }


def _held_out(halves: list[list[Tensor]]) -> float:
    """Mean proxy A-distance of two halves ([source, target] each), fitted on one, tested on one."""
    (a, b), (c, d) = halves
    return (proxy_a_distance((a, b), (c, d)) + proxy_a_distance((c, d), (a, b))) / 2
