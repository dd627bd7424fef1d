"""One training run, from tiles to the folder that it leaves behind."""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tqdm.auto import tqdm

from asnlsr.config import AT_ONCE, PROTOCOLS, training_config
from asnlsr.models.registry import build, spec
from asnlsr.training.batches import TileDataModule
from asnlsr.training.folder import Run
from asnlsr.training.module import COLLAPSED, SuperResolutionTraining

LEAST_SIDE = 15  # low-resolution pixels, of the spatial attention (ESA) in SNLSR


class _Progress(pl.Callback):
    """One bar for the whole run, on standard error."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = len(trainer.datamodule.batches)  # type: ignore[attr-defined]
        self.bar = tqdm(
            total=steps,
            initial=trainer.global_step,
            unit="step",
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.bar.close()


def train(
    model: str,
    tiles: Path,
    split: Path,
    out: Path,
    *,
    preset: str = "demo",
    protocol: str = "blind",
    recipe: str = "warm",
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
    progress: bool = True,
    devices: int = 1,
) -> Path:
    """Train a network of the registry, or finish a run that was cut short.

    Parameters
    ----------
    model : str
        Name in `asnlsr.models.registry.MODELS`.
    tiles, split, out : Path
        Tile stores, roles of the tiles, and the run folder: `weights.safetensors`, `run.json`,
        `history.csv`, `last.ckpt`.
    preset, protocol, recipe : str
        See `asnlsr.config`.
    seed : int
        Of weights, batches and dropout; same seed and device, same weights.
    overrides : dict, optional
        Fields of `TrainingConfig`.
    devices : int
        Processes of this machine that share every batch (strategy `ddp`), one on each device;
        Lightning starts the others as copies of this program, so not from a notebook. Gradients
        are those of the whole batch, and so are the weights, within rounding, of a network
        without randomness. Not of all: dropped paths and dropout are drawn by every process for
        its own tiles, and batch normalisation, only in the discriminators, sees the whole batch
        on GPUs (SyncBatchNorm) but on CPUs, where that does not exist, the tiles of its process.

    Returns
    -------
    Path
        `out`. A finished run of the same configuration, tiles and code returns at once; one of
        other tiles or code is made again.

    Raises
    ------
    ValueError
        On an unknown name, a split or crop that does not fit the tiles, a batch that does not
        divide among the devices, or an `out` that holds another run or no run.
    """
    model_spec, at_once = spec(model), model in AT_ONCE
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    config = training_config(preset, model, recipe, overrides)
    if devices < 1 or config.batch % devices:
        raise ValueError(f"devices={devices} must divide the batch of {config.batch} tiles")
    if (config.halved or config.internal) and not model_spec.bandwise:
        raise ValueError(f"{model} does not take the settings halved and internal: bandwise does")
    run = Run(Path(out), model, config, preset, protocol, recipe, seed, Path(tiles), Path(split))
    if run.finished():
        return run.folder
    datamodule = TileDataModule(
        # what takes no steps chooses on source tiles in either protocol
        run.tiles, run.split, config, seed, "blind" if at_once else protocol,
        target=model_spec.target, mixed=recipe == "published", half=model_spec.half,
        oracle=model_spec.oracle,
    )  # fmt: skip
    least = (LEAST_SIDE if model_spec.unmixes else 1) * datamodule.batches.scale
    if config.crop < least and not at_once:
        raise ValueError(f"crop={config.crop}: {model} takes no image under {least} pixels a side")
    pl.seed_everything(seed, workers=True, verbose=False)
    settings = {name: getattr(config, name) for name in model_spec.settings}
    bands, scale = datamodule.val_lr.shape[1], datamodule.batches.scale
    network = build(model, bands=bands, scale=scale, **settings)
    if model_spec.bandwise:
        network.take_psf(datamodule)  # type: ignore[operator]
    module = SuperResolutionTraining(network, model_spec, config, seed)
    if not at_once:
        _fit(module, datamodule, run, progress, devices)
    elif hasattr(network, "fit"):
        start = time.perf_counter()
        module.network.fit(datamodule)
        module.seconds = time.perf_counter() - start
    if module.global_rank:
        return run.folder  # the first process writes
    if any(row.get("abundance_std", 1.0) < COLLAPSED for row in module.history[-1:]):
        warnings.warn(f"{out}: the abundances collapsed to a constant", stacklevel=2)
    if (protocol == "as-released" or config.best) and module.best:
        network.load_state_dict(module.best)
    device = str(module.device)
    if model_spec.bandwise:
        network.eval().cpu().fit_strength(datamodule)  # type: ignore[operator]
    run.finish(network, pd.DataFrame(module.history), module.seconds, device)
    return run.folder


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to 2 GB.

    Every step asks for the same again, and the C library of Linux hands it back in between and
    fetches it in cleared pages: a quarter of a training step of RCAM.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # malloc.h; 32 MB is the most for the second
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # not in musl
            libc.mallopt(trim_threshold, 2**31 - 1)
            libc.mallopt(mmap_threshold, 32 << 20)


def _fit(
    module: SuperResolutionTraining,
    datamodule: TileDataModule,
    run: Run,
    progress: bool,
    devices: int,
) -> None:
    run.begin()
    keep_freed_memory()
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)  # no tips
    # the name without a version counter makes every writing replace the one before
    keep = ModelCheckpoint(run.folder, filename="last", enable_version_counter=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")  # advice on loader workers
        trainer = pl.Trainer(
            accelerator="auto",
            devices=devices,
            # the warm-up leaves the weights of the super-resolution without a gradient
            strategy="auto" if devices == 1 else "ddp_find_unused_parameters_true",
            use_distributed_sampler=False,  # every process takes its part of every batch
            sync_batchnorm=torch.cuda.is_available(),
            precision=module.config.precision,  # type: ignore[arg-type]
            max_epochs=math.ceil(len(datamodule.batches) / module.config.log_every),
            reload_dataloaders_every_n_epochs=1,
            callbacks=[keep, *([_Progress()] if progress else [])],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        checkpoint = run.checkpoint if run.checkpoint.exists() else None
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
