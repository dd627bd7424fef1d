"""Every method of the results table: its class, its label, and how it is trained. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelSpec:
    """A row of the results table: a network and what its training may see.

    A network takes z (B, C, h, w) and returns a `layers.SuperResolution`. It may have methods:
    `start(lr, warming_up)` starts it from low-resolution tiles in recipe `warm`;
    `take_psf(psf)` tells it the blur, before training; `fit(source, val)` chooses, after the
    training steps if there are any, what is not learned by gradients. `source` and `val` are
    `asnlsr.tiles.store.Pairs`.
    """

    network: str  # "module.Class" in asnlsr.models, imported when it is built
    label: str
    takes_steps: bool = True  # is trained by gradient steps
    unmixes: bool = False  # has an encoder and endmembers
    frozen: bool = False  # encoder and endmembers stay at their random initialisation
    bands: int = 0  # gives the bands that it is asked for, and learns from so many in a step
    any_bands: bool = False  # takes any number of bands: upscales the sensor's own
    align: str = ""  # loss of `losses.ALIGNMENTS` between the abundances of the two domains
    target: bool = False  # low-resolution tiles of the target domain enter the training
    oracle: bool = False  # learns from target truth in place of source truth: no method
    half: bool = False  # its output at half of the size is supervised too
    starts: bool = False  # has a method `start`
    batches: int = 1  # a step takes so many batches of the preset at once
    settings: tuple[str, ...] = ("skip",)  # fields of TrainingConfig that the network takes
    warm: Mapping[str, Any] = field(default_factory=dict)  # fields in recipe `warm`
    control: bool = False  # runs in the evidence only, in place of the discriminator


_AT_ONCE: dict[str, Any] = {"takes_steps": False, "any_bands": True, "settings": ()}
_FAST = {"optimizer": "muon", "clip": 1.0, "average": 0.99}
_POOLED = {"endmembers": "pooled"} | _FAST
_SNLSR: dict[str, Any] = {"unmixes": True, "starts": True, "warm": _POOLED}
_CONTROL = _SNLSR | {"target": True, "control": True}
_BANDWISE: dict[str, Any] = {
    "any_bands": True, "settings": (),
    "bands": 4, "batches": 2,  # few bands are cheap
    # it does not see the light
    "warm": {"clip": 1.0, "average": 0.99, "relight": 0.0, "light": 0.0, "leaves": 0.75},
}  # fmt: skip
MODELS = {
    "bicubic": ModelSpec("classical.Bicubic", "bicubic", **_AT_ONCE),
    "bicubic-centred": ModelSpec(
        "classical.CentredBicubic", "bicubic, centred on the PSF", **_AT_ONCE
    ),
    "back-projection": ModelSpec(
        "classical.BackProjection", "iterative back-projection", **_AT_ONCE
    ),
    "richardson-lucy": ModelSpec("classical.RichardsonLucy", "Richardson-Lucy", **_AT_ONCE),
    "linear": ModelSpec("classical.LinearFilter", "linear filter", **_AT_ONCE),
    "rcam": ModelSpec("rcam.RCAM", "RCAM", half=True, starts=True, warm={"lr": 1e-4}),
    "esrt": ModelSpec("esrt.ESRT", "ESRT"),
    "srformer": ModelSpec("srformer.SRFormer", "SRFormer", starts=True, warm={"lr": 2.5e-4}),
    "bandwise": ModelSpec("bandwise.Bandwise", "bandwise", **_BANDWISE),
    "bandwise-oracle": ModelSpec(
        "bandwise.Bandwise", "bandwise, target truth", oracle=True, **_BANDWISE
    ),
    "snlsr-frozen": ModelSpec(
        "snlsr.SNLSR", "SNLSR, frozen encoder", unmixes=True, frozen=True, warm=_FAST
    ),
    "snlsr": ModelSpec("snlsr.SNLSR", "SNLSR, source only", **_SNLSR),
    "snlsr-unmix": ModelSpec("snlsr.SNLSR", "SNLSR + target unmixing", target=True, **_SNLSR),
    "snlsr-coral": ModelSpec("snlsr.SNLSR", "SNLSR + CORAL", align="coral", **_CONTROL),
    "snlsr-mmd": ModelSpec("snlsr.SNLSR", "SNLSR + MMD", align="mmd", **_CONTROL),
    "snlsr-matched": ModelSpec(
        "snlsr.MatchedSNLSR",
        "SNLSR, bands matched in mean and spread",
        **_CONTROL | {"warm": _FAST},
    ),
    "asnlsr": ModelSpec(
        "snlsr.ASNLSR", "A-SNLSR", target=True, settings=("skip", "reversal"), **_SNLSR
    ),
}
BEST = "bandwise"  # of those without target truth: chapters 8 and 10 of the book


def spec(name: str) -> ModelSpec:
    """Return the entry of the registry; raises `ValueError` naming the choices."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str, bands: int = 30, scale: int = 4, **settings: object) -> nn.Module:
    """Build a network of the registry with fresh weights from torch's global generator."""
    module, _, cls = spec(name).network.rpartition(".")
    network: nn.Module = getattr(import_module(f"asnlsr.models.{module}"), cls)(
        bands=bands, scale=scale, **settings
    )
    return network
