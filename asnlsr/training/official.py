"""Weights of the original release: from its checkpoints into run folders, and back."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asnlsr.models.registry import build
from asnlsr.scenes.bands import BANDS
from asnlsr.training.folder import check_finite, write_run


@dataclass(frozen=True)
class _Original:
    """A network of the release: its name here, and what its parts are called there."""

    model: str
    first: str  # the weight whose second axis is the input bands
    prefix: str
    names: dict[str, str]  # part of a key here: the same there


ORIGINALS = {
    name: _Original(model, entry["first"], entry["prefix"], entry["names"])
    for entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8")).values()
    for name, model in entry["classes"].items()
}


def official_key(model_class: str, key: str) -> str:
    """Translate a key of our state dict into that of the original class."""
    original = ORIGINALS[model_class]
    parts = sorted(original.names, key=len, reverse=True)  # "attention.out" before "attention"
    pattern = rf"\b({'|'.join(map(re.escape, parts))})\b"
    return original.prefix + re.sub(pattern, lambda part: original.names[part[0]], key)


def export_weights(network: nn.Module, model_class: str) -> dict[str, Tensor]:
    """Return the weights and buffers of a network under their names in the original class."""
    return {official_key(model_class, key): v for key, v in network.state_dict().items()}


def read_checkpoint(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
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
        known, settings = name in ORIGINALS, dict(checkpoint["h_params"])
    except Exception as error:  # torch raises a dozen kinds for a foreign or hostile file
        raise ValueError(
            f"{path}: not a checkpoint of the original release that is safe to read "
            f"({type(error).__name__}); it needs model_class, model_state_dict and h_params"
        ) from None
    if not known:
        raise ValueError(f"{path}: unknown class {name!r}: must be one of {', '.join(ORIGINALS)}")
    check_finite(weights, f"{path}: weights of a training that diverged")
    return name, settings, weights


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
    shapes = {
        r: {key: weight.shape for key, weight in export_weights(network, name).items()}
        for r, network in networks.items()
    }
    scale = min(shapes, key=lambda r: len(shapes[r].keys() ^ weights))
    found = {key: getattr(weight, "shape", None) for key, weight in weights.items()}
    if odd := sorted({str(key) for key, _ in shapes[scale].items() ^ found.items()}):
        raise ValueError(
            f"{path}: weights do not fit {name}: missing, not known or of another shape are "
            f"{', '.join(odd[:8])}"
        )
    skips = [value for key, value in settings.items() if "skip" in str(key).lower()]
    record = {
        "name": Path(out).name,
        "model": original.model,
        "setting": "",
        "seed": settings.get("seed", 0),
        "preset": "original",
        "protocol": "as-released",
        "recipe": "published",
        "config": {"skip": bool(skips[0]) if skips else True},
        "bands": bands,
        "scale": scale,
        "minutes": None,
        "imported_from": Path(path).name,
        "model_class": name,
        "h_params": settings,
    }
    keys = networks[scale].state_dict()
    ours = {key: weights[official_key(name, key)].clone() for key in keys}
    write_run(Path(out), ours, record)
    return record
