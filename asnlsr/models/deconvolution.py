"""Super-resolution without training: undo the blur, which is known."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.data import log_scale, unscale
from asnlsr.degrade import ForwardOperator, gaussian_psf, grid_offset, halo
from asnlsr.metrics import psnr
from asnlsr.models.output import SuperResolution

if TYPE_CHECKING:  # brings Lightning, which only training needs
    from asnlsr.batches import TileDataModule

LIMIT = 100  # iterations among which `fit` chooses
NEAR_DB = 0.02  # so far below the best PSNR the fewest iterations do
_TILES, _EVERY = 8, 5  # what it looks at: so many tiles, and every fifth band; bands are alike
_TINY = 1e-8  # keeps quotients finite


def enlarge_centred(x: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement (a = -0.75) of (B, C, h, w) for a PSF `grid_offset` off the grid."""
    sides = [
        (2 * (torch.arange(scale * n) - grid_offset(scale)) + 1) / (scale * n) - 1
        for n in x.shape[2:]
    ]
    rows, cols = torch.meshgrid(*sides, indexing="ij")
    grid = torch.stack([cols, rows], -1).expand(len(x), -1, -1, -1).to(x)
    return F.grid_sample(x, grid, "bicubic", "border", align_corners=False)


class CentredBicubic(nn.Module):
    """Bicubic enlargement that knows the blur: its centre, and what it does at the border.

    It is also where the iterative methods below start. At border `scene` light from outside
    fell on the tile's low-resolution pixels, so the unknown is the tile with its halo, which is
    cut off at the end. At border `zero` there was nothing outside.

    Attributes
    ----------
    psf : Tensor, (32, 32)
    zero_border : Tensor, bool
    iterations : Tensor, int
        All three are kept with the run, as weights are.
    """

    psf: Tensor
    zero_border: Tensor
    iterations: Tensor

    def __init__(self, bands: int = 30, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("psf", torch.from_numpy(gaussian_psf()))
        self.register_buffer("zero_border", torch.tensor(False))
        self.register_buffer("iterations", torch.tensor(0))

    def fit(self, tiles: TileDataModule) -> None:
        """Take over the known blur; choose the number of iterations on validation tiles."""
        self.psf.copy_(torch.tensor(tiles.psf, dtype=torch.float64))
        self.zero_border.fill_(tiles.border == "zero")
        some = slice(None, None, -(-len(tiles.val_lr) // _TILES))
        lr, hr = (z[some, ::_EVERY] for z in (tiles.val_lr, tiles.val_hr))
        estimates = islice(self.estimates(lr), LIMIT + 1)
        quality = torch.stack([psnr(z, hr, 1).mean() for z in estimates])
        enough = quality >= quality.max() - NEAR_DB
        self.iterations.fill_(int(enough.nonzero()[0]))

    def forward(self, x: Tensor) -> SuperResolution:
        """Super-resolve z (B, C, h, w) to (B, C, r h, r w)."""
        return SuperResolution(sr=next(islice(self.estimates(x), int(self.iterations), None)))

    def estimates(self, lr: Tensor) -> Iterator[Tensor]:
        """Yield z (B, C, r h, r w) after 0, 1, ... iterations."""
        before, after = self._halo()
        height, width = (before + self.scale * n + after for n in lr.shape[-2:])
        border = "zero" if self.zero_border else "open"
        blur = ForwardOperator((height, width), self.scale, border, self.psf.numpy(), like=lr)
        light = blur(lr.new_ones(height, width))  # below 1 only at border `zero`
        start = self.enlarge(log_scale(unscale(lr) / light))
        for z in chain([start], self.iterate(blur, lr, start)):
            yield z[..., before : height - after, before : width - after]

    def enlarge(self, x: Tensor) -> Tensor:
        """Enlarge (B, C, h, w) to the tile with its halo, repeating the border."""
        before, after = self._halo()
        rim = -(-max(before, after) // self.scale)  # low-resolution pixels that cover the halo
        wide = enlarge_centred(F.pad(x, [rim] * 4, mode="replicate"), self.scale)
        return F.pad(wide, [before - rim * self.scale, after - rim * self.scale] * 2)

    def _halo(self) -> tuple[int, int]:
        return (0, 0) if self.zero_border else halo(self.scale)

    def iterate(self, blur: ForwardOperator, lr: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Yield better and better z, with its halo, from a first one; here none."""
        yield from ()


class RichardsonLucy(CentredBicubic):
    r"""Multiplicative updates towards the most likely radiance L under photon noise.

    .. math:: L \leftarrow \frac{L}{A^\top 1} \cdot A^\top \frac{Y}{A L}

    L stays positive and sends the flux that was seen: :math:`\sum A L = \sum Y`.

    References
    ----------
    Richardson 1972; Lucy 1974; the halo as unknown: Bertero & Boccacci 2005.
    """

    def iterate(self, blur: ForwardOperator, lr: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Yield the estimate after every update."""
        seen, radiance = unscale(lr), unscale(z)
        share = blur.adjoint(lr.new_ones(lr.shape[-2:]))  # of a pixel's light that was seen
        while True:
            change = blur.adjoint(seen / blur(radiance).clamp(min=_TINY))
            radiance = radiance * (change + _TINY) / (share + _TINY)  # unseen pixels stay
            yield log_scale(radiance)


class BackProjection(CentredBicubic):
    r"""Add the enlarged difference between what was seen and what the estimate would give.

    .. math:: z \leftarrow z + U \bigl( z(Y) - z(A L) \bigr)

    U is the bicubic enlargement centred on the PSF. The blur acts on radiance; the difference is
    taken in z, where a dark pixel counts as much as a bright one and none becomes negative.

    References
    ----------
    Irani & Peleg 1991.
    """

    def iterate(self, blur: ForwardOperator, lr: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Yield the estimate after every update."""
        while True:
            z = z + self.enlarge(lr - log_scale(blur(unscale(z))))
            yield z
