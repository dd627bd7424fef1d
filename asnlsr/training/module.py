"""What happens at every step of training: losses, schedule, history, validation."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from asnlsr.config import Experiment
from asnlsr.device import Losses, StepGraphs
from asnlsr.metrics import psnr, ssim
from asnlsr.models.registry import spec
from asnlsr.models.snlsr import encode
from asnlsr.training.batches import Tiles, part_of
from asnlsr.training.losses import training_losses
from asnlsr.training.warm import Muon, is_matrix

DIVERGED = "the training diverged; choose a smaller lr or another seed"
COLLAPSED = 1e-3  # abundance_std below which the abundances are uniform and learn no more


class SuperResolutionTraining(pl.LightningModule):
    """Training of one network; `history` has a row per `config.log_every` steps.

    Parameters
    ----------
    network : nn.Module
        Trained in place, from the weights that it brings.
    experiment : Experiment
        Under protocol `as-released`, `best` gets the weights of the best validation SSIM.
    tiles : Tiles
        What it learns from.
    """

    def __init__(self, network: nn.Module, experiment: Experiment, tiles: Tiles) -> None:
        super().__init__()
        self.network: Any = network
        self.experiment, self.tiles = experiment, tiles
        self.spec, self.config = spec(experiment.model), experiment.config
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0  # of training, over all resumed parts
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._graphs: StepGraphs | None = None
        self._since = 0.0
        self.averaged: Any = None  # of the weights, after the warm-up
        if self.config.average:
            mean = get_ema_multi_avg_fn(self.config.average)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(network, multi_avg_fn=mean, use_buffers=True)
            self.averaged.requires_grad_(False)
        if self.spec.frozen:
            network.encoder.requires_grad_(False)
            network.decoder.requires_grad_(False)

    @property
    def trained(self) -> Any:  # noqa: ANN401
        """The network that the run ends with if it ends here."""
        averaged = self.averaged and self.averaged.n_averaged > 0
        return self.averaged.module if averaged else self.network

    @property
    def warming_up(self) -> bool:
        """Whether this step trains encoder and endmembers on the reconstruction alone."""
        return self.global_step < self.config.warmup_steps

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Adam and a cosine from lr to lr_min, `restarts` times; a constant in the warm-up."""
        c = self.config

        def factor(step: int, later: float = 1.0) -> float:
            if step < c.warmup_steps:
                return 1.0
            phase = min((step - c.warmup_steps) / c.steps, 1.0) * c.restarts
            phase = 1.0 if phase == c.restarts else phase % 1
            floor = c.lr_min / c.lr
            return later * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * phase)))

        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                unmixing = name.startswith(("encoder", "decoder"))
                matrix = c.optimizer == "muon" and name.startswith("sr.") and is_matrix(parameter)
                groups.setdefault((unmixing, matrix), []).append(parameter)
        optimizer = Muon(
            [{"params": group, "muon": matrix} for (_, matrix), group in groups.items()],
            lr=c.lr, fused=True,
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            [partial(factor, later=c.lr_unmixing if unmixing else 1.0) for unmixing, _ in groups],
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches up to the next row of the history, from where the run stands."""
        trainer, batches = self.trainer, self.tiles.batches
        batches.to(trainer.strategy.root_device)
        stop = min(self.global_step + self.config.log_every, len(batches))
        return DataLoader(
            batches,
            batch_size=None,
            sampler=range(self.global_step, stop),
            collate_fn=partial(part_of, rank=trainer.global_rank, ranks=trainer.world_size),
        )

    def on_train_start(self) -> None:
        """Make ready for graphs."""
        if self.config.graphs != "off" and self.device.type == "cuda":
            fused = self.config.graphs == "fused"
            self._graphs = StepGraphs(self._objective, self.network, fused)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Seed dropout by the step; let the network start from the tiles in recipe `warm`."""
        # So a resumed run draws what the unbroken one drew.
        seed = 1_000_003 * self.experiment.seed + self.global_step
        torch.manual_seed(seed)
        if self.config.start and self.global_step in {0, self.config.warmup_steps}:
            lr = self.tiles.low_resolution().to(self.device)
            pooled = self.config.endmembers == "pooled"
            pool = [self.tiles.pooled().to(self.device)] if pooled else []
            self.network.start(lr, self.warming_up, *pool)
        if self.global_rank:  # the starts are those of all processes, dropout its own
            torch.manual_seed(seed + (self.global_rank << 32))

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the sum of the losses of `losses.training_losses`."""
        total, log = (self._graphs or self._objective)(batch, self.warming_up)
        for key, value in log.items():  # stays on the device until the row closes
            before, count = self._sums.get(key, (value.new_zeros((), dtype=torch.float64), 0))
            self._sums[key] = before + value.detach(), count + 1
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, that of a discriminator apart: it must not rule the network."""
        if self.config.clip:
            named = list(self.network.named_parameters())
            for apart in (False, True):
                part = [p for name, p in named if name.startswith("discriminator") == apart]
                nn.utils.clip_grad_norm_(part, self.config.clip)

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ANN401
        """Average the weights."""
        if self.averaged and self.global_step > self.config.warmup_steps:
            self.averaged.update_parameters(self.network)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Compute the gradients, or take those of the graph."""
        if self._graphs:
            self._graphs.hand_over()
        else:
            super().backward(loss, *args, **kwargs)

    def _objective(self, batch: dict[str, Tensor], warming_up: bool) -> tuple[Tensor, Losses]:
        """Return the sum that is minimised, and what the history shows of it."""
        n_sr = 0 if warming_up else len(batch["hr"])
        wanted = [batch["bands"]] if "bands" in batch else [n_sr] * self.spec.unmixes
        output = self.network(batch["lr"], *wanted)
        losses = training_losses(output, batch, not warming_up, self.spec.align)
        if self.trainer.world_size > 1:
            # A batch of recipe `published` may leave more source tiles to one process.
            mean = self._mean(torch.tensor(float(n_sr)))
            for key in losses.keys() & {"loss_sr", "loss_half"}:
                losses[key] = (n_sr / mean if mean else 1.0) * losses[key]
        log = dict(losses)
        if output.abundances is not None:
            log["abundance_std"] = output.abundances.std((2, 3)).mean()
        if "loss_domain" in losses:
            right = output.domain_logits.argmax(1) == batch["domain"]
            log["domain_accuracy"] = right.float().mean()
        return torch.stack(list(losses.values())).sum(), log

    def _mean(self, value: Tensor) -> float:
        """Mean over all processes."""
        return float(self.trainer.strategy.reduce(value.to(self.device), reduce_op="mean"))

    def on_train_epoch_end(self) -> None:
        """Close a row of the history and keep the best weights on validation."""
        row: dict[str, float] = {
            "step": self.global_step,
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        row |= {key: self._mean(total / count) for key, (total, count) in self._sums.items()}
        self._sums = {}
        if odd := [key for key, value in row.items() if not math.isfinite(value)]:
            raise ValueError(f"{odd[0]} is {row[odd[0]]} at step {self.global_step}: {DIVERGED}")
        self.seconds += time.perf_counter() - self._since  # the sums have waited for the device
        if "loss_sr" in row:
            row |= self._validate()
            best = max(past.get("val_ssim", -1.0) for past in [*self.history, row])
            if self.experiment.protocol == "as-released" and row["val_ssim"] >= best:
                self.best = {k: v.clone() for k, v in self.trained.state_dict().items()}
        self.history.append(row)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """PSNR and SSIM of the validation tiles; how much the abundances of the domains overlap."""
        val = self.tiles.val
        network = self.trained.eval()
        quality = []
        for lr, hr in zip(val.lr, val.hr, strict=True):
            sr, truth = network(lr[None].to(self.device)).sr, hr[None].to(self.device)
            quality.append(torch.cat([psnr(sr, truth, val.peak), ssim(sr, truth, val.peak)]))
        found: dict[str, float] = {}
        found["val_psnr"], found["val_ssim"] = torch.stack(quality).mean(0).tolist()
        if self.tiles.both:
            means = [encode(network, pairs.lr).mean((0, 2, 3)) for pairs in self.tiles.both]
            found["overlap"] = float(torch.minimum(*means).sum())
        self.network.train()
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs besides weights and optimiser."""
        checkpoint["run"] = {"history": self.history, "best": self.best, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        for name, value in checkpoint["run"].items():
            setattr(self, name, value)
