"""A network over a scene of any size: read, enlarged by windows, written as it comes."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from asnlsr.files import check_space, keep, locked, naming, replacing, sha256
from asnlsr.models.registry import spec
from asnlsr.physics import log_scale, read_psf, unscale
from asnlsr.scenes.bands import BANDS, BinnedScene, SceneBands, quick_look
from asnlsr.scenes.degrade import resampled_fields
from asnlsr.scenes.envi import Scene, check_output, open_scene, write_header
from asnlsr.scenes.windows import (
    LARGE,
    OVERLAP,
    WINDOW,
    Network,
    Shape,
    Strips,
    enlarged_rows,
    spans,
)
from asnlsr.training.folder import load_run

logger = logging.getLogger(__name__)
LEAST = 16  # low-resolution pixels a side, of what the networks take
Blocks = Callable[[int], Iterator[Tensor]]

# Low-resolution pixels that an encoder takes at once, in 1 GB. Its gates look at means and maxima
# over all that it is given, so that in windows abundances would depend on the window.
_WHOLE = 400_000


def in_pieces(
    network: Any,  # noqa: ANN401
    bands: SceneBands,
    group: int,
    unmixes: bool,
    rows: int = WINDOW[0],
) -> tuple[Network, Strips]:
    """Return a function of windows (1, any, h, w) and the strips to take them from.

    A network that unmixes does so for the whole scene first, unless that is very large.

    Parameters
    ----------
    network : Module
        Of the registry.
    bands : SceneBands
    group : int
        Bands that it takes at a time.
    unmixes : bool
        Whether it has an encoder.
    rows : int
        Of a strip.
    """
    whole = unmixes and bands.scene.rows * bands.scene.cols <= _WHOLE

    def strips(starts: Sequence[int]) -> Iterator[Tensor]:
        if whole:
            both = _unmixed(network, bands, group)
            yield from (both[:, start : start + rows] for start in starts)
        else:
            for strip in bands.strips(starts, rows, 0):
                yield log_scale(torch.from_numpy(strip))

    def super_resolve(window: Tensor) -> Tensor:
        domains = torch.chunk(window, max(len(bands.centres_nm) // group, 1), 1)
        if whole:
            parts = [network.super_resolve(part[:, :group], part[:, group:]) for part in domains]
        else:
            parts = [network(part).sr for part in domains]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]  # no copy of all bands

    return super_resolve, strips


@torch.no_grad()
def _unmixed(network: Any, bands: SceneBands, group: int) -> Tensor:  # noqa: ANN401
    """Put the abundances of every domain behind its bands."""
    z = log_scale(torch.from_numpy(bands.read_rows(0, bands.scene.rows)))
    parts = [torch.cat([part, network.unmix(part[None])[0]]) for part in torch.split(z, group)]
    return torch.cat(parts)


_WRITE_ROWS = 16  # rows that become radiance at a time
_ASSUMED = "takes the PSF of the training tiles; if the true one is narrower, bicubic may be better"
_IDENTITY = "asnlsr identity"  # header field: hash of all that the output was made from


def upscale(
    hdr: Path,
    run: Path,
    out: Path,
    progress: bool = True,
    force: bool = False,
    psf: Path | None = None,
) -> None:
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
    force : bool
        Replace an output of another call.
    psf : Path, optional
        The point spread function of the sensor, for `physics.read_psf`, of a method that asks
        for it; by default that of the tiles of the run.

    Raises
    ------
    FileNotFoundError, ValueError
        If the scene, the run, the PSF or the output cannot be used; the message names it.
    FileExistsError
        If there is an output that this very call did not make.
    """
    run, out = Path(run), Path(out)
    network, record = load_run(run)
    scene, model = open_scene(hdr), spec(record["model"])
    _check(scene, run, record)
    check_output(scene, out)
    take_psf = getattr(network, "take_psf", None)
    assumes = take_psf is not None and psf is None
    if psf is not None:
        if take_psf is None:
            raise ValueError(f"{run}: {model.label} cannot be told a PSF; bandwise can")
        take_psf(read_psf(psf))
    bands = SceneBands(scene) if model.any_bands else BinnedScene(scene)
    size, scale = len(bands.centres_nm), int(record["scale"])
    fields = _header_fields(bands, run, record, assumes, psf)
    img, png = out.with_suffix(".img"), out.with_suffix(".png")
    shape, group = (size, scene.rows, scene.cols), size if model.bands else BANDS
    window = LARGE if model.any_bands else WINDOW
    pieces = in_pieces(network, bands, group, model.unmixes, window[0])
    blocks = partial(enlarged_rows, *pieces, shape, scale, window=window)
    with locked(img):
        mine = out.is_file() and fields[_IDENTITY].encode() in out.read_bytes()
        keep(*[out] * (not mine), beside=[img, png], force=force or mine)
        if not (mine and img.exists()):
            part = _part(out, fields[_IDENTITY])
            _write_pixels(part, img, blocks, shape, scale, window[0], progress)
            for old in (img, png):  # never beside a header that is not theirs
                old.unlink(missing_ok=True)
            with replacing(out) as new_hdr:
                # Bands of one centre apart: a channel at 1700 nm ends SWIR1 and begins SWIR2.
                same = np.diff(bands.centres_nm, prepend=0) == 0
                enlarged = (scale * scene.rows, scale * scene.cols, size)
                write_header(new_hdr, enlarged, bands.centres_nm + 1e-3 * same, **fields)
            part.replace(img)
            bands.tell_clipped()
            if assumes:
                logger.warning("%s: %s", img, _ASSUMED)
        if not png.exists():
            quick_look(open_scene(out), png)


