"""Weights of the original release: from its checkpoints into run folders, and back."""

from __future__ import annotations

import json
import re
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


_SNLSR = {
    **{f"sr.stages.{n // 3}.blocks.{n % 3}": f"block{n + 1}" for n in range(6)},
    "encoder": "SPDN", "mlp": "mpl", "decoder": "endmember", "sr.head": "SRhead",
    "sr.stages.0.fuse": "Up.0", "sr.stages.0.up": "Up.1.0",
    "sr.stages.1.fuse": "Up2.0", "sr.stages.1.up": "Up2.1.0", "sr.tail": "Up2.2",
    "esa.reduce": "ESA.conv1", "esa.bypass": "ESA.conv_f", "esa.stride": "ESA.conv2",
    "esa.refine.0": "ESA.conv_max", "esa.refine.2": "ESA.conv3", "esa.refine.4": "ESA.conv3_",
    "esa.expand": "ESA.conv4", "sanl.embed": "NL.embedding", "sanl.query": "NL.convq.0",
    "sanl.key": "NL.convk.0", "sanl.value": "NL.convv.0", "sanl.out": "NL.to_out",
    "bottleneck": "botnek", "point": "DDP.pointconv", "depth": "DDP.depthconv",
}  # fmt: skip
_ASNLSR = _SNLSR | {
    "features.0": "cnn.1", "features.1": "cnn.2", "features.5": "cnn.6", "features.6": "cnn.7",
    "classify": "cnn.13",
}  # fmt: skip
_RCAM = {
    "stages": "upsample_subnets", "stem": "pre_db", "blocks": "db_networks",
    "units": "rcam_layers", "mix": "pre_attention", "gate": "attention_computation",
    "fuse": "post_rcam", "up": "upsample_layer",
}  # fmt: skip
_ESRT = {
    "branch": "up", "branch.1": "up.1.conv", "head": "head.0", "neck": "reduce",
    "body": "body.0", **{f"body.blocks.{n}": f"body.0.encoder{n + 1}" for n in range(3)},
    "body.fuse": "body.0.reduce", "body.tail": "body.0.alise",
    "body.transformer": "body.0.attention", "attention.reduce": "atten.reduce",
    "attention.qkv": "atten.qkv", "attention.out": "atten.proj",
    "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2",
    "first": "encoder", "low": "decoder_low", "high": "decoder_high", "last": "alise",
    "merge": "alise2.conv", "gate.gate": "att.conv_du",
    "unit1": "layer1", "unit2": "layer2", "mix": "layer4.conv", "fuse": "alise.conv",
    "attention.gate": "atten.conv_du",
    "reduce": "conv", "expand": "conv1", "act": "relu",
    **{f"s{n}": f"weight{n}.scale" for n in range(1, 6)},
}  # fmt: skip
_SRFORMER = {
    "head": "conv_first", "norm_in": "patch_embed.norm", "groups": "layers",
    "blocks": "residual_group.blocks", "mask": "attn_mask", "attention": "attn",
    "attention.bias": "attn.relative_position_bias_table",
    "attention.index": "attn.aligned_relative_position_index", "attention.out": "attn.proj",
    "ffn.expand": "mlp.fc1", "ffn.depth": "mlp.dwconv.depthwise_conv.0", "ffn.reduce": "mlp.fc2",
    "fuse": "conv_after_body", "norm_out": "norm", "reduce": "conv_before_upsample",
    "up": "upsample", "tail": "conv_last",
}  # fmt: skip
ORIGINALS = {
    "RCAMSRNetwork": _Original("rcam", "stages.0.stem.0.weight", "", _RCAM),
    "ESRTNetwork": _Original("esrt", "head.weight", "esrt.", _ESRT),
    "SRFormerNetwork": _Original("srformer", "head.weight", "srformer.", _SRFORMER),
    "SNLSR": _Original("snlsr", "encoder.layers.0.weight", "", _SNLSR),
    "AdversarialSNLSR": _Original("asnlsr", "encoder.layers.0.weight", "", _ASNLSR),
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


def read_checkpoint(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Read class, constructor arguments and weights of an original checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no checkpoint of the release, needs code to be run, or names another class.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        name, weights = checkpoint["model_class"], dict(checkpoint["model_state_dict"])
        settings = dict(checkpoint["h_params"])
    except Exception as error:  # torch raises a dozen kinds for a foreign or hostile file
        raise ValueError(
            f"{path}: not a checkpoint of the original release that is safe to read "
            f"({type(error).__name__}); it needs model_class, model_state_dict and h_params"
        ) from None
    if name not in ORIGINALS:
        raise ValueError(f"{path}: unknown class {name!r}: must be one of {', '.join(ORIGINALS)}")
    return name, settings, weights


def _check(path: Path, name: str, network: nn.Module, weights: dict[str, Any]) -> None:
    """Refuse weights whose names or shapes are not those of the network."""
    wanted = export_weights(network, name)
    faults = {
        "missing": [key for key in wanted if key not in weights],
        "not known": [key for key in weights if key not in wanted],
        "of another shape": [
            key
            for key, value in wanted.items()
            if key in weights and getattr(weights[key], "shape", None) != value.shape
        ],
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
