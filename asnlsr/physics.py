"""What stands between a scene and what a network sees: log scale, blur, decimation."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FLOOR, TOP = 1e-4, 2.0  # radiance, W m-2 sr-1 nm-1, that becomes z = 0 and z = 1
SPAN = float(np.log(TOP) - np.log(FLOOR))  # of log radiance, for z from 0 to 1
Array = TypeVar("Array", Tensor, NDArray[np.float32])


def log_scale(radiance: Array) -> Array:
    """Return z = (ln max(x, 1e-4) - ln 1e-4) / (ln 2 - ln 1e-4) of radiance of any shape."""
    if isinstance(radiance, Tensor):
        return (radiance.clamp(min=FLOOR).log() - float(np.log(FLOOR))) / SPAN
    z: Array = ((np.log(np.maximum(radiance, FLOOR)) - np.log(FLOOR)) / SPAN).astype(np.float32)
    return z


def unscale(z: Array) -> Array:
    """Return the radiance of z, the inverse of `log_scale` above its floor."""
    if isinstance(z, Tensor):
        return (z * SPAN).add_(float(np.log(FLOOR))).exp_()
    exponent = torch.from_numpy(np.asarray(z * SPAN)).double()  # torch takes all threads
    radiance: Array = exponent.add_(float(np.log(FLOOR))).exp_().float().numpy()
    return radiance


SIZE = 32  # rows and columns of the kernel
_CENTRE = 16.0  # not 15.5: shifts the low-resolution grid by half a high-resolution pixel
_VARIANCES = (6.306, 3.340)  # pixel^2 along the axes of the ellipse
_ROTATION = 3.082  # rad, of the first axis against the columns
_RANK_TOLERANCE = 1e-6  # of the largest singular value
_CHUNK = 16  # outputs per banded matrix: wide enough for speed, narrow enough to be mostly band


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


def read_psf(path: Path) -> NDArray[np.float64]:
    """Read a PSF (32, 32) from a text file as `numpy.savetxt` writes it; its sum becomes 1.

    In pixels of the enlarged scene, along rows and columns like its pixels; the middle is index
    (16, 16), as in `gaussian_psf`. ValueError: it is no such file, or not a PSF.
    """
    try:
        psf = np.loadtxt(path.read_text("utf-8").splitlines(), ndmin=2)
        if psf.shape != (SIZE, SIZE) or not (psf.min() >= 0 < psf.sum() < np.inf):
            raise ValueError
    except ValueError as error:
        what = f"not a PSF: {SIZE} lines of {SIZE} numbers, none below 0; use numpy.savetxt"
        raise ValueError(f"{path}: {what}") from error
    return np.asarray(psf / psf.sum(), dtype=np.float64)


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
    cube: Tensor, scale: int = 4, border: str = "scene", psf: NDArray[np.float64] | None = None
) -> Tensor:
    r"""Blur and decimate an image.

    .. math:: y_{ij} = \sum_{m,n=0}^{31} k_{mn}\, x_{ir - p + m,\, jr - p + n}, \quad
              p = \lfloor (32 - r) / 2 \rfloor

    Parameters
    ----------
    cube : Tensor, shape (..., H, W)
    scale : int
        r.
    border : {"scene", "zero", "open"}
        Outside is the image, reflected at its edge, or zero as in the release (darker border).
        "open": the image carries its :func:`halo`, which is lost, and nothing is outside.
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
    height, width = cube.shape[-2:]
    return ForwardOperator((height, width), scale, border, psf, like=cube)(cube)


