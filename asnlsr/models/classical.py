"""Bicubic interpolation, the baseline without parameters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.metrics import psnr
from asnlsr.models.layers import SuperResolution, enlarge
from asnlsr.physics import (
    SPAN,
    ForwardOperator,
    gaussian_psf,
    grid_offset,
    halo,
    log_scale,
    unscale,
)
from asnlsr.tiles.store import Pairs


class Bicubic(nn.Module):
    """Cubic convolution; PyTorch's a = -0.75, where Keys (1981) has -0.5."""

    def __init__(self, bands: int = 30, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> SuperResolution:
        """Enlarge (B, C, h, w) to (B, C, r h, r w)."""
        return SuperResolution(sr=enlarge(x, self.scale))


LIMIT = 40  # iterations among which `fit` chooses
NEAR_DB = 0.02  # so far below the best PSNR the fewest iterations do
_TILES, _EVERY = 8, 5  # what it looks at: so many tiles, and every fifth band; bands are alike
_TINY = 1e-8  # keeps quotients finite
_TOLERANCE = 1e-4  # of the PSF: small beside what an iteration leaves
_BANDS = 8  # at a time: they stay in the cache


def enlarge_centred(x: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement (a = -0.75) of (B, C, h, w) for a PSF `grid_offset` off the grid."""
    sides = [
        (2 * (torch.arange(scale * n, device=x.device) - grid_offset(scale)) + 1) / (scale * n) - 1
        for n in x.shape[2:]
    ]
    rows, cols = torch.meshgrid(*sides, indexing="ij")
    grid = torch.stack([cols, rows], -1).expand(len(x), -1, -1, -1).to(x)
    return F.grid_sample(x, grid, "bicubic", "border", align_corners=False)


@lru_cache(maxsize=64)
def _operator(
    size: tuple[int, int],
    scale: int,
    border: str,
    psf: bytes,
    dtype: torch.dtype,
    device: torch.device,
) -> ForwardOperator:
    """Make the matrices of a blur once."""
    kernel = np.frombuffer(psf).reshape(32, 32)
    left, values, right = np.linalg.svd(kernel)
    rank = np.count_nonzero(values > _TOLERANCE * values[0])
    nearly = (left[:, :rank] * values[:rank]) @ right[:rank]  # fewer separable kernels, faster
    nearly *= kernel.sum() / nearly.sum()
    like = torch.empty(0, dtype=dtype, device=device)
    return ForwardOperator(size, scale, border, nearly, like)


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
        All three are kept with the run, as weights are, but stay on the CPU: they say what is
        done, and asking a GPU for them would make it wait.
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

    def _apply(self, *_: Any) -> CentredBicubic:  # noqa: ANN401
        return self

    def take_psf(self, psf: NDArray[np.float64]) -> None:
        """Take over the known blur."""
        self.psf.copy_(torch.from_numpy(psf))

    def fit(self, source: Pairs, val: Pairs) -> None:
        """Take over the known blur; choose the number of iterations on validation tiles."""
        self.take_psf(source.psf)
        self.zero_border.fill_(source.border == "zero")
        some = slice(None, None, -(-len(val) // _TILES))
        lr, hr = (z[some, ::_EVERY] for z in (val.lr, val.hr))
        estimates = islice(self.estimates(lr), LIMIT + 1)
        quality = torch.stack([psnr(z, hr, 1).mean() for z in estimates])
        enough = quality >= quality.max() - NEAR_DB
        self.iterations.fill_(int(enough.nonzero()[0]))

    def forward(self, x: Tensor) -> SuperResolution:
        """Super-resolve z (B, C, h, w) to (B, C, r h, r w)."""
        n = int(self.iterations)
        few = torch.split(x, _BANDS, 1)
        parts = [next(islice(self.estimates(part), n, None)) for part in few]
        return SuperResolution(sr=torch.cat(parts, 1))

    def estimates(self, lr: Tensor) -> Iterator[Tensor]:
        """Yield z (B, C, r h, r w) after 0, 1, ... iterations."""
        before, after = self._halo()
        height, width = (before + self.scale * n + after for n in lr.shape[-2:])
        blur = self.blur((height, width), "zero" if self.zero_border else "open", lr)
        light = blur(lr.new_ones(height, width))  # below 1 only at border `zero`
        start = self.enlarge(log_scale(unscale(lr) / light))
        for z in chain([start], self.iterate(blur, lr, start)):
            yield z[..., before : height - after, before : width - after]

    def blur(self, size: tuple[int, int], border: str, like: Tensor) -> ForwardOperator:
        """Return the operator of the blur for images of a size."""
        psf = self.psf.numpy().tobytes()
        return _operator(size, self.scale, border, psf, like.dtype, like.device)

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

    L stays positive and sends the flux that was seen: :math:`\sum A L = \sum Y`. Every update
    starts further along the last one, in log radiance, which takes a third of the updates.

    References
    ----------
    Richardson 1972; Lucy 1974; the halo as unknown: Bertero & Boccacci 2005; acceleration by
    extrapolation: Biggs & Andrews 1997, here with the momentum of Nesterov 1983.
    """

    def iterate(self, blur: ForwardOperator, lr: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Yield the estimate after every update."""
        seen, before = unscale(lr), z
        share = blur.adjoint(lr.new_ones(lr.shape[-2:])) + _TINY  # of a pixel's light, seen
        for k in count():
            ahead = _further(z, before, k)
            change = blur.adjoint(seen / blur(unscale(ahead)).clamp(min=_TINY))
            change.add_(_TINY).div_(share).log_()  # unseen pixels stay
            before, z = z, ahead.add(change, alpha=1 / SPAN)
            yield z.clamp(min=0)  # the floor of `log_scale`


def _further(z: Tensor, before: Tensor, k: int) -> Tensor:
    """Go on in the direction of the last of k updates: Nesterov's momentum."""
    return before.lerp(z, 1 + (k - 1) / (k + 2)) if k > 1 else z


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

    def fit(self, source: Pairs, val: Pairs) -> None:
        """Solve the normal equations of the source tiles; choose the penalty on validation."""
        square = torch.zeros(SIDE**2, SIDE**2, dtype=torch.float64)
        moments = torch.zeros(SIDE**2, self.scale**2, dtype=torch.float64)
        for lr, hr in zip(source.lr, source.hr, strict=True):
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
            quality[psnr(self(val.lr).sr, val.hr, 1).mean()] = self.taps.clone()
        self.taps.copy_(quality[max(quality)])


def _with_rim(images: Tensor) -> Tensor:
    """Repeat the border of (N, 1, h, w) as far as a filter sees."""
    return F.pad(images, [SIDE // 2] * 4, mode="replicate")
