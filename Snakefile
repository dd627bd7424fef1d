"""From radiance scenes to the book: the one description of the pipeline.

Settings (`snakemake --config key=value`): preset, dataset (simulated, or a name for the reader's
ENVI scenes), scenes_dir (their folder), protocol (of the table), models, seeds (of the evidence),
retrain (use no weights of the repository).
"""

import fcntl
import os
import re
import shutil
import sys
from contextlib import suppress
from shlex import join as quoted
from pathlib import Path

from asnlsr.config import PRESETS, PROTOCOLS, Experiment
from asnlsr.notebook.workspace import Workspace

sys.path.insert(0, workflow.basedir)  # of workflow/plan.py
PRESET = config.get("preset", "demo")
DATASET = str(config.get("dataset", "simulated"))
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
if PRESET not in PRESETS:
    raise WorkflowError(f"unknown preset {PRESET!r}: choose one of {', '.join(PRESETS)}")
SIZES = PRESETS[PRESET]
SEED = 0

# Snakemake's locks outlive a process that is killed. Who works here holds this file, which the
# system lets go of; where nobody does, locks are left over.
os.makedirs(".snakemake", exist_ok=True)
AT_WORK = open(".snakemake/at-work", "w")
with suppress(OSError):  # somebody works here
    fcntl.flock(AT_WORK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shutil.rmtree(".snakemake/locks", ignore_errors=True)
with suppress(OSError):  # a file system without locks
    fcntl.flock(AT_WORK, fcntl.LOCK_SH)

# Relative paths, so that the record of what was made stays true when the folder is moved.
SPACE = Workspace(PRESET, DATASET, base=Path("data"), retrain="retrain" in config)
BUILD = f"build/{PRESET}" if DATASET == "simulated" else f"build/{DATASET}-{PRESET}"
TABLE = f"{SPACE.root}/table-{PROTOCOL}.md"
SITE = f"{BUILD}/_build/html/index.html"
CHAPTERS = [path.stem for path in sorted(Path("book").glob("*.ipynb"))]
WARM = "python workflow/warm.py"  # spares a program its imports
RUN = "{variant}-{protocol}-{recipe}-s{seed}"  # folder of a training run
PAGES = ["book/_toc.yml", "book/references.bib", *map(str, sorted(Path("book").glob("*.md")))]
PAGES += ["data/README.md", "CITATION.cff", "workflow/book.css", "workflow/search.js"]
PAGES += map(str, sorted(Path("book/drawings").glob("*.svg")))

# The commands below are those beside this Python, whatever the caller's PATH says.
os.environ["PYTHONUTF8"] = "1"  # whatever the locale
# Keep the memory that a process frees: it is asked for again at the next step (glibc).
os.environ |= {"MALLOC_TRIM_THRESHOLD_": str(2**31), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
os.environ["ASNLSR_LINES"] = "1"  # jobs side by side: no bars that write over each other
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def scene_headers():
    """Return the ENVI headers of the reader's own scenes."""
    folder = str(config.get("scenes_dir") or os.environ.get("ASNLSR_REAL_SCENES", ""))
    headers = sorted(map(str, Path(folder).glob("*.[hH][dD][rR]"))) if folder else []
    if not headers:
        raise WorkflowError(f"no .hdr file in {folder!r}: set scenes_dir to a folder of ENVI scenes")
    return headers


def tile_side():
    """Return the side of the tiles: that of the preset, smaller where scenes do not hold two."""
    if DATASET == "simulated":
        return SIZES.tile
    from asnlsr.scenes.envi import open_scene

    try:
        opened = [open_scene(Path(header)) for header in scene_headers()]
    except (OSError, ValueError) as error:
        raise WorkflowError(str(error)) from None
    small = min(min(scene.rows, scene.cols) for scene in opened) < 2 * SIZES.tile
    return min(SIZES.tile, 64) if small else SIZES.tile


def of_run(model, file, protocol="blind", recipe="warm"):
    """Return a file in the folder of a training run."""
    return f"{SPACE.root}/runs/{Experiment(model, PRESET, protocol, recipe, SEED).name}/{file}"


# The models of the table whose weights are in the repository.
SHIPPED = [model for model in MODELS if SPACE.run(model).parent.name == "weights"]


def measured(protocol):
    """Return the metrics of the models: of weights in the repository, and of runs made here."""
    shipped = SHIPPED if protocol == "blind" else []
    made = [model for model in MODELS if model not in shipped]
    of_weights = [f"{SPACE.root}/metrics-weights.csv"] * bool(shipped)
    return of_weights + [of_run(model, "metrics.csv", protocol) for model in made]


def code(*parts):
    """Return the files of the package in some folders or of some names: what a step depends on."""
    files = [path for part in parts for path in sorted(Path("asnlsr").glob(part))]
    return [str(path) for path in files if path.suffix in (".py", ".js", ".css", ".mplstyle")]


def tiles_and_split(protocol, variant=""):
    """Return the tiles and the split that a protocol works on; `MODEL_by=...` changes the split."""
    run = Experiment.parse(f"{variant or 'bicubic'}-{protocol}-warm-s0", PRESET)
    return {"tiles": str(SPACE.tiles(run.border)), "split": str(SPACE.split(run.by))}


def training_arguments(variant):
    """Return what the command line calls `MODEL` or `MODEL_SETTING_SETTING`."""
    model, *settings = re.split(r"_(?=[a-z_]+=)", variant)
    return " --set ".join([model, *settings])


def border_of(by):
    """Return the border with which the tiles of a split were degraded."""
    return dict(PROTOCOLS.values()).get(by, "scene")


# What a training and its evaluation depend on. A run whose experiment, pixels and TRAINING_VERSION
# are the same is not trained again, whatever was edited: see asnlsr/training/folder.py.
TRAINING = ["config.py", "physics.py", "metrics.py", "models/*", "tiles/store.py", "training/*"]
BOOK = [*TRAINING, "*.py", "scenes/**/*", "tiles/*", "results/*", "notebook/**/*"]


wildcard_constraints:
    border="scene|zero",
    by="scene|tile|without-.+",
    protocol="|".join(PROTOCOLS),
    recipe="warm|published",
    seed=r"\d+",
    # a model of the registry and, in the ablation, settings: see workflow/plan.py
    variant=r"[a-z0-9-]+(_[a-z_]+=[a-z0-9.-]+)*",


rule all:
    input:
        TABLE,
        SITE,


rule table_and_runs:
    input:
        TABLE,


include: "workflow/evidence.smk"
include: "workflow/progress.smk"


if DATASET == "simulated":

    rule simulate:
        input:
            code("scenes/simulator/*", "scenes/envi.py"),
        output:
            directory(SPACE.scenes),
        params:
            scenes=SIZES.scenes,
            size="x".join(map(str, SIZES.size)),
        benchmark:
            f"{SPACE.root}/benchmarks/simulate.tsv"
        priority: FIRST  # most of the book waits for it, and it does not wait for WARM
        message:
            "Simulating {params.scenes} scenes of {params.size} pixels"
        shell:
            "asnlsr simulate --out {output} --scenes {params.scenes} --size {params.size}"
            " --seed {SEED}"


rule prepare:
    input:
        code("tiles/prepare.py", "scenes/*", "physics.py"),
        scenes=SPACE.scenes if DATASET == "simulated" else scene_headers(),
    output:
        directory(f"{SPACE.root}/tiles-{{border}}"),
    params:
        headers=f"{SPACE.scenes}/*.hdr" if DATASET == "simulated" else quoted(scene_headers()),
        tile=tile_side(),
    benchmark:
        f"{SPACE.root}/benchmarks/prepare-{{border}}.tsv"
    priority: FIRST
    message:
        "Cutting tiles of {params.tile} pixels (border {wildcards.border})"
    shell:
        "{WARM} asnlsr prepare {params.headers} --out {output} --tile {params.tile}"
        " --border {wildcards.border}"


rule split:
    input:
        code("tiles/store.py"),
        tiles=lambda wildcards: SPACE.tiles(border_of(wildcards.by)),
    output:
        f"{SPACE.root}/split-{{by}}.json",
    priority: FIRST
    message:
        "Splitting the tiles by {wildcards.by}"
    shell:
        "{WARM} asnlsr split {input.tiles} --by {wildcards.by} --seed {SEED} --out {output}"


rule train:
    input:
        code(*TRAINING),
        unpack(lambda wildcards: tiles_and_split(wildcards.protocol, wildcards.variant)),
    output:
        f"{SPACE.root}/runs/{RUN}/run.json",
    params:
        run=subpath(output[0], parent=True),
        arguments=lambda wildcards: training_arguments(wildcards.variant),
    priority: priority
    threads: 1  # two runs side by side do more than one on two cores
    benchmark:
        f"{SPACE.root}/benchmarks/train-{RUN}.tsv"
    message:
        "Training {wildcards.variant} ({wildcards.protocol}, {wildcards.recipe}, seed {wildcards.seed})"
    shell:
        "{WARM} asnlsr train {params.arguments} --tiles {input.tiles} --split {input.split}"
        " --out {params.run} --preset {PRESET} --protocol {wildcards.protocol}"
        " --recipe {wildcards.recipe} --seed {wildcards.seed}"


rule evaluate:
    input:
        code(*TRAINING, "results/evaluate.py"),
        unpack(lambda wildcards: tiles_and_split(wildcards.protocol, wildcards.variant)),
        run=f"{SPACE.root}/runs/{RUN}/run.json",
    output:
        f"{SPACE.root}/runs/{RUN}/metrics.csv",
    params:
        run=subpath(output[0], parent=True),
        # The noise-free scene is a row of every table once: beside bicubic.
        ceiling=lambda wildcards: "" if wildcards.variant == "bicubic" else " --no-ceiling",
    priority: FIRST  # a run of the evidence counts when it is evaluated
    threads: 1
    benchmark:
        f"{SPACE.root}/benchmarks/evaluate-{RUN}.tsv"
    message:
        "Evaluating {wildcards.variant} ({wildcards.protocol}, {wildcards.recipe}, seed {wildcards.seed})"
    shell:
        "{WARM} asnlsr evaluate {params.run} --tiles {input.tiles}"
        " --split {input.split} --out {output}{params.ceiling}"


rule measure_weights:
    input:
        code(*TRAINING, "results/evaluate.py"),
        **tiles_and_split("blind"),
        runs=[f"data/weights/{model}/run.json" for model in SHIPPED],
    output:
        f"{SPACE.root}/metrics-weights.csv",
    params:
        runs=[f"data/weights/{model}" for model in SHIPPED],
        ceiling="" if "bicubic" in SHIPPED else " --no-ceiling",
    priority: FIRST  # other chapters wait for it
    benchmark:
        f"{SPACE.root}/benchmarks/evaluate-weights.tsv"
    message:
        "Evaluating the weights of {SHIPPED}"
    shell:
        "{WARM} asnlsr evaluate {params.runs} --tiles {input.tiles}"
        " --split {input.split} --out {output}{params.ceiling}"


rule metrics:
    input:
        lambda wildcards: measured(wildcards.protocol),
    output:
        f"{SPACE.root}/metrics-{{protocol}}.csv",
    message:
        "Gathering the metrics of {MODELS} ({wildcards.protocol})"
    shell:
        "awk 'NR == 1 || FNR > 1' {input} > {output}"


rule table:
    input:
        code("results/*"),
        metrics=f"{SPACE.root}/metrics-{{protocol}}.csv",
    output:
        f"{SPACE.root}/table-{{protocol}}.md",
    priority: FIRST  # chapter 11 waits for it
    message:
        "Tabulating {input.metrics}"
    shell:
        "{WARM} asnlsr table {input.metrics} --format md > {output}"


rule chapter:
    input:
        code(*BOOK),
        lambda wildcards: SPACE.reads(wildcards.chapter, SEED),
        notebook="book/{chapter}.ipynb",
        script="workflow/run_chapter.py",
    output:
        f"{BUILD}/src/{{chapter}}.ipynb",
    priority: lambda wildcards: {"08": 3, "09": 2, "12": 1}.get(wildcards.chapter[:2], 0)  # long
    benchmark:
        f"{BUILD}/benchmarks/{{chapter}}.tsv"
    message:
        "Executing {input.notebook}"
    shell:
        "{WARM} {input.script} {input.notebook} {output}"
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
