"""Weights after a short training of every method, against unintended change.

Who means to change what weights a run ends with raises `TRAINING_VERSION` in
`asnlsr/training/folder.py` and writes the values anew, on one thread:
`python -m tests.smoke_weights`.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from asnlsr.config import Experiment
from asnlsr.models.registry import MODELS
from asnlsr.tiles.prepare import prepare
from asnlsr.tiles.store import TileSet, make_split, write_split
from asnlsr.training.run import train

FILE = Path(__file__).with_suffix(".npz")
NETWORKS = [name for name in MODELS if name != "bicubic"]  # has no weights
EACH = 4  # values of a tensor


def short_experiment(model, **others):
    """Return the shortest training in which everything happens: `others` beside its settings."""
    settings = {"steps": 4, "log_every": 2, "batch": 2} if MODELS[model].takes_steps else {}
    if MODELS[model].unmixes and not MODELS[model].frozen:
        settings["warmup_steps"] = 4
    return Experiment(
        model, "smoke", **others | {"settings": settings | others.get("settings", {})}
    )


def short_training(model, tiles, out, **others):
    """Train on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(short_experiment(model, **others), tiles, out, progress=False)
    finally:
        torch.set_num_threads(threads)


def some_weights(run):
    """Return up to `EACH` values, evenly apart, of every tensor of a run, by name."""
    values = [
        tensor.flatten() for _, tensor in sorted(load_file(run / "weights.safetensors").items())
    ]
    some = [value[:: max(1, len(value) // EACH)][:EACH].float() for value in values]
    return torch.cat(some).numpy()


if __name__ == "__main__":
    from tests.conftest import make_scene

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = [make_scene(folder / f"scene-{k}.hdr", seed=k) for k in range(4)]
        prepare(scenes, folder / "tiles", tile=64, progress=False)
        write_split(make_split(folder / "tiles"), folder / "split.json")
        tiles = TileSet(folder / "tiles", folder / "split.json")
        weights = {
            model: some_weights(short_training(model, tiles, folder / model)) for model in NETWORKS
        }
        np.savez_compressed(FILE, **weights)
