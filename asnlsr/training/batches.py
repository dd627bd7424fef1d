"""From tiles to training batches: crops, turns, and source tiles under another light."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asnlsr.config import Experiment, TrainingConfig
from asnlsr.device import float32_products, sent
from asnlsr.models.registry import spec
from asnlsr.physics import degrade, log_scale, unscale
from asnlsr.scenes.bands import DOMAINS
from asnlsr.tiles.store import Pairs, TileSet
from asnlsr.training.leaves import dead_leaves
from asnlsr.training.warm import Relighting

# Random streams of a run, beside its seed. The numbers are in the records: they stay.
SOURCE, TARGET, MIXED, CROPS, LIGHT, BANDS, LEAVES = range(7)

PAINTED, PAINTED_SIDE = 256, 128  # at most so many images of dead leaves, and their pixels
POOL_SPREAD = 8.0  # see `Tiles.pooled`


class TrainingBatches(Dataset[dict[str, Tensor]]):
    """Batch number `step` of a run, a pure function of the seed and the step.

    So a resumed run sees what the unbroken one would have seen, and two models with the same
    seed see the same crops. Source tiles come first; `hr` holds those only.

    Parameters
    ----------
    source : Pairs
        With their truth; `lr_x2` too where `half`.
    target : Tensor or None, (m, C, h, w)
        Low resolution only: this class never holds a target high-resolution value.
    config : TrainingConfig
        Steps, batch, crop (pixels of high resolution) and changes of the tiles.
    seed : int
        Of the order of tiles, crops, turns and light.
    mixed : bool
        As published: a batch is drawn from the union of both domains. Otherwise every batch has
        `config.batch` tiles of each, so that a network sees as many source tiles with the
        target as without.
    half : bool
        Whether batches hold the truth of a progressive network's last but one stage.
    """

    def __init__(
        self,
        source: Pairs,
        target: Tensor | None,
        config: TrainingConfig,
        seed: int,
        mixed: bool,
        half: bool = False,
    ) -> None:
        self.source_lr, self.source_hr, self.target_lr = source.lr, source.hr, target
        self.config, self.seed, self.mixed, self.scale = config, seed, mixed, source.scale
        self.source_lr_x2 = source.lr_x2 if half else None
        self.relighting = None
        if config.relight or config.light:
            self.relighting = Relighting(source.lr, target, config.relight, config.light)
        self.painted = int(config.leaves * config.batch)  # tiles of a step
        self.leaves_lr: Tensor | None = None
        self.leaves_hr: Tensor | None = None
        if self.painted:
            number = min(PAINTED, self.painted * config.steps)
            rng = np.random.default_rng([seed, LEAVES])
            side = max(PAINTED_SIDE, config.crop)
            leaves = dead_leaves(rng, number, side, source.scale, source.psf)
            count = source.lr.shape[1]  # neighbouring bands are alike
            self.leaves_lr, self.leaves_hr = leaves
            self.leaf_bands = torch.arange(count) * leaves[0].shape[1] // count

    def to(self, device: torch.device) -> None:
        """Keep the tiles on a device, where batches are then made."""
        if device != self.source_lr.device:
            there = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
            vars(self).update(there)
            vars(self).pop("views", None)

    @cached_property
    def views(self) -> dict[str, list[Tensor]]:
        """Low resolution (n, C, h, w) as it would be of the scene turned by k = 0, 1, ..."""
        turns = range(1, 8 if self.config.turns else 1)
        views = {"lr": (self.source_lr, self.scale), "lr_x2": (self.source_lr_x2, 2)}
        return {
            name: [tiles, *(_degraded(self.source_hr, k, factor) for k in turns)]
            for name, (tiles, factor) in views.items()
            if tiles is not None
        }

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
            return self._draw(SOURCE, n_source, step), []
        if not self.mixed:
            source = self._draw(SOURCE, n_source, step)
            return source, self._draw(TARGET, len(self.target_lr), step)
        drawn = self._draw(MIXED, n_source + len(self.target_lr), step)
        return [i for i in drawn if i < n_source], [i - n_source for i in drawn if i >= n_source]

    def __len__(self) -> int:
        return self.config.steps + self.config.warmup_steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Return `lr` (B, C, h, w), `hr` (B_source, C, r h, r w), `domain` (B,); maybe `lr_x2`."""
        source, target = self._choose(step)
        rng = np.random.default_rng([self.seed, CROPS, step])
        r, side = self.scale, self.config.crop // self.scale
        lr, lr_x2, hr = [], [], [self.source_hr[:0, :, : r * side, : r * side]]
        for _ in range(self.painted):
            assert self.leaves_lr is not None
            assert self.leaves_hr is not None
            i = int(rng.integers(len(self.leaves_lr)))
            row, col = _corner(rng, self.leaves_lr, side)
            lr.append(_cut(self.leaves_lr[i], row, col, side, 1)[self.leaf_bands])
            hr.append(_cut(self.leaves_hr[i], row, col, side, r)[self.leaf_bands][None])
        for i in source[self.painted :]:
            k = int(rng.integers(len(self.views["lr"])))
            row, col = _corner(rng, self.source_lr, side)
            lr.append(_cut(self.views["lr"][k][i], row, col, side, 1))
            hr.append(_cut(turned(self.source_hr[i], k), row, col, side, r)[None])
            if "lr_x2" in self.views:
                lr_x2.append(_cut(self.views["lr_x2"][k][i], row, col, side, r // 2))
        for i in target:
            assert self.target_lr is not None
            lr.append(_cut(self.target_lr[i], *_corner(rng, self.target_lr, side), side, 1))
        batch = {"lr": torch.stack(lr), "hr": torch.cat(hr)}
        batch["domain"] = batch["lr"].new_zeros(len(lr), dtype=torch.int64)
        batch["domain"][len(source) :] = 1
        if lr_x2:
            batch["lr_x2"] = torch.stack(lr_x2)
        if self.relighting and step >= self.config.warmup_steps:
            rng = np.random.default_rng([self.seed, LIGHT, step])
            drawn = self.relighting.draw(rng, source, len(target))
            mix, shift = (sent(value, self.source_lr.device) for value in drawn)
            for key in batch.keys() - {"domain"}:
                n = len(batch[key])
                change = torch.einsum("bcd,bdhw->bchw", mix[:n], batch[key])
                batch[key] = change + shift[:n, :, None, None]
        return batch


def part_of(batch: dict[str, Tensor], rank: int, ranks: int) -> dict[str, Tensor]:
    """Return every `ranks`-th tile of a batch, the part of one of so many processes.

    `hr` and `lr_x2` hold the first tiles of `lr`, and still do afterwards.
    """
    return {key: value[rank::ranks] for key, value in batch.items()}


def turned(image: Tensor, k: int) -> Tensor:
    """Turn (..., h, w) by k mod 4 right angles; for k of 4 to 7, mirror it as well."""
    image = torch.rot90(image, k % 4, (-2, -1))
    return image.flip(-1) if k >= 4 else image


def _degraded(hr: Tensor, k: int, scale: int) -> Tensor:
    """Low resolution (n, C, h, w), by `scale`, of high-resolution tiles turned by k."""
    with float32_products(tf32=False):
        return torch.stack([log_scale(degrade(unscale(turned(z, k)), scale)) for z in hr])


def _cut(image: Tensor, row: int, col: int, side: int, scale: int) -> Tensor:
    """Return the part of (C, H, W) that shows a low-resolution crop, `scale` times as fine."""
    rows, cols = (slice(start * scale, (start + side) * scale) for start in (row, col))
    return image[:, rows, cols]


def _corner(rng: np.random.Generator, images: Tensor, side: int) -> tuple[int, int]:
    rows, cols = images.shape[-2:]
    return int(rng.integers(rows - side + 1)), int(rng.integers(cols - side + 1))


class Tiles(LightningDataModule):
    """Training batches and validation tiles of one run.

    Attributes
    ----------
    batches : TrainingBatches
    source, val : Pairs
        What is learned from, and validated on: under protocol `blind` source tiles, under
        `as-released` target tiles, with target truth. An oracle learns in the places of the
        source tiles, from the truth of the target range.
    both : list of Pairs
        Validation tiles of both domains where a network sees the target: low resolution only.

    Raises
    ------
    ValueError
        If a crop is larger than a tile, or a role has no tile.
    """

    def __init__(self, experiment: Experiment, tiles: TileSet) -> None:
        super().__init__()
        model, config = spec(experiment.model), experiment.config
        domain = "swir2" if model.oracle else "swir1"
        # what takes no steps chooses on source tiles in either protocol
        released = experiment.protocol == "as-released" and model.takes_steps
        self.config = config
        self.source = tiles.pairs("source_train", domain)
        self.val = tiles.pairs("val", "swir2" if released else domain)
        side = self.source.scale * self.source.lr.shape[-1]
        if config.crop > side:
            raise ValueError(
                f"crop {config.crop} is larger than the tiles of {tiles.folder} ({side}): "
                f"set crop={side} or prepare larger tiles"
            )
        self.batches = TrainingBatches(
            self.source,
            tiles.pairs("target_train", "swir2").lr if model.target else None,
            config,
            experiment.seed,
            mixed=experiment.recipe == "published",
            half=model.half,
        )
        self.both = [tiles.pairs("val", name) for name in DOMAINS if model.target]

    def _domains(self) -> list[Tensor]:
        both = self.batches.source_lr, self.batches.target_lr
        return [tiles for tiles in both if tiles is not None]

    def low_resolution(self) -> Tensor:
        """All low-resolution training tiles, source before target: (n, C, h, w)."""
        return torch.cat(self._domains())

    def pooled(self) -> Tensor:
        """All low-resolution training tiles about one common mean, their contrast enlarged.

        No endmember that starts as one of these pixels belongs to a domain, and the gap between
        the domains is small beside the spread of the endmembers.
        """
        domains = self._domains()
        means = torch.stack([tiles.mean((0, 2, 3)) for tiles in domains])[:, :, None, None]
        centred = [tiles - mean for tiles, mean in zip(domains, means, strict=True)]
        return means.mean(0) + POOL_SPREAD * torch.cat(centred)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches up to the next row of the history, from where the run stands."""
        trainer: Any = self.trainer
        self.batches.to(trainer.strategy.root_device)
        stop = min(trainer.global_step + self.config.log_every, len(self.batches))
        return DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(trainer.global_step, stop),
            collate_fn=partial(part_of, rank=trainer.global_rank, ranks=trainer.world_size),
        )
