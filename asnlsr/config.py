"""What a run is: presets, recipes, and the `Experiment` that names it. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asnlsr.files import fault
from asnlsr.models.registry import spec

PROTOCOLS = {
    # protocol: (split by, degradation border). See the chapter "From scene to tiles".
    "blind": ("scene", "scene"),
    "as-released": ("tile", "zero"),
}
RECIPES = ("warm", "published")


@dataclass(frozen=True)
class Preset:
    """Sizes of one complete run of the book; times are for two CPU cores."""

    scenes: int  # simulated scenes; four are the least that fill the four roles
    size: tuple[int, int]  # rows, columns of a simulated scene
    tile: int  # HR pixels; 128 is the published size
    crop: int  # HR pixels per training crop; 64 is the least that ESA in SNLSR accepts
    batch: int  # tiles in an optimisation step, as published
    steps: int  # optimisation steps of the networks that learn super-resolution
    warmup_steps: int  # unmixing-only steps of recipe `warm`
    log_every: int  # steps between two rows of history.csv
    tsne_pixels: int  # pixels per domain in the t-SNE figure


PRESETS = {
    "smoke": Preset(4, (128, 64), 64, 64, 2, 12, 12, 4, 150),
    "short": Preset(8, (512, 256), 128, 64, 4, 160, 40, 80, 600),
    "demo": Preset(8, (512, 256), 128, 64, 4, 1000, 250, 100, 600),
    # 100 epochs of 225 batches: the number of epochs is not published, 100 is our choice.
    "paper": Preset(6, (5809, 620), 128, 128, 4, 22_500, 600, 225, 2000),
}

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Least0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class TrainingConfig(BaseModel):
    """What one training run needs besides tiles; `--set key=value` overrides a field."""

    model_config = ConfigDict(frozen=True, strict=True)

    steps: Annotated[int, Field(gt=0)]
    warmup_steps: _Count  # of the unmixing alone, before super-resolution
    crop: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(gt=0)]
    log_every: Annotated[int, Field(gt=0)]
    lr: _Positive = 1e-3
    lr_min: _Least0 = 1e-4  # floor of the cosine
    restarts: Annotated[int, Field(gt=0)] = 4  # cosine cycles: T0 = epochs / 4
    reversal: _Least0 = 0.01  # lambda of the gradient reversal
    skip: bool = True  # add the bicubic enlargement to the output
    bands: _Count = 0  # of every crop in a step of `bandwise`; the others always see all
    # Products: in full, on CUDA in TF32 (a CPU has none), or in bfloat16.
    precision: Literal["32-true", "tf32", "bf16-mixed"] = "32-true"
    # On CUDA a step is recorded as a graph and replayed; "fused": SANL in few compiled kernels.
    graphs: Literal["off", "plain", "fused"] = "off"
    # What follows is ours, and off in recipe `published`.
    lr_unmixing: _Least0 = 1.0  # factor on lr, after the warm-up, for encoder and endmembers
    start: bool = False  # from the training tiles: method `start` of the network
    # Endmembers start as pixels far apart, or as those of both domains about one common mean.
    endmembers: Literal["apart", "pooled"] = "apart"
    optimizer: Literal["adam", "muon"] = "adam"  # muon: for the kernels of the super-resolution
    clip: _Least0 = 0.0  # largest norm of the gradient; 0: any
    average: _Share = 0.0  # decay of the running mean of weights that a run ends with; 0: none
    turns: bool = False  # source tiles turned and mirrored, degraded again with the known PSF
    relight: _Share = 0.0  # largest share of the way to the spectra of a target tile
    leaves: _Share = 0.0  # of the source tiles of a step: images of dead leaves in their place
    light: _Least0 = 0.0  # spread of a random parabola over the bands that is added to z


@dataclass(frozen=True)
class Experiment:
    """One run, named: all that is asked for, apart from the tiles.

    Parameters
    ----------
    model : str
        Name in `asnlsr.models.registry.MODELS`.
    preset, protocol, recipe : str
        Keys of `PRESETS` and `PROTOCOLS`, one of `RECIPES`.
    seed : int
        Of weights, batches and dropout.
    settings : mapping
        Fields of `TrainingConfig` with other values, and `by` ("scene", "tile" or
        "without-SCENE"), another split than that of the protocol.

    Raises
    ------
    ValueError
        On an unknown name, or a setting or value that this model cannot have.

    Examples
    --------
    >>> Experiment("asnlsr", settings={"skip": False, "reversal": 0.1}).name
    'asnlsr_skip=false_reversal=0.1-blind-warm-s0'
    >>> Experiment.parse("snlsr-as-released-published-s3").protocol
    'as-released'
    """

    model: str
    preset: str = "demo"
    protocol: str = "blind"
    recipe: str = "warm"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec(self.model)
        for key, known in ("preset", PRESETS), ("protocol", PROTOCOLS), ("recipe", RECIPES):
            if (value := getattr(self, key)) not in known:
                raise ValueError(f"unknown {key} {value!r}: choose one of {', '.join(known)}")
        if not re.fullmatch("scene|tile|without-.+", self.by):
            raise ValueError(f"setting by={self.by}: a split is by scene, tile or without-SCENE")
        _ = self.config  # a setting that cannot be is told here

    def __hash__(self) -> int:
        return hash((self.name, self.preset))

    @classmethod
    def parse(cls, name: str, preset: str = "demo") -> Experiment:
        """Return the experiment of a name, the inverse of `name`; raises `ValueError`."""
        ways = ("|".join(map(re.escape, known)) for known in (PROTOCOLS, RECIPES))
        found = re.fullmatch(r"([a-z0-9-]+)(_.+)?-({})-({})-s(\d+)".format(*ways), name)
        if found is None:
            raise ValueError(f"{name!r} is not the name of a run")
        rest, *parts = re.split(r"_([a-z_]+)=", found[2] or "")
        if rest:
            raise ValueError(f"{name!r} is not the name of a run")
        pairs = zip(parts[::2], parts[1::2], strict=True)
        settings = dict(setting("=".join(pair)) for pair in pairs)
        return cls(found[1], preset, found[3], found[4], int(found[5]), settings)

    @property
    def setting(self) -> str:
        """The settings in one word, as in the name; empty without any."""
        words = {False: "false", True: "true"}
        each = self.settings.items()
        return "_".join(f"{k}={words[v] if isinstance(v, bool) else v}" for k, v in each)

    @property
    def name(self) -> str:
        """Name of the run's folder: model, settings, protocol, recipe, seed."""
        variant = f"{self.model}_{self.setting}" if self.settings else self.model
        return f"{variant}-{self.protocol}-{self.recipe}-s{self.seed}"

    @property
    def by(self) -> str:
        """How the tiles are split: that of the protocol, or the setting `by`."""
        return str(self.settings.get("by", PROTOCOLS[self.protocol][0]))

    @property
    def border(self) -> str:
        """With what border the tiles are degraded."""
        return PROTOCOLS[self.protocol][1]

    @property
    def config(self) -> TrainingConfig:
        """All numbers of the training: those of preset, recipe and network, then the settings."""
        model, sizes = spec(self.model), PRESETS[self.preset]
        values: dict[str, Any] = {
            "steps": sizes.steps,
            "warmup_steps": 0, "crop": sizes.crop, "log_every": sizes.log_every,
        }  # fmt: skip
        if self.recipe == "warm" and model.takes_steps:
            values |= {
                "restarts": 1, "lr_unmixing": 0.3, "turns": True, "relight": 1.0, "light": 0.05,
                "start": model.starts,
                "warmup_steps": sizes.warmup_steps if model.unmixes and not model.frozen else 0,
            } | dict(model.warm)  # fmt: skip
        values |= {"batch": sizes.batch * model.batches, "bands": model.bands}
        given = {key: value for key, value in self.settings.items() if key != "by"}
        if odd := given.keys() - (known := TrainingConfig.model_fields):
            raise ValueError(f"no setting {min(odd)!r}: choose one of {', '.join(known)}")
        try:
            config = TrainingConfig(**values | given)
        except ValidationError as error:
            raise ValueError(f"setting {fault(error)}") from None
        if config.warmup_steps and model.takes_steps and not model.unmixes:
            raise ValueError(f"{self.model} has no unmixing to warm up: leave out warmup_steps")
        if config.start and not model.starts:
            raise ValueError(f"{self.model} has no start of its own: leave out start")
        if config.graphs != "off" and (config.precision == "bf16-mixed" or model.align == "mmd"):
            raise ValueError("graphs: neither with precision=bf16-mixed nor with snlsr-mmd")
        return config


def setting(text: str) -> tuple[str, Any]:
    """Read ``key=value``, the value a JSON scalar or else a plain string."""
    key, equals, literal = text.partition("=")
    try:
        value = json.loads(literal)
    except ValueError:
        value = literal
    if not key or not equals or not literal or isinstance(value, (list, dict)):
        raise ValueError(f"--set {text}: must be key=value with one value, such as lr=0.001")
    return key, value
