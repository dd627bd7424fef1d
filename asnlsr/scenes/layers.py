"""Layers beside a simulated scene: what its sensor did not see. Never read in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asnlsr.scenes.bands import BinnedScene, SceneBands
from asnlsr.scenes.envi import Scene, open_scene

FOLDER = "layers"  # in the folder of the scenes


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
