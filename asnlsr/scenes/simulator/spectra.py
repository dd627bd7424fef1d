"""Library reflectance, sunlight and the sensor's bands: the spectral half of the simulator."""

from __future__ import annotations

import earthlib
import numpy as np
import pvlib
from numpy.typing import NDArray

Array = NDArray[np.float32]

# HySpex Mjolnir S-620: 300 bands evenly over the range; the line shape is a little wider than the
# step, so that neighbouring bands overlap
WAVELENGTH_NM = np.linspace(1000.0, 2500.0, 300)
FWHM_NM = 6.0

# Material -> spectra of the library (earthlib, names as there). A pixel lies somewhere on the line
# from the first to the last: no two patches of lawn have the same spectrum.
MATERIALS: dict[str, tuple[str, ...]] = {
    "lawn": ("v-LAI-5.0-LMA-0.006", "v-LAI-6.8-LMA-0.013", "Grass_dry.9+.1green"),
    "leaf": ("v-LAI-3.7-LMA-0.005", "v-LAI-3.2-LMA-0.013-CHL-17.2"),
    "needle": ("v-LAI-4.5-LMA-0.010", "v-LAI-3.4-LMA-0.015"),
    "litter": ("deadlodg", "deadfern", "Willow"),
    "bark": ("stmpwood", "ndbnof.004-", "ndbnmm.004-"),
    "soil": ("FS15R_FS4218", "FS21_FS9575"),
    "gravel": ("fggrom.004-", "fggemg.003-", "spcsmg.005-"),
    "road": ("rpaeye.006-", "rpaeom.003-"),
    "stone": ("spcemg.011-", "spceye.002-"),
    "brick": ("fttrmg.007-", "mobrmg.008-", "mobrmg.004-"),
    "plaster": ("pprwmg.003-", "mobrmg.008-"),
    "roof": ("fscnmm.004-", "fscgye.022-", "fttrmg.007-"),
    "paint": ("pprwmg.002-", "trawyg.002-"),
    "metal": ("foznof.001-", "fhzgmg.008-"),
    "glass": ("folwmm.001-", "folwmm.002-"),
    "white": (),  # reflects like the light itself: clear sky, its mirror image, sun glints
}


def reflectance(material: str) -> Array:
    """Reflectance spectra of one material at the sensor's bands.

    Parameters
    ----------
    material : str
        A key of `MATERIALS`.

    Returns
    -------
    float32 (spectra, 300)
        Reflectance, 0..1; beyond 2450 nm, where the library ends, the last value is held.

    Raises
    ------
    KeyError
        If the material or one of its spectra is unknown.
    """
    if not MATERIALS[material]:
        return np.ones((1, WAVELENGTH_NM.size), np.float32)
    centres_nm = 1000 * np.asarray(earthlib.library.sensor.band_centers, dtype=float)
    rows = []
    for wanted in MATERIALS[material]:
        names = enumerate(earthlib.library.names)
        row = next((i for i, name in names if name.startswith(wanted)), None)
        if row is None:
            raise KeyError(f"spectrum {wanted!r} of {material!r} is not in the library")
        rows.append(np.interp(WAVELENGTH_NM, centres_nm, earthlib.library.data[row]))
    return np.array(rows, np.float32)


def sunlight() -> tuple[Array, Array]:
    """Sunlight at the sensor's bands, from the standard spectrum ASTM G173.

    Returns
    -------
    direct, diffuse : float32 (300,)
        Irradiance in W m-2 nm-1 of a surface facing the sun, and from the sky. The standard gives
        the global irradiance of a plane tilted by 37 degrees with the sun 48.19 degrees from the
        zenith; what its direct beam, 11.19 degrees off the normal, does not explain is diffuse.

    References
    ----------
    ASTM G173-03, Standard Tables for Reference Solar Spectral Irradiances.
    """
    table = pvlib.spectrum.get_reference_spectra(standard="ASTM G173-03")
    table = table[(table.index > 950) & (table.index < 2550)]
    nm = table.index.to_numpy()
    # Gaussian response of every band on the table's own grid, sampled unevenly: weigh by its step
    line = np.exp(-4 * np.log(2) * ((nm - WAVELENGTH_NM[:, None]) / FWHM_NM) ** 2) * np.gradient(nm)
    line /= line.sum(axis=1, keepdims=True)
    beam = line @ table["direct"].to_numpy()
    total = line @ table["global"].to_numpy()
    diffuse = np.maximum(total - np.cos(np.deg2rad(11.19)) * beam, 0.01 * total)
    return beam.astype(np.float32), diffuse.astype(np.float32)
