"""A scene as bands, its own or those of both domains, streamed by rows."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from asnlsr.domains import DOMAINS, bin_fwhm_nm, bin_response
from asnlsr.scenes import Scene

_BLOCK_ROWS = 32  # rows of raw radiance in memory at a time


class SceneBands:
    """The channels of a scene as bands, without negative values.

    Attributes
    ----------
    scene : Scene
    centres_nm : ndarray of float64, shape (bands,)
    clipped : int
        Negative values met so far; they are read as 0, as is everything that is neither
        finite nor in use.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.clipped = 0
        self.centres_nm = scene.wavelength_nm
        self._used = scene.usable

    @property
    def fwhm_nm(self) -> NDArray[np.float64] | None:
        """Width of each band (bands,), where it is known."""
        return self.scene.fwhm_nm

    def read_rows(self, r0: int, r1: int) -> NDArray[np.float32]:
        """Read rows ``r0`` to ``r1 - 1``.

        Returns
        -------
        ndarray of float32, shape (bands, r1 - r0, cols)

        Raises
        ------
        ValueError
            If a usable channel of the scene has NaN or infinite values; counts them all.
        """
        return np.moveaxis(self._clean(self.scene.read_rows(r0, r1)), -1, 0)

    def strips(
        self, origins: Sequence[int], rows: int, reach: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield ``rows`` rows from each origin with ``reach`` pixels around, reflected outside.

        Shape (bands, rows + 2 * reach, cols + 2 * reach), less where an origin is so near to the
        end that there is no more. Reads every row of the scene once.
        """
        row_at = np.pad(np.arange(self.scene.rows), reach, mode="reflect")
        sides = ((0, 0), (0, 0), (reach, reach))
        kept, low = self.read_rows(0, 0), 0
        for origin in origins:
            wanted = row_at[origin : origin + rows + 2 * reach]
            kept, low = kept[:, wanted.min() - low :], wanted.min()
            new = self.read_rows(low + kept.shape[1], wanted.max() + 1)
            kept = np.concatenate([kept, new], axis=1)
            yield np.pad(kept[:, wanted - low], sides, mode="reflect")

    def _clean(self, radiance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clip and count negative values, blank unused channels, refuse NaN."""
        # Two fast passes settle the usual case; NaN fails both comparisons.
        with np.errstate(invalid="ignore"):
            if radiance.min(initial=0) >= 0 and radiance.max(initial=0) < np.inf:
                return radiance
        finite = np.isfinite(radiance)
        if not (finite | ~self._used).all():
            raise ValueError(
                f"{self.scene.img}: {self._count_nan()} values in usable channels are NaN, "
                "infinite or the header's data ignore value; mark their channels in bbl or mend "
                "the file"
            )
        self.clipped += int(np.count_nonzero((radiance < 0) & self._used))
        return np.where(finite, np.maximum(radiance, 0), np.float32(0))

    def _count_nan(self) -> int:
        rows = self.scene.rows
        blocks = [(r0, min(r0 + _BLOCK_ROWS, rows)) for r0 in range(0, rows, _BLOCK_ROWS)]
        return sum(
            int(np.count_nonzero(~np.isfinite(self.scene.read_rows(*block)[..., self._used])))
            for block in blocks
        )


class BinnedScene(SceneBands):
    """A scene with the spectral binning of both domains, SWIR1 first: (2 * BANDS) bands."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        try:
            responses = [
                bin_response(domain, scene.wavelength_nm, scene.usable)
                for domain in DOMAINS.values()
            ]
        except ValueError as error:
            raise ValueError(f"{scene.hdr}: {error}") from None
        self.centres_nm = np.concatenate([centres for _, centres in responses])
        self._used = np.any([weights.any(axis=0) for weights, _ in responses], axis=0)
        # Only the channels between the first and the last with a weight are multiplied.
        ends = [np.flatnonzero(weights.any(axis=0))[[0, -1]] for weights, _ in responses]
        self._responses = [
            (slice(first, last + 1), torch.from_numpy(weights[:, first : last + 1]).float())
            for (weights, _), (first, last) in zip(responses, ends, strict=True)
        ]

    @property
    def fwhm_nm(self) -> NDArray[np.float64]:
        """Width of the weights of each band; that of the channels comes on top."""
        return np.concatenate([bin_fwhm_nm(c) for c in np.split(self.centres_nm, len(DOMAINS))])

    def read_rows(self, r0: int, r1: int) -> NDArray[np.float32]:
        """Read and bin rows ``r0`` to ``r1 - 1``; see :meth:`SceneBands.read_rows`."""
        cols = self.scene.cols
        binned = torch.empty(len(self.centres_nm), (r1 - r0) * cols)
        for start in range(r0, r1, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, r1)
            radiance = self._clean(self.scene.read_rows(start, stop))
            pixels = torch.from_numpy(radiance.reshape(-1, self.scene.channels))
            # By torch as the blur: the thread pools of two libraries slow each other down.
            pieces = [weights @ pixels[:, span].T for span, weights in self._responses]
            binned[:, (start - r0) * cols : (stop - r0) * cols] = torch.cat(pieces)
        return binned.numpy().reshape(len(self.centres_nm), r1 - r0, cols)
