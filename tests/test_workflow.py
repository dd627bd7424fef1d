"""The workflow: what it makes again after an edit, and what it leaves alone."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from asnlsr.notebook import workspace as workflow
from asnlsr.notebook.workspace import READS, ROOT, Workspace, key_of, open_chapter
from asnlsr.results.tables import AT_ONCE
from asnlsr.tiles.store import open_tiles
from tests.smoke_book import copy_repository, smoke_book, snakemake
from workflow.snakemake_logger_plugin_book import LogHandler

SMOKE = Path("data/simulated-smoke")
SYSTEMS = 14  # of the table
RUN = SMOKE / "runs/bicubic-blind-warm-s0"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of the repository and of the finished smoke book, free to be edited."""
    smoke_book()
    made = ("data/paper", "data/results", ".snakemake/metadata", str(SMOKE), "build/smoke")
    copy_repository(tmp_path, *made)
    for name in ("_config.yml", "CITATION.cff", "data/README.md"):
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def planned(clone: Path, target: str = "all", **config: str) -> dict[str, int]:
    """Return how many jobs of each rule the workflow would run."""
    text = snakemake("--dry-run", target, cwd=clone, **config)
    if "Nothing to be done" in text:
        return {}
    table, *_ = re.findall(r"^job +count\n[- ]+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
    counts = dict(line.split() for line in table.splitlines())
    return {rule: int(count) for rule, count in counts.items() if rule != "all"}


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line)


def test_new_date_without_an_edit_makes_nothing(clone):
    (clone / "asnlsr/models/snlsr.py").touch()
    assert planned(clone) == {}


def test_edit_of_one_chapter_makes_that_chapter_and_the_site(clone):
    append(clone / "book/notation.md", "\nOne more sentence.\n")
    assert planned(clone) == {"site": 1}
    chapter = clone / "book/02_tiles.ipynb"
    chapter.write_text(chapter.read_text().replace('"# ', '"# An edit of: ', 1))
    assert planned(clone) == {"chapter": 1, "site": 1}


def test_settings_of_a_variant_reach_the_command_line(clone):
    run = SMOKE / "runs/asnlsr_skip=false_reversal=1.0-blind-warm-s0/run.json"
    text = snakemake("--dry-run", "--printshellcmds", str(run), cwd=clone)
    assert " train asnlsr --set skip=false --set reversal=1.0 --tiles" in text


def test_edit_of_a_network_trains_again_and_makes_what_follows(clone):
    append(clone / "asnlsr/models/snlsr.py", "\n# an edit\n")
    jobs = planned(clone)
    assert jobs["train"] == SYSTEMS
    assert jobs["evaluate"] == SYSTEMS
    assert jobs["metrics"] == jobs["table"] == jobs["site"] == 1
    assert jobs["chapter"] >= 3  # metrics, training, alignment
    assert not {"simulate", "prepare", "split"} & set(jobs)


def test_edit_of_the_simulator_makes_everything(clone):
    append(clone / "asnlsr/scenes/simulator/painting.py", "\n# an edit\n")
    once = dict.fromkeys(("simulate", "prepare", "split", "metrics", "table", "site"), 1)
    chapters = len(list((ROOT / "book").glob("*.ipynb")))
    assert planned(clone) == once | {"train": SYSTEMS, "evaluate": SYSTEMS, "chapter": chapters}


def test_protocol_as_released_has_its_own_tiles_and_split(clone):
    jobs = planned(clone, protocol="as-released")
    # The book is about the blind protocol and stays as it is.
    runs = {"train": SYSTEMS, "evaluate": SYSTEMS}
    assert jobs == {"prepare": 1, "split": 1, **runs, "metrics": 1, "table": 1}
    shown = snakemake("--dry-run", "--printshellcmds", cwd=clone, protocol="as-released")
    (prepare,) = re.findall(r"asnlsr prepare .*", shown)
    (split,) = re.findall(r"asnlsr split .*", shown)
    assert "--border zero" in prepare
    assert "--by tile" in split
    assert str(SMOKE / "tiles-zero") in split


def test_evidence_plans_what_is_neither_made_nor_recorded(clone):
    """Seed 0 of the networks of the book is there; two settings and a recipe of it are not."""
    jobs = planned(clone, "evidence", seeds="1", models="bicubic snlsr-unmix")
    # snlsr-unmix: endmembers=apart, relight=0.0 and recipe published.
    assert jobs["train"] == jobs["evaluate"] == 3
    snakemake("results", cwd=clone)
    recorded = json.loads((clone / "data/results/simulated-smoke/runs.json").read_text())["runs"]
    assert "snlsr-unmix-blind-warm-s0" in recorded
    shutil.rmtree(clone / SMOKE / "runs")
    jobs = planned(clone, "evidence", seeds="1", models="bicubic snlsr-unmix")
    assert jobs["train"] == jobs["evaluate"] == 3