class ForwardOperator:
    r"""A of :func:`degrade` for images of one size, with its adjoint.

    .. math:: A X = \sum_k C_k X R_k^\top, \qquad A^\top Y = \sum_k C_k^\top Y R_k

    The kernel is a sum of few separable ones, its leading singular vectors. Their strided
    correlations are products with banded matrices, several times faster on a CPU than ``conv2d``
    with one input channel. Both directions have a gradient.

    Parameters
    ----------
    size : (int, int)
        H, W.
    scale, border, psf
        As of `degrade`.
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
        like: Tensor | None = None,
    ) -> None:
        if border not in ("scene", "zero", "open"):
            raise ValueError(f"border {border!r} is neither 'scene' nor 'zero' nor 'open'")
        self.border = border
        self.halo = (0, 0) if border == "open" else halo(scale)
        self.padded = [side + sum(self.halo) for side in size]
        self.low = [(side - SIZE) // scale + 1 for side in self.padded]
        columns, rows = (taps.to(torch.empty(0) if like is None else like) for taps in _taps(psf))
        self._rank = len(columns)
        self._columns = _banded(columns, self.low[0], scale)
        self._rows = _banded(rows, self.low[1], scale)

    def __call__(self, cube: Tensor) -> Tensor:
        """Blur and decimate (..., H, W) to (..., h, w)."""
        images = cube.reshape(-1, *cube.shape[-2:])  # F.pad reflects three dimensions at most
        if self.border != "open":
            mode = "reflect" if self.border == "scene" else "constant"
            images = F.pad(images, self.halo * 2, mode=mode)
        n, rank, (h, w) = len(images), self._rank, self.low
        tall = images.new_empty(n, rank, h, self.padded[1])
        for out, seen, banded in self._columns:
            product = banded.flatten(0, 1) @ images[:, seen]
            tall[:, :, out] = product.reshape(n, rank, -1, self.padded[1])
        low = images.new_zeros(n, h, w)
        for out, seen, banded in self._rows:
            for k in range(rank):
                low[:, :, out] += tall[:, k, :, seen].bmm(banded[k].T.expand(n, -1, -1))
        return low.reshape(*cube.shape[:-2], h, w)

    def adjoint(self, low: Tensor) -> Tensor:
        """Spread (..., h, w) over the pixels (..., H, W) that it was made from."""
        images = low.reshape(-1, *low.shape[-2:])
        n = len(images)
        tall = images.new_zeros(n, self._rank, self.low[0], self.padded[1])
        for out, seen, banded in self._rows:
            tall[..., seen] += images[:, None, :, out] @ banded
        cube = images.new_zeros(n, *self.padded)
        for out, seen, banded in self._columns:
            cube[:, seen] += banded.flatten(0, 1).T @ tall[:, :, out].flatten(1, 2)
        cube = self._fold(self._fold(cube, 1), 2)
        return cube.reshape(*low.shape[:-2], *cube.shape[1:])

    def _fold(self, cube: Tensor, axis: int) -> Tensor:
        """Take the halo off; what lies in it comes from the pixels that it mirrors."""
        before, after = self.halo
        inside = cube.shape[axis] - before - after
        image = cube.narrow(axis, before, inside)
        if self.border == "scene":
            image = image.clone()
            image.narrow(axis, 1, before).add_(cube.narrow(axis, 0, before).flip(axis))
            behind = cube.narrow(axis, before + inside, after)
            image.narrow(axis, inside - 1 - after, after).add_(behind.flip(axis))
        return image


def _taps(psf: NDArray[np.float64] | None) -> tuple[Tensor, Tensor]:
    """Taps along columns and along rows, (rank, 32) each, whose products sum to the kernel."""
    left, values, right = np.linalg.svd(gaussian_psf() if psf is None else psf)
    rank = int(np.count_nonzero(values > _RANK_TOLERANCE * values[0]))
    return torch.as_tensor(left[:, :rank].T * values[:rank, None]), torch.as_tensor(right[:rank])


def _banded(taps: Tensor, outputs: int, scale: int) -> list[tuple[slice, slice, Tensor]]:
    """Return chunks of outputs, the inputs that they see, and the matrices (rank, out, in)."""
    count = min(_CHUNK, outputs)
    whole = taps.new_zeros(len(taps), count, (count - 1) * scale + SIZE)
    for k in range(count):
        whole[:, k, k * scale : k * scale + SIZE] = taps
    chunks = []
    for first in range(0, outputs, _CHUNK):
        count = min(_CHUNK, outputs - first)
        seen = (count - 1) * scale + SIZE
        inputs = slice(first * scale, first * scale + seen)
        chunks.append((slice(first, first + count), inputs, whole[:, :count, :seen].contiguous()))
    return chunks
