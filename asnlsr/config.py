"""Every size and rate in one place: presets, the training configuration, and where results live."""

from __future__ import annotations

import math
from dataclasses import dataclass

PROTOCOLS = {
    # protocol: (split by, degradation border). See the chapter "From scene to tiles".
    "blind": ("scene", "scene"),
    "as-released": ("tile", "zero"),
}
RECIPES = ("warm", "published")
PRECISIONS = ("32-true", "bf16-mixed")

# Methods that take no training steps.
AT_ONCE = ("bicubic", "bicubic-centred", "back-projection", "richardson-lucy", "linear")

# Those, and networks without an encoder, which have no unmixing to warm up.
SINGLE_IMAGE = (*AT_ONCE, "rcam", "esrt", "srformer", "bandwise", "bandwise-oracle")
WARM_LR = {"rcam": 1e-4, "srformer": 2.5e-4}  # of recipe `warm`, chosen on source validation
SHARES = ("relight", "halved", "internal")  # at most 1
POSITIVE = ("steps", "crop", "batch", "log_every", "lr", "restarts")  # others may be 0


@dataclass(frozen=True)
class Preset:
    """Sizes of one complete run of the book; times are for two CPU cores."""

    name: str
    scenes: int  # simulated scenes; four are the least that fill the four roles
    size: tuple[int, int]  # rows, columns of a simulated scene
    tile: int  # HR pixels; 128 is the published size
    crop: int  # HR pixels per training crop; 64 is the least that ESA in SNLSR accepts
    batch: int  # tiles in an optimisation step, as published
    steps: int  # optimisation steps of the networks that learn super-resolution
    frozen_steps: int  # steps of `snlsr-frozen`: all of them are in the evidence
    warmup_steps: int  # unmixing-only steps of recipe `warm`
    log_every: int  # steps between two rows of history.csv
    tsne_pixels: int  # pixels per domain in the t-SNE figure


PRESETS = {
    "smoke": Preset("smoke", 4, (128, 64), 64, 64, 2, 12, 4, 12, 4, 150),
    "demo": Preset("demo", 8, (512, 256), 128, 64, 4, 1000, 60, 250, 100, 1000),
    # 100 epochs of 225 batches: the number of epochs is not published, 100 is our choice.
    "paper": Preset("paper", 6, (5809, 620), 128, 128, 4, 22_500, 22_500, 600, 225, 2000),
}


def preset(name: str) -> Preset:
    """Return the preset called `name`; raises `ValueError` naming the choices."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class TrainingConfig:
    """What one training run needs besides tiles; `--set key=value` overrides a field."""

    steps: int
    warmup_steps: int
    crop: int
    batch: int
    log_every: int
    lr: float = 1e-3
    lr_min: float = 1e-4  # floor of the cosine
    lr_warmup: float = 1e-3  # of the unmixing alone
    restarts: int = 4  # cosine cycles: T0 = epochs / 4
    reversal: float = 0.01  # lambda of the gradient reversal
    skip: bool = True  # add the bicubic enlargement to the output
    bands: int = 0  # of every crop in a step of `bandwise`; the others always see all
    neighbours: int = 7  # bands in the widest spectral mean of `bandwise`
    materials: int = 0  # abundance maps that guide `bandwise`
    deblur: int = 0  # iterations of Richardson-Lucy before `bandwise`
    precision: str = "32-true"  # bf16-mixed: products and convolutions in bfloat16 (autocast)
    # What follows is ours, and off in recipe `published`.
    lr_unmixing: float = 1.0  # factor on lr, after the warm-up, for encoder and endmembers
    contrast: bool = False  # RCAM and SRFormer start from local contrast
    turns: bool = False  # source tiles turned and mirrored, degraded again with the known PSF
    relight: float = 0.0  # largest share of the way to the spectra of a target tile
    light: float = 0.0  # spread of a random parabola over the bands that is added to z
    best: bool = False  # ends with the weights that were best in validation
    halved: float = 0.0  # share of steps on source tiles at half of their size
    internal: float = 0.0  # share of steps whose truth is target tiles at low resolution


def training_config(
    preset_name: str, model: str, recipe: str, overrides: dict[str, object] | None = None
) -> TrainingConfig:
    """Return the configuration of a run.

    Parameters
    ----------
    preset_name, model, recipe : str
        Sizes, the network, and `published` (as in the paper) or `warm` (with unmixing warm-up).
    overrides : dict, optional
        Field name to value; a value is converted to the field's type.

    Raises
    ------
    ValueError
        On an unknown preset, recipe or field, or a value that the field or the model cannot have.
    """
    sizes = preset(preset_name)
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    warm = recipe == "warm" and model not in AT_ONCE
    frozen = model == "snlsr-frozen"  # has nothing to warm up
    single_image = model in SINGLE_IMAGE
    bandwise = model in ("bandwise", "bandwise-oracle")
    config = TrainingConfig(
        steps=sizes.frozen_steps if frozen else sizes.steps,
        warmup_steps=sizes.warmup_steps if warm and not frozen and not single_image else 0,
        crop=sizes.crop,
        batch=2 * sizes.batch if bandwise else sizes.batch,  # a step with few bands is cheap
        log_every=sizes.log_every,
        lr=WARM_LR.get(model, 1e-3) if warm else 1e-3,
        restarts=1 if warm else 4,
        contrast=warm and model in WARM_LR,
        lr_unmixing=0.3 if warm else 1.0,
        turns=warm,
        relight=1.0 if warm and not bandwise else 0.0,  # it does not see the light
        light=0.05 if warm and not bandwise else 0.0,
        bands=4 if bandwise else 0,
        deblur=10 if bandwise else 0,
        best=bandwise,
    )
    values = dict(vars(config))
    for key, value in (overrides or {}).items():
        if key not in values:
            raise ValueError(f"no setting {key!r}: choose one of {', '.join(values)}")
        kind = type(values[key])
        if type(value) is not kind and (kind, type(value)) != (float, int):
            raise ValueError(f"setting {key} needs a value of type {kind.__name__}, not {value!r}")
        if isinstance(value, (int, float)) and not (
            0 <= value < math.inf and (value or key not in POSITIVE)
        ):
            least = "more than" if key in POSITIVE else "at least"
            raise ValueError(f"setting {key}={value}: must be finite and {least} 0")
        values[key] = kind(value)
    if above := [key for key in SHARES if values[key] > 1]:
        raise ValueError(f"setting {above[0]}={values[above[0]]}: a share is at most 1")
    if values["warmup_steps"] and single_image and model not in AT_ONCE:
        raise ValueError(f"{model} has no unmixing to warm up: leave out warmup_steps")
    if values["contrast"] and model not in WARM_LR:
        raise ValueError(f"contrast is a start of {' and '.join(WARM_LR)}, not of {model}")
    if values["precision"] not in PRECISIONS:
        raise ValueError(f"precision {values['precision']!r}: choose {' or '.join(PRECISIONS)}")
    return TrainingConfig(**values)
