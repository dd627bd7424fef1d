"""Blur and decimation, output pixel by output pixel."""

import numpy as np
from numpy.typing import NDArray


def plain_loop(
    image: NDArray[np.floating], kernel: NDArray[np.floating], scale: int, border: str
) -> NDArray[np.floating]:
    """Degrade (..., H, W); output pixel i covers input rows i r - p to i r - p + 31."""
    rows, cols = image.shape[-2:]
    p = (32 - scale) // 2
    mode = {"scene": "reflect", "zero": "constant"}[border]
    around = [(0, 0)] * (image.ndim - 2) + [(32, 32)] * 2
    padded = np.pad(image, around, mode=mode)
    shape = (*image.shape[:-2], rows // scale, cols // scale)
    low = np.empty(shape, np.result_type(image, kernel))
    for i in range(shape[-2]):
        for j in range(shape[-1]):
            top, left = 32 + i * scale - p, 32 + j * scale - p
            seen = padded[..., top : top + 32, left : left + 32]
            low[..., i, j] = (kernel * seen).sum((-2, -1))
    return low
