"""Whether this installation is as it should be: one line for every part of it."""

from __future__ import annotations

import math
import os
import shutil
from importlib.metadata import version

import torch

from asnlsr.files import sha256, told
from asnlsr.metrics import psnr
from asnlsr.models.registry import BEST, build
from asnlsr.notebook.workspace import ROOT
from asnlsr.physics import degrade, log_scale
from asnlsr.training.folder import load_run

BOOK_GB = 5  # that the book takes on a disk


def report() -> bool:
    """Print a line for every part; return whether something is off. No fault hides another."""
    off = False
    for check in (_versions, _disk, _data, _weights, _blur, _network):
        try:
            good, text = check()
        except (ValueError, OSError) as error:
            good, text = False, f"{check.__name__[1:]}: {told(error)}"
        print("ok " if good else "OFF", text)
        off |= not good
    return off


def _versions() -> tuple[bool, str]:
    here = ", ".join(f"{name} {version(name)}" for name in ("asnlsr", "torch", "numpy", "zarr"))
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return True, f"{here}; {torch.get_num_threads()} of {os.cpu_count()} threads, {card}"


def _disk() -> tuple[bool, str]:
    free = shutil.disk_usage(ROOT).free / 1e9
    return free > BOOK_GB, f"{free:.0f} GB of disk are free, the book takes {BOOK_GB}"


def _data() -> tuple[bool, str]:
    folders = [path.parent.name for path in sorted(ROOT.glob("data/*/tiles-scene"))]
    folders += [str(path) for path in [ROOT / "data/published"] if path.is_dir()]
    return True, f"data: tiles of {', '.join(folders) or 'nothing yet, make the book'}"


def _weights() -> tuple[bool, str]:
    """Compare the reference weights with the recorded hashes."""
    folder = ROOT / "data/weights"
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    other = [name for recorded, name in lines if sha256(folder / name) != recorded]
    text = f"not as recorded: {', '.join(other)}" if other else f"{len(lines)} as recorded"
    return not other, f"reference weights: {text}"


def _blur() -> tuple[bool, str]:
    """Blur and decimate a wave; a Gaussian of variance v leaves exp(-2 (pi / period)^2 v) of it."""
    period, offset, variance = 16, 2, 6.306  # pixels; of the samples; along the columns
    wave = torch.cos(2 * math.pi * torch.arange(128) / period).expand(1, 128, 128)
    found = float(degrade(wave)[0, 16, 16])
    known = math.exp(-2 * (math.pi / period) ** 2 * variance) * math.cos(
        2 * math.pi * offset / period
    )
    return abs(found - known) < 1e-2, f"blur leaves {found:.3f} of a wave, known {known:.3f}"


@torch.no_grad()
def _network() -> tuple[bool, str]:
    """Enlarge a chequered image: the reference weights have to come nearer than bicubic."""
    steps = (torch.arange(96)[:, None] // 12 + torch.arange(96) // 8) % 3
    radiance = 0.02 * (1 + steps).expand(30, 96, 96) * torch.linspace(1, 0.3, 30)[:, None, None]
    hr, lr = log_scale(radiance)[None], log_scale(degrade(radiance))[None]
    network, _ = load_run(ROOT / "data/weights" / BEST)
    best, plain = (float(psnr(each(lr).sr, hr, 1)) for each in (network, build("bicubic")))
    return best > plain + 1, f"{BEST} {best:.1f} dB on a chequered image, bicubic {plain:.1f}"
