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
from pytorch_lightning.callbacks import LambdaCallback, ModelCheckpoint
from tqdm.auto import tqdm

from asnlsr.config import Experiment
from asnlsr.device import Device, device_of, float32_products
from asnlsr.models.registry import spec
from asnlsr.tiles.store import TileSet
from asnlsr.training.batches import Tiles
from asnlsr.training.folder import RunFolder, network_of
from asnlsr.training.module import COLLAPSED, SuperResolutionTraining


def train(
    experiment: Experiment,
    tiles: TileSet,
    out: Path,
    *,
    progress: bool = True,
    devices: int = 1,
    device: Device = "auto",
) -> Path:
    """Train a network of the registry, or finish a run that was cut short.

    The generators and loggers of the calling process are afterwards as they were before.

    Parameters
    ----------
    experiment : Experiment
        What is trained, and how; same experiment, pixels and device, same weights.
    tiles : TileSet
        What it learns from.
    out : Path
        Run folder: `weights.safetensors`, `run.json`, `history.csv`, `last.ckpt`.
    progress : bool
        Show a progress bar on stderr.
    devices : int
        Processes of this machine that share every batch (strategy `ddp`), one on each device;
        Lightning starts the others as copies of this program, so not from a notebook. Gradients
        are those of the whole batch; dropout is drawn by every process for its own tiles, and
        batch normalisation sees the whole batch on GPUs only.
    device : {"auto", "cpu", "cuda"}
        `auto`: a CUDA GPU where there is one. There products are TF32 only where the experiment
        sets `precision` to "tf32", and setting `graphs` makes small networks several times
        faster (numbers: `benchmarks/README.md`).

    Returns
    -------
    Path
        `out`. A finished run of the same experiment and pixels returns at once; one of other
        pixels or another `TRAINING_VERSION` is made again.

    Raises
    ------
    ValueError
        On a split or crop that does not fit the tiles, a batch that does not divide among the
        devices, graphs on several of them, a GPU that is not there, or an `out` that holds
        another run or no run.
    """
    model, config = spec(experiment.model), experiment.config
    if config.batch % devices:
        raise ValueError(f"devices={devices} must divide the batch of {config.batch} tiles")
    if devices > 1 and config.graphs != "off":
        raise ValueError(f"devices={devices}: graphs are for one device")
    accelerator = device_of(device).type
    run = RunFolder(Path(out), experiment, tiles)
    if run.finished():
        return run.folder
    data = Tiles(experiment, tiles)
    with run.alone(), torch.random.fork_rng():
        run.begin()
        torch.manual_seed(experiment.seed)
        network: Any = network_of(run.identity())
        if hasattr(network, "take_psf"):
            network.take_psf(data.source.psf)
        module = SuperResolutionTraining(network, experiment, data)
        if model.takes_steps:
            with float32_products(tf32=config.precision == "tf32"):
                _fit(module, run, progress, accelerator, devices)
        if module.global_rank:
            return run.folder  # the first process writes
        if any(row.get("abundance_std", 1.0) < COLLAPSED for row in module.history[-1:]):
            warnings.warn(f"{out}: the abundances collapsed to a constant", stacklevel=2)
        network = module.trained
        if module.best:
            network.load_state_dict(module.best)
        used = str(module.device)
        if hasattr(network, "fit"):
            start = time.perf_counter()
            network.eval().cpu().fit(data.source, data.val)
            module.seconds += time.perf_counter() - start
        run.finish(network, pd.DataFrame(module.history), module.seconds, used)
    return run.folder


def _fit(
    module: SuperResolutionTraining, run: RunFolder, progress: bool, accelerator: str, devices: int
) -> None:
    """Take the training steps, from the last checkpoint on."""
    precision, steps = module.config.precision, len(module.tiles.batches)
    told = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = told.level
    told.setLevel(logging.WARNING)  # no tips
    # the name without a version counter makes every writing replace the one before
    keep = ModelCheckpoint(run.folder, filename="last", enable_version_counter=False)
    shown = LambdaCallback(
        on_train_start=lambda trainer, _: bar.update(trainer.global_step),
        on_train_batch_end=lambda *_: bar.update(),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")  # advice on loader workers
        warnings.filterwarnings("ignore", "The `srun` command is available")
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            # the warm-up leaves the weights of the super-resolution without a gradient
            strategy="auto" if devices == 1 else "ddp_find_unused_parameters_true",
            use_distributed_sampler=False,  # every process takes its part of every batch
            sync_batchnorm=accelerator == "cuda" and devices > 1,
            precision="32-true" if precision == "tf32" else precision,
            max_epochs=math.ceil(steps / module.config.log_every),
            reload_dataloaders_every_n_epochs=1,
            callbacks=[keep, shown],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        quiet = not (progress and trainer.is_global_zero)
        bar = tqdm(total=steps, unit="step", desc=run.folder.name, disable=quiet)
        try:
            trainer.fit(module, ckpt_path=run.whole_checkpoint(), weights_only=True)
        finally:
            bar.close()
            told.setLevel(level)


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
