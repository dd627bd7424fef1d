"""A scene seen by a coarser sensor, as an ENVI scene: for testing on known truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from asnlsr.files import keep
from asnlsr.physics import SIZE, degrade, grid_offset, halo
from asnlsr.scenes.bands import SceneBands
from asnlsr.scenes.envi import Scene, check_output, open_scene, write_scene
from asnlsr.scenes.header import REFLECTANCE

_BLOCK_ROWS = 8  # low-resolution rows worked on at a time


def degrade_scene(
    hdr: Path, out: Path, scale: int = 4, progress: bool = True, force: bool = False
) -> None:
    """Blur every channel of a scene and keep every r-th pixel, by blocks of rows.

    Negative radiance is read as 0 and counted in the log, as by `asnlsr prepare`.

    Parameters
    ----------
    hdr, out : Path
        ENVI headers of the scene and of the scene to write.
    scale : int
        r, 2 to 32.
    progress : bool
        Show a progress bar on stderr.
    force : bool
        Replace what there is under the name of the output.

    Raises
    ------
    FileNotFoundError, ValueError
        If the scene or an argument cannot be used; the message names it.
    FileExistsError
        If the output exists.
    """
    bands = SceneBands(open_scene(hdr))
    scene, out = bands.scene, Path(out)
    check_output(scene, out)
    keep(out, beside=[out.with_suffix(".img")], force=force)
    if not 2 <= scale <= SIZE:
        raise ValueError(f"scale {scale}: must be 2 to {SIZE}")
    if min(scene.rows, scene.cols) < scale:
        raise ValueError(f"{hdr}: {scene.rows} x {scene.cols} pixels, too few for scale {scale}")
    fields = resampled_fields(scene, scale, finer=False)
    fields["description"] = f"{scene.name}, degraded by {scale}; {scene.quantity}"
    fields["degraded_by"] = scale
    if not scene.usable.all():
        fields["bbl"] = scene.usable.astype(int).tolist()
    if scene.fwhm_nm is not None:
        fields["fwhm"] = [f"{value:.10g}" for value in scene.fwhm_nm]
    shape = (scene.rows // scale, scene.cols // scale, scene.channels)
    blocks, count = _low_resolution(bands, scale), -(-shape[0] // _BLOCK_ROWS)
    bar = tqdm(blocks, desc="degrade", total=count, unit="block", disable=not progress)
    write_scene(out, bar, shape, scene.wavelength_nm, **fields)
    bands.tell_clipped()


def _low_resolution(bands: SceneBands, scale: int) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of low-resolution rows (any, cols // scale, channels) from the top."""
    step = scale * _BLOCK_ROWS
    starts = range(0, bands.scene.rows // scale * scale, step)
    for strip in bands.strips(starts, step, *halo(scale)):
        yield np.moveaxis(degrade(torch.from_numpy(strip), scale, "open").numpy(), 0, -1)


_CARRIED = (
    "acquisition time", "coordinate system string", "sensor type", "sun azimuth", "sun elevation"
)  # fmt: skip


def resampled_fields(scene: Scene, scale: int, finer: bool) -> dict[str, object]:
    """Header fields of a scene that was enlarged or degraded by ``scale``.

    The point spread function is centred beside the pixels that it replaces, so the coarse grid
    lies :func:`asnlsr.physics.grid_offset` fine pixels off the fine one. ``map info`` says so.

    Raises
    ------
    ValueError
        If the scene has a ``map info`` that cannot be used.
    """
    fields = {key: scene.header[key] for key in _CARRIED if key in scene.header}
    if scene.quantity == REFLECTANCE:
        fields["reflectance scale factor"] = 1
    else:
        fields["data units"] = "W/(m2 sr nm)"
    if "map info" in scene.header:
        fields["map info"] = _map_info(scene, scale, finer)
    return fields


def _map_info(scene: Scene, scale: int, finer: bool) -> list[str]:
    """Move the reference point (column, row; 1 is the outer edge) and change the pixel size."""
    info = list(scene.header["map info"])
    offset = grid_offset(scale)
    try:
        for n in (1, 2):
            edge = float(info[n]) - 1
            edge = edge * scale + offset if finer else (edge - offset) / scale
            info[n] = f"{edge + 1:.10g}"
        for n in (5, 6):
            info[n] = f"{float(info[n]) * (1 / scale if finer else scale):.10g}"
    except (ValueError, IndexError):
        raise ValueError(f"{scene.hdr}: map info is damaged; mend or remove the field") from None
    return info
