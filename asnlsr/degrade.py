"""The forward operator: blur by the point spread function, then every r-th pixel."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

SIZE = 32  # rows and columns of the kernel
_CENTRE = 16.0  # not 15.5: the low-resolution grid is shifted by half a high-resolution pixel
_VARIANCES = (6.306, 3.340)  # pixel^2 along the first and the second axis of the ellipse
_ROTATION = 3.082  # rad
_RANK_TOLERANCE = 1e-6


def gaussian_psf() -> NDArray[np.float64]:
    """Anisotropic Gaussian blur kernel, without the noise that the published one carries.

    Returns
    -------
    ndarray of float64, shape (32, 32)
        Sums to 1; centred on index (16, 16).
    """
    row, col = np.mgrid[:SIZE, :SIZE] - _CENTRE
    along = np.cos(_ROTATION) * col + np.sin(_ROTATION) * row
    across = np.cos(_ROTATION) * row - np.sin(_ROTATION) * col
    kernel = np.exp(-0.5 * (along**2 / _VARIANCES[0] + across**2 / _VARIANCES[1]))
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def halo(scale: int) -> tuple[int, int]:
    """Pixels that the kernel reaches before the first and after the last pixel of an image."""
    before = (SIZE - scale) // 2
    return before, SIZE - scale - before


def degrade(
    cube: torch.Tensor,
    scale: int = 4,
    border: str = "scene",
    psf: NDArray[np.float64] | None = None,
) -> torch.Tensor:
    r"""Blur and decimate an image.

    .. math:: y_{ij} = \sum_{m,n=0}^{31} k_{mn}\, x_{ir - p + m,\, jr - p + n}, \quad
              p = \lfloor (32 - r) / 2 \rfloor

    a correlation (no flip). Computed as a few pairs of strided one-dimensional convolutions,
    the singular vectors of k; singular values below 1e-6 of the first are left out.

    Parameters
    ----------
    cube : Tensor, shape (..., H, W)
    scale : int
        r.
    border : {"scene", "zero"}
        What lies outside: the image reflected at its edge, or zeros as in the release, which
        darkens the border.
    psf : ndarray, shape (32, 32), optional
        Kernel k; :func:`gaussian_psf` by default.

    Returns
    -------
    Tensor, shape (..., H // scale, W // scale)

    Raises
    ------
    ValueError
        If ``border`` is unknown.

    Examples
    --------
    >>> degrade(torch.ones(30, 128, 96)).shape
    torch.Size([30, 32, 24])
    """
    if border not in ("scene", "zero"):
        raise ValueError(f"border {border!r} is neither 'scene' nor 'zero'")
    before, after = halo(scale)
    images = cube.reshape(-1, *cube.shape[-2:])  # F.pad reflects three dimensions at most
    mode = "reflect" if border == "scene" else "constant"
    padded = F.pad(images, (before, after, before, after), mode=mode)
    low = blur_decimate(padded, scale, psf)
    h, w = cube.shape[-2] // scale, cube.shape[-1] // scale
    return low[..., :h, :w].reshape(*cube.shape[:-2], h, w)


def blur_decimate(
    padded: torch.Tensor, scale: int, psf: NDArray[np.float64] | None = None
) -> torch.Tensor:
    """Blur and decimate images (..., H, W) that already carry their :func:`halo`."""
    columns, rows = _separate() if psf is None else separate(psf)
    vertical = torch.as_tensor(columns, dtype=padded.dtype, device=padded.device)
    horizontal = torch.as_tensor(rows, dtype=padded.dtype, device=padded.device)
    images = padded.reshape(-1, 1, *padded.shape[-2:])
    shortened = F.conv2d(images, vertical[:, None, :, None], stride=(scale, 1))  # (N, rank, h, W)
    low = F.conv2d(shortened, horizontal[None, :, None, :], stride=(1, scale))  # (N, 1, h, w)
    return low.reshape(*padded.shape[:-2], *low.shape[-2:])


@functools.cache
def _separate() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return separate(gaussian_psf())


def separate(psf: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split a kernel into column and row vectors, both (rank, 32), k = sum_r outer(c_r, w_r)."""
    left, values, right = np.linalg.svd(psf)
    rank = int(np.count_nonzero(values > _RANK_TOLERANCE * values[0]))
    return left[:, :rank].T * values[:rank, None], right[:rank]
