"""Recipe `warm`: source tiles under another light, with the colours of the target. Ours.

In log radiance another illumination is a sum and another contrast a product. A network that has
seen its source tiles with many spectra learns detail that does not depend on the spectrum, which
is what it needs where the spectrum is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from asnlsr.config import TrainingConfig
from asnlsr.physics import degrade, log_scale, unscale
from asnlsr.scenes.bands import DOMAINS
from asnlsr.tiles.store import load_z, read_split, select

RIDGE = 1e-4  # of the source contrast: keeps the noise of its weakest components from growing


class Relighting:
    """Random spectral changes of training tiles.

    Parameters
    ----------
    source_lr : Tensor, (n, C, h, w)
        Normalised log radiance.
    target_lr : Tensor or None, (m, C, h, w)
        None: there is nothing to go towards, and only the light changes.
    share : float
        Largest share of the way from a source tile to the spectra of a target tile.
    light : float
        Standard deviation, in z, of the coefficients of a random parabola over the bands.
    """

    def __init__(
        self, source_lr: Tensor, target_lr: Tensor | None, share: float, light: float
    ) -> None:
        self.share, self.light = share, light
        bands = source_lr.shape[1]
        self.terms = np.polynomial.legendre.legvander(np.linspace(-1, 1, bands), 2).T
        self.source_mean = source_lr.mean((2, 3))  # (n, C)
        self.matching: Tensor | None = None
        if target_lr is not None:
            self.target_mean = target_lr.mean((2, 3))  # (m, C)
            self.matching = transport(contrast(source_lr), contrast(target_lr))

    def draw(
        self, rng: np.random.Generator, source: list[int], targets: int
    ) -> tuple[Tensor, Tensor]:
        """Draw a change z -> `mix` z + `shift` of the spectra of each tile of a batch.

        Every tile gets another light; a source tile also goes a random share of the way to the
        contrast of the target and to the mean spectrum of one of its tiles.

        Returns
        -------
        mix : Tensor, (B, C, C)
        shift : Tensor, (B, C)
        """
        tiles = len(source) + targets
        mix = torch.eye(self.terms.shape[1]).repeat(tiles, 1, 1)
        light = rng.normal(0, self.light, (tiles, len(self.terms))) @ self.terms
        shift = torch.from_numpy(light).float()
        if self.matching is not None and source:
            n = len(source)
            share = self.share * torch.from_numpy(rng.random((n, 1))).float()
            goal = torch.from_numpy(rng.integers(len(self.target_mean), size=n))
            mix[:n] = torch.lerp(mix[:n], self.matching, share[:, :, None])
            mean = self.source_mean[source]
            shift[:n] += torch.lerp(mean, self.target_mean[goal], share)
            shift[:n] -= torch.einsum("ncd,nd->nc", mix[:n], mean)
        return mix, shift


def contrast(tiles: Tensor) -> Tensor:
    """Covariance (C, C) of (n, C, h, w) about the mean of each tile, in double precision."""
    centred = (tiles - tiles.mean((2, 3), keepdim=True)).transpose(0, 1).flatten(1).double()
    return centred @ centred.T / centred.shape[1]


def transport(source: Tensor, target: Tensor) -> Tensor:
    """Matrix (C, C) of least change that turns covariance `source` into covariance `target`.

    The optimal transport between two normal distributions, as used for the transfer of colours
    (Pitié & Kokaram 2007, equation 11), both covariances with a small ridge.
    """
    ridge = RIDGE * source.trace() * torch.eye(len(source)).to(source)
    root, back = _power(source + ridge, 0.5), _power(source + ridge, -0.5)
    return (back @ _power(root @ (target + ridge) @ root, 0.5) @ back).float()


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, axes = torch.linalg.eigh(matrix)
    power: Tensor = (axes * values.clamp(min=1e-12) ** exponent) @ axes.T
    return power


class TrainingBatches(Dataset[dict[str, Tensor]]):
    """Batch number `step` of a run, a pure function of the seed and the step.

    So a resumed run sees what the unbroken one would have seen, and two models with the same
    seed see the same crops. Source tiles come first; `hr` holds those only.

    Parameters
    ----------
    source_lr, source_hr : Tensor, (n, C, h, w) and (n, C, r h, r w)
    target_lr : Tensor or None, (m, C, h, w)
        Low resolution only: this class never holds a target high-resolution value.
    config : TrainingConfig
        Steps, batch, crop (pixels of high resolution) and changes of the tiles.
    seed : int
        Of the order of tiles, crops, turns and light.
    mixed : bool
        As published: a batch is drawn from the union of both domains. Otherwise every batch has
        `config.batch` tiles of each, so that a network sees as many source tiles with the
        target as without.
    source_x2 : Tensor, (n, C, r h / 2, r w / 2), optional
        Source tiles degraded by 2, the truth of a progressive network's last but one stage.
    smaller : sequence of (float, Tensor)
        Shares of the steps, and the images (n, C, H, W) that are the whole truth of such a step
        in place of source tiles: scenes seen from farther away.
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
        smaller: Sequence[tuple[float, Tensor]] = (),
    ) -> None:
        self.source_lr, self.source_hr, self.target_lr = source_lr, source_hr, target_lr
        self.config, self.seed, self.mixed = config, seed, mixed
        self.scale = source_hr.shape[-1] // source_lr.shape[-1]
        self.relighting = None
        if config.relight or config.light:
            self.relighting = Relighting(source_lr, target_lr, config.relight, config.light)
        # Low resolution as it would be of the scene turned by k = 0, 1, ...
        turns = range(1, 8) if config.turns else ()
        self.views = [source_lr, *(_degraded(source_hr, k, self.scale) for k in turns)]
        self.views_x2: list[Tensor] = []
        if source_x2 is not None:
            self.views_x2 = [source_x2, *(_degraded(source_hr, k, 2) for k in turns)]
        self.smaller = [(share, hr) for share, hr in smaller if share]

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

    def __len__(self) -> int:
        return self.config.steps + self.config.warmup_steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        """Return `lr` (B, C, h, w), `hr` (B_source, C, r h, r w), `domain` (B,); maybe `lr_x2`."""
        chance = np.random.default_rng([self.seed, 6, step]).random() if self.smaller else 0.0
        for share, images in self.smaller:
            if chance < share:
                return self._pyramid(images, step)
            chance -= share
        source, target = self._choose(step)
        rng = np.random.default_rng([self.seed, 3, step])
        r, side = self.scale, self.config.crop // self.scale
        lr, lr_x2, hr = [], [], [self.source_hr[:0, :, : r * side, : r * side]]
        for i in source:
            k = int(rng.integers(len(self.views)))
            row, col = _corner(rng, self.source_lr, side)
            lr.append(_cut(self.views[k][i], row, col, side, 1))
            hr.append(_cut(turned(self.source_hr[i], k), row, col, side, r)[None])
            if self.views_x2:
                lr_x2.append(_cut(self.views_x2[k][i], row, col, side, r // 2))
        for i in target:
            assert self.target_lr is not None
            row, col = _corner(rng, self.target_lr, side)
            lr.append(_cut(self.target_lr[i], row, col, side, 1))
        batch = {
            "lr": torch.stack(lr),
            "hr": torch.cat(hr),
            "domain": torch.tensor([0] * len(source) + [1] * len(target)),
        }
        if lr_x2:
            batch["lr_x2"] = torch.stack(lr_x2)
        if self.relighting and step >= self.config.warmup_steps:
            rng = np.random.default_rng([self.seed, 4, step])
            mix, shift = self.relighting.draw(rng, source, len(target))
            for key in batch.keys() - {"domain"}:
                n = len(batch[key])
                change = torch.einsum("bcd,bdhw->bchw", mix[:n], batch[key])
                batch[key] = change + shift[:n, :, None, None]
        return batch

    def _pyramid(self, images: Tensor, step: int) -> dict[str, Tensor]:
        """Batch of whole images, turned, and what the known blur makes of them."""
        turns = np.random.default_rng([self.seed, 7, step]).integers(8, size=self.config.batch)
        chosen = self._draw(8, len(images), step)
        hr = torch.stack([turned(images[i], int(k)) for i, k in zip(chosen, turns, strict=True)])
        lr = log_scale(degrade(unscale(hr), self.scale))
        return {"lr": lr, "hr": hr, "domain": torch.zeros(len(hr), dtype=torch.long)}


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
    return torch.stack([log_scale(degrade(unscale(turned(z, k)), scale)) for z in hr])


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
        As for `TrainingBatches`.
    seed : int
        As for `TrainingBatches`.
    protocol : str
        `blind` validates on source tiles; `as-released` on target tiles, with target truth.
    target : bool
        Whether low-resolution target tiles enter the training.
    mixed : bool
        As for `TrainingBatches`.
    half : bool
        Whether source tiles degraded by 2 do.
    oracle : bool
        Whether the tiles of role `target_train` in the target domain, with their truth, take the
        place of the source tiles, in training and validation.

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
        oracle: bool = False,
    ) -> None:
        super().__init__()
        roles = read_split(split, tiles)
        domain, role = ("swir2", "target_train") if oracle else ("swir1", "source_train")
        if empty := [needed for needed in (role, "val") if not roles[needed]]:
            raise ValueError(f"{split}: no tile has the role {empty[0]}")
        source = select(tiles, domain, roles[role])
        val = select(tiles, domain if protocol == "blind" else "swir2", roles["val"])
        if config.crop > source.sizes["y"]:
            raise ValueError(
                f"crop {config.crop} is larger than the tiles of {tiles} ({source.sizes['y']}): "
                f"set crop={source.sizes['y']} or prepare larger tiles"
            )
        self.config = config
        self.psf, self.border = source.attrs["psf"], source.attrs["border"]
        self.batches = TrainingBatches(
            load_z(source, "lr"),
            load_z(source, "hr"),
            load_z(select(tiles, "swir2", roles["target_train"]), "lr") if target else None,
            config,
            seed,
            mixed,
            load_z(source, "lr_x2") if half else None,
            smaller=self._smaller(source, select(tiles, "swir2", roles["target_train"])),
        )
        self.val_lr, self.val_hr = load_z(val, "lr"), load_z(val, "hr")
        # What is needed to see how alike the domains become: low resolution only.
        self.val_domains = [
            load_z(select(tiles, domain, roles["val"]), "lr") for domain in DOMAINS if target
        ]

    def _smaller(self, source: xr.Dataset, target: xr.Dataset) -> list[tuple[float, Tensor]]:
        """Source tiles at half of their size, target tiles at low resolution; only as asked."""
        found = []
        if self.config.halved:
            radiance = unscale(load_z(source, "hr"))
            found.append((self.config.halved, log_scale(F.avg_pool2d(radiance, 2))))
        if self.config.internal:
            found.append((self.config.internal, load_z(target, "lr")))
        return found

    def low_resolution(self) -> Tensor:
        """All low-resolution training tiles, source before target: (n, C, h, w)."""
        target = self.batches.target_lr
        source = self.batches.source_lr
        return source if target is None else torch.cat([source, target])

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches up to the next row of the history, from where the run stands."""
        start = self.trainer.global_step if self.trainer else 0
        stop = min(start + self.config.log_every, len(self.batches))
        rank, ranks = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        return DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(start, stop),
            collate_fn=partial(part_of, rank=rank, ranks=ranks),
        )
