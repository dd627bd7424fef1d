"""The simulated `demo` tiles in one compact file, for a machine without their store.

z in steps of 1/8192 (a standard error of 3.5e-5, where the best networks are wrong by
1e-2), each band as the difference from the one before, xz. Only what the benchmark reads.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from asnlsr.tiles.store import TileSet

STEPS = 8192  # of z from 0 to 1
NEEDED = {
    ("source_train", "swir1"): ("lr", "hr"),
    ("target_train", "swir2"): ("lr",),
    ("val", "swir1"): ("lr", "hr"),
    ("val", "swir2"): ("lr",),
    ("test", "swir2"): ("lr", "hr"),
}


def export(tiles: TileSet, out: Path, test: int) -> None:
    """Write what is needed, of every `test`-th test tile only."""
    fields, parts = [], []
    for (role, domain), names in NEEDED.items():
        pairs = tiles.pairs(role, domain)
        some = slice(None, None, test if role == "test" else 1)
        field = {
            "role": role, "domain": domain, "ids": pairs.ids[some], "psf": pairs.psf.tolist(),
            "border": pairs.border, "scale": pairs.scale, "peak": pairs.peak,
            "wavelength_nm": pairs.wavelength_nm.tolist(), "shapes": {},
        }  # fmt: skip
        for name in names:
            z = np.rint(getattr(pairs, name)[some].numpy() * STEPS).astype(np.int16)
            field["shapes"][name] = z.shape
            steps = np.diff(z, axis=1, prepend=np.zeros_like(z[:, :1]))
            low = (steps & 255).astype(np.uint8)  # the two bytes apart: the high one is near 0
            parts += [low.tobytes(), (steps >> 8).astype(np.int8).tobytes()]
        fields.append(field)
    head = json.dumps(fields).encode()
    body = b"".join(parts)
    Path(out).write_bytes(lzma.compress(len(head).to_bytes(8, "little") + head + body, preset=1))


@dataclass
class MemoryPairs:
    """As `asnlsr.tiles.store.Pairs`, in memory."""

    lr: torch.Tensor
    hr: torch.Tensor
    psf: np.ndarray
    border: str
    wavelength_nm: np.ndarray
    ids: list[str]
    scale: int
    peak: float

    def __len__(self) -> int:
        return len(self.ids)


class MemoryTiles:
    """As `asnlsr.tiles.store.TileSet`, from the compact file."""

    def __init__(self, path: Path) -> None:
        self.folder = self.split = Path(path)
        self.split_sha256 = "of the compact file"

    @cached_property
    def pixels_sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.folder.read_bytes()).hexdigest()

    @cached_property
    def _pairs(self) -> dict[tuple[str, str], MemoryPairs]:
        data = lzma.decompress(self.folder.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        found = {}
        for field in json.loads(data[8:start]):
            z = {}
            for name, shape in field.pop("shapes").items():
                count = int(np.prod(shape))
                low = np.frombuffer(data, np.uint8, count, start).astype(np.int16)
                high = np.frombuffer(data, np.int8, count, start + count).astype(np.int16)
                start += 2 * count
                steps = (low + 256 * high).reshape(shape)
                whole = np.cumsum(steps, 1, dtype=np.int16).astype(np.float32) / STEPS
                z[name] = torch.from_numpy(whole)
            key = field.pop("role"), field.pop("domain")
            psf, wavelength_nm = (np.array(field.pop(name)) for name in ("psf", "wavelength_nm"))
            truth = z.get("hr", z["lr"])
            found[key] = MemoryPairs(z["lr"], truth, psf, wavelength_nm=wavelength_nm, **field)
        return found

    def pairs(self, role: str, domain: str) -> MemoryPairs:
        """Return the tiles of a role in a domain."""
        return self._pairs[role, domain]


def check(tiles: TileSet, path: Path) -> float:
    """Largest difference in z between the file and the store."""
    found = MemoryTiles(path)
    worst = 0.0
    for (role, domain), names in NEEDED.items():
        truth, stored = tiles.pairs(role, domain), found.pairs(role, domain)
        places = [truth.ids.index(name) for name in stored.ids]
        for name in names:
            apart = (getattr(truth, name)[places] - getattr(stored, name)).abs().max()
            worst = max(worst, float(apart))
    return worst
