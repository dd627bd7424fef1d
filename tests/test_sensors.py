"""The benchmark of 36 sensors (`make sensors`)."""

import pandas as pd
import pytest

from asnlsr.config import Experiment
from asnlsr.training.run import train
from workflow.run_benchmark import KEYS, benchmark, psfs


@pytest.fixture(scope="module")
def runs(tiny_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    names = ("bicubic", "richardson-lucy")
    return [
        train(Experiment(name, "smoke"), tiny_set, folder / name, progress=False) for name in names
    ]


def test_psfs_keep_the_light_and_differ():
    kernels = psfs()
    assert len(kernels) == 6
    assert all(kernel.sum() == pytest.approx(1) for kernel in kernels.values())
    spread = {name: (kernel**2).sum() ** -0.5 for name, kernel in kernels.items()}
    assert spread["narrow"] < spread["published"] < spread["wide"]


def test_benchmark_measures_every_sensor_and_resumes(runs, tiny_set, tmp_path):
    """Knowing the PSF pays; a table that was cut short ends with the same bytes."""
    out = tmp_path / "all.csv"
    table = benchmark(runs, tiny_set, out, per_scene=1, progress=False)
    assert len(table) == 6 * 3 * 2 * 2
    assert not table.duplicated(KEYS).any()
    assert (table[table["model"] == "bicubic"]["gain"].abs() < 1e-6).all()
    lucy = table[(table["model"] == "richardson-lucy") & (table["noise"] == "none")]
    known, wrong = (
        lucy[lucy["assumed"] == how].set_index("psf")["gain"] for how in ("known", "20 % wrong")
    )
    assert (known > wrong).sum() >= 5

    whole = out.read_bytes()
    pd.read_csv(out).head(70).to_csv(out, index=False, float_format="%.4f")
    before = out.stat().st_size
    benchmark(runs, tiny_set, out, per_scene=1, progress=False)
    assert before < len(whole)
    assert out.read_bytes() == whole


def test_benchmark_leaves_another_table_alone(runs, tiny_set, tmp_path):
    (tmp_path / "m.csv").write_text("run,value\na,1\n")
    with pytest.raises(ValueError, match=r"m\.csv: holds something else"):
        benchmark(runs, tiny_set, tmp_path / "m.csv", progress=False)
