"""From radiance scenes to the book: the one description of the pipeline.

Settings (`snakemake --config key=value`): preset, dataset (simulated, or a name for the reader's
ENVI scenes), scenes_dir (their folder), protocol (of the table), models, seeds (of the evidence).
"""

import os
import re
import sys
from shlex import join as quoted
from pathlib import Path

from asnlsr.config import AT_ONCE, PROTOCOLS, preset
from asnlsr.notebook.workspace import Workspace
from asnlsr.scenes.envi import open_scene
from asnlsr.notebook.workspace import sources

PRESET = config.get("preset", "demo")
DATASET = config.get("dataset", "simulated")
PROTOCOL = config.get("protocol", "blind")
MODELS = config.get(
    "models",
    "bicubic bicubic-centred back-projection richardson-lucy linear"
    " rcam esrt srformer bandwise bandwise-oracle snlsr-frozen snlsr snlsr-unmix asnlsr",
).split()
if not re.fullmatch(r"[a-z0-9_]+", DATASET):  # it becomes a part of paths
    raise WorkflowError(f"dataset {DATASET!r}: use small letters, digits and _ only")
if DATASET == "simulated" and config.get("scenes_dir"):
    raise WorkflowError("SCENES_NAME=simulated is the name of the book's own scenes: choose another")
SIZES = preset(PRESET)
SEED = 0

# Relative paths, so that the record of what was made stays true when the folder is moved.
SPACE = Workspace(PRESET, DATASET, base=Path("data"))
BUILD = f"build/{PRESET}" if DATASET == "simulated" else f"build/{DATASET}-{PRESET}"
TABLE = f"{SPACE.root}/table-{PROTOCOL}.md"
SITE = f"{BUILD}/_build/html/index.html"
CHAPTERS = [path.stem for path in sorted(Path("book").glob("[0-9]*.ipynb"))]
RUN = "{variant}-{protocol}-{recipe}-s{seed}"  # folder of a training run
PAGES = ["book/_toc.yml", "book/references.bib", *map(str, sorted(Path("book").glob("*.md")))]
PAGES += ["data/README.md", "CITATION.cff", "workflow/book.css"]
PAGES += map(str, sorted(Path("book/drawings").glob("*.svg")))

# The commands below are those beside this Python, whatever the caller's PATH says.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def scene_headers():
    """Return the ENVI headers of the reader's own scenes."""
    folder = config.get("scenes_dir") or os.environ.get("ASNLSR_REAL_SCENES", "")
    headers = sorted(map(str, Path(folder).glob("*.hdr"))) if folder else []
    if not headers:
        raise WorkflowError(f"no .hdr file in {folder!r}: set scenes_dir to a folder of ENVI scenes")
    return headers


def tile_side():
    """Return the side of the tiles: that of the preset, smaller where scenes do not hold two."""
    if DATASET == "simulated":
        return SIZES.tile
    try:
        opened = [open_scene(Path(header)) for header in scene_headers()]
    except (OSError, ValueError) as error:
        raise WorkflowError(str(error)) from None
    small = min(min(scene.rows, scene.cols) for scene in opened) < 2 * SIZES.tile
    return min(SIZES.tile, 64) if small else SIZES.tile


def run_file(model, protocol="blind", recipe="warm"):
    """Return the file that says that a training run is finished."""
    return f"{SPACE.run(model, protocol, recipe, SEED)}/run.json"


def metrics_file(model, protocol="blind", recipe="warm"):
    """Return the file of the test metrics of a training run."""
    return f"{SPACE.run(model, protocol, recipe, SEED)}/metrics.csv"


def tiles_and_split(protocol, variant=""):
    """Return the tiles and the split that a protocol works on; `MODEL_by=tile` changes the split."""
    by, border = PROTOCOLS[protocol]
    by = "tile" if variant.endswith("_by=tile") else by
    return {"tiles": str(SPACE.tiles(border)), "split": str(SPACE.split(by))}


def training_arguments(variant):
    """Return what the command line calls `MODEL` or `MODEL_SETTING_SETTING`."""
    model, *settings = variant.split("_")
    return " --set ".join([model, *(text for text in settings if text != "by=tile")])


