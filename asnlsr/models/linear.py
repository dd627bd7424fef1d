"""The best linear filter, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.metrics import psnr
from asnlsr.models.output import SuperResolution

if TYPE_CHECKING:  # brings Lightning, which only training needs
    from asnlsr.batches import TileDataModule

SIDE = 7  # low-resolution pixels in a row and in a column that a filter sees
_MIDDLE = SIDE**2 // 2
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # relative to the mean square of an input


class LinearFilter(nn.Module):
    """Every high-resolution value as a weighted mean of the low-resolution values around it.

    One filter for each of the r x r places in a low-resolution pixel, the same for all bands,
    on z. Its weights sum to 1: a factor on the radiance passes through.

    Attributes
    ----------
    taps : Parameter, (r^2, 1, SIDE, SIDE)
        Of ridge regression on pairs of source tiles; zero until `fit`.
    """

    def __init__(self, bands: int = 30, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.taps = nn.Parameter(torch.zeros(scale**2, 1, SIDE, SIDE), requires_grad=False)

    def forward(self, x: Tensor) -> SuperResolution:
        """Super-resolve z (B, C, h, w) to (B, C, r h, r w)."""
        places = F.conv2d(_with_rim(x.flatten(0, 1)[:, None]), self.taps)  # (B C, r^2, h, w)
        return SuperResolution(
            sr=F.pixel_shuffle(places, self.scale)[:, 0].unflatten(0, x.shape[:2])  # type: ignore[no-untyped-call]
        )

    def fit(self, tiles: TileDataModule) -> None:
        """Solve the normal equations of the source tiles; choose the penalty on validation."""
        square = torch.zeros(SIDE**2, SIDE**2, dtype=torch.float64)
        moments = torch.zeros(SIDE**2, self.scale**2, dtype=torch.float64)
        for lr, hr in zip(tiles.batches.source_lr, tiles.batches.source_hr, strict=True):
            seen = F.unfold(_with_rim(lr[:, None]), SIDE)  # (C, SIDE^2, h w)
            centre = seen[:, _MIDDLE, None].clone()
            seen -= centre  # weights that sum to 1 are free weights of differences
            wanted = F.pixel_unshuffle(hr[:, None], self.scale).flatten(2) - centre
            square += torch.einsum("cpn,cqn->pq", seen, seen)
            moments += torch.einsum("cpn,csn->ps", seen, wanted)
        quality = {}
        for penalty in PENALTIES:
            ridge = penalty * square.diagonal().mean() * torch.eye(SIDE**2, dtype=torch.float64)
            taps = torch.linalg.solve(square + ridge, moments).T
            taps[:, _MIDDLE] = 1 - taps.sum(1)  # the centre of differences has weight 0
            self.taps.copy_(taps.view_as(self.taps))
            quality[psnr(self(tiles.val_lr).sr, tiles.val_hr, 1).mean()] = self.taps.clone()
        self.taps.copy_(quality[max(quality)])


def _with_rim(images: Tensor) -> Tensor:
    """Repeat the border of (N, 1, h, w) as far as a filter sees."""
    return F.pad(images, [SIDE // 2] * 4, mode="replicate")
