"""Simulated push-broom scenes: painted geometry, library spectra, sunlight, sensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from tqdm.auto import tqdm

from asnlsr.files import keep, remove, scratch
from asnlsr.scenes.bands import BinnedScene, SceneBands
from asnlsr.scenes.envi import Scene, open_scene, write_scene
from asnlsr.scenes.header import RADIANCE
from asnlsr.scenes.simulator.painting import CODE, MATERIALS, Canvas
from asnlsr.scenes.simulator.scenery import buildings, park

Array = NDArray[np.float32]
KINDS = ("park", "buildings", "park", "park", "buildings", "park")

# Standard sunlight times this: the published angle between bicubic and truth, beside the published
# PSNR, says that the real scenes are darker than the standard at the incidence drawn here.
LIGHT = 0.4
BLUR_PX = 0.27  # standard deviation of the optics' point spread, scene pixels
GLARE = 0.1  # part of the light that haze and the optics spread evenly over the picture
READ_NOISE = 9e-5  # standard deviation in the dark, W m-2 sr-1 nm-1
PHOTON_NOISE = 2.5e-5  # variance per radiance, W m-2 sr-1 nm-1
FULL_WELL = 1.0  # radiance at which a pixel saturates, W m-2 sr-1 nm-1
BLOCK_ROWS = 32
FOLDER = "layers"  # beside the scenes: what their sensor did not see; never read in training

# HySpex Mjolnir S-620: 300 bands evenly over the range; the line shape is a little wider than the
# step, so that neighbouring bands overlap
WAVELENGTH_NM = np.linspace(1000.0, 2500.0, 300)
FWHM_NM = 6.0


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
        If the material is unknown.
    """
    import earthlib  # only who simulates needs it

    if not MATERIALS[material]:
        return np.ones((1, WAVELENGTH_NM.size), np.float32)
    centres_nm = 1000 * np.asarray(earthlib.library.sensor.band_centers, dtype=float)
    rows = []
    for wanted in MATERIALS[material]:
        names = enumerate(earthlib.library.names)
        row = next(row for row, name in names if name.startswith(wanted))
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
    import pvlib

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