def border_of(by):
    """Return the border with which the tiles of a split were degraded."""
    return dict(PROTOCOLS.values())[by]


# Recorded results, as far as there are any: see workflow/evidence.smk.
RECORDS = sorted(map(str, Path("data/results").glob("*-demo/*")))
# What each chapter reads. It is made before the chapter runs, which therefore never trains.
BLIND = list(tiles_and_split("blind").values())
READS = {
    "01": [str(SPACE.scenes)] if DATASET == "simulated" else [],
    "02": BLIND,
    "03": [*BLIND, "data/paper/table1.csv"],
    "04": [
        *BLIND,
        *map(run_file, ["bicubic", "snlsr-frozen", "snlsr", "snlsr-unmix", "asnlsr"]),
        run_file("asnlsr", recipe="published"),
        str(SPACE.metrics("blind")),
    ],
    "05": [
        *BLIND,
        *map(run_file, ["snlsr-unmix", "asnlsr"]),
        *map(metrics_file, ["snlsr-unmix", "asnlsr"]),
        *RECORDS,
    ],
    "06": [
        *BLIND,
        *map(run_file, ["bicubic", "rcam", "esrt", "srformer"]),
        str(SPACE.metrics("blind")),
    ],
    "07": [*BLIND, *map(run_file, [*AT_ONCE, "asnlsr"]), str(SPACE.metrics("blind"))],
    "08": [
        *BLIND,
        *map(run_file, ["bicubic", "richardson-lucy", "esrt", "asnlsr"]),
        *map(run_file, ["bandwise", "bandwise-oracle"]),
        str(SPACE.metrics("blind")),
        *RECORDS,
    ],
    "09": [*BLIND, run_file("bicubic"), run_file("asnlsr")],
    "10": [
        *BLIND,
        str(SPACE.metrics("blind")),
        run_file("asnlsr", recipe="published"),
        "data/paper/table1.csv",
        *RECORDS,
    ],
    "11": [
        *BLIND,
        *map(run_file, ["snlsr-frozen", "asnlsr", "richardson-lucy"]),
        str(SPACE.metrics("blind")),
        "data/paper/table1.csv",
        *RECORDS,
    ],
}


wildcard_constraints:
    border="scene|zero",
    by="scene|tile",
    protocol="|".join(PROTOCOLS),
    recipe="warm|published",
    seed=r"\d+",
    # a model of the registry and, in the ablation, settings: see asnlsr/evidence.py
    variant=r"[a-z0-9-]+(_[a-z]+=[a-z0-9.]+)*",


rule all:
    input:
        TABLE,
        SITE,


rule table_and_runs:
    input:
        TABLE,


include: "workflow/evidence.smk"


if DATASET == "simulated":

    rule simulate:
        input:
            sources("asnlsr.simulate"),
        output:
            directory(SPACE.scenes),
        params:
            scenes=SIZES.scenes,
            size="x".join(map(str, SIZES.size)),
        benchmark:
            f"{SPACE.root}/benchmarks/simulate.tsv"
        message:
            "Simulating {params.scenes} scenes of {params.size} pixels"
        shell:
            "asnlsr simulate --out {output} --scenes {params.scenes} --size {params.size}"
            " --seed {SEED}"


rule prepare:
    input:
        sources("asnlsr.tiles"),
        scenes=SPACE.scenes if DATASET == "simulated" else scene_headers(),
    output:
        directory(f"{SPACE.root}/tiles-{{border}}"),
    params:
        headers=f"{SPACE.scenes}/*.hdr" if DATASET == "simulated" else quoted(scene_headers()),
        tile=tile_side(),
    benchmark:
        f"{SPACE.root}/benchmarks/prepare-{{border}}.tsv"
    message:
        "Cutting tiles of {params.tile} pixels (border {wildcards.border})"
    shell:
        "asnlsr prepare {params.headers} --out {output} --tile {params.tile}"
        " --border {wildcards.border}"


rule split:
    input:
        sources("asnlsr.splits"),
        tiles=lambda wildcards: SPACE.tiles(border_of(wildcards.by)),
    output:
        f"{SPACE.root}/split-{{by}}.json",
    message:
        "Splitting the tiles by {wildcards.by}"
    shell:
        "asnlsr split {input.tiles} --by {wildcards.by} --seed {SEED} --out {output}"


