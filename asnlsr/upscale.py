"""A low-resolution scene through a trained network to an ENVI scene, whatever its size."""

import errno
import glob
import hashlib
import json
import logging
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from asnlsr import __version__
from asnlsr.binning import BinnedScene, SceneBands
from asnlsr.data import unscale
from asnlsr.domains import BANDS
from asnlsr.files import naming, replacing, sha256
from asnlsr.models import spec
from asnlsr.pieces import Network, in_pieces
from asnlsr.quick_look import quick_look
from asnlsr.resampled import check_output, resampled_fields
from asnlsr.runs import load_run
from asnlsr.scenes import Scene, open_scene, write_header
from asnlsr.windows import LEAST, OVERLAP, WINDOW, Strips, enlarged_rows, spans

logger = logging.getLogger(__name__)

_WRITE_ROWS = 16  # rows that become radiance at a time
_IDENTITY = "asnlsr identity"  # header field: hash of all that the output was made from


def upscale(hdr: Path, run: Path, out: Path, progress: bool = True) -> None:
    """Super-resolve a scene: ENVI header ``out``, pixels (.img) and a quick look (.png) beside it.

    A network of a fixed number of bands gives the binned bands of both domains, one that takes
    any number gives the sensor's own. An interrupted call leaves its pixels under a hidden
    name; the same call goes on from there and ends with the same bytes.

    Parameters
    ----------
    hdr, out : Path
        ENVI headers of the low-resolution scene and of the scene to write.
    run : Path
        Folder of a finished run.
    progress : bool
        Show a progress bar on stderr.

    Raises
    ------
    FileNotFoundError, ValueError
        If the scene, the run or the output cannot be used; the message names it.
    """
    run, out = Path(run), Path(out)
    network, record = load_run(run)
    scene, model = open_scene(hdr), spec(record["model"])
    _check(scene, run, record, model.any_bands)
    check_output(scene, out)
    bands = SceneBands(scene) if model.any_bands else BinnedScene(scene)
    fields = _header_fields(bands, run, record)
    if _made(out, fields[_IDENTITY]):
        return
    scale, size = int(record["scale"]), len(bands.centres_nm)
    shape = (scale * scene.rows, scale * scene.cols, size)
    part = _part(out, fields[_IDENTITY])
    pieces = partial(in_pieces, network, bands, size if model.any_bands else BANDS, model.unmixes)
    _write_pixels(part, out, pieces, (size, scene.rows, scene.cols), scale, progress)
    # The header comes last: without it the pixels are not a scene.
    with replacing(out) as new_hdr:
        write_header(new_hdr, shape, _increasing(bands.centres_nm), **fields)
        part.replace(out.with_suffix(".img"))
    if bands.clipped:
        logger.warning("%s: %d negative values clipped to 0", scene.img, bands.clipped)
    quick_look(out, out.with_suffix(".png"))


def _increasing(centres_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tell bands of one centre apart: a channel at 1700 nm ends one domain and begins the other."""
    apart: NDArray[np.float64] = centres_nm + 1e-3 * (np.diff(centres_nm, prepend=0) == 0)
    return apart


def _check(scene: Scene, run: Path, record: dict[str, Any], own: bool) -> None:
    """Refuse a scene that does not suit the network of the run."""
    if min(scene.rows, scene.cols) < LEAST:
        raise ValueError(
            f"{scene.hdr}: {scene.rows} x {scene.cols} pixels; a network needs {LEAST} a side"
        )
    if not own and record["bands"] != BANDS:
        raise ValueError(f"{run}: a network for {record['bands']} bands; a domain has {BANDS}")
    if record["config"].get("materials"):
        raise ValueError(
            f"{run}: its abundance maps differ from window to window, which would leave seams; "
            "choose a run without the setting materials"
        )
    if (degraded := str(scene.header.get("degraded by", record["scale"]))) != str(record["scale"]):
        raise ValueError(
            f"{run}: enlarges by {record['scale']}, but {scene.hdr} was degraded by {degraded}; "
            "choose another run"
        )


def _header_fields(bands: SceneBands, run: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return what the header of the output says besides shape and wavelengths."""
    scene, scale = bands.scene, record["scale"]
    fields = resampled_fields(scene, scale, finer=True)
    fields["description"] = (
        f"{scene.name} enlarged by {scale} with {spec(record['model']).label} "
        f"(run {run.resolve().name}, asnlsr {__version__}); radiance, W m-2 sr-1 nm-1"
    )
    if bands.fwhm_nm is not None:
        fields["fwhm"] = [f"{value:.10g}" for value in bands.fwhm_nm]
    if len(bands.centres_nm) == scene.channels:
        fields["bbl"] = scene.usable.astype(int).tolist()
    made_from = [sha256(file) for file in (run / "weights.safetensors", scene.hdr, scene.img)]
    identity = [made_from, record["model"], record["config"], fields, WINDOW, OVERLAP]
    fields[_IDENTITY] = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return fields


def _made(out: Path, identity: str) -> bool:
    """Tell whether ``out`` is there; refuse one that something else was made into."""
    if not out.exists():
        return False
    if open_scene(out).header.get(_IDENTITY) != identity:
        raise ValueError(
            f"{out}: exists, made from another scene or by another run; remove it or choose "
            "another --out"
        )
    return True


def _part(out: Path, identity: str) -> Path:
    """Return the temporary name of the pixels; remove what calls of another identity left."""
    part = out.with_name(f".{out.stem}.{identity[:12]}.part")
    # So many digits and no more: of another output, `hr.2.hdr` beside `hr.hdr`, nothing is lost.
    for other in out.parent.glob(f".{glob.escape(out.stem)}.{'[0-9a-f]' * 12}.part"):
        if other != part:
            other.unlink()
    return part


def _write_pixels(
    part: Path,
    out: Path,
    pieces: Callable[[], tuple[Network, Strips]],
    low_shape: tuple[int, int, int],
    scale: int,
    progress: bool,
) -> None:
    """Write the pixels of the output to ``part``, or what is missing of them."""
    size, *low_sides = low_shape
    rows, cols = (spans(side) for side in low_sides)
    row_bytes = 4 * size * scale * low_sides[1]
    whole = scale * low_sides[0] * row_bytes
    present = part.stat().st_size if part.exists() else 0
    folder = next(parent for parent in out.resolve().parents if parent.is_dir())
    if shutil.disk_usage(folder).free < whole - present:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out.with_suffix(".img")))
    # A block ends where the next row of windows begins; a half one is made again.
    begins = [scale * start * row_bytes for start, _ in rows]
    first = bisect_right([*begins[1:], whole], present)
    if first == len(rows):
        return
    network, strips = pieces()
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    os.truncate(part, begins[first])
    with (
        naming(out.with_suffix(".img")),
        part.open("ab") as file,
        tqdm(
            total=len(rows) * len(cols), initial=first * len(cols),
            unit="window", desc="upscale", disable=not progress,
        ) as bar,
    ):  # fmt: skip
        try:
            for block in enlarged_rows(network, strips, low_shape, scale, first, bar.update):
                for z in np.split(block, range(_WRITE_ROWS, block.shape[1], _WRITE_ROWS), 1):
                    radiance = np.moveaxis(unscale(z), 0, -1)
                    file.write(np.ascontiguousarray(radiance, dtype="<f4").data)
                file.flush()
        except ValueError:  # comes of the scene: who goes on would end there again
            part.unlink()
            raise
