"""The run folder: what identifies a run, what it leaves behind, and the network out of it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asnlsr.config import Experiment
from asnlsr.device import Device, device_of
from asnlsr.files import locked, replacing
from asnlsr.models.registry import build, spec
from asnlsr.tiles.store import TileSet

# Raised by who changes what weights a run ends with; a test compares weights with stored ones.
TRAINING_VERSION = 3


@dataclass(frozen=True)
class RunFolder:
    """A run folder and the identity of the run that it holds or will hold."""

    folder: Path
    experiment: Experiment
    tiles: TileSet

    @property
    def checkpoint(self) -> Path:
        """Lightning checkpoint from which a killed run goes on."""
        return self.folder / "last.ckpt"

    def whole_checkpoint(self) -> Path | None:
        """Return the checkpoint if it is there; remove a damaged one, with a warning."""
        if not self.checkpoint.exists():
            return None
        try:
            torch.load(self.checkpoint, map_location="cpu", weights_only=True)["run"]["history"]
        except Exception:  # torch raises a dozen kinds for a damaged file
            warnings.warn(f"{self.checkpoint}: damaged; the training begins anew", stacklevel=2)
            self.checkpoint.unlink()
            return None
        return self.checkpoint

    def alone(self) -> AbstractContextManager[None]:
        """Lock the folder; the processes that share a batch go in with the first of them."""
        shared = os.environ.get("LOCAL_RANK", "0") != "0"
        return nullcontext() if shared else locked(self.folder)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for two runs to end with the same weights on one device."""
        pairs = self.tiles.pairs("val", "swir1")
        return asdict(self.experiment) | {
            "name": self.experiment.name,
            "setting": self.experiment.setting,
            "config": self.experiment.config.model_dump(),
            "bands": len(pairs.wavelength_nm),
            "scale": pairs.scale,
            "pixels_sha256": self.tiles.pixels_sha256,
            "split_sha256": self.tiles.split_sha256,
            "training_version": TRAINING_VERSION,
        }

    def finished(self) -> bool:
        """Whether the folder holds this very run, complete; refuse another run or anything else."""
        if not (self.folder / "run.json").exists():
            there = {path.name for path in self.folder.glob("[!.]*")}
            if there and there.isdisjoint({"begun.json", "history.csv"}):  # what a run may leave
                raise ValueError(f"{self.folder}: no run but {min(there)}; choose another --out")
            return False
        past, identity = read_run(self.folder), self.identity()
        if (past["name"], past["preset"]) != (identity["name"], identity["preset"]):
            raise ValueError(
                f"{self.folder}: holds the run {past['name']} of preset {past['preset']}; "
                "remove it or choose another --out"
            )
        config = past["config"]  # of another version it may know other settings
        past["config"] = {key: config.get(key, v) for key, v in identity["config"].items()}
        return (self.folder / "weights.safetensors").exists() and past | identity == past

    def begin(self) -> None:
        """Make the folder ready; drop what a run on other pixels has left there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "run.json").unlink(missing_ok=True)
        begun = self.folder / "begun.json"
        identity = json.dumps(self.identity(), indent=1)
        if not begun.exists() or begun.read_text() != identity:
            self.checkpoint.unlink(missing_ok=True)
            with replacing(begun) as part:
                part.write_text(identity)

    def finish(
        self, network: nn.Module, history: pd.DataFrame, seconds: float, device: str
    ) -> None:
        """Write history, weights and `run.json`; raise `ValueError` if a weight is not finite."""
        check_finite(network.state_dict(), f"{self.folder}: the training diverged")
        if len(history):
            history.insert(0, "run", self.experiment.name)
            history.insert(1, "setting", self.experiment.setting)
        with replacing(self.folder / "history.csv") as part:
            history.to_csv(part, index=False)
        record = self.identity() | {
            "parameters": sum(p.numel() for p in network.parameters()),
            "minutes": seconds / 60,
            "device": device,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("asnlsr", "torch", "pytorch-lightning")},
            "git_revision": _git_revision(),
            "machine": _machine(),
        }
        write_run(self.folder, network.state_dict(), record)


def write_run(folder: Path, weights: Mapping[str, Tensor], record: dict[str, Any]) -> None:
    """Write weights and, last, `run.json`, which marks a run as complete."""
    with replacing(folder / "weights.safetensors") as part:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, part)
    with replacing(folder / "run.json") as part:
        part.write_text(json.dumps(record, indent=1, default=str))


class _Record(BaseModel):
    """What is read of `run.json`, whatever else it holds."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str
    model: str
    setting: str
    bands: int = Field(gt=0, le=10_000)
    scale: int = Field(gt=1, le=32)
    seed: int
    preset: str
    protocol: str
    recipe: str
    config: dict[str, bool | int | float | str]


def read_run(folder: Path) -> dict[str, Any]:
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
    try:
        return _Record.model_validate_json(path.read_bytes()).model_dump()
    except ValidationError as error:
        fault = error.errors()[0]
        told = " ".join([*map(str, fault["loc"]), fault["msg"]])
        mend = "delete it and train the run again"
        raise ValueError(f"{path}: damaged ({told}); {mend}") from None


def network_of(record: dict[str, Any]) -> nn.Module:
    """Build the network of a run, with fresh weights."""
    config = record["config"]  # that of an imported run says only what its checkpoint says
    settings = {name: config[name] for name in spec(record["model"]).settings if name in config}
    return build(record["model"], bands=record["bands"], scale=record["scale"], **settings)


def load_run(folder: Path, device: Device = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """Return the trained network, in evaluation mode, and its `run.json`.

    Raises
    ------
    FileNotFoundError
        If the folder holds no finished run.
    ValueError
        If `run.json` or the weights are damaged or do not fit each other, or the device is not
        there.
    """
    record, weights = read_run(folder), Path(folder) / "weights.safetensors"
    try:
        network = network_of(record)
        network.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())[:160]
        mend = f"missing, damaged or not of the {record['model']} in run.json; train the run again"
        raise ValueError(f"{weights}: {mend} ({told})") from None
    check_finite(network.state_dict(), f"{weights}: train the run again")
    return network.eval().to(device_of(device)), record


def check_finite(weights: Mapping[str, Any], told: str) -> None:
    """Refuse weights among which there is NaN or infinity."""
    for name, weight in weights.items():
        if isinstance(weight, Tensor) and not weight.isfinite().all():
            raise ValueError(f"{told}; {name} holds values that are not finite")


def _machine() -> str:
    """Processor, number of cores and system; no name of the computer."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8", "replace") if cpuinfo.exists() else ""
    found = re.search(r"model name\s*: (.+)", text)
    processor = found[1] if found else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _git_revision() -> str:
    """Commit of the checkout, with a + where files differ from it; empty outside of git."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+"]
    with suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""
