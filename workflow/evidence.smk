"""The evidence: all systems and controls, many seeds, both protocols; see workflow/plan.py.

The long computing may be cut short at any time and goes on with the next call. What is recorded
in data/results is not computed again.
"""

from asnlsr.results.evidence import SEEDS, read_results
from workflow.plan import plan
from workflow.record_results import check_scenes

RESULTS = Path("data/results") / SPACE.root.name
# Of real scenes one after the other is left out.
SCENES = [] if DATASET == "simulated" else sorted(Path(header).stem for header in scene_headers())
PLAN = plan(MODELS, PRESET, int(config.get("seeds", SEEDS)), SCENES)
RECORDED = read_results(RESULTS)
FIRST = len(PLAN) + 10
# For other sensors.
COMPARED = "bicubic richardson-lucy back-projection esrt asnlsr bandwise".split()
PLACES = {run.name: len(PLAN) - place for place, run in enumerate(PLAN)}


def priority(wildcards):
    """Return the priority of a training run: the earlier in the plan, the higher."""
    return PLACES.get(RUN.format(**wildcards), 0)


def missing_runs(wildcards):
    """Return the files of what is not recorded; the records have to be of the same scenes."""
    if DATASET != "simulated":
        check_scenes(RESULTS, RECORDED, SCENES)
    wanted = [run.name for run in PLAN if run.name not in RECORDED.runs]
    return [f"{SPACE.root}/runs/{name}/metrics.csv" for name in wanted]


rule evidence:
    input:
        missing_runs,


rule results:
    params:
        arguments=quoted([PRESET, DATASET, "/".join(SCENES), *MODELS]),
    message:
        "Recording what is finished of the evidence"
    shell:
        "python -m workflow.record_results {params.arguments}"


rule weights:
    input:
        list(tiles_and_split("blind").values()),
    params:
        arguments=[PRESET, DATASET, *MODELS],
    message:
        "Writing what is trained to the end to data/weights"
    shell:
        "python -m workflow.record_weights {params.arguments}"


rule sensors:
    input:
        list(tiles_and_split("blind").values()),
        [f"{SPACE.run(method)}/run.json" for method in COMPARED],
    message:
        "Measuring six methods for 36 sensors"
    params:
        methods=COMPARED,
    shell:
        "python workflow/run_benchmark.py {PRESET} {DATASET} {params.methods}"
