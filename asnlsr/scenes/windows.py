"""Windows over a scene of any size: where they lie, and how their results are blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = (96, 96)  # low-resolution rows and columns that a network sees at once
LARGE = (120, 192)  # of a network that works through the bands in parts and so needs less memory
OVERLAP = 24  # of neighbours, at least

# Windows start at multiples of this, so that the pooling of SNLSR and ESRT and the attention
# windows of SRFormer lie in them as they lie in the whole scene.
_GRID = 6
Span = tuple[int, int]
Shape = tuple[int, int, int]
Network = Callable[[Tensor], Tensor]
Strips = Callable[[Sequence[int]], Iterator[Tensor]]


def spans(length: int, window: int = WINDOW[0], overlap: int = OVERLAP) -> list[Span]:
    """Return starts and stops of the windows along a side, spread evenly from end to end.

    Examples
    --------
    >>> spans(155)
    [(0, 96), (60, 155)]
    """
    if length <= window:
        return [(0, length)]
    count = -(-(length - overlap) // (window - overlap))
    starts = np.linspace(0, -(-(length - window) // _GRID), count).round().astype(int) * _GRID
    return [(start, min(start + window, length)) for start in starts.tolist()]


def ramps(along: Sequence[Span], overlap: int = OVERLAP, scale: int = 4) -> list[Tensor]:
    """Return the weights of the pixels of each enlarged window; at every pixel they sum to 1.

    Nothing counts in the outer quarter of an overlap, where a window knows too little of what
    lies around; from there the weight rises evenly to the inner quarter.
    """
    edge, length = scale * overlap / 4, scale * along[-1][1]
    total, weights = torch.zeros(length), []
    for start, stop in along:
        place = torch.arange(scale * start, scale * stop) + 0.5
        inside = torch.minimum(
            place - scale * start if start else torch.full_like(place, torch.inf),
            scale * stop - place if stop < along[-1][1] else torch.full_like(place, torch.inf),
        )
        weights.append(((inside - edge) / (2 * edge)).clamp(0, 1))
        total[scale * start : scale * stop] += weights[-1]
    return [w / total[scale * a : scale * b] for w, (a, b) in zip(weights, along, strict=True)]


@torch.no_grad()
def enlarged_rows(
    network: Network,
    strips: Strips,
    shape: Shape,
    scale: int,
    first: int = 0,
    window: tuple[int, int] = WINDOW,
) -> Iterator[Tensor]:
    """Super-resolve a scene and yield its rows in blocks, each final: (bands, any, cols) of z.

    Parameters
    ----------
    network : callable
        From a window (1, any, h, w) to (1, bands, r h, r w).
    strips : callable
        From first rows to what windows are cut from, so many rows of it each: (any, rows, cols).
    shape : tuple of int
        Bands of the output, rows and columns of the low-resolution scene.
    scale : int
        r.
    first : int
        Row of windows whose block comes first; the blocks do not depend on it.
    window : (int, int)
        Rows and columns that the network sees at once.
    """
    rows, cols = spans(shape[1], window[0]), spans(shape[2], window[1])
    row_ramps, col_ramps = ramps(rows, scale=scale), ramps(cols, scale=scale)
    # Rows of windows that reach into the first block come before it.
    begin = next(n for n, (_, stop) in enumerate(rows) if stop > rows[first][0])
    blended = torch.zeros(shape[0], 0, scale * shape[2])
    for n, strip in enumerate(strips([start for start, _ in rows[begin:]]), begin):
        start, stop = rows[n]
        missing = scale * (stop - start) - blended.shape[1]
        blended = F.pad(blended, (0, 0, 0, missing))  # the rest of the windows above, then zeros
        for (left, right), ramp in zip(cols, col_ramps, strict=True):
            sr = network(strip[None, :, :, left:right])[0]
            sr *= row_ramps[n][:, None] * ramp
            blended[:, :, scale * left : scale * right] += sr
            del sr  # before the next one comes
        done = scale * ((rows[n + 1][0] if n + 1 < len(rows) else stop) - start)
        if n >= first:
            yield blended[:, :done]
        blended = blended[:, done:].clone()
