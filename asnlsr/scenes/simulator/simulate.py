"""Simulated push-broom scenes: painted geometry, library spectra, sunlight, sensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm.auto import tqdm

from asnlsr.files import keep, ours, scratch
from asnlsr.scenes.envi import write_scene
from asnlsr.scenes.header import RADIANCE
from asnlsr.scenes.simulator.painting import CODE, Canvas
from asnlsr.scenes.simulator.scenery import buildings, park
from asnlsr.scenes.simulator.spectra import MATERIALS, WAVELENGTH_NM, Array, reflectance, sunlight

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


def expose(rng: np.random.Generator, weights: Array, endmembers: Array) -> Iterator[Array]:
    """Yield blocks of rows of measured radiance: the mixture, photon noise and read noise.

    Yields
    ------
    float32 (rows, cols, 300)
        Radiance in W m-2 sr-1 nm-1; values that noise makes negative are set to zero.
    """
    for row in range(0, len(weights), BLOCK_ROWS):
        radiance = weights[row : row + BLOCK_ROWS] @ endmembers
        noise = rng.standard_normal(radiance.shape, np.float32)
        noise *= np.sqrt(READ_NOISE**2 + PHOTON_NOISE * radiance)
        yield np.clip(radiance + noise, 0, FULL_WELL)


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
        Replace the scenes of an earlier call; other files stay.

    Returns
    -------
    list of Path
        The headers, in order.

    Raises
    ------
    ValueError
        If there would be no scene, or one too small to hold the geometry.
    FileExistsError
        If ``out`` is a file or a folder with something in it.
    """
    if scenes < 1:
        raise ValueError(f"scenes is {scenes}: ask for at least one")
    if min(size) < 32:
        raise ValueError(f"size is {size[0]}x{size[1]}: at least 32 rows and 32 columns are needed")
    kinds = [KINDS[number % len(KINDS)] for number in range(scenes)]
    headers = [out / f"{kind}-{number}.hdr" for number, kind in enumerate(kinds)]
    with scratch(out) as stage:
        if not out.is_dir() or any(out.iterdir()):
            keep(out, force=force)
            keep(beside=[h.with_suffix(s) for h in headers for s in (".img", ".hdr")], force=force)
        out.mkdir(exist_ok=True)
        bar = tqdm(kinds, desc="simulate", unit="scene", disable=not progress)
        for number, (kind, header) in enumerate(zip(bar, headers, strict=True)):
            rng = np.random.default_rng([seed, number])
            weights, endmembers = mix((park if kind == "park" else buildings)(rng, size))
            blocks = expose(rng, weights, endmembers)
            text = f"simulated {kind}, seed {seed}; {RADIANCE}"
            shape = (*size, WAVELENGTH_NM.size)
            write_scene(stage / header.name, blocks, shape, WAVELENGTH_NM, description=text)
        for old in filter(ours, out.glob("*-[0-9]*.hdr")):
            if old.name.partition("-")[0] in KINDS:
                for path in filter(ours, (old.with_suffix(".img"), old)):
                    path.unlink()
        if not any(out.iterdir()):
            stage.replace(out)
            return headers
        for new in sorted(stage.iterdir()):  # headers first: pixels without one are nobody's
            new.replace(out / new.name)
    return headers
