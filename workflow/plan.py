"""The runs behind the book's claims: which, and in what order. Imports no torch."""

from collections.abc import Iterable, Iterator, Sequence

from asnlsr.config import PRESETS, Experiment, setting
from asnlsr.models.registry import BEST, MODELS, spec
from asnlsr.results.evidence import FEW, PAIR, SEEDS

CONTROLS = tuple(name for name, entry in MODELS.items() if entry.control)
# Steps at `demo`. Planned, and to be tested: half and twice as many are in the plan (`DOUBLED`),
# and a budget is long enough where doubling it gains less than 0.05 dB on source validation.
BUDGETS = {name: 2000 for name, entry in MODELS.items() if entry.unmixes} | {
    "rcam": 1000, "esrt": 1000, "srformer": 1000, "bandwise": 1000, "bandwise-oracle": 1000,
}  # fmt: skip
DOUBLED = (*PAIR, "rcam", "esrt", "srformer", "bandwise")
REAL_STEPS = 500  # of a fold of the real scenes: every source tile 160 times; `bandwise` is quick
# Of A-SNLSR and its control: settings, seeds. The last two are the steps of the paper's recipe.
QUESTIONS = {"endmembers=apart": SEEDS, "relight=0.0": FEW}
SWEEP = ("reversal=0.1", "reversal=1.0")
PUBLISHED = {8000: FEW, 22_500: 1}


def plan(
    models: Sequence[str], preset: str = "demo", seeds: int = SEEDS, scenes: Sequence[str] = ()
) -> list[Experiment]:
    """Return all runs of the evidence in the order in which they are to be computed.

    Blind; every network trained for its steps in `BUDGETS` at preset `demo`. First A-SNLSR and
    its control, seed by seed, then every other row, then what the steps, the start and the
    strength of the adversary change, then recipe `published`.

    Parameters
    ----------
    models : sequence of str
        Names in the registry.
    preset : str
    seeds : int
        At most so many seeds of each.
    scenes : sequence of str
        Leave out one after the other, and answer for these scenes only: one seed of every row,
        `FEW` of A-SNLSR, its control and the best method.
    """
    planned = _folds(models, scenes) if scenes else _plan([*models, *CONTROLS])
    known = {*models, *(CONTROLS if "asnlsr" in models else ())}
    return list(
        dict.fromkeys(
            trained_to_the_end(name, preset, recipe, seed, texts)
            for name, recipe, seed, texts in planned
            if seed < seeds and name in known
        )
    )


Planned = tuple[str, str, int, tuple[str, ...]]  # model, recipe, seed, settings


def trained_to_the_end(
    name: str, preset: str = "demo", recipe: str = "warm", seed: int = 0, texts: Iterable[str] = ()
) -> Experiment:
    """Return the run of a model with its steps in `BUDGETS`, where the preset is `demo`."""
    settings = dict(map(setting, texts))
    if preset == "demo" and spec(name).takes_steps:
        settings = {"steps": BUDGETS[name]} | settings
        if settings["steps"] == PRESETS["demo"].steps:
            del settings["steps"]
    else:
        settings.pop("steps", None)
    return Experiment(name, preset, "blind", recipe, seed, settings)


def _plan(models: Sequence[str]) -> Iterator[Planned]:
    rest = [name for name in models if name not in PAIR]
    yield from ((name, "warm", seed, ()) for seed in range(SEEDS) for name in PAIR)
    for seed in range(SEEDS):
        yield from ((name, "warm", seed, ()) for name in rest if seed < _seeds(name))
    for factor in (0.5, 2):
        for name in DOUBLED:
            yield name, "warm", 0, (f"steps={int(factor * BUDGETS[name])}",)
    for text, count in QUESTIONS.items():
        yield from ((name, "warm", seed, (text,)) for seed in range(count) for name in PAIR)
    yield from (("asnlsr", "warm", seed, (text,)) for seed in range(FEW) for text in SWEEP)
    for steps, count in PUBLISHED.items():
        for seed in range(count):
            yield from ((name, "published", seed, (f"steps={steps}",)) for name in PAIR)


def _folds(models: Sequence[str], scenes: Sequence[str]) -> Iterator[Planned]:
    for seed in range(FEW):
        for name in models:
            for scene in scenes if seed == 0 or name in (*PAIR, BEST) else ():
                texts = (f"steps={REAL_STEPS}",) if not spec(name).bands else ()
                yield name, "warm", seed, (*texts, f"by=without-{scene}")


def _seeds(name: str) -> int:
    if not spec(name).takes_steps:
        return 1  # nothing in it is random
    return SEEDS if name == BEST else FEW
