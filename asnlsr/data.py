"""From tile stores to training batches: scaling, roles, crops."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asnlsr.config import TrainingConfig
from asnlsr.splits import read_split
from asnlsr.tiles import open_tiles, tile_ids

FLOOR, TOP = 1e-4, 2.0  # radiance, W m-2 sr-1 nm-1, that becomes z = 0 and z = 1
_SPAN = float(np.log(TOP) - np.log(FLOOR))

Array = TypeVar("Array", Tensor, NDArray[np.float32])


def log_scale(radiance: Array) -> Array:
    """Return z = (ln max(x, 1e-4) - ln 1e-4) / (ln 2 - ln 1e-4) of radiance of any shape."""
    if isinstance(radiance, Tensor):
        return (radiance.clamp(min=FLOOR).log() - float(np.log(FLOOR))) / _SPAN
    z: Array = ((np.log(np.maximum(radiance, FLOOR)) - np.log(FLOOR)) / _SPAN).astype(np.float32)
    return z


def unscale(z: Array) -> Array:
    """Return the radiance of z, the inverse of `log_scale` above its floor."""
    if isinstance(z, Tensor):
        return (z * _SPAN + float(np.log(FLOOR))).exp()
    radiance: Array = np.exp(z * _SPAN + np.log(FLOOR)).astype(np.float32)
    return radiance


def select(tiles: Path, domain: str, ids: list[str]) -> xr.Dataset:
    """Open the tiles `ids` of a domain, lazily and in this order."""
    store = open_tiles(tiles, domain)
    position = {name: n for n, name in enumerate(tile_ids(store))}
    return store.isel(tile=[position[name] for name in ids])


def load_z(store: xr.Dataset, field: str) -> Tensor:
    """Read `hr`, `lr` or `lr_x2` of all tiles as normalised log radiance (n, C, h, w)."""
    return torch.from_numpy(log_scale(store[field].to_numpy()))


class TrainingBatches(Dataset[dict[str, Tensor]]):
    """Batch number `step` of a run, a pure function of the seed and the step.

    So a resumed run sees what the unbroken one would have seen, and two models with the same
    seed see the same crops. Source tiles come first; `hr` holds those only.

    Parameters
    ----------
    source_lr, source_hr : Tensor, (n, C, h, w) and (n, C, r h, r w)
    target_lr : Tensor or None, (m, C, h, w)
        Low resolution only: this class never holds a target high-resolution value.
    mixed : bool
        As published: a batch is drawn from the union of both domains. Otherwise every batch has
        `config.batch` tiles of each, so that a network sees as many source tiles with the
        target as without.
    source_x2 : Tensor, (n, C, r h / 2, r w / 2), optional
        Source tiles degraded by 2, the truth of a progressive network's last but one stage.
    """

    def __init__(
        self,
        source_lr: Tensor,
        source_hr: Tensor,
        target_lr: Tensor | None,
        config: TrainingConfig,
        seed: int,
        mixed: bool,
        source_x2: Tensor | None = None,
    ) -> None:
        self.source_x2 = source_x2
        self.source_lr, self.source_hr, self.target_lr = source_lr, source_hr, target_lr
        self.config, self.seed, self.mixed = config, seed, mixed
        self.scale = source_hr.shape[-1] // source_lr.shape[-1]
        self.source_mean = source_lr.mean((2, 3))  # (n, C)
        self.target_mean = target_lr.mean((2, 3)) if target_lr is not None else None

    def _draw(self, stream: int, n: int, step: int) -> list[int]:
        """Return the tiles of batch `step` in an endless row of shuffled passes over n tiles."""
        places = range(step * self.config.batch, (step + 1) * self.config.batch)
        orders = {
            epoch: np.random.default_rng([self.seed, stream, epoch]).permutation(n)
            for epoch in {place // n for place in places}
        }
        return [int(orders[place // n][place % n]) for place in places]

    def _choose(self, step: int) -> tuple[list[int], list[int]]:
        n_source = len(self.source_lr)
        if self.target_lr is None:
            return self._draw(0, n_source, step), []
        if not self.mixed:
            return self._draw(0, n_source, step), self._draw(1, len(self.target_lr), step)
        drawn = self._draw(2, n_source + len(self.target_lr), step)
        return [i for i in drawn if i < n_source], [i - n_source for i in drawn if i >= n_source]

    def _relight(self, source: list[int], step: int) -> Tensor:
        """Return what is added to z of source tiles, at both resolutions: (n, C, 1, 1).

        In log radiance another light is a sum. A tile goes a random share of the way to the
        mean spectrum of a target tile, so that the network learns detail that does not depend
        on the spectrum under it; then it gets brighter or darker as a whole. Not in the
        warm-up, where the materials are learnt as they are.
        """
        if step < self.config.warmup_steps:
            return torch.zeros(len(source), 1, 1, 1)
        rng = np.random.default_rng([self.seed, 4, step])
        light = torch.from_numpy(rng.normal(0, self.config.light, (len(source), 1)))
        if self.target_mean is not None:
            share = self.config.relight * torch.from_numpy(rng.random((len(source), 1)))
            goal = torch.from_numpy(rng.integers(len(self.target_mean), size=len(source)))
            light = light + share * (self.target_mean[goal] - self.source_mean[source])
        return light[:, :, None, None].float().expand(-1, self.source_lr.shape[1], -1, -1)

    def __len__(self) -> int:
        return self.config.steps + self.config.warmup_steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Return `lr` (B, C, h, w), `hr` (B_source, C, r h, r w), `domain` (B,); maybe `lr_x2`."""
        source, target = self._choose(step)
        rng = np.random.default_rng([self.seed, 3, step])
        side = self.config.crop // self.scale
        lr, hr, lr_x2 = [], [], []
        for i, light in zip(source, self._relight(source, step), strict=True):
            row, col = _corner(rng, self.source_lr, side)
            lr.append(_cut(self.source_lr[i], row, col, side, 1) + light)
            if self.source_x2 is not None:
                lr_x2.append(_cut(self.source_x2[i], row, col, side, self.scale // 2) + light)
            hr.append(_cut(self.source_hr[i], row, col, side, self.scale) + light)
        for i in target:
            assert self.target_lr is not None
            row, col = _corner(rng, self.target_lr, side)
            lr.append(_cut(self.target_lr[i], row, col, side, 1))
        batch = {
            "lr": torch.stack(lr),
            "hr": torch.stack(hr) if hr else self.source_hr[:0],
            "domain": torch.tensor([0] * len(source) + [1] * len(target)),
        }
        return batch | ({"lr_x2": torch.stack(lr_x2)} if lr_x2 else {})


def _cut(image: Tensor, row: int, col: int, side: int, scale: int) -> Tensor:
    """Return the part of (C, H, W) that shows a low-resolution crop, `scale` times as fine."""
    rows, cols = (slice(start * scale, (start + side) * scale) for start in (row, col))
    return image[:, rows, cols]


def _corner(rng: np.random.Generator, images: Tensor, side: int) -> tuple[int, int]:
    rows, cols = images.shape[-2:]
    return int(rng.integers(rows - side + 1)), int(rng.integers(cols - side + 1))


class TileDataModule(LightningDataModule):
    """Training batches and validation tiles of one run.

    Parameters
    ----------
    tiles : Path
        Folder of the two tile stores.
    split : Path
        JSON file of roles.
    config : TrainingConfig
    protocol : str
        `blind` validates on source tiles; `as-released` on target tiles, with target truth.
    target : bool
        Whether low-resolution target tiles enter the training.
    half : bool
        Whether source tiles degraded by 2 do.

    Raises
    ------
    ValueError
        If a crop is larger than a tile, or the split names absent tiles.
    """

    def __init__(
        self,
        tiles: Path,
        split: Path,
        config: TrainingConfig,
        seed: int,
        protocol: str,
        target: bool,
        mixed: bool,
        half: bool = False,
    ) -> None:
        super().__init__()
        roles = read_split(split, tiles)
        source = select(tiles, "swir1", roles["source_train"])
        val = select(tiles, "swir1" if protocol == "blind" else "swir2", roles["val"])
        if config.crop > source.sizes["y"]:
            raise ValueError(
                f"crop {config.crop} is larger than the tiles of {tiles} ({source.sizes['y']}): "
                f"set crop={source.sizes['y']} or prepare larger tiles"
            )
        self.config = config
        self.batches = TrainingBatches(
            load_z(source, "lr"),
            load_z(source, "hr"),
            load_z(select(tiles, "swir2", roles["target_train"]), "lr") if target else None,
            config,
            seed,
            mixed,
            load_z(source, "lr_x2") if half else None,
        )
        self.val_lr, self.val_hr = load_z(val, "lr"), load_z(val, "hr")

    def low_resolution(self) -> Tensor:
        """All low-resolution training tiles, source before target: (n, C, h, w)."""
        target = self.batches.target_lr
        source = self.batches.source_lr
        return source if target is None else torch.cat([source, target])

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches up to the next row of the history, from where the run stands."""
        start = self.trainer.global_step if self.trainer else 0
        stop = min(start + self.config.log_every, len(self.batches))
        return DataLoader(self.batches, batch_size=None, sampler=range(start, stop))