def mix(canvas: Canvas) -> tuple[Array, Array]:
    """Turn a painting into a linear mixture at the sensor's resolution.

    Parameters
    ----------
    canvas : Canvas
        Painting of (2 rows, 2 cols).

    Returns
    -------
    weights : float32 (rows, cols, endmembers)
        Light-weighted abundances. Blurring them blurs all 300 bands at once, because radiance is
        linear in them.
    endmembers : float32 (endmembers, 300)
        Radiance of each material spectrum in full direct, then in full diffuse light, in
        W m-2 sr-1 nm-1.
    """
    direct, diffuse = sunlight()
    rows, cols = canvas.material.shape
    weights, endmembers = [], []
    for material in MATERIALS:
        here = canvas.material == CODE[material]
        spectra = reflectance(material)
        for k, spectrum in enumerate(spectra):
            share = here * np.maximum(0, 1 - np.abs(canvas.look[0] * (len(spectra) - 1) - k))
            for light, irradiance in zip(canvas.look[1:], (direct, diffuse), strict=True):
                sharp = gaussian_filter(share * light, 2 * BLUR_PX, mode="nearest")
                weights.append(sharp.reshape(rows // 2, 2, cols // 2, 2).mean(axis=(1, 3)))
                endmembers.append(LIGHT * spectrum * irradiance / np.pi)
    mixture = np.stack(weights, -1).astype(np.float32)
    mixture += GLARE * (mixture.mean(axis=(0, 1)) - mixture)
    return mixture, np.array(endmembers, np.float32)


def fractions(canvas: Canvas) -> NDArray[np.uint8]:
    """Count the quarters of every scene pixel that a material covers: (rows, cols, materials)."""
    rows, cols = canvas.material.shape
    cells = canvas.material.reshape(rows // 2, 2, cols // 2, 2)
    counts = [np.count_nonzero(cells == CODE[name], axis=(1, 3)) for name in MATERIALS]
    return np.stack(counts, -1).astype(np.uint8)


def expose(rng: np.random.Generator | None, weights: Array, endmembers: Array) -> Iterator[Array]:
    """Yield blocks of rows of measured radiance: the mixture, photon noise and read noise.

    Parameters
    ----------
    rng : Generator or None
        Of the noise; None: a sensor without noise.
    weights, endmembers
        As `mix` returns them.

    Yields
    ------
    float32 (rows, cols, 300)
        Radiance in W m-2 sr-1 nm-1; values that noise makes negative are set to zero.
    """
    for row in range(0, len(weights), BLOCK_ROWS):
        radiance = weights[row : row + BLOCK_ROWS] @ endmembers
        if rng is not None:
            noise = rng.standard_normal(radiance.shape, np.float32)
            radiance += noise * np.sqrt(READ_NOISE**2 + PHOTON_NOISE * radiance)
        yield np.clip(radiance, 0, FULL_WELL)


def read_size(text: str) -> tuple[int, int]:
    """Read rows and columns from `512x256`."""
    rows, _, cols = text.lower().partition("x")
    if not (rows.isdecimal() and cols.isdecimal()):
        raise ValueError(f"--size {text}: must be rows x columns, such as 512x256")
    return int(rows), int(cols)


def simulate(
    out: Path,
    scenes: int = 6,
    size: tuple[int, int] = (512, 256),
    seed: int = 0,
    progress: bool = True,
    force: bool = False,
) -> list[Path]:
    """Write simulated scenes as ENVI radiance, named ``park-0``, ``buildings-1``, ...

    Beside them, in the folder `layers`, is what evaluation alone may know: the scenes without
    noise (ENVI), and the quarters of every pixel that each material covers (``.npz``).

    Parameters
    ----------
    out : Path
        Folder for the ``.hdr`` and ``.img`` files; made if missing.
    scenes : int
        Number of scenes; kinds repeat four parks and two buildings in six.
    size : (int, int)
        Rows and columns of a scene.
    seed : int
        Same seed, same bytes.
    progress : bool
        Show a progress bar.
    force : bool
        Replace the scenes of an earlier call, unless other files lie among them.

    Returns
    -------
    list of Path
        The headers, in order.

    Raises
    ------
    ValueError
        If a scene would be too small to hold the geometry.
    FileExistsError
        If ``out`` is a file or a folder with something in it.
    """
    if min(size) < 32:
        raise ValueError(f"size is {size[0]}x{size[1]}: at least 32 rows and 32 columns are needed")
    kinds = [KINDS[number % len(KINDS)] for number in range(scenes)]
    headers = [out / f"{kind}-{number}.hdr" for number, kind in enumerate(kinds)]
    with scratch(out) as stage:
        if not out.is_dir() or any(out.iterdir()):
            there = [path for path in out.rglob("*") if path.is_file()]
            keep(out, beside=there if force else (), force=force and out.is_dir())
        bar = tqdm(headers, desc="simulate", unit="scene", disable=not progress)
        for number, header in enumerate(bar):
            kind, rng = kinds[number], np.random.default_rng([seed, number])
            canvas = (park if kind == "park" else buildings)(rng, size)
            weights, endmembers = mix(canvas)
            shape, about = (*size, WAVELENGTH_NM.size), f"simulated {kind}, seed {seed}; {RADIANCE}"
            seen = stage / header.name
            for new, noise, words in (seen, rng, ""), (twin(seen), None, "without noise: "):
                rows = expose(noise, weights, endmembers)
                write_scene(new, rows, shape, WAVELENGTH_NM, description=words + about)
            npz = twin(seen).with_suffix(".npz")
            np.savez_compressed(npz, quarters=fractions(canvas), materials=list(MATERIALS))
        remove(out)
        stage.replace(out)
    return headers


def twin(hdr: Path) -> Path:
    """Return the header of the noise-free twin of a scene; it need not exist."""
    return hdr.parent / FOLDER / hdr.name


class Fractions(SceneBands):
    """Area fractions of the materials in every pixel of a scene, read like its bands.

    Attributes
    ----------
    materials : list of str
    """

    def __init__(self, scene: Scene, quarters: NDArray[np.uint8], materials: list[str]) -> None:
        super().__init__(scene)
        self.materials = materials
        self._quarters = quarters

    def read_rows(self, r0: int, r1: int) -> NDArray[np.float32]:
        """Read rows ``r0`` to ``r1 - 1``: (materials, rows, cols), 0..1, sums to 1."""
        return np.multiply(np.moveaxis(self._quarters[r0:r1], -1, 0), 0.25, dtype=np.float32)


def open_layers(scene: Scene) -> tuple[BinnedScene, Fractions] | None:
    """Open the noise-free twin and the area fractions of a scene, where both exist.

    Raises
    ------
    ValueError
        If they are damaged or not of the size of the scene.
    """
    hdr = twin(scene.hdr)
    npz = hdr.with_suffix(".npz")
    if not (hdr.exists() and npz.exists()):
        return None
    clean = open_scene(hdr)
    try:
        with np.load(npz) as file:
            quarters, materials = file["quarters"], file["materials"].tolist()
    except Exception as error:  # numpy raises a dozen kinds for a damaged file
        raise ValueError(f"{npz}: damaged; simulate the scenes again") from error
    sizes = {(scene.rows, scene.cols), (clean.rows, clean.cols), quarters.shape[:2]}
    if len(sizes) > 1:
        raise ValueError(f"{hdr}: not of the size of {scene.hdr}; remove the folder {FOLDER}")
    return BinnedScene(clean), Fractions(scene, quarters, materials)
