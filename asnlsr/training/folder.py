"""The run folder: what identifies a run, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from asnlsr.config import TrainingConfig
from asnlsr.files import replacing
from asnlsr.models.registry import build, spec
from asnlsr.notebook.workspace import ROOT, sources
from asnlsr.tiles.store import open_tiles

_ASKED = ("model", "seed", "preset", "protocol", "recipe")


@dataclass(frozen=True)
class Run:
    """A run folder and the identity of the run that it holds or will hold."""

    folder: Path
    model: str
    config: TrainingConfig
    preset: str
    protocol: str
    recipe: str
    seed: int
    tiles: Path
    split: Path

    @property
    def checkpoint(self) -> Path:
        """Lightning checkpoint from which a killed run goes on."""
        return self.folder / "last.ckpt"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two runs to end with the same weights on the same device."""
        store = open_tiles(self.tiles, "swir1")
        return {
            "model": self.model,
            "preset": self.preset,
            "protocol": self.protocol,
            "recipe": self.recipe,
            "seed": self.seed,
            "config": asdict(self.config),
            "bands": store.sizes["band"],
            "scale": store.sizes["y"] // store.sizes["y_lr"],
            "tiles_sha256": tiles_hash(self.tiles),
            "split_sha256": hashlib.sha256(self.split.read_bytes()).hexdigest(),
            "code_sha256": _code_hash(),
        }

    def finished(self) -> bool:
        """Whether the folder holds this very run, complete.

        Raises
        ------
        ValueError
            If it holds a run that was asked for otherwise or is damaged, or something else.
        """
        if not (self.folder / "run.json").exists():
            there = {path.name for path in self.folder.glob("[!.]*")}
            if there and not there & {"begun.json", "weights.safetensors"}:
                raise ValueError(f"{self.folder}: no run but {min(there)}; choose another --out")
            return False
        past = self.read(self.folder)
        config = past["config"]  # of an older version it may know fewer settings
        other = [key for key in _ASKED if past.get(key) != self.identity[key]]
        other += [k for k, v in self.identity["config"].items() if config.get(k, v) != v]
        if other:
            raise ValueError(
                f"{self.folder}: holds a finished run with another {other[0]} ({past['model']}, "
                f"seed {past.get('seed')}); remove it or choose another --out"
            )
        return (self.folder / "weights.safetensors").exists() and past | self.identity == past

    def begin(self) -> None:
        """Make the folder ready; drop what a run of other code or tiles has left there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "run.json").unlink(missing_ok=True)
        begun = self.folder / "begun.json"
        identity = json.dumps(self.identity, indent=1)
        if not begun.exists() or begun.read_text() != identity:
            self.checkpoint.unlink(missing_ok=True)
            with replacing(begun) as part:
                part.write_text(identity)

    def finish(
        self, network: nn.Module, history: pd.DataFrame, seconds: float, device: str
    ) -> None:
        """Write weights, history and, last, `run.json`, which marks the run as complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "weights.safetensors") as part:
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, part)
        with replacing(self.folder / "history.csv") as part:
            history.to_csv(part, index=False)
        record = self.identity | {
            "parameters": sum(p.numel() for p in network.parameters()),
            "minutes": seconds / 60,
            "peak_memory_gb": _peak_memory(),
            "device": device,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("asnlsr", "torch", "pytorch-lightning")},
            "git_revision": _git_revision(),
            "machine": _machine(),
        }
        with replacing(self.folder / "run.json") as part:
            part.write_text(json.dumps(record, indent=1))

    @staticmethod
    def read(folder: Path) -> dict[str, Any]:
        """Return `run.json` of a finished run.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged.
        """
        path = Path(folder) / "run.json"
        if not path.exists():
            raise FileNotFoundError(f"{folder}: no finished run here (no run.json): train it first")
        with suppress(ValueError, AttributeError):
            record: dict[str, Any] = json.loads(path.read_text())
            if {"model", "config"} <= record.keys():
                return record
        raise ValueError(f"{path}: damaged; delete it and train the run again")


def _code_hash() -> str:
    """Hash of the sources that decide what weights a run ends with."""
    digest = hashlib.sha256()
    for file in sources("asnlsr.training.run"):
        digest.update((ROOT / file).read_bytes())
    return digest.hexdigest()


def tiles_hash(tiles: Path) -> str:
    """Return the hash of the recipes of both stores, which name the hashes of the scenes."""
    recipes = [open_tiles(tiles, domain).attrs for domain in ("swir1", "swir2")]
    return hashlib.sha256(json.dumps(recipes, sort_keys=True, default=str).encode()).hexdigest()


def _peak_memory() -> float:
    """Most memory (GB) that this process has held so far, with whatever else it did."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _machine() -> str:
    """Processor, number of cores and system; no name of the computer."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    processor = names[0] if names else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _git_revision() -> str:
    """Commit of the checkout, with a + where files differ from it; empty outside of git."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def load_run(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the trained network, in evaluation mode on the CPU, and its `run.json`.

    Raises
    ------
    FileNotFoundError
        If the folder holds no finished run.
    ValueError
        If the weights are damaged or do not fit the network that `run.json` names.
    """
    record = Run.read(folder)
    config = record["config"]  # of an older version it may know fewer settings
    settings = {name: config[name] for name in spec(record["model"]).settings if name in config}
    network = build(record["model"], bands=record["bands"], scale=record["scale"], **settings)
    weights = Path(folder) / "weights.safetensors"
    try:
        network.load_state_dict(load_file(weights))
    except (FileNotFoundError, SafetensorError):
        raise ValueError(f"{weights}: missing or damaged; train the run again") from None
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()[:120]
        raise ValueError(f"{weights}: do not fit {record['model']}: {first}") from None
    return network.eval(), record
