"""A picture of a scene beside it, to see at once what it shows."""

from pathlib import Path

import matplotlib.image
import numpy as np

from asnlsr.domains import DOMAINS
from asnlsr.figures import false_colour
from asnlsr.files import replacing
from asnlsr.scenes import open_scene

_PICTURE = 1024  # pixels on the longer side, at most


def quick_look(hdr: Path, png: Path) -> None:
    """Draw a scene in false colour, SWIR1 beside SWIR2, thinned to at most 1024 pixels a side."""
    scene = open_scene(hdr)
    step = -(-max(scene.rows, scene.cols) // _PICTURE)
    lines = [scene.read_rows(row, row + 1)[0, ::step] for row in range(0, scene.rows, step)]
    cube = np.stack(lines).transpose(2, 0, 1)
    pictures = [false_colour(cube, scene.wavelength_nm, domain) for domain in DOMAINS]
    with replacing(png) as temporary:
        matplotlib.image.imsave(temporary, np.concatenate(pictures, 1), format="png")
