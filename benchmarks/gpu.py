"""What training takes on a GPU, and the long runs that need one: see README.md.

    python -m benchmarks.gpu export --tiles TILES --split SPLIT.json --out tiles.xz
    python -m benchmarks.gpu run --tiles tiles.xz --out OUT --minutes 8.6

Every measurement and every run is a process of its own, so that one that fails or hangs costs
nothing else; what is finished is in OUT at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.gpu_jobs import JOBS, MODES, PAIR

FINISH = 20  # seconds of a run that are no steps: start, validation, test
RUNS_A_FILE = 5  # of weights: some places take no file over 16 MiB


class Bench:
    """Starts the jobs, keeps what they tell, and ends in time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.out, self.dry = args.out, args.dry_run
        self.end = time.monotonic() + 60 * args.minutes
        self.common = {"tiles": str(args.tiles), "dry": self.dry, "work": str(args.work)}
        self.files = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def start(self, job: str, **what: object) -> subprocess.Popen[str]:
        """Start a job."""
        text = json.dumps(self.common | {"job": job} | what)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "job", text]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen[str], limit: float = 1e9) -> list[dict[str, Any]]:
        """Wait for a job, at most so long; write down and return what it told."""
        try:
            output, _ = process.communicate(timeout=max(1.0, min(limit, self.left)))
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            print("cut off:", process.args[-1][:200], flush=True)
        told = [json.loads(line[1:]) for line in output.splitlines() if line.startswith("@")]
        with (self.out / "results.jsonl").open("a") as file:
            for row in told:
                file.write(json.dumps(row) + "\n")
                brief = {k: v for k, v in row.items() if k not in ("history", "config", "folder")}
                print(f"[{self.left:.0f} s left]", json.dumps(brief), flush=True)
                if "folder" in row:
                    self.keep(Path(row["folder"]) / "weights.safetensors", row)
        return told

    def keep(self, weights: Path, row: dict[str, Any]) -> None:
        """Add the weights of a run, float16, to a file of several."""
        path = self.out / f"weights-{self.files // RUNS_A_FILE}.safetensors"
        self.files += 1
        stored = load_file(path) if path.exists() else {}
        for key, value in load_file(weights).items():
            stored[f"{row['preset']}/{row['run']}/{key}"] = (
                value.half() if value.dtype == torch.float32 else value
            )
        save_file(stored, path)

    def run(self, share: int) -> None:
        """Measure; then train, the most wanted first."""
        best, ms = "eager", {}
        for mode in ("fused tf32",) if self.dry else MODES:
            job = self.start("measure", mode=mode, settings=MODES[mode])
            for row in self.finish(job, 50 if not self.dry else 1e9):
                ms[mode, row["model"], row["crop"]] = row["ms"]
        for (mode, model, _), value in ms.items():
            if model == "asnlsr" and value < ms.get((best, model, 128), 1e9):
                best = mode
        at = {crop: ms.get((best, "asnlsr", crop), 15.0) / 1e3 for crop in (128, 64)}
        whole = 6 if self.dry else 22_500
        fits = int((self.left - 2 * FINISH) / at[128])
        settings = dict(MODES[best])
        if self.dry or fits < whole + 600:  # rather a shorter run than none
            whole = min(whole, max(fits - 600, 1))
            settings |= {"steps": whole, "log_every": max(whole // 3, 1)}
        if self.dry:
            settings |= {"warmup_steps": 2, "crop": 64}
        print("long runs:", best, settings, flush=True)
        compared = self.start("compare", mode=best, threads=max(1, (os.cpu_count() or 2) // 3))
        for model in PAIR:
            if model == PAIR[0] or (whole + 600) * at[128] + FINISH < self.left:
                args = {"model": model, "preset": "paper", "seed": 0, "settings": settings}
                self.finish(self.start("long_run", **args))
        self.finish(compared)
        self.pairs(
            share, settings | {"crop": 64} | self._pair_sizes(), 0.0 if self.dry else 8250 * at[64]
        )

    def _pair_sizes(self) -> dict[str, int]:
        if self.dry:
            return {"steps": 6, "log_every": 3, "warmup_steps": 2}
        return {"steps": 8000, "log_every": 400, "warmup_steps": 250}

    def pairs(self, share: int, settings: dict[str, Any], seconds: float) -> None:
        """A-SNLSR and its control side by side, further seeds, until the time is over."""
        seed, started = 1, []
        while self.left > 0.7 * 2 * share * seconds + FINISH and seed <= (1 if self.dry else 8):
            seeds = range(seed, seed + share)
            for each in seeds:
                for model in PAIR:
                    args = {"model": model, "preset": "demo", "seed": each, "settings": settings}
                    started.append(self.start("long_run", **args))
            while started:
                self.finish(started.pop(0))
            seed += share


def about() -> dict[str, Any]:
    """Card and versions."""
    import pytorch_lightning as pl

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": str(
        torch.backends.cudnn.version()), "lightning": pl.__version__}  # fmt: skip
    return {"card": card, "python": platform.python_version(), "cores": os.cpu_count()} | versions


def main() -> None:
    """Export tiles, run everything, or do one job."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("job").add_argument("text")
    for verb in ("export", "run"):
        each = verbs.add_parser(verb)
        each.add_argument("--tiles", type=Path, required=True)
        each.add_argument("--out", type=Path, required=True)
        if verb == "export":
            each.add_argument("--split", type=Path, required=True)
            each.add_argument("--every", type=int, default=1, help="of the test tiles")
            continue
        each.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "asnlsr-gpu")
        each.add_argument("--minutes", type=float, default=8.6)
        each.add_argument("--share", type=int, default=2, help="pairs at a time")
        each.add_argument("--dry-run", action="store_true", help="everything, a few steps each")
    args = parser.parse_args()
    if args.verb == "job":
        job = json.loads(args.text)
        for row in JOBS[job["job"]](job):
            print("@" + json.dumps({"job": job["job"]} | row), flush=True)
    elif args.verb == "export":
        from asnlsr.tiles.store import TileSet
        from benchmarks.gpu_tiles import export

        export(TileSet(args.tiles, args.split), args.out, args.every)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        bench = Bench(args)
        print(json.dumps(about()), flush=True)
        (args.out / "results.jsonl").write_text(json.dumps(about()) + "\n")
        bench.run(args.share)


if __name__ == "__main__":
    main()
