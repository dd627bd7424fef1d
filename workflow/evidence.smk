"""The evidence: all systems and controls, many seeds, both protocols; see asnlsr/results/evidence.py.

The long computing may be cut short at any time and goes on with the next call. What is recorded
in data/results is not computed again.
"""

from asnlsr.models.registry import spec
from asnlsr.results.evidence import SEEDS, check_scenes, plan, read_results, turn

RESULTS = Path("data/results") / SPACE.root.name
# The ablation is one of the networks, not of the data.
PLAN = plan(MODELS, PRESET, int(config.get("seeds", SEEDS)), ablation=DATASET == "simulated")
RECORDED = read_results(RESULTS)
TURNS = sorted({turn(run) for run in PLAN})
FIRST = (len(TURNS) + 1) * 10


def priority(wildcards):
    """Return the priority of a training run: earlier in the plan and longer, higher."""
    places = [len(TURNS) - TURNS.index(turn(run)) for run in PLAN if run.name == RUN.format(**wildcards)]
    # The longest starts first, or the end is spent waiting for it alone.
    return 10 * max(places, default=0) + spec(wildcards.variant.split("_")[0]).weight


def missing_runs(wildcards):
    """Return the files of what is not recorded; the records have to be of the same scenes."""
    if DATASET != "simulated":
        check_scenes(RESULTS, RECORDED, [Path(header).stem for header in scene_headers()])
    wanted = [run.name for run in PLAN if run.name not in RECORDED.runs]
    return [f"{SPACE.root}/runs/{name}/metrics.csv" for name in wanted]


rule evidence:
    input:
        missing_runs,


rule results:
    params:
        arguments=[PRESET, DATASET, *MODELS],
    message:
        "Recording what is finished of the evidence"
    shell:
        "python workflow/record_results.py {params.arguments}"


rule weights:
    input:
        list(tiles_and_split("blind").values()),
        [of_run(model, "run.json") for model in MODELS],
    params:
        arguments=[PRESET, DATASET, *MODELS],
    message:
        "Writing reference weights to data/weights"
    shell:
        "python workflow/record_weights.py {params.arguments}"
