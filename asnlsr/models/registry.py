"""The networks, and the registry that names them with the way they are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from asnlsr.models.bandwise import Bandwise
from asnlsr.models.classical import (
    BackProjection,
    Bicubic,
    CentredBicubic,
    LinearFilter,
    RichardsonLucy,
)
from asnlsr.models.esrt import ESRT
from asnlsr.models.layers import SuperResolution
from asnlsr.models.rcam import RCAM
from asnlsr.models.snlsr import (
    ASNLSR,
    SNLSR,
    ConvPixelDiscriminator,
    DensePixelDiscriminator,
    MatchedSNLSR,
)
from asnlsr.models.srformer import SRFormer

__all__ = ["BEST", "MODELS", "ModelSpec", "SuperResolution", "build", "spec"]


@dataclass(frozen=True)
class ModelSpec:
    """A row of the results table: a network and what its training may see."""

    network: Callable[..., nn.Module]
    label: str
    unmixes: bool = True  # has an encoder and endmembers
    frozen: bool = False  # encoder and endmembers stay at their random initialisation
    bandwise: bool = False  # gives the bands that it is asked for, and learns from a few
    align: str = ""  # loss of `losses.ALIGNMENTS` between the abundances of the two domains
    target: bool = False  # low-resolution tiles of the target domain enter the training
    oracle: bool = False  # learns from target truth in place of source truth: no method
    half: bool = False  # its output at half of the size is supervised too
    any_bands: bool = False  # takes any number of bands: upscales the sensor's own
    settings: tuple[str, ...] = ("skip",)  # fields of TrainingConfig that the network takes


_AT_ONCE: dict[str, Any] = {"unmixes": False, "any_bands": True, "settings": ()}
_ADVERSARIAL: dict[str, Any] = {"target": True, "settings": ("skip", "reversal")}
_BANDWISE: dict[str, Any] = {
    "unmixes": False,
    "any_bands": True,
    "bandwise": True,
    "settings": ("neighbours", "deblur", "materials"),
}
MODELS = {
    "bicubic": ModelSpec(Bicubic, "bicubic", **_AT_ONCE),
    "bicubic-centred": ModelSpec(CentredBicubic, "bicubic, centred on the PSF", **_AT_ONCE),
    "back-projection": ModelSpec(BackProjection, "iterative back-projection", **_AT_ONCE),
    "richardson-lucy": ModelSpec(RichardsonLucy, "Richardson-Lucy", **_AT_ONCE),
    "linear": ModelSpec(LinearFilter, "linear filter", **_AT_ONCE),
    "rcam": ModelSpec(RCAM, "RCAM", unmixes=False, half=True),
    "esrt": ModelSpec(ESRT, "ESRT", unmixes=False),
    "srformer": ModelSpec(SRFormer, "SRFormer", unmixes=False),
    "bandwise": ModelSpec(Bandwise, "bandwise", **_BANDWISE),
    "bandwise-oracle": ModelSpec(Bandwise, "bandwise, target truth", oracle=True, **_BANDWISE),
    "snlsr-frozen": ModelSpec(SNLSR, "SNLSR, frozen encoder", frozen=True),
    "snlsr": ModelSpec(SNLSR, "SNLSR, source only"),
    "snlsr-unmix": ModelSpec(SNLSR, "SNLSR + target unmixing", target=True),
    "snlsr-coral": ModelSpec(SNLSR, "SNLSR + CORAL", target=True, align="coral"),
    "snlsr-mmd": ModelSpec(SNLSR, "SNLSR + MMD", target=True, align="mmd"),
    "snlsr-matched": ModelSpec(
        MatchedSNLSR, "SNLSR, bands matched in mean and spread", target=True
    ),
    "asnlsr": ModelSpec(ASNLSR, "A-SNLSR", **_ADVERSARIAL),
    "asnlsr-dense": ModelSpec(
        partial(ASNLSR, discriminator=DensePixelDiscriminator),
        "A-SNLSR, dense discriminator of pixels",
        **_ADVERSARIAL,
    ),
    "asnlsr-conv1d": ModelSpec(
        partial(ASNLSR, discriminator=ConvPixelDiscriminator),
        "A-SNLSR, 1-D convolutional discriminator of pixels",
        **_ADVERSARIAL,
    ),
}
ORACLES = [name for name, entry in MODELS.items() if entry.oracle]
BEST = "bandwise"  # of those without target truth: chapters 8 and 10 of the book


def spec(name: str) -> ModelSpec:
    """Return the entry of the registry; raises `ValueError` naming the choices."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str, bands: int = 30, scale: int = 4, **settings: object) -> nn.Module:
    """Build a network of the registry with fresh weights from torch's global generator."""
    return spec(name).network(bands=bands, scale=scale, **settings)