@pytest.mark.slow
def test_chapters_open_without_recorded_results(clone, monkeypatch):
    """In a clone of its own, whose package they import: it knows no other results."""
    shutil.rmtree(clone / "data/results", ignore_errors=True)
    monkeypatch.setenv("PYTHONPATH", str(clone))
    which = "import sys, asnlsr; assert asnlsr.__file__ == sys.argv[1] + '/asnlsr/__init__.py'"
    subprocess.run([sys.executable, "-c", which, clone], cwd=clone, check=True)
    for stem in ("11_results", "appendix_b_what_a_table_measures"):
        command = ["workflow/run_chapter.py", f"book/{stem}.ipynb", f"{stem}.ipynb", "PRESET=smoke"]
        subprocess.run([sys.executable, *command], cwd=clone, check=True)
    # The page shows this build's runs, and says so.
    assert "Executed on simulated scenes" in (clone / "11_results.ipynb").read_text()


def test_evidence_on_scenes_of_a_reader_is_not_mixed_with_that_on_others(clone):
    config = {"seeds": "1", "models": "bicubic", "dataset": "mine"}
    scenes = clone / SMOKE / "scenes"
    folds = len(list(scenes.glob("*.hdr")))
    assert planned(clone, "evidence", scenes_dir=str(scenes), **config)["train"] == folds
    snakemake("results", cwd=clone)
    shutil.copytree(clone / "data/results/simulated-smoke", clone / "data/results/mine-smoke")
    assert planned(clone, "evidence", scenes_dir=str(scenes), **config)["train"] == folds


@pytest.mark.parametrize(("side", "tile"), [(255, 64), (256, 128)])
def test_tiles_of_a_readers_scenes_have_the_size_of_which_two_fit(clone, side, tile):
    """Preset demo cuts 128 pixels where it can, on the published scenes for instance."""
    (header, *_) = sorted((clone / SMOKE / "scenes").glob("*.hdr"))
    text = re.sub(r"(?m)^(lines|samples) = \d+", rf"\1 = {side}", header.read_text())
    channels = int(re.search(r"(?m)^bands = (\d+)", text)[1])
    folder = clone / "mine"
    folder.mkdir()
    (folder / "one.hdr").write_text(text)
    with (folder / "one.img").open("wb") as file:
        file.truncate(side * side * channels * 4)  # zeros that take no room
    arguments = ("--dry-run", "--printshellcmds", "data/mine_2-demo/tiles-scene")
    config = {"preset": "demo", "scenes_dir": str(folder)}
    assert f"--tile {tile} " in snakemake(*arguments, cwd=clone, dataset="mine_2", **config)
    for name, answer in (("mine;ls", "use small letters"), ("simulated", "the book's own scenes")):
        with pytest.raises(AssertionError, match=answer):
            snakemake(*arguments, cwd=clone, dataset=name, **config)


def test_make_shows_whole_lines_with_the_time_and_nothing_else(clone):
    (clone / SMOKE / "split-scene.json").unlink()
    command = [sys.executable, "-m", "snakemake", "--logger=book", f"{SMOKE}/split-scene.json"]
    command += ["--config", "preset=smoke"]
    environment = os.environ | {"PYTHONPATH": f"workflow:{ROOT}"}
    done = subprocess.run(
        command, cwd=clone, env=environment, check=True, stderr=subprocess.PIPE, text=True
    )
    shown = "\n".join(line for line in done.stderr.splitlines() if "profile" not in line)
    assert re.fullmatch(
        r"\[ 0:\d\d\] steps to do: 1, \d+ at a time; less than a minute\n"
        r"\[ 0:\d\d\] Splitting the tiles by scene\n"
        r"\d+ source_train, \d+ target_train, \d+ val, \d+ test\n"
        r"\[ \d:\d\d\] 1/1 done in \d+ s: Splitting the tiles by scene",
        shown,
    )