rule train:
    input:
        sources("asnlsr.training"),
        unpack(lambda wildcards: tiles_and_split(wildcards.protocol, wildcards.variant)),
    output:
        f"{SPACE.root}/runs/{RUN}/run.json",
    params:
        run=subpath(output[0], parent=True),
        arguments=lambda wildcards: training_arguments(wildcards.variant),
    priority: turn
    threads: 1  # two runs side by side do more than one on two cores
    benchmark:
        f"{SPACE.root}/benchmarks/train-{RUN}.tsv"
    message:
        "Training {wildcards.variant} ({wildcards.protocol}, {wildcards.recipe}, seed {wildcards.seed})"
    shell:
        # A checkpoint older than something that it was made from is not resumed but thrown away.
        "for made_from in {input}; do"
        "   if [ {params.run}/last.ckpt -ot $made_from ]; then rm -rf {params.run}; fi; "
        "done; "
        "OMP_NUM_THREADS={threads} asnlsr train {params.arguments} --tiles {input.tiles} --split {input.split}"
        " --out {params.run} --preset {PRESET} --protocol {wildcards.protocol}"
        " --recipe {wildcards.recipe} --seed {wildcards.seed}"


rule evaluate:
    input:
        sources("asnlsr.evaluate"),
        unpack(lambda wildcards: tiles_and_split(wildcards.protocol, wildcards.variant)),
        run=f"{SPACE.root}/runs/{RUN}/run.json",
    output:
        f"{SPACE.root}/runs/{RUN}/metrics.csv",
    params:
        run=subpath(output[0], parent=True),
    priority: FIRST  # a run of the evidence counts when it is evaluated
    threads: 1
    benchmark:
        f"{SPACE.root}/benchmarks/evaluate-{RUN}.tsv"
    message:
        "Evaluating {wildcards.variant} ({wildcards.protocol}, {wildcards.recipe}, seed {wildcards.seed})"
    shell:
        "OMP_NUM_THREADS={threads} asnlsr evaluate {params.run} --tiles {input.tiles}"
        " --split {input.split} --out {output}"


rule metrics:
    input:
        lambda wildcards: [metrics_file(model, wildcards.protocol) for model in MODELS],
    output:
        f"{SPACE.root}/metrics-{{protocol}}.csv",
    message:
        "Gathering the metrics of {MODELS} ({wildcards.protocol})"
    shell:
        "awk 'NR == 1 || FNR > 1' {input} > {output}"


rule table:
    input:
        sources("asnlsr.tables"),
        metrics=f"{SPACE.root}/metrics-{{protocol}}.csv",
    output:
        f"{SPACE.root}/table-{{protocol}}.md",
    message:
        "Tabulating {input.metrics}"
    shell:
        "asnlsr table {input.metrics} --format md > {output}"


rule chapter:
    input:
        lambda wildcards: sources(f"book/{wildcards.chapter}.ipynb"),
        lambda wildcards: READS[wildcards.chapter[:2]],
        notebook="book/{chapter}.ipynb",
        script="workflow/run_chapter.py",
    output:
        f"{BUILD}/src/{{chapter}}.ipynb",
    benchmark:
        f"{BUILD}/benchmarks/{{chapter}}.tsv"
    message:
        "Executing {input.notebook}"
    shell:
        "python {input.script} {input.notebook} {output}"
        " PRESET={PRESET} DATASET={DATASET} SEED={SEED}"


rule site:
    input:
        PAGES,
        "_config.yml",
        [f"{BUILD}/src/{chapter}.ipynb" for chapter in CHAPTERS],
        script="workflow/build_site.py",
    output:
        SITE,
    params:
        measured=f"{SPACE.root}/benchmarks",
        repository=os.environ.get("ASNLSR_REPOSITORY", ""),
    log:
        f"{BUILD}/site.log",
    message:
        "Rendering the book"
    shell:
        "python {input.script} {BUILD} {params.measured} {params.repository} > {log} 2>&1"
