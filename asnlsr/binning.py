"""A scene as the bands of both domains, streamed by rows."""

import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asnlsr.domains import BANDS, DOMAINS, bin_response
from asnlsr.scenes import Scene

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 32  # rows of raw radiance in memory at a time


@dataclass
class BinnedScene:
    """Spectral binning of a scene and the count of what was wrong with its values.

    Attributes
    ----------
    scene : Scene
    responses : list of tuple
        Per domain, the channels that it needs and their weights (BANDS, channels).
    centres_nm : ndarray of float64, shape (2 * BANDS,)
        Band centres of SWIR1, then of SWIR2.
    clipped : int
        Negative values met so far; they count as 0.
    """

    scene: Scene
    responses: list[tuple[slice, NDArray[np.float32]]] = field(init=False)
    centres_nm: NDArray[np.float64] = field(init=False)
    clipped: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Compute the weights; raise ValueError where the sensor does not cover a domain."""
        self.responses, centres = [], []
        self._used = np.zeros(self.scene.channels, bool)
        for domain in DOMAINS.values():
            try:
                weights, centres_nm = bin_response(
                    domain, self.scene.wavelength_nm, self.scene.usable
                )
            except ValueError as error:
                raise ValueError(f"{self.scene.hdr}: {error}") from None
            weighted = weights.any(axis=0)
            first, last = np.flatnonzero(weighted)[[0, -1]]
            channels = slice(int(first), int(last) + 1)
            self.responses.append((channels, weights[:, channels].astype(np.float32)))
            self._used |= weighted
            centres.append(centres_nm)
        self.centres_nm = np.concatenate(centres)

    def read_rows(self, r0: int, r1: int) -> NDArray[np.float32]:
        """Read and bin rows ``r0`` to ``r1 - 1``, a few at a time.

        Returns
        -------
        ndarray of float32, shape (r1 - r0, 2 * BANDS, cols)

        Raises
        ------
        ValueError
            If a usable channel holds NaN or infinite values anywhere in the scene.
        """
        binned = np.empty((r1 - r0, len(self.centres_nm), self.scene.cols), np.float32)
        for start in range(r0, r1, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, r1)
            self._bin(self.scene.read_rows(start, stop), binned[start - r0 : stop - r0])
        return binned

    def _bin(self, radiance: NDArray[np.float32], binned: NDArray[np.float32]) -> None:
        # One pass finds both negative values and NaN; only then is there more work.
        with np.errstate(invalid="ignore"):
            clean = radiance.min() >= 0
        if not clean:
            radiance = self._mend(radiance)
        for k, (channels, weights) in enumerate(self.responses):
            bands = binned[:, k * BANDS : (k + 1) * BANDS]
            np.matmul(weights, radiance[..., channels].transpose(0, 2, 1), out=bands)

    def _mend(self, radiance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clip negative values and blank unused channels; refuse the scene if it has NaN."""
        radiance = np.where(self._used, radiance, np.float32(0))
        if not np.isfinite(radiance).all():
            raise ValueError(
                f"{self.scene.img}: {self._count_nan()} values in usable channels are NaN or "
                "infinite; mask their channels in bbl or mend the file"
            )
        self.clipped += int(np.count_nonzero(radiance < 0))
        return np.maximum(radiance, 0)

    def _count_nan(self) -> int:
        rows = self.scene.rows
        blocks = ((r0, min(r0 + _BLOCK_ROWS, rows)) for r0 in range(0, rows, _BLOCK_ROWS))
        return sum(
            int(np.count_nonzero(~np.isfinite(self.scene.read_rows(*block)[..., self._used])))
            for block in blocks
        )
