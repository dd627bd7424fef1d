"""From tiles to training batches: crops, turns, and source tiles under another light."""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from asnlsr.config import Experiment
from asnlsr.device import float32_products, sent
from asnlsr.models.registry import spec
from asnlsr.physics import degrade, log_scale, unscale
from asnlsr.scenes.bands import DOMAINS
from asnlsr.tiles.store import Pairs, TileSet
from asnlsr.training.warm import Relighting, dead_leaves

# Random streams of a run, beside its seed. The numbers are in the records: they stay.
SOURCE, TARGET, MIXED, CROPS, LIGHT, BANDS, LEAVES = range(7)

PAINTED, PAINTED_SIDE = 256, 128  # at most so many images of dead leaves, and their pixels
LEAST_SIDE = 15  # low-resolution pixels, of the spatial attention (ESA) in SNLSR
POOL_SPREAD = 8.0  # see `Tiles.pooled`


class TrainingBatches(Dataset[dict[str, Tensor]]):
    """Batch number `step` of a run, a pure function of the seed and the step.

    So a resumed run sees what the unbroken one would have seen, and two models with the same
    seed see the same crops. Source tiles come first; `hr` holds those only.

    Parameters
    ----------
    source : Pairs
        With their truth; `lr_x2` too where a network learns half of the enlargement by itself.
    target : Tensor or None, (m, C, h, w)
        Low resolution only: this class never holds a target high-resolution value.
    experiment : Experiment
        In recipe `published` a batch is drawn from the union of both domains. Otherwise every
        batch has `config.batch` tiles of each, so that a network sees as many source tiles with
        the target as without.
    """

    def __init__(self, source: Pairs, target: Tensor | None, experiment: Experiment) -> None:
        config, seed = experiment.config, experiment.seed
        self.source_lr, self.source_hr = source.lr, source.hr
        self.source_lr_x2 = source.lr_x2 if spec(experiment.model).half else None
        self.target_lr = source.lr[:0] if target is None else target
        self.config, self.seed, self.scale = config, seed, source.scale
        self.mixed = experiment.recipe == "published" and target is not None
        self.of_some_bands = spec(experiment.model).bands > 0
        self.relighting = None
        if config.relight or config.light:
            self.relighting = Relighting(source.lr, target, config.relight, config.light)
        self.painted = int(config.leaves * config.batch)  # tiles of a step
        if self.painted:
            number, side = min(PAINTED, self.painted * config.steps), max(PAINTED_SIDE, config.crop)
            rng = np.random.default_rng([seed, LEAVES])
            leaves = dead_leaves(rng, number, side, source.scale, source.psf)
            self.leaves_lr, self.leaves_hr = leaves
            count = source.lr.shape[1]  # neighbouring bands are alike
            self.leaf_bands = torch.arange(count) * self.leaves_lr.shape[1] // count

    def to(self, device: torch.device) -> None:
        """Keep the tiles on a device, where batches are then made."""
        if device != self.source_lr.device:
            there = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
            vars(self).update(there)
            vars(self).pop("views", None)

    @cached_property
    def views(self) -> list[list[Tensor]]:
        """`lr`, and where wanted `lr_x2`, of the scene turned by k = 0, 1, ..., 7."""
        as_seen = [tiles for tiles in (self.source_lr, self.source_lr_x2) if tiles is not None]
        scales = (self.scale, 2)[: len(as_seen)]
        turns = range(1, 8 if self.config.turns else 1)
        return [as_seen, *([_degraded(self.source_hr, k, r) for r in scales] for k in turns)]

    def _draw(self, stream: int, n: int, step: int) -> list[int]:
        """Return the tiles of batch `step` in an endless row of shuffled passes over n tiles."""
        places = range(step * self.config.batch, (step + 1) * self.config.batch)
        orders = {
            epoch: np.random.default_rng([self.seed, stream, epoch]).permutation(n)
            for epoch in {place // n for place in places}
        }
        return [int(orders[place // n][place % n]) for place in places]

    def _choose(self, step: int) -> tuple[list[int], list[int]]:
        """Return the numbers of the source and of the target tiles of a batch."""
        sources, targets = len(self.source_lr), len(self.target_lr)
        if self.mixed:
            drawn = self._draw(MIXED, sources + targets, step)
            return [i for i in drawn if i < sources], [i - sources for i in drawn if i >= sources]
        of_target = self._draw(TARGET, targets, step) if targets else []
        return self._draw(SOURCE, sources, step), of_target

    def __len__(self) -> int:
        return self.config.steps + self.config.warmup_steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Return `lr` (B, C, h, w), `hr` (B_source, C, r h, r w) and `domain` (B,).

        For some networks also `lr_x2` (B_source, C, r h / 2, r w / 2), or `bands`, the numbers
        of those that `hr` holds.
        """
        source, target = self._choose(step)
        rng = np.random.default_rng([self.seed, CROPS, step])
        crop = partial(_crops, rng, self.config.crop // self.scale)
        shown = []  # of each source tile: lr, hr and, where wanted, lr_x2
        for _ in range(self.painted):
            i = int(rng.integers(len(self.leaves_lr)))
            images = crop(self.leaves_lr[i], self.leaves_hr[i])
            shown.append([image[self.leaf_bands] for image in images])
        for i in source[self.painted :]:
            k = int(rng.integers(len(self.views)))
            lr, *half = (tiles[i] for tiles in self.views[k])
            shown.append(crop(lr, turned(self.source_hr[i], k), *half))
        of_target = [crop(self.target_lr[i])[0] for i in target]
        batch = {
            "lr": torch.stack([*(images[0] for images in shown), *of_target]),
            "hr": self.source_hr[:0, :, : self.config.crop, : self.config.crop],
        }
        for key, each in zip(("hr", "lr_x2"), [*zip(*shown, strict=True)][1:], strict=False):
            batch[key] = torch.stack(each)
        batch["domain"] = batch["lr"].new_zeros(len(batch["lr"]), dtype=torch.int64)
        batch["domain"][len(shown) :] = 1
        if self.relighting and step >= self.config.warmup_steps:
            rng = np.random.default_rng([self.seed, LIGHT, step])
            drawn = self.relighting.draw(rng, source, len(target))
            mix, shift = (sent(value, self.source_lr.device) for value in drawn)
            for key in batch.keys() - {"domain"}:
                n = len(batch[key])
                change = torch.einsum("bcd,bdhw->bchw", mix[:n], batch[key])
                batch[key] = change + shift[:n, :, None, None]
        if self.of_some_bands:
            rng = np.random.default_rng([self.seed, BANDS, step])
            count = self.source_lr.shape[1]
            bands = torch.from_numpy(rng.permutation(count)[: self.config.bands or count])
            batch["bands"] = sent(bands, self.source_lr.device)
            batch["hr"] = batch["hr"][:, batch["bands"]]
        return batch


def part_of(batch: dict[str, Tensor], rank: int, ranks: int) -> dict[str, Tensor]:
    """Return every `ranks`-th tile of a batch, the part of one of so many processes.

    `hr` and `lr_x2` hold the first tiles of `lr`, and still do afterwards.
    """
    return {key: v if key == "bands" else v[rank::ranks] for key, v in batch.items()}


def turned(image: Tensor, k: int) -> Tensor:
    """Turn (..., h, w) by k mod 4 right angles; for k of 4 to 7, mirror it as well."""
    image = torch.rot90(image, k % 4, (-2, -1))
    return image.flip(-1) if k >= 4 else image


def _degraded(hr: Tensor, k: int, scale: int) -> Tensor:
    """Low resolution (n, C, h, w), by `scale`, of high-resolution tiles turned by k."""
    with float32_products(tf32=False):
        return torch.stack([log_scale(degrade(unscale(turned(z, k)), scale)) for z in hr])


def _crops(rng: np.random.Generator, side: int, *images: Tensor) -> list[Tensor]:
    """Cut one random place out of images of a tile, `side` pixels of the first, the coarsest."""
    rows, cols = images[0].shape[-2:]
    row, col = int(rng.integers(rows - side + 1)), int(rng.integers(cols - side + 1))
    crops = []
    for image in images:
        r = image.shape[-1] // cols
        crops.append(image[:, r * row : r * (row + side), r * col : r * (col + side)])
    return crops


class Tiles:
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
        If a crop is larger than a tile or too small for the network, or a role has no tile.
    """

    def __init__(self, experiment: Experiment, tiles: TileSet) -> None:
        model, config = spec(experiment.model), experiment.config
        domain = "swir2" if model.oracle else "swir1"
        # what takes no steps chooses on source tiles in either protocol
        released = experiment.protocol == "as-released" and model.takes_steps
        self.source = tiles.pairs("source_train", domain)
        self.val = tiles.pairs("val", "swir2" if released else domain)
        least = (LEAST_SIDE if model.unmixes else 1) * self.source.scale
        most = self.source.scale * self.source.lr.shape[-1]
        if model.takes_steps and not least <= config.crop <= most:
            raise ValueError(
                f"crop={config.crop}: {experiment.model} needs {least} pixels a side or more, and "
                f"the tiles of {tiles.folder} have {most}"
            )
        target = tiles.pairs("target_train", "swir2").lr if model.target else None
        self.batches = TrainingBatches(self.source, target, experiment)
        self.both = [tiles.pairs("val", name) for name in DOMAINS if model.target]

    def low_resolution(self) -> Tensor:
        """All low-resolution training tiles, source before target: (n, C, h, w)."""
        return torch.cat([self.batches.source_lr, self.batches.target_lr])

    def pooled(self) -> Tensor:
        """All low-resolution training tiles about one common mean, their contrast enlarged.

        No endmember that starts as one of these pixels belongs to a domain, and the gap between
        the domains is small beside the spread of the endmembers.
        """
        domains = [t for t in (self.batches.source_lr, self.batches.target_lr) if len(t)]
        means = [tiles.mean((0, 2, 3))[:, None, None] for tiles in domains]
        centred = [tiles - mean for tiles, mean in zip(domains, means, strict=True)]
        return torch.stack(means).mean(0) + POOL_SPREAD * torch.cat(centred)
