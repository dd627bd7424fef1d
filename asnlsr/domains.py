"""The two spectral domains and the Gaussian binning that takes a sensor to them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BANDS = 30
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_UNCOVERED = 0.1  # share of a domain that may lie beyond the outermost usable channel


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
        If the usable channels do not cover the domain or are too few.
    """
    wavelength = np.asarray(wavelength_nm, dtype=np.float64)
    chosen = (wavelength >= domain.low_nm) & (wavelength <= domain.high_nm)
    if usable is not None:
        chosen &= np.asarray(usable, dtype=bool)
    channels = wavelength[chosen]
    _check_coverage(domain, channels, bands)
    bins, centres = _centres(domain, channels[0], channels[-1], bands)
    fwhm = (channels[-1] - channels[0]) / bins
    nearest = np.abs(channels - centres[:, None]).min(axis=1)
    if nearest.max() > fwhm:
        raise ValueError(
            f"{domain.title} has no usable channel near {centres[nearest.argmax()]:.0f} nm; "
            "look at wavelength and bbl in the header"
        )
    sigma = fwhm / _FWHM_PER_SIGMA
    weights = np.exp(-0.5 * ((wavelength - centres[:, None]) / sigma) ** 2) * chosen
    return weights / weights.sum(axis=1, keepdims=True), centres


def bin_fwhm_nm(centres_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Full width at half maximum of the bins of :func:`bin_response`, from their centres."""
    span = centres_nm[-1] - centres_nm[0]
    bins = round(span / np.diff(centres_nm).min()) + 1  # those in the cut included
    return np.full(len(centres_nm), span / bins)


def _check_coverage(domain: Domain, channels_nm: NDArray[np.float64], bands: int) -> None:
    span = f"{domain.title} ({domain.low_nm:.0f}-{domain.high_nm:.0f} nm)"
    slack = _UNCOVERED * (domain.high_nm - domain.low_nm)
    ends = channels_nm[[0, -1]] if channels_nm.size else np.array([np.inf, -np.inf])
    if ends[0] > domain.low_nm + slack or ends[1] < domain.high_nm - slack:
        found = f"only {ends[0]:.0f}-{ends[1]:.0f} nm" if channels_nm.size else "none of it"
        raise ValueError(f"{span} is not covered by the sensor: usable channels see {found}")
    if (left := np.count_nonzero(domain.keeps(channels_nm))) < bands:
        raise ValueError(
            f"{span} has {left} usable channels outside the cut, too few for {bands} bins"
        )


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
