"""The evidence: all systems and controls, many seeds, both protocols; see asnlsr/evidence.py.

The long computing may be cut short at any time and goes on with the next call. What is recorded
in data/results is not computed again.
"""

from asnlsr.evidence import SEEDS, plan, recorded

RESULTS = Path("data/results") / SPACE.root.name
# The ablation is one of the networks, not of the data.
PLAN = plan(MODELS, int(config.get("seeds", SEEDS)), ablation=DATASET == "simulated")
TURNS = sorted({run.turn for run in PLAN})


def turn(wildcards):
    """Return the priority of a training run: earlier in the plan, higher."""
    places = [len(TURNS) - TURNS.index(run.turn) for run in PLAN if run.name == RUN.format(**wildcards)]
    return max(places, default=0)


rule measure:
    input:
        sources("asnlsr.evaluate"),
        unpack(lambda wildcards: tiles_and_split(wildcards.protocol, wildcards.variant)),
        run=f"{SPACE.root}/runs/{RUN}/run.json",
    output:
        f"{SPACE.root}/runs/{RUN}/metrics.csv",
    params:
        run=subpath(output[0], parent=True),
    priority: len(TURNS) + 1  # a run counts when it has been measured
    threads: 1
    message:
        "Evaluating {wildcards.variant} ({wildcards.protocol}, {wildcards.recipe}, seed {wildcards.seed})"
    shell:
        "OMP_NUM_THREADS={threads} asnlsr evaluate {params.run} --tiles {input.tiles} --split {input.split} --out {output}"


rule evidence:
    input:
        [
            f"{SPACE.root}/runs/{run.name}/metrics.csv"
            for run in PLAN
            if run.name not in recorded(RESULTS)
        ],


rule results:
    params:
        arguments=[PRESET, DATASET, *MODELS],
    message:
        "Recording what is finished of the evidence"
    shell:
        "python workflow/record_results.py {params.arguments}"