def _check(scene: Scene, run: Path, record: dict[str, Any]) -> None:
    """Refuse a scene that does not suit the network of the run."""
    scale, degraded = record["scale"], scene.header.get("degraded by")
    if min(scene.rows, scene.cols) < LEAST:
        raise ValueError(
            f"{scene.hdr}: {scene.rows} x {scene.cols} pixels; a network needs {LEAST} a side"
        )
    if degraded not in (None, str(scale)):
        raise ValueError(
            f"{run}: enlarges by {scale}, but {scene.hdr} was degraded by {degraded}; "
            "choose another run"
        )


def _header_fields(
    bands: SceneBands, run: Path, record: dict[str, Any], assumes: bool, psf: Path | None
) -> dict[str, Any]:
    """Return what the header of the output says besides shape and wavelengths."""
    scene, scale = bands.scene, record["scale"]
    fields = resampled_fields(scene, scale, finer=True)
    assumed = f"; {_ASSUMED}" if assumes else "; takes a PSF that was given" if psf else ""
    fields["description"] = (
        f"{scene.name} enlarged by {scale} with {spec(record['model']).label} "
        f"(run {run.resolve().name}, asnlsr {version('asnlsr')}); {scene.quantity}{assumed}"
    )
    if bands.fwhm_nm is not None:
        fields["fwhm"] = [f"{value:.10g}" for value in bands.fwhm_nm]
    if len(bands.centres_nm) == scene.channels:
        fields["bbl"] = scene.usable.astype(int).tolist()
    files = [run / "weights.safetensors", scene.hdr, scene.img, *([psf] if psf else [])]
    made_from = [sha256(file) for file in files]
    identity = [made_from, record["model"], record["config"], fields, WINDOW, LARGE, OVERLAP]
    fields[_IDENTITY] = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return fields


def _part(out: Path, identity: str) -> Path:
    """Return the temporary name of the pixels; remove what calls of another identity left."""
    part = out.with_name(f".{out.stem}.{identity[:12]}.part")
    # So many digits and no more: of another output, `hr.2.hdr` beside `hr.hdr`, nothing is lost.
    for other in out.parent.glob(f".{glob.escape(out.stem)}.{'[0-9a-f]' * 12}.part"):
        if other != part:
            other.unlink()
    return part


def _write_pixels(
    part: Path, img: Path, blocks: Blocks, shape: Shape, scale: int, rows: int, progress: bool
) -> None:
    """Write the pixels of the output to ``part``, or what is missing of them."""
    # A block ends where the next row of windows begins; a half one is made again.
    starts = [start for start, _ in spans(shape[1], rows)]
    ends = [4 * scale**2 * shape[0] * shape[2] * row for row in [*starts[1:], shape[1]]]
    present = part.stat().st_size if part.exists() else 0
    check_space(img, ends[-1] - present)
    first = bisect_right(ends, present)
    if first == len(ends):
        return
    part.parent.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(ends), initial=first, unit="block", desc="upscale", disable=not progress)
    with naming(img), part.open("ab") as file, bar:
        file.truncate(ends[first - 1] if first else 0)
        try:
            for block in blocks(first):
                for z in torch.split(block, _WRITE_ROWS, 1):
                    radiance = np.moveaxis(unscale(z.numpy()), 0, -1).astype("<f4", "C")
                    if not np.isfinite(radiance).all():
                        raise ValueError(f"{img}: not all finite; train the network again")
                    file.write(radiance.data)
                file.flush()
                bar.update()
        except ValueError:  # comes of the scene: who goes on would end there again
            part.unlink()
            raise
