"""The two spectral domains and the Gaussian binning that takes a sensor to them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from asnlsr.files import replacing
from asnlsr.scenes.envi import Scene

logger = logging.getLogger(__name__)
BANDS = 30
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_SLACK = 0.1  # share of a domain that may lie beyond the outermost usable channel at either end
_LEAST = 0.5  # share of a domain that the usable channels span; between the two it is told


@dataclass(frozen=True)
class Domain:
    """A spectral range, its binning and the absorption band that is cut out of it."""

    name: str  # in files and on the command line
    title: str  # in text and figures
    low_nm: float  # both ends of the range are inclusive
    high_nm: float
    bins: int  # before the cut, for the 300 evenly spaced channels of the published dataset
    cut_nm: tuple[float, float]  # bins centred in here (inclusive) are dropped: water vapour

    def keeps(self, centre_nm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which centres (nm) lie outside the cut."""
        return (centre_nm < self.cut_nm[0]) | (centre_nm > self.cut_nm[1])


SWIR1 = Domain("swir1", "SWIR1", 1000.0, 1700.0, 45, (1310.0, 1550.0))
SWIR2 = Domain("swir2", "SWIR2", 1700.0, 2500.0, 38, (1800.0, 1980.0))
DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (SWIR1, SWIR2)}


def bin_response(
    domain: Domain, wavelength_nm: ArrayLike, usable: ArrayLike | None = None, bands: int = BANDS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights that turn the channels of a sensor into the bands of a domain.

    With n centres c_b evenly from the first to the last usable channel in the range and
    FWHM = (last - first) / n, the weight of the channel at wavelength l in bin b is
    proportional to exp(-(l - c_b)^2 / (2 sigma^2)), at the true l, and the weights of a bin sum
    to 1. n departs from ``domain.bins`` as little as possible for ``bands`` bins to be left
    after the cut; where no n does that, one of ``bands + 1`` goes, next to the cut. As in the
    release, binning comes before the cut: absorption channels leak into the bins beside it.

    Parameters
    ----------
    domain : Domain
    wavelength_nm : array_like of float, shape (channels,)
        Increasing channel centres (nm), in any spacing.
    usable : array_like of bool, shape (channels,), optional
        False for bad channels, which get weight 0.
    bands : int

    Returns
    -------
    weights : ndarray of float64, shape (bands, channels)
    centres_nm : ndarray of float64, shape (bands,)

    Raises
    ------
    ValueError
        If the usable channels are too few or cover less than half of the domain.

    Warns
    -----
    UserWarning
        If they leave out more than a tenth of the domain at one of its ends.
    """
    wavelength = np.asarray(wavelength_nm, dtype=np.float64)
    low, high = domain.low_nm, domain.high_nm
    chosen = (wavelength >= low) & (wavelength <= high)
    chosen &= True if usable is None else np.asarray(usable, dtype=bool)
    channels = wavelength[chosen]
    left = np.count_nonzero(domain.keeps(channels))
    if left < bands or channels[-1] - channels[0] < _LEAST * (high - low):
        needed = f"{bands} are needed, over most of {low:.0f}-{high:.0f} nm"
        told = f"not covered by the sensor: {left} usable channels outside the cut; {needed}"
        raise ValueError(f"{domain.title} is {told}")
    if max(channels[0] - low, high - channels[-1]) > _SLACK * (high - low):
        seen = f"only {channels[0]:.0f}-{channels[-1]:.0f} of {low:.0f}-{high:.0f} nm"
        warnings.warn(f"{domain.title}: {seen} have usable channels", stacklevel=2)
    bins, centres = _centres(domain, channels[0], channels[-1], bands)
    fwhm = (channels[-1] - channels[0]) / bins
    nearest = np.abs(channels - centres[:, None]).min(axis=1)
    if nearest.max() > fwhm:
        gap = f"no usable channel near {centres[nearest.argmax()]:.0f} nm"
        raise ValueError(f"{domain.title} has {gap}; look at wavelength and bbl in the header")
    sigma = fwhm / _FWHM_PER_SIGMA
    weights = np.exp(-0.5 * ((wavelength - centres[:, None]) / sigma) ** 2) * chosen
    return weights / weights.sum(axis=1, keepdims=True), centres


def bin_fwhm_nm(centres_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Full width at half maximum of the bins of :func:`bin_response`, from their centres."""
    span = centres_nm[-1] - centres_nm[0]
    bins = round(span / np.diff(centres_nm).min()) + 1  # those in the cut included
    return np.full(len(centres_nm), span / bins)


def _centres(
    domain: Domain, first_nm: float, last_nm: float, bands: int
) -> tuple[int, NDArray[np.float64]]:
    """Find the number of bins nearest to ``domain.bins`` that leaves ``bands`` after the cut."""
    spare = {}
    for bins in sorted(range(bands, 4 * bands), key=lambda bins: abs(bins - domain.bins)):
        centres = np.linspace(first_nm, last_nm, bins)
        kept = centres[domain.keeps(centres)]
        if len(kept) == bands:
            return bins, kept
        spare[len(kept)] = bins, kept
    # One bin more may leave two bands more. Then the surplus one next to the cut goes.
    bins, kept = spare[bands + 1]
    return bins, np.delete(kept, np.abs(kept - np.mean(domain.cut_nm)).argmin())


_BLOCK_ROWS = 32  # rows of raw radiance in memory at a time


class SceneBands:
    """The channels of a scene as bands, without negative values.

    Attributes
    ----------
    scene : Scene
    centres_nm : ndarray of float64, shape (bands,)
    fwhm_nm : ndarray of float64, shape (bands,), or None
        Width of each band, where it is known.
    clipped : int
        Negative values met so far; they are read as 0, as is everything that is neither
        finite nor in use.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.clipped = 0
        self.centres_nm = scene.wavelength_nm
        self.fwhm_nm: NDArray[np.float64] | None = scene.fwhm_nm
        self._used = scene.usable

    def read_rows(self, r0: int, r1: int) -> NDArray[np.float32]:
        """Read rows ``r0`` to ``r1 - 1``.

        Returns
        -------
        ndarray of float32, shape (bands, r1 - r0, cols)

        Raises
        ------
        ValueError
            If a usable channel has NaN or infinite values there.
        """
        return np.moveaxis(self._clean(self.scene.read_rows(r0, r1)), -1, 0)

    def strips(
        self, origins: Sequence[int], rows: int, before: int, after: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """Yield ``rows`` rows from each origin with so many pixels around, reflected outside.

        Shape (bands, before + rows + after, before + cols + after), less where an origin is so
        near to the end that there is no more. Reads every row of the scene once.
        """
        row_at = np.pad(np.arange(self.scene.rows), (before, after), mode="reflect")
        sides = ((0, 0), (0, 0), (before, after))
        kept, low = self.read_rows(0, 0), 0
        for origin in origins:
            wanted = row_at[origin : origin + before + rows + after]
            kept, low = kept[:, wanted.min() - low :], wanted.min()
            new = self.read_rows(low + kept.shape[1], wanted.max() + 1)
            kept = np.concatenate([kept, new], axis=1)
            yield np.pad(kept[:, wanted - low], sides, mode="reflect")

    def tell_clipped(self) -> None:
        """Warn of negative values, if there were any."""
        if self.clipped:
            logger.warning("%s: %d negative values clipped to 0", self.scene.img, self.clipped)

    def _clean(self, radiance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clip and count negative values, blank unused channels, refuse NaN."""
        # Two fast passes settle the usual case; NaN fails both comparisons.
        with np.errstate(invalid="ignore"):
            if radiance.min(initial=0) >= 0 and radiance.max(initial=0) < np.inf:
                return radiance
        finite = np.isfinite(radiance)
        if not (finite | ~self._used).all():
            fault = "NaN, infinite or ignored values in usable channels; mark them in bbl"
            raise ValueError(f"{self.scene.img}: {fault}")
        self.clipped += int(np.count_nonzero((radiance < 0) & self._used))
        return np.where(finite, np.maximum(radiance, 0), np.float32(0))


class BinnedScene(SceneBands):
    """A scene with the spectral binning of both domains, SWIR1 first: (2 * BANDS) bands.

    Attributes
    ----------
    weights : ndarray of float64, shape (bands, channels)
        Of the channels in every band, see :func:`bin_response`.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        try:
            responses = [
                bin_response(domain, scene.wavelength_nm, scene.usable)
                for domain in DOMAINS.values()
            ]
        except ValueError as error:
            raise ValueError(f"{scene.hdr}: {error}") from None
        self.weights = np.concatenate([weights for weights, _ in responses])
        self.centres_nm = np.concatenate([centres for _, centres in responses])
        # Of the weights alone; that of the channels comes on top.
        self.fwhm_nm = np.concatenate([bin_fwhm_nm(centres) for _, centres in responses])
        self._used = np.any(self.weights, axis=0)
        # Only the channels between the first and the last with a weight are multiplied.
        ends = [np.flatnonzero(weights.any(axis=0))[[0, -1]] for weights, _ in responses]
        self._responses = [
            (slice(first, last + 1), torch.from_numpy(weights[:, first : last + 1]).float())
            for (weights, _), (first, last) in zip(responses, ends, strict=True)
        ]

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


# Wavelengths (nm) shown as red, green and blue. The eye sees none of them: a stand-in for RGB.
FALSE_COLOUR_NM = {"swir1": (1650.0, 1250.0, 1050.0), "swir2": (2300.0, 2100.0, 1750.0)}


def false_colour(
    cube: NDArray[np.floating],
    wavelength_nm: NDArray[np.floating],
    domain: str,
    like: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Three bands of a domain as a picture.

    Parameters
    ----------
    cube : ndarray, shape (bands, H, W)
    wavelength_nm : ndarray, shape (bands,)
        Band centres; the ones nearest to `FALSE_COLOUR_NM` are shown.
    domain : {"swir1", "swir2"}
    like : ndarray, shape (bands, any, any), optional
        Cube whose 1st and 99th percentiles become black and white, so that several pictures
        compare; by default `cube` itself.

    Returns
    -------
    ndarray, shape (H, W, 3)
        In 0..1.
    """
    bands = [np.abs(wavelength_nm - nm).argmin() for nm in FALSE_COLOUR_NM[domain]]
    reference = cube if like is None else like
    low, high = np.percentile(reference[bands], (1, 99), axis=(1, 2))
    span = np.maximum(high - low, np.finfo(float).tiny)  # a constant band is shown black
    stretched = (np.moveaxis(cube[bands], 0, -1) - low) / span
    return np.asarray(stretched.clip(0, 1), dtype=np.float64)


_PICTURE = 1024  # pixels on the longer side, at most


def quick_look(scene: Scene, png: Path) -> None:
    """Draw a scene in false colour, SWIR1 beside SWIR2, thinned to at most 1024 pixels a side."""
    import matplotlib.image  # only pictures need it

    cube = scene.thinned(_PICTURE).transpose(2, 0, 1)
    pictures = [false_colour(cube, scene.wavelength_nm, domain) for domain in DOMAINS]
    with replacing(png) as temporary:
        matplotlib.image.imsave(
            temporary, np.concatenate(pictures, 1), format="png", metadata={"Software": "asnlsr"}
        )
