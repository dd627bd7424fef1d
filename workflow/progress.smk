"""What `make` does before it starts: it says how long every job will take, and starts `warm.py`."""

import subprocess
import tempfile

import pandas as pd
from snakemake.logging import logger

from asnlsr.models.registry import spec

# Seconds on two cores of what was never done here. Networks at demo: as recorded, else `train`.
TYPICAL = {"simulate": 20, "prepare": 12, "train": 25, "evaluate": 15, "chapter": 40, "site": 60}
if PRESET != "smoke":
    TYPICAL |= {"simulate": 40, "prepare": 40, "train": 0.3 * SIZES.steps, "chapter": 60}
SERVERS = []


def expected(job):
    """Return about how many seconds a job takes."""
    if job.benchmark and Path(str(job.benchmark)).exists():
        return float(pd.read_csv(str(job.benchmark), sep="\t")["s"].iloc[-1])
    if job.rule.name == "train":
        run = Experiment.parse(RUN.format(**job.wildcards_dict), PRESET)
        if not spec(run.model).takes_steps:
            return TYPICAL["evaluate"]
        if run.name in RECORDED.runs:
            return 60 * RECORDED.runs[run.name]["minutes"] + TYPICAL["evaluate"]
    return TYPICAL.get(job.rule.name, 5)


onstart:
    jobs = [job for job in workflow.dag.needrun_jobs() if job.message]
    seconds = {workflow.dag.jobid(job): expected(job) for job in jobs}
    side_by_side = workflow.resource_settings.nodes or workflow.resource_settings.cores
    logger.info("", extra={"event": "plan", "expected": seconds, "cores": side_by_side})
    programs = [job for job in jobs if job.rule.name in ("train", "evaluate", "chapter")]
    here = sys.platform == "linux" and not workflow.resource_settings.nodes
    if here and len(programs) > 2 and len(tempfile.gettempdir()) < 80:  # sockets have short names
        os.environ["ASNLSR_WARM"] = tempfile.mkdtemp(prefix="asnlsr-")
        one = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}  # as jobs have
        command = [sys.executable, "workflow/warm.py", "serve"]
        if any(job.rule.name == "train" for job in programs):
            command += ["pytorch_lightning"]
        command += ["xarray", "torchmetrics.functional.image", "sklearn.manifold"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        SERVERS.append(subprocess.Popen(command, env=os.environ | one, **pipes))
        SERVERS[0].stdout.readline()  # it can be asked, and ends where this process does
