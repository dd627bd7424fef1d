"""Tiles as the networks see them: scaled radiance, by domain and role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FLOOR, TOP = 1e-4, 2.0  # radiance, W m-2 sr-1 nm-1, that becomes z = 0 and z = 1
_SPAN = float(np.log(TOP) - np.log(FLOOR))
Array = TypeVar("Array", Tensor, NDArray[np.float32])


def log_scale(radiance: Array) -> Array:
    """Return z = (ln max(x, 1e-4) - ln 1e-4) / (ln 2 - ln 1e-4) of radiance of any shape."""
    if isinstance(radiance, Tensor):
        return (radiance.clamp(min=FLOOR).log() - float(np.log(FLOOR))) / _SPAN
    z: Array = ((np.log(np.maximum(radiance, FLOOR)) - np.log(FLOOR)) / _SPAN).astype(np.float32)
    return z


def unscale(z: Array) -> Array:
    """Return the radiance of z, the inverse of `log_scale` above its floor."""
    if isinstance(z, Tensor):
        return (z * _SPAN + float(np.log(FLOOR))).exp()
    radiance: Array = np.exp(z * _SPAN + np.log(FLOOR)).astype(np.float32)
    return radiance


SIZE = 32  # rows and columns of the kernel
_CENTRE = 16.0  # not 15.5: shifts the low-resolution grid by half a high-resolution pixel
_VARIANCES = (6.306, 3.340)  # pixel^2 along the axes of the ellipse
_ROTATION = 3.082  # rad, of the first axis against the columns
_RANK_TOLERANCE = 1e-6  # of the largest singular value
_PAD_MODE = {"scene": "reflect", "zero": "constant"}
_CHUNK = 32  # outputs per banded matrix: wide enough for speed, narrow enough to be mostly band


def gaussian_psf(width: float = 1.0) -> NDArray[np.float64]:
    """Anisotropic Gaussian blur kernel: the published one without its noise.

    Parameters
    ----------
    width : float
        Factor on its standard deviations.

    Returns
    -------
    ndarray of float64, shape (32, 32)
        Centred on index (16, 16); sums to 1.
    """
    row, col = (np.mgrid[:SIZE, :SIZE] - _CENTRE) / width
    along = np.cos(_ROTATION) * col + np.sin(_ROTATION) * row
    across = np.cos(_ROTATION) * row - np.sin(_ROTATION) * col
    kernel = np.exp(-0.5 * (along**2 / _VARIANCES[0] + across**2 / _VARIANCES[1]))
    return np.asarray(kernel / kernel.sum(), dtype=np.float64)


def halo(scale: int) -> tuple[int, int]:
    """Pixels that the kernel needs before the first and after the last pixel of an image."""
    before = (SIZE - scale) // 2
    return before, SIZE - scale - before


def grid_offset(scale: int) -> float:
    """High-resolution pixels by which a low-resolution pixel j looks beside r j to r j + r - 1.

    Down and to the right: the middle of the kernel against the middle of the pixels.
    """
    return _CENTRE - halo(scale)[0] - (scale - 1) / 2


def degrade(
    cube: torch.Tensor,
    scale: int = 4,
    border: str = "scene",
    psf: NDArray[np.float64] | None = None,
) -> torch.Tensor:
    r"""Blur and decimate an image.

    .. math:: y_{ij} = \sum_{m,n=0}^{31} k_{mn}\, x_{ir - p + m,\, jr - p + n}, \quad
              p = \lfloor (32 - r) / 2 \rfloor

    Parameters
    ----------
    cube : Tensor, shape (..., H, W)
    scale : int
        r.
    border : {"scene", "zero"}
        Outside is the image, reflected at its edge, or zero as in the release (darker border).
    psf : ndarray, shape (32, 32), optional
        k; :func:`gaussian_psf` by default.

    Returns
    -------
    Tensor, shape (..., H // scale, W // scale)

    Examples
    --------
    >>> degrade(torch.ones(30, 128, 96)).shape
    torch.Size([30, 32, 24])
    """
    images = cube.reshape(-1, *cube.shape[-2:])  # F.pad reflects three dimensions at most
    low = blur_decimate(_surround(images, 2, scale, border), scale, psf)
    h, w = cube.shape[-2] // scale, cube.shape[-1] // scale
    return low[..., :h, :w].reshape(*cube.shape[:-2], h, w)


def _surround(images: torch.Tensor, sides: int, scale: int, border: str) -> torch.Tensor:
    """Add the halo to the last 1 or 2 dimensions."""
    if border not in _PAD_MODE:
        raise ValueError(f"border {border!r} is neither 'scene' nor 'zero'")
    return F.pad(images, halo(scale) * sides, mode=_PAD_MODE[border])


def blur_decimate(
    padded: torch.Tensor, scale: int, psf: NDArray[np.float64] | None = None
) -> torch.Tensor:
    """Blur and decimate images (N, H, W) that carry their :func:`halo` already.

    The kernel is a sum of few separable ones, its leading singular vectors. Their strided
    correlations are products with banded matrices, several times faster on a CPU than
    ``conv2d`` with one input channel.
    """
    columns, rows = (taps.to(padded) for taps in _separable(psf))
    rank = len(columns)
    n, height, width = padded.shape
    h, w = ((side - SIZE) // scale + 1 for side in (height, width))
    tall = padded.new_empty(n, rank, h, width)
    for out, seen, banded in _banded(columns, h, scale):
        product = banded.flatten(0, 1) @ padded[:, seen]
        tall[:, :, out] = product.reshape(n, rank, -1, width)
    low = padded.new_zeros(n, h, w)
    for out, seen, banded in _banded(rows, w, scale):
        for k in range(rank):
            low[:, :, out] += tall[:, k, :, seen].bmm(banded[k].T.expand(n, -1, -1))
    return low


def _separable(psf: NDArray[np.float64] | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Taps along columns and along rows, (rank, 32) each, whose products sum to the kernel."""
    left, values, right = np.linalg.svd(gaussian_psf() if psf is None else psf)
    rank = int(np.count_nonzero(values > _RANK_TOLERANCE * values[0]))
    return torch.as_tensor(left[:, :rank].T * values[:rank, None]), torch.as_tensor(right[:rank])


def _banded(
    taps: torch.Tensor, outputs: int, scale: int
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Yield chunks of outputs, the inputs that they see, and the matrices (rank, out, in)."""
    for first in range(0, outputs, _CHUNK):
        count = min(_CHUNK, outputs - first)
        banded = taps.new_zeros(len(taps), count, (count - 1) * scale + SIZE)
        for k in range(count):
            banded[:, k, k * scale : k * scale + SIZE] = taps
        seen = slice(first * scale, first * scale + banded.shape[2])
        yield slice(first, first + count), seen, banded


class ForwardOperator:
    r"""A of :func:`degrade` for images of one size, with its adjoint.

    .. math:: A X = \sum_k C_k X R_k^\top, \qquad A^\top Y = \sum_k C_k^\top Y R_k

    with dense matrices: made once, fast up to some hundred pixels a side, for any iteration.
    Both directions have a gradient.

    Parameters
    ----------
    size : (int, int)
        H, W.
    scale, psf
        As of `degrade`.
    border : {"scene", "zero", "open"}
        As of `degrade`; "open": the image carries its :func:`halo`, and nothing is outside.
    like : Tensor, optional
        Its dtype and device; float32 on the CPU by default.

    Examples
    --------
    >>> blur = ForwardOperator((128, 96))
    >>> blur(torch.ones(30, 128, 96)).shape
    torch.Size([30, 32, 24])
    >>> blur.adjoint(torch.ones(30, 32, 24)).shape
    torch.Size([30, 128, 96])
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale: int = 4,
        border: str = "scene",
        psf: NDArray[np.float64] | None = None,
        like: torch.Tensor | None = None,
    ) -> None:
        self.columns, self.rows = (
            _matrices(taps, side, scale, border).to(torch.empty(0) if like is None else like)
            for taps, side in zip(_separable(psf), size, strict=True)
        )

    def __call__(self, cube: torch.Tensor) -> torch.Tensor:
        """Blur and decimate (..., H, W) to (..., h, w)."""
        return torch.einsum("khy,...yx,kwx->...hw", self.columns, cube, self.rows)

    def adjoint(self, low: torch.Tensor) -> torch.Tensor:
        """Spread (..., h, w) over the pixels (..., H, W) that it was made from."""
        return torch.einsum("khy,...hw,kwx->...yx", self.columns, low, self.rows)


def _matrices(taps: torch.Tensor, length: int, scale: int, border: str) -> torch.Tensor:
    """Correlations along one side as matrices (rank, outputs, length)."""
    pixels = torch.eye(length, dtype=taps.dtype)
    if border != "open":
        pixels = _surround(pixels, 1, scale, border)
    return (pixels.unfold(1, SIZE, scale) @ taps.T).permute(2, 1, 0)
