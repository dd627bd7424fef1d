"""Weights of the original release: from its checkpoints into run folders, and back."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from asnlsr.config import TrainingConfig
from asnlsr.files import replacing
from asnlsr.models.registry import build
from asnlsr.scenes.bands import BANDS

_NAMED = 8  # keys of each kind, at most, that a message names


@dataclass(frozen=True)
class _Original:
    """A network of the release: its name here, and what its parts are called there."""

    model: str
    first: str  # the weight whose second axis is the input bands
    prefix: str
    names: dict[str, str]  # part of a key here: the same there
    like: str = ""  # a class whose names it shares


def _originals() -> dict[str, _Original]:
    """Read official.toml, beside this file."""
    document = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    for entry in document.values():
        entry["names"] = document.get(entry.get("like"), {"names": {}})["names"] | entry["names"]
    return {name: _Original(**entry) for name, entry in document.items()}


ORIGINALS = _originals()


def official_key(model_class: str, key: str) -> str:
    """Translate a key of our state dict into that of the original class."""
    original = ORIGINALS[model_class]
    parts = sorted(original.names, key=len, reverse=True)  # "attention.out" before "attention"
    pattern = rf"\b({'|'.join(map(re.escape, parts))})\b"
    return original.prefix + re.sub(pattern, lambda part: original.names[part[0]], key)


def export_weights(network: nn.Module, model_class: str) -> dict[str, Tensor]:
    """Return the weights and buffers of a network under their names in the original class."""
    return {official_key(model_class, key): v for key, v in network.state_dict().items()}


def read_checkpoint(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Read class, constructor arguments and weights of an original checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint of the release, needs code to be run, names another class, or
        holds weights that are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        name, weights = checkpoint["model_class"], dict(checkpoint["model_state_dict"])
        settings = dict(checkpoint["h_params"])
        odd = [k for k, v in weights.items() if isinstance(v, Tensor) and not v.isfinite().all()]
    except Exception as error:  # torch raises a dozen kinds for a foreign or hostile file
        raise ValueError(
            f"{path}: not a checkpoint of the original release that is safe to read "
            f"({type(error).__name__}); it needs model_class, model_state_dict and h_params"
        ) from None
    if name not in ORIGINALS:
        raise ValueError(f"{path}: unknown class {name!r}: must be one of {', '.join(ORIGINALS)}")
    if odd:
        raise ValueError(
            f"{path}: weights that are not finite: {', '.join(map(str, odd[:_NAMED]))}"
        )
    return name, settings, weights


def _check(path: Path, name: str, network: nn.Module, weights: dict[str, Any]) -> None:
    """Refuse weights whose names or shapes are not those of the network."""
    wanted = export_weights(network, name)
    shared = [key for key in wanted if key in weights]
    shapes = {key: getattr(weights[key], "shape", None) for key in shared}
    faults = {
        "missing": [key for key in wanted if key not in weights],
        "not known": [key for key in weights if key not in wanted],
        "of another shape": [key for key in shared if shapes[key] != wanted[key].shape],
    }
    text = "; ".join(
        f"{len(keys)} {fault} ({', '.join(map(str, keys[:_NAMED]))})"
        for fault, keys in faults.items()
        if keys
    )
    if text:
        raise ValueError(f"{path}: weights do not fit {name}: {text}")


def import_weights(path: Path, out: Path) -> dict[str, Any]:
    """Turn a checkpoint of the original release into a run folder.

    Bands and scale follow from the weights. The bicubic skip is on unless an entry of `h_params`
    whose name holds "skip" says otherwise.

    Parameters
    ----------
    path : Path
        A `.pth` file with `model_class`, `model_state_dict` and `h_params`.
    out : Path
        Folder for `weights.safetensors` and `run.json`.

    Returns
    -------
    dict
        What was written to `run.json`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_checkpoint`, or if weights are missing, extra or of another shape.
    """
    name, settings, weights = read_checkpoint(path)
    original = ORIGINALS[name]
    first = weights.get(official_key(name, original.first))
    bands = first.shape[1] if isinstance(first, Tensor) and first.ndim == 4 else BANDS
    with torch.device("meta"):  # names and shapes only
        networks = {r: build(original.model, bands=bands, scale=r) for r in (4, 2, 8)}
    scale = min(networks, key=lambda r: len(export_weights(networks[r], name).keys() ^ weights))
    _check(path, name, networks[scale], weights)
    skips = [value for key, value in settings.items() if "skip" in str(key).lower()]
    reversal = TrainingConfig.model_fields["reversal"].default
    record = {
        "name": Path(out).name,
        "model": original.model,
        "setting": "",
        "seed": settings.get("seed", 0),
        "preset": "original",
        "protocol": "as-released",
        "recipe": "published",
        "config": {"skip": bool(skips[0]) if skips else True, "reversal": reversal},
        "bands": bands,
        "scale": scale,
        "minutes": None,
        "imported_from": Path(path).name,
        "model_class": name,
        "h_params": settings,
    }
    ours = {
        key: weights[official_key(name, key)].clone(memory_format=torch.contiguous_format)
        for key in networks[scale].state_dict()
    }
    with replacing(Path(out) / "weights.safetensors") as part:
        save_file(ours, part)
    with replacing(Path(out) / "run.json") as part:
        part.write_text(json.dumps(record, indent=1, default=str))
    return record