def test_time_that_is_left_goes_by_the_pace_so_far(capsys, monkeypatch):
    """Eight jobs of ten minutes on two cores, the first of which takes twenty."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    handler = LogHandler(None, None)
    expected = dict.fromkeys(range(8), 600.0)
    events = [
        (0, {"event": "plan", "expected": expected, "cores": 2}),
        (5, {"event": LogEvent.JOB_INFO, "jobid": 0, "rule_msg": "Training"}),
        (1205, {"event": LogEvent.JOB_FINISHED, "job_id": 0}),
    ]
    for clock.now, event in events:
        handler.emit(logging.makeLogRecord(event))
    # A minute at the expected pace counts too, against one short step that took long.
    left = 7 * 10 / 2 * (1200 + 60) / (600 + 60)
    assert capsys.readouterr().err.splitlines() == [
        "[ 0:00] steps to do: 8, 2 at a time; about 40 minutes",
        "[ 0:05] Training",
        f"[20:05] 1/8 done in 1200 s: Training; about {left:.0f} minutes left",
    ]


def test_snakefile_needs_no_torch():
    """It reads the registry, the plan and the workspace; torch would cost seconds every time."""
    code = "import sys, workflow.plan, workflow.record_results;"
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in ("Snakefile", "workflow/evidence.smk"):
        modules = re.findall(r"^from (asnlsr\S+)", (ROOT / name).read_text(), re.MULTILINE)
        allowed = {"config", "models.registry", "notebook.workspace", "results.evidence"}
        assert {module.removeprefix("asnlsr.") for module in modules} <= allowed


@pytest.mark.slow
def test_real_scenes_end_in_a_table(tmp_path, shared):
    """Airborne scenes with gaps, bad bands and integers go the same way as the simulated ones."""
    copy_repository(tmp_path)
    folder = tmp_path / "my scenes"  # a blank in a path must not break a command
    folder.symlink_to(shared / "data/aviris")
    snakemake("table_and_runs", cwd=tmp_path, dataset="real", scenes_dir=str(folder))
    made = tmp_path / "data/real-smoke"
    metrics = pd.read_csv(made / "metrics-blind.csv")
    networks = {"rcam", "esrt", "srformer", "bandwise", "bandwise-oracle"}
    controls = {"snlsr-frozen", "snlsr", "snlsr-unmix", "asnlsr"}
    assert set(metrics.model) == networks | controls | set(AT_ONCE)
    assert np.isfinite(metrics.value).all()
    split = json.loads((made / "split-scene.json").read_text())
    scenes = {role: {tile.split("/")[0] for tile in tiles} for role, tiles in split.items()}
    everywhere = [scene for names in scenes.values() for scene in names]
    assert sorted(everywhere) == sorted(path.stem for path in folder.glob("*.hdr"))
    target = metrics[metrics.domain == "swir2"]
    assert set(target.scene.dropna()) == scenes["test"]  # times belong to no scene
    assert "| bicubic " in (made / "table-blind.md").read_text()
    # two tiles each way in 100 pixels
    assert open_tiles(made / "tiles-scene", "swir2")["hr"].shape == (28, 30, 64, 64)


def test_every_chapter_says_once_what_it_reads():
    chapters = [key_of(path.stem) for path in sorted((ROOT / "book").glob("*.ipynb"))]
    assert list(READS) == chapters
    for path in (ROOT / "book").glob("*.ipynb"):
        assert path.read_text().count(f'open_chapter(\\"{key_of(path.stem)}\\"') == 1


def test_opened_chapter_makes_what_is_missing_and_only_that(clone):
    (clone / SMOKE / "split-scene.json").unlink()
    (clone / RUN / "run.json").unlink()
    call = "from asnlsr.notebook.workspace import open_chapter; open_chapter('12', 'smoke')"
    done = subprocess.run([sys.executable, "-c", call], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = (clone / SMOKE / "split-scene.json").read_text()
    assert made == (ROOT / SMOKE / "split-scene.json").read_text()
    assert (clone / RUN / "run.json").exists()
    assert "Training snlsr" not in done.stdout + done.stderr


def test_opened_chapter_without_a_workflow_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "ROOT", tmp_path)
    monkeypatch.setattr(
        Workspace.__init__, "__defaults__", ("demo", "simulated", tmp_path / "data", False)
    )
    with pytest.raises(FileNotFoundError, match=r"scenes is missing.*make"):
        open_chapter("01", preset="smoke")
    Workspace("smoke").scenes.mkdir(parents=True)
    assert open_chapter("01", preset="smoke").scenes.is_dir()  # nothing to do


def test_shipped_weights_stand_in_where_nothing_was_trained_on_the_same_scenes(tmp_path):
    space = Workspace("demo", base=tmp_path)
    own = tmp_path / "simulated-demo/runs/asnlsr-blind-warm-s0"
    assert space.run("asnlsr") == own  # nothing is there
    kept = tmp_path / "weights/asnlsr"
    kept.mkdir(parents=True)
    (kept / "run.json").touch()
    assert space.run("asnlsr") == kept
    assert space.run("asnlsr", seed=1) != kept
    assert Workspace("demo", base=tmp_path, retrain=True).run("asnlsr") == own
    assert Workspace("smoke", base=tmp_path).run("asnlsr").parent.name == "runs"
    own.mkdir(parents=True)
    (own / "run.json").touch()
    assert space.run("asnlsr") == own
