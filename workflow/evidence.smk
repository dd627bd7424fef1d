"""The evidence: all systems and controls, many seeds, both protocols; see asnlsr/evidence.py.

The long computing may be cut short at any time and goes on with the next call. What is recorded
in data/results is not computed again.
"""

from asnlsr.results.evidence import SEEDS, check_scenes, plan, read_results

RESULTS = Path("data/results") / SPACE.root.name
# The ablation is one of the networks, not of the data.
PLAN = plan(MODELS, int(config.get("seeds", SEEDS)), ablation=DATASET == "simulated")
RECORDED = read_results(RESULTS)
TURNS = sorted({run.turn for run in PLAN})
# By the time they take: the longest starts first, or the end is spent waiting for it alone.
LONG = ["esrt", "rcam", "snlsr", "snlsr-unmix", "asnlsr", "srformer"]
FIRST = (len(TURNS) + 1) * 10


def turn(wildcards):
    """Return the priority of a training run: earlier in the plan and longer, higher."""
    places = [len(TURNS) - TURNS.index(run.turn) for run in PLAN if run.name == RUN.format(**wildcards)]
    length = LONG.index(wildcards.variant) + 1 if wildcards.variant in LONG else 0
    return 10 * max(places, default=0) + length


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
        list(map(run_file, MODELS)),
    params:
        arguments=[PRESET, DATASET, *MODELS],
    message:
        "Writing reference weights to data/weights"
    shell:
        "python workflow/record_weights.py {params.arguments}"
