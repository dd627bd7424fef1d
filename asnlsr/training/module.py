"""What happens at every step of training: losses, schedule, history, validation."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from asnlsr.config import TrainingConfig
from asnlsr.metrics import tile_metrics
from asnlsr.models.rcam import RCAM
from asnlsr.models.registry import ModelSpec
from asnlsr.models.snlsr import encode
from asnlsr.results.alignment import domain_distances
from asnlsr.training.losses import domain_labels, training_losses
from asnlsr.training.warmup import (
    start_contrast,
    start_stages,
    start_super_resolution,
    start_unmixing,
)

COLLAPSED = 1e-3  # abundance_std below which the abundances are uniform and learn no more


class SuperResolutionTraining(pl.LightningModule):
    """Training of one network; `history` has a row per `config.log_every` steps.

    Parameters
    ----------
    network : nn.Module
        Trained in place.
    model : ModelSpec
        Its entry in the registry: what it unmixes, freezes and aligns.
    config : TrainingConfig
        Steps, rates and starts.
    seed : int
        Of dropout and of the bands of a step; not of the weights, which the network brings.
    """

    def __init__(
        self, network: nn.Module, model: ModelSpec, config: TrainingConfig, seed: int
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.spec, self.config, self.seed = model, config, seed
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}  # weights of the best validation SSIM so far
        self.seconds = 0.0  # of training, over all resumed parts
        self._sums: dict[str, list[float]] = {}
        self._since = time.perf_counter()
        if model.frozen:
            network.encoder.requires_grad_(False)
            network.decoder.requires_grad_(False)

    @property
    def warming_up(self) -> bool:
        """Whether this step trains encoder and endmembers on the reconstruction alone."""
        return self.global_step < self.config.warmup_steps

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Adam and a cosine from lr to lr_min, `restarts` times; a constant in the warm-up."""
        c = self.config

        def factor(step: int, later: float = 1.0) -> float:
            if step < c.warmup_steps:
                return c.lr_warmup / c.lr
            phase = min((step - c.warmup_steps) / c.steps, 1.0) * c.restarts
            phase = 1.0 if phase == c.restarts else phase % 1
            floor = c.lr_min / c.lr
            return later * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * phase)))

        groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                groups[name.startswith(("encoder", "decoder"))].append(parameter)
        optimizer = torch.optim.Adam([{"params": group} for group in groups], lr=c.lr, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, [factor, partial(factor, later=c.lr_unmixing)]
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Seed dropout by the step; make the starts of recipe `warm`."""
        # So a resumed run draws what the unbroken one drew.
        seed = 1_000_003 * self.seed + self.global_step
        torch.manual_seed(seed)
        if self.config.warmup_steps and self.global_step in (0, self.config.warmup_steps):
            start = start_unmixing if self.warming_up else start_super_resolution
            start(self.network, self.trainer.datamodule.low_resolution().to(self.device))  # type: ignore[attr-defined]
        if self.config.contrast and self.global_step == 0:
            start = start_stages if isinstance(self.network, RCAM) else start_contrast
            start(self.network, self.trainer.datamodule.low_resolution().to(self.device))  # type: ignore[attr-defined]
        if self.global_rank:  # the starts are those of all processes, dropout its own
            torch.manual_seed(seed + (self.global_rank << 32))

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the sum of the losses of `losses.training_losses`."""
        n_sr = 0 if self.warming_up else len(batch["hr"])
        if self.spec.bandwise:
            bands = self._bands(batch["lr"].shape[1]).to(self.device)
            output = self.network(batch["lr"], bands)
            batch["hr"] = batch["hr"][:, bands]
        else:
            output = self.network(batch["lr"], *[n_sr] * self.spec.unmixes)
        losses = training_losses(output, batch, not self.warming_up, self.spec.align)
        share = self._share(n_sr)
        for key in losses.keys() & {"loss_sr", "loss_half"}:
            losses[key] = share * losses[key]
        log = dict(losses)
        if output.abundances is not None:
            log["abundance_std"] = output.abundances.std((2, 3)).mean()
        if "loss_domain" in losses:
            logits = output.domain_logits
            right = logits.argmax(1) == domain_labels(logits, batch["domain"])
            log["domain_accuracy"] = right.float().mean()
        for key, value in log.items():
            self._sums.setdefault(key, []).append(float(value.detach()))
        return torch.stack(list(losses.values())).sum()

    def _bands(self, count: int) -> Tensor:
        """Draw the bands of this step, the same in all processes."""
        rng = np.random.default_rng([self.seed, 5, self.global_step])
        return torch.from_numpy(rng.permutation(count)[: self.config.bands or count])

    def _share(self, tiles: int) -> float:
        """Return `tiles` over its mean over all processes: 1 in one alone.

        A batch of recipe `published` may leave more source tiles to one process than to another.
        """
        mean = self._mean(float(tiles))
        return tiles / mean if mean else 1.0

    def _mean(self, value: float) -> float:
        """Mean over all processes."""
        mine = torch.tensor(value, device=self.device)
        return float(self.trainer.strategy.reduce(mine, reduce_op="mean"))

    def on_train_epoch_end(self) -> None:
        """Close a row of the history and keep the best weights on validation."""
        self.seconds += time.perf_counter() - self._since
        row: dict[str, float] = {
            "step": self.global_step,
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        row |= {key: self._mean(sum(values) / len(values)) for key, values in self._sums.items()}
        self._sums = {}
        if "loss_sr" in row:
            row |= self._validate()
            if row["val_ssim"] >= max(past.get("val_ssim", -1.0) for past in [*self.history, row]):
                self.best = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.history.append(row)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """PSNR and SSIM of the validation tiles of the protocol's domain; distances of domains."""
        module = self.trainer.datamodule  # type: ignore[attr-defined]
        self.network.eval()
        peak = float(module.val_hr.max() - module.val_hr.min())
        rows = [
            tile_metrics(self.network(lr[None].to(self.device)).sr.cpu(), hr[None], peak)
            for lr, hr in zip(module.val_lr, module.val_hr, strict=True)
        ]
        found = {
            f"val_{m}": float(torch.cat([r[m] for r in rows]).mean()) for m in ("psnr", "ssim")
        }
        if len(module.val_lr) > 1 and module.val_domains:
            source, target = (encode(self.network, lr.to(self.device)) for lr in module.val_domains)
            found |= domain_distances(source, target)
        self.network.train()
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs besides weights and optimiser."""
        checkpoint["run"] = {"history": self.history, "best": self.best, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        for name, value in checkpoint["run"].items():
            setattr(self, name, value)
