"""The chapters: how they are stored, that they run, and that the numbers in them are right."""

import ast
import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pvlib
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from asnlsr.config import Experiment, setting
from asnlsr.metrics import mmd, pixels
from asnlsr.models.registry import build
from asnlsr.notebook.workspace import Workspace, key_of
from asnlsr.physics import gaussian_psf, unscale
from asnlsr.results.evaluate import CEILING
from asnlsr.results.tables import AT_ONCE
from asnlsr.scenes.envi import open_scene
from asnlsr.scenes.simulator.painting import CODE
from asnlsr.scenes.simulator.scenery import park
from asnlsr.scenes.simulator.simulate import PHOTON_NOISE, READ_NOISE
from asnlsr.training.batches import POOL_SPREAD, Tiles
from asnlsr.training.losses import fidelity
from asnlsr.training.warm import contrast, transport
from tests.smoke_book import PAGES, ROOT, smoke_book
from workflow.plan import trained_to_the_end

SMOKE = Workspace("smoke")
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed() -> dict[str, nbformat.NotebookNode]:
    """Every chapter as the workflow executed it, by its key in `READS`."""
    folder = smoke_book() / "src"
    return {key_of(path.stem): nbformat.read(folder / path.name, 4) for path in CHAPTERS}


def plain_value(text: str) -> Any:
    """Return the value behind a repr: a literal, or a number in its NumPy wrapping."""
    if text == "nan":
        return math.nan
    return ast.literal_eval(re.sub(r"^np\.\w+\((.*)\)$", r"\1", text))


def glued(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return what a chapter stored for its prose with `myst_nb.glue`."""
    return {
        output.metadata.scrapbook.name: plain_value(text)
        for cell in code_cells(notebook)
        for output in cell.outputs
        if "scrapbook" in output.get("metadata", {})
        # A plain value is stored with the prefix; a glued figure has no value to read back.
        for mime, text in output.data.items()
        if mime == "application/papermill.record/text/plain" and not text.startswith("<")
    }


# How they are stored


@each_chapter
def test_chapter_has_one_title_plain_parameters_and_folded_solutions(path):
    notebook = nbformat.read(path, 4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert texts[0].startswith("# ")
    assert len(re.findall("^# ", "\n".join(texts), re.MULTILINE)) == 1
    cells = code_cells(notebook)
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(cell.source).body
    values = {node.targets[0].id: node.value.value for node in statements}  # constants only
    assert values == {"PRESET": "demo", "DATASET": "simulated", "SEED": 0}
    solutions = [cell for cell in cells if "hide-cell" in cell.metadata.get("tags", [])]
    assert all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in solutions)


def test_contents_name_every_chapter_and_page():
    present = {
        path.stem for path in (ROOT / "book").glob("*.*") if path.suffix in {".md", ".ipynb"}
    }
    assert sorted(PAGES) == sorted(present)


# That they run


@pytest.mark.parametrize(
    "path", [path for path in CHAPTERS if path.stem[0].isdigit()], ids=lambda path: path.stem
)
def test_every_exercise_has_a_solution_that_ran(path, executed):
    """An exercise is numbered in a list; its solution is a folded cell that begins with `# N`."""
    cells = executed[key_of(path.stem)].cells
    (start,) = [n for n, cell in enumerate(cells) if "## Exercises" in cell.source]
    exercises = re.findall(r"^(\d+)\. ", cells[start].source.split("## Exercises")[1], re.MULTILINE)
    assert len(exercises) >= 2
    hidden = [cell for cell in cells[start:] if "hide-cell" in cell.metadata.get("tags", [])]
    numbers = [re.match(r"# (?:Exercise )?(\d+)\b", cell.source) for cell in hidden]
    solved = {n[1]: cell.outputs for n, cell in zip(numbers, hidden, strict=True) if n}
    assert sorted(solved) == sorted(exercises)
    for outputs in solved.values():  # a solution shows its answer
        assert [output for output in outputs if "scrapbook" not in output.get("metadata", {})]


@each_chapter
def test_page_says_that_its_text_is_of_another_preset(path, executed):
    lines = [
        output.data["text/markdown"]
        for cell in code_cells(executed[key_of(path.stem)])
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    assert sum("Executed on simulated scenes at preset `smoke`" in line for line in lines) == 1


@each_chapter
def test_page_needs_no_kernel(path, executed):
    notebook = executed[key_of(path.stem)]
    assert "widgets" not in notebook.metadata
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                assert "text/html" in output.data  # the twin that is alive in a static page


# That their numbers are right: the values that the prose quotes, each against an expectation with
# a reason of its own (hand computation, closed form, another package, another file)


@pytest.fixture
def value(request, executed) -> dict[str, Any]:
    """Return what the chapter in the name of the test stored for its prose."""
    key = re.match(r"test_(?:chapter_(\d+)|(appendix_\w))", request.function.__name__)
    return glued(executed[(key[1] or key[2]).zfill(2)])


def test_chapter_1_light(value):
    """Sunlight of another package: ASTM G173 decides how dark SWIR2 and the absorption band are."""
    sun = pvlib.spectrum.get_reference_spectra()["global"]
    ratio = sun.loc[1000:1700].mean() / sun.loc[1700:2500].mean()
    assert ratio / 1.5 < value["domain_ratio"] < 1.5 * ratio  # the rest is reflectance
    assert value["domain_ratio_park"] > 1.5 * ratio  # water in leaves
    left = 100 * sun.loc[1360:1420].mean() / sun.loc[1200:1300].mean()
    assert 0 <= value["absorption_left"] < 2 * left


def test_chapter_1_noise(value):
    """The noise that is found in the picture is the noise that the simulator put there."""
    assert value["read_noise"] == pytest.approx(READ_NOISE, rel=0.2)
    assert value["photon_gain"] == pytest.approx(PHOTON_NOISE, rel=0.3)
    # Noise grows at most as the root of the signal, so a signal that is `ratio` times fainter
    # costs between 10 log10(ratio) (photons only) and 20 log10(ratio) (constant noise) decibels.
    cost_db = value["snr_swir1_db"] - value["snr_swir2_db"]
    ratio_db = 10 * math.log10(value["domain_ratio"])
    assert ratio_db - 2 < cost_db < 2 * ratio_db + 2
    # The squares of a Gaussian's values sum to 1 / (4 pi sigma_1 sigma_2).
    kept = 100 / math.sqrt(4 * math.pi * math.sqrt(6.306 * 3.340))
    assert value["noise_kept"] == pytest.approx(kept, rel=0.05)
    assert value["noise_gain_db"] == pytest.approx(-20 * math.log10(kept / 100), abs=0.5)


def test_chapter_1_detail(value):
    """Correlation of detail, computed anew from the channels outside the cuts, without bins."""
    headers = sorted((ROOT / "data/simulated-smoke/scenes").glob("*.hdr"))
    for name, header in (("buildings", headers[0]), ("park", headers[-1])):
        scene = open_scene(header)
        z = np.log(np.maximum(scene.read_rows(0, scene.rows), 1e-4))
        nm = scene.wavelength_nm
        first = (nm < 1310) | ((nm > 1550) & (nm <= 1700))
        second = ((nm > 1700) & (nm < 1800)) | (nm > 1980)
        means = [z[..., channels].mean(2) for channels in (first, second)]
        details = [(mean - gaussian_filter(mean, 2)).ravel() for mean in means]
        found = float(np.corrcoef(*details)[0, 1])
        assert value[f"agree_{name}"] == pytest.approx(found, abs=0.03)
    assert value["agree_park"] < value["agree_buildings"]


def test_chapter_2_binning(value):
    """The grid of 300 channels over 1000-2500 nm by arithmetic, the leak by the normal tail."""
    assert value["bins"] == 45
    step_nm = 1500 / 299
    last = 1000 + step_nm * int(700 / step_nm)
    assert value["fwhm_nm"] == pytest.approx((last - 1000) / 45, abs=1e-6)
    assert value["binning_difference"] < 1e-12
    # The kept bin that is nearest to the cut: number 35 of SWIR1, number 13 of SWIR2.
    for name, start, end, bins, number, cut in (
        ("swir1", 1000, last, 45, 35, 1550),
        ("swir2", 1000 + 140 * step_nm, 2500, 38, 13, 1980),
    ):
        centre = start + (end - start) / (bins - 1) * number
        sigma = (end - start) / bins / math.sqrt(8 * math.log(2))
        leak = 100 * stats.norm.sf((centre - cut) / sigma)
        assert value[f"leak_{name}"] == pytest.approx(leak, abs=5)  # channels are 5 nm apart


def test_chapter_2_blur(value):
    """Width, transfer, offset and lost light of a Gaussian with the published variances."""
    to_fwhm = math.sqrt(8 * math.log(2))
    assert value["psf_narrow_px"] == pytest.approx(to_fwhm * math.sqrt(3.340), rel=0.01)
    assert value["psf_wide_px"] == pytest.approx(to_fwhm * math.sqrt(6.306), rel=0.01)
    for name, variance in (("columns", 6.306), ("rows", 3.340)):
        transfer = 100 * math.exp(-2 * math.pi**2 * variance / 8**2)
        assert value[f"mtf_{name}"] == pytest.approx(transfer, abs=0.5)  # tilted by 3 degrees
    assert value["shift_px"] == pytest.approx(0.5, abs=1e-3)  # 16 is not 15.5
    assert value["shift_centred_px"] == pytest.approx(0, abs=1e-3)
    # The last low-resolution pixel looks at the last pixel but one: 1.5 pixels from the edge.
    lost_column = stats.norm.sf(1.5 / math.sqrt(6.306))
    lost_row = stats.norm.sf(1.5 / math.sqrt(3.340))
    assert value["lost_edge"] == pytest.approx(100 * lost_column, abs=0.5)
    corner = 1 - (1 - lost_column) * (1 - lost_row)  # the ellipse is tilted by 3 degrees only
    assert value["lost_corner"] == pytest.approx(100 * corner, abs=1)


def test_chapter_2_leak(value):
    """A memory recalls what it has stored, and its other scores are those of a stranger."""
    assert value["leak_gain_overlap"] > 1
    assert value["leak_gain_tile"] < 0
    assert value["leak_gain_scene"] < 0


def test_chapter_3_toy(value):
    """Six of twelve values are wrong by 0.1; the metrics of the package agree with all the rest."""
    assert value["toy_rmse"] == pytest.approx(math.sqrt(6 * 0.1**2 / 12), rel=1e-5)
    assert value["toy_difference"] < 1e-3


def test_chapter_3_bicubic(value):
    assert value["kernel_difference"] < 1e-5
    assert value["model_difference"] < 1e-5
    # Keys, section IV: only a = -1/2 reproduces a parabola.
    assert value["parabola_keys"] < 1e-9
    assert value["parabola_torch"] > 1e-2
    assert value["best_offset"] == 0.5  # as chapter 2 finds with a ramp
    for domain in ("swir1", "swir2"):
        assert value[f"handicap_{domain}"] > 0  # knowing the offset helps
        mean = mean_psnr("bicubic", domain)  # through the command line
        assert value[f"bicubic_psnr_{domain}"] == pytest.approx(mean, rel=1e-3)


def test_chapter_3_faces(value):
    assert value["psnr_spread"] < 1e-3  # all errors were scaled to one RMSE
    assert value["brighter_ssim"] > value["blurred_ssim"]
    # A constant in z is a factor in radiance, which no angle sees.
    assert value["brighter_sam_rad"] < 0.1 < value["blurred_sam_rad"] < value["noisy_sam_rad"]


def in_tiles(model: str, domain: str, metric: str) -> np.ndarray:
    """Return a metric of a run of this book in every test tile, from the long table."""
    table = pd.read_csv(SMOKE.metrics("blind"))
    wanted = (table["model"] == model) & (table["domain"] == domain) & (table["metric"] == metric)
    return table.loc[wanted, "value"].to_numpy()


def mean_psnr(model: str, domain: str) -> float:
    return in_tiles(model, domain, "psnr").mean()


@pytest.mark.parametrize("chapter", ["04", "05", "10"])
def test_gains_are_those_of_the_long_table(executed, chapter):
    gains = {key: x for key, x in glued(executed[chapter]).items() if re.match("gain_swir", key)}
    assert len(gains) >= 8
    for key, value in gains.items():
        _, domain, model = key.split("_", 2)
        model = model.replace("_", "-")
        gain = mean_psnr(model, domain) - mean_psnr("bicubic", domain)
        assert value == pytest.approx(gain, abs=1e-5), key


def test_chapter_6_toy_and_logarithm(value):
    """Exact without noise; pushed corners and mixed logarithms by algebra."""
    assert max(value["toy_exact"], value["larger_residual"]) < 1e-9
    assert 0 < value["toy_noisy"] < 0.02
    # a' = 1/3 + (a - 1/3)/1.33, and a is at most 1
    assert 0.1 < value["larger_change"] <= (1 - 1 / 3) * (1 - 1 / 1.33)
    assert value["read_half_12"] == pytest.approx(math.log(6.5) / math.log(12))
    assert value["read_half_small"] == pytest.approx(math.log(1.25) / math.log(1.5))
    # a pixel of a share of 0.7 is taken for pure
    assert 0.25 < value["mixed_error"] < 0.45


def test_chapter_6_areas_are_those_that_were_painted(value):
    """The marked pixel by hand: areas of the painting under the kernel."""
    canvas = park(np.random.default_rng([0, 0]), (256, 256))
    rows, cols = (slice(4 * place - 14, 4 * place + 18) for place in (25, 33))
    for group, names in (("wood", ["bark"]), ("foliage", ["leaf", "needle"]), ("sky", ["white"])):
        painted = np.isin(canvas.material, [CODE[name] for name in names])
        area = painted.reshape(256, 2, 256, 2).mean((1, 3))
        expected = 100 * (gaussian_psf() * area[rows, cols]).sum()
        assert value[f"pixel_{group}"] == pytest.approx(expected, abs=0.01)


def test_chapter_6_what_its_sentences_claim(value):
    assert value["purest"] == 5
    assert value["least_pure"] > 95
    for material in ("sky", "path", "wood"):
        assert value[f"geometry_r_{material}"] > 0.94
    for material in ("foliage", "lawn"):
        assert value[f"geometry_r_{material}"] < 0.9
    # spectra rebuilt as well, shares worse
    assert value["residual_learned"] < 1.1 * value["residual_geometry"]
    for material in ("sky", "wood"):
        assert value[f"autoencoder_rmse_{material}"] > 1.5 * value[f"geometry_rmse_{material}"]
    assert value["sky_read"] < 0.8
    assert value["pulled_rmse_sky"] < 0.8 * value["autoencoder_rmse_sky"]
    # in z: the logarithm costs little, the level much
    for material in ("foliage", "lawn", "path", "wood", "sky"):
        here, there = (value[f"{way}_rmse_{material}"] for way in ("geometry", "log"))
        assert there == pytest.approx(here, abs=0.02)
    assert value["z_rmse_wood"] > value["constant_rmse_wood"]
    assert value["z_rmse_mean"] > value["shape_rmse_mean"] + 0.03
    assert value["level_dark"] < -0.8 < 0.8 < value["level_bright"]
    for domain in ("swir1", "swir2"):
        assert 0 < value[f"log_gap_{domain}"] < 0.1 * value[f"spread_{domain}"]
    assert value["same_origin"] == 8
    assert value["overlap_pixels"] <= value["overlap"] + 1e-6  # the mean of minima
    assert value["overlap"] < 0.5


def test_chapter_7_accuracies_by_the_normal_distribution(value):
    """Clouds have standard deviation 0.5, so that each direction has an accuracy of its own."""
    assert value["distance_two"] == pytest.approx(2 * (1 - 2 * stats.norm.sf(1)), abs=0.1)
    assert stats.norm.sf(value["delta_one"] / 2) == pytest.approx(0.25)
    # The diagonal: class 1 of the target lies at (1, -1.5), beyond the threshold.
    diagonal = (1 + stats.norm.sf(0.5 / math.sqrt(2) / 0.5)) / 2
    assert value["plain_target"] == pytest.approx(100 * diagonal, abs=6)
    assert value["shift_target_0"] == pytest.approx(100 * diagonal, abs=6)
    assert value["shift_target_0.1"] < value["shift_target_0"] - 3
    for name in ("source", "target"):  # along the first axis, classes are 2 apart
        assert value[f"shift_{name}_1"] == pytest.approx(100 * (1 - stats.norm.sf(2)), abs=2.5)
    assert value["shift_domain_1"] == pytest.approx(50, abs=6)
    # On the diagonal half of each class of the second target lies on the threshold.
    assert value["skewed_target_0"] == pytest.approx(75, abs=8)
    assert value["skewed_target_1"] == pytest.approx(50, abs=6)
    assert value["skewed_source_1"] > 97
    # Aligned features: the two errors sum to the difference of the class shares at least.
    assert 200 - value["skewed_source_10"] - value["skewed_target_10"] > 40
    assert value["weighted_1"] > 95
    assert abs(value["mean_angle"]) < 10 < 40 < value["angle_0"] < 55 < value["angle_0.1"]


def test_chapter_7_bound(value):
    """It holds; alignment lowers its second term, and raises the third where it hurts."""
    for key in ("a0", "a1", "b0", "b1"):
        assert value[f"error_{key}"] <= value[f"bound_{key}"]
    for case in "ab":
        assert value[f"half_{case}1"] < value[f"half_{case}0"] / 3
    assert value["joint_a1"] == pytest.approx(2 * stats.norm.sf(2), abs=0.04)
    assert value["joint_b1"] == pytest.approx(0.5, abs=0.1)
    assert value["joint_b0"] < 0.25


def page(stem: str, start: str, **defined: Any) -> dict[str, Any]:
    """What the visible cells of a chapter define that begin with `start`, a pattern."""
    for cell in code_cells(nbformat.read(ROOT / f"book/{stem}.ipynb", 4)):
        if not cell.metadata.get("tags") and re.match(start, cell.source):
            exec(cell.source, defined)
    return defined


@pytest.fixture(scope="module")
def page_8() -> dict[str, Any]:
    """What chapter 8 defines on the page: networks, losses, starts and batches."""
    return page("08_asnlsr_from_scratch", r"from (itertools|asnlsr)|class |def |@torch.no_grad")


def test_chapter_8_parameters(value):
    """The network without its six blocks of SANL, each of them by hand."""
    sanl = 2 * (24 * 24 * 9 + 24) + 4 * 24 * 24 + 24  # two convolutions, four matrices, one bias
    assert value["small_parameters"] - value["lean_parameters"] == 6 * sanl


def test_chapter_8_network_is_that_of_the_package(page_8):
    """Same random weights, same outputs and gradients, also where height and width differ."""
    torch.manual_seed(0)
    package, page = build("asnlsr", bands=5).eval(), page_8["ASNLSR"](bands=5).eval()
    weights = package.state_dict().values()
    page.load_state_dict(dict(zip(page.state_dict(), weights, strict=True)))
    y = torch.rand(2, 5, 17, 20)
    theirs, a = package(y), page.G(y)
    logits = page.D(page_8["Reverse"].apply(a, package.reversal))
    for ours, expected in ((page(y), theirs.sr), (logits, theirs.domain_logits)):
        assert (ours - expected).abs().max() < 1e-5
    logits[:, 0].sum().backward()
    theirs.domain_logits[:, 0].sum().backward()
    slopes = [net.layers[0].weight.grad for net in (page.G, package.encoder)]
    assert slopes[1].abs().max() > 0
    assert torch.allclose(*slopes, rtol=1e-3, atol=1e-9)
    truth = torch.rand(2, 5, 68, 80)
    ours, expected = (loss(theirs.sr, truth).item() for loss in (page_8["fidelity"], fidelity))
    assert ours == pytest.approx(expected)


def test_chapter_8_start(page_8):
    """It starts as bicubic, with abundances that vary, at endmembers that fit either domain."""
    torch.manual_seed(0)
    net = page_8["ASNLSR"](bands=6, width=8, materials=4)
    source, target = 0.3 + 0.05 * torch.rand(2, 6, 16, 16), 0.6 + 0.05 * torch.rand(2, 6, 16, 16)
    page_8["start_endmembers"](net, source, target)
    assert (net.E.weight - 0.475).abs().max() < 0.05  # half-way between the domains
    both = torch.cat([source, target])
    page_8["start_encoder"](net, both)
    page_8["start_branch"](net, both)
    assert net.G(both).std((2, 3)).mean() > 0.05
    assert torch.equal(net(both), F.interpolate(both, scale_factor=4, mode="bicubic"))


def test_chapter_8_batch(page_8):
    """Truth is of the source crops, in the same places: pooled, it gives them back."""
    source, target = torch.rand(3, 2, 20, 20), torch.rand(3, 2, 20, 20) + 1
    sharp = source.repeat_interleave(4, 2).repeat_interleave(4, 3)
    page_8 |= {"source_lr": source, "source_hr": sharp, "target_lr": target}
    y, x, domain = page_8["batch"](np.random.default_rng(0))
    assert torch.equal(F.max_pool2d(x, 4), y[:2])
    assert (y[2:] > 1).all()
    assert domain.tolist() == [0] * 2 + [1] * 2


def test_chapter_8_relighting(page_8):
    """It is that of the package; the truth changes with its tile, target tiles stay."""
    source, target = 0.1 * torch.rand(3, 2, 20, 20), 0.3 * torch.rand(3, 2, 20, 20) + 1
    page_8 |= {"source_lr": source, "target_lr": target}
    page_8["source_hr"] = source.repeat_interleave(4, 2).repeat_interleave(4, 3)
    covariances = (page_8["covariance"](source), page_8["covariance"](target))
    page_8["M"] = matrix = page_8["transport"](*covariances)
    assert torch.allclose(matrix, transport(contrast(source), contrast(target)), atol=1e-5)
    y, x, _ = page_8["relit"](np.random.default_rng(0))
    plain, _, _ = page_8["batch"](np.random.default_rng(0))
    assert torch.equal(x[..., ::4, ::4], y[:2])
    assert torch.equal(y[2:], plain[2:])
    moved = y[:2].mean((2, 3)) - plain[:2].mean((2, 3))
    assert (moved > 0).all()  # towards the brighter target, but not beyond
    assert (y[:2].mean((2, 3)) < target.mean((2, 3)).amax(0)).all()


def test_chapter_8_optimiser(page_8):
    """It steps every weight once: kernels of J with Muon, G and E more slowly than the rest."""
    net = page_8["ASNLSR"](bands=5, width=8, materials=4)
    groups = page_8["optimiser"](net, 1.0).param_groups
    stepped = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(stepped) == sorted(map(id, net.parameters()))
    muon, adam, slow = ({id(weight) for weight in group["params"]} for group in groups)
    assert [group["muon"] for group in groups] == [True, False, False]
    assert id(net.J.head.weight) in muon <= set(map(id, net.J.parameters()))
    assert set(map(id, net.D.parameters())) < adam
    assert slow == set(map(id, [*net.G.parameters(), *net.E.parameters()]))
    assert groups[2]["lr"] < groups[0]["lr"] == groups[1]["lr"]


def test_chapter_8_collapse(value):
    """The cause it gives: an error that all pixels share, less of it with endmembers from data."""
    assert value["spread_ours"] > 5 * value["spread_published"] > 0
    assert value["error_published_first"] > 5 * value["contrast"]
    assert value["error_data_first"] < value["error_published_first"] / 2
    assert value["psnr_bicubic"] > 20


@pytest.fixture(scope="module")
def page_9() -> dict[str, Any]:
    """The functions of chapter 9, with what its hidden first cell brings."""
    return page("09_alignment", "def ", SEED=0, torch=torch, pixels=pixels)


def test_chapter_9_mmd_is_that_of_the_package_at_its_width(page_9):
    torch.manual_seed(0)
    s, t = torch.rand(40, 3), torch.rand(50, 3) + 0.3
    width = float(torch.pdist(torch.cat([s, t])).median())
    assert page_9["mmd2"](s, t, width) == pytest.approx(float(mmd(s, t)), rel=1e-3)
    # In units of the spread, neither unit nor origin of the features counts.
    ours, other = (page_9["mmd2"](*page_9["in_spreads"](*x), 2) for x in ((s, t), (7 * s, 7 * t)))
    assert ours == pytest.approx(other, rel=1e-4)


def test_chapter_9_pool_is_that_of_recipe_warm(page_9):
    """As `Tiles.pooled`, in which the recipe finds its first endmembers."""
    tiles = Tiles(Experiment("snlsr-unmix", "smoke"), SMOKE.tile_set())
    ours = page_9["pooled"](tiles.source.lr, tiles.batches.target_lr, POOL_SPREAD)
    assert torch.allclose(ours, tiles.pooled(), atol=1e-5)
    assert POOL_SPREAD == 8  # so says the page


def test_chapter_9_coral_and_matched_bands(page_9):
    torch.manual_seed(0)
    mix = torch.rand(2, 4, 4)
    s, t = (torch.einsum("cd,ndhw->nchw", m, torch.rand(3, 4, 9, 9)) for m in mix)
    moved, goal = (x.movedim(1, -1).reshape(-1, 4).numpy() for x in (page_9["coral"](s, t), t))
    assert np.allclose(np.cov(moved.T), np.cov(goal.T), atol=1e-4)
    assert np.allclose(moved.mean(0), s.mean((0, 2, 3)), atol=1e-4)
    assert np.allclose(page_9["matched"](s).std((2, 3)), 0.06, atol=1e-5)


def test_chapter_9_bound_and_price(value):
    """The theorem holds for whatever networks were computed; the price is of the test tiles."""
    for key in ("apart", "x8", "level", "trained"):
        assert 0 <= value[f"overlap_{key}"] <= value[f"bound_{key}"] + 1e-5 < 1
    tiles = [SMOKE.tile_set().pairs("test", domain) for domain in ("swir1", "swir2")]
    means = [pairs.lr.double().mean((0, 2, 3)) for pairs in tiles]
    price = float((means[0] - means[1]).abs().mean() / 2)
    assert value["price"] == pytest.approx(price, rel=1e-4)
    assert value["even"] == pytest.approx((price - value["now"]) / math.log(2), rel=1e-3)


def test_chapter_9_distributions_of_one_mean(value):
    """N(0, I) against N(0, 9 I) in the plane, kernel of width 2: averages in closed form."""
    assert value["wide_a_distance"] == pytest.approx(0, abs=0.4)  # nothing for a linear classifier
    assert value["wide_mmd"] == pytest.approx(
        4 / (4 + 2) + 4 / (4 + 18) - 2 * 4 / (4 + 10), abs=0.05
    )


def test_chapter_4_what_blur_and_decimation_lose(value):
    """The MTF by the transform of a Gaussian, and with it the weakest pattern that passes."""
    variance = 6.306 * math.cos(3.082) ** 2 + 3.340 * math.sin(3.082) ** 2
    other = 6.306 + 3.340 - variance
    left = [math.exp(-2 * (math.pi * f) ** 2 * variance) for f in (1 / 8, 1 / 4)]
    assert [value["mtf_coarse"], value["mtf_twice"]] == pytest.approx(left, rel=0.01)
    assert value["mtf_fine"] == pytest.approx(2e-10, rel=0.1)  # "2 x 10^-10"
    # At the coarse Nyquist frequency two equal aliases meet, at zero one is left.
    weakest = [math.sqrt(2) * math.exp(-2 * (math.pi / 8) ** 2 * v) for v in (variance, other)]
    assert value["condition"] == pytest.approx(1 / weakest[0], rel=0.1)
    assert value["condition_image"] == pytest.approx(1 / math.prod(weakest), rel=0.15)
    assert value["condition_digits"] > 14
    assert value["lost"] == 128 - 128 // 4
    # Cosines at steps of 1/256 per pixel: those that the blur leaves less than a hundredth.
    under = sum(math.exp(-2 * (math.pi * k / 256) ** 2 * variance) < 0.01 for k in range(128))
    assert value["hidden"] == pytest.approx(under, abs=4)


def test_chapter_4_richardson_lucy(value):
    assert value["flux_error"] < 1e-12
    assert value["toy_best_10"] < value["toy_best_5"] < value["toy_best_0"]
    assert value["power_best"] < value["toy_best_10"]
    assert value["power_error"] == pytest.approx(1, abs=0.01)
    for name in ("back-projection", "richardson-lucy"):
        stored = load_file(SMOKE.run(name) / "weights.safetensors")["iterations"]
        assert value[f"iterations_{name}"] == int(stored)


def test_chapter_4_order(executed):
    """What it says of the order, on record; and chapter 3 has a row of it by another formula."""
    handicap = glued(executed["03"])["handicap_swir2"]
    centred = glued(executed["04"])["gain_swir2_bicubic-centred"]
    assert centred == pytest.approx(handicap, abs=1e-3)
    table = pd.read_csv(RECORDED / "metrics.csv.gz").query("metric == 'psnr'")
    table = table[table["run"].isin([f"{name}-blind-warm-s0" for name in AT_ONCE])]
    means = table.groupby(["domain", "model"])["value"].mean()
    for domain in ("swir1", "swir2"):
        names = ("bicubic", "bicubic-centred", "linear", "back-projection", "richardson-lucy")
        gains = [means[domain, name] - means[domain, "bicubic"] for name in names]
        assert gains[0] < gains[1] < 0.3 < gains[2] < min(gains[3:])


def test_chapter_4_failures(value):
    """What is assumed rightly does best, and the more it is broken the worse."""
    assert value["peak_0"] >= value["peak_1"] >= value["peak_3"]
    assert min(value[f"missed_{percent}"] for percent in (0, 1, 3)) >= 0
    assert value["width_right"] > max(value["width_narrow"], value["width_wide"])
    assert value["width_narrow"] > value["width_wide"]
    assert value["offset_0"] == pytest.approx(value["width_right"], abs=1e-4)
    for kind in ("offset", "offset_linear"):
        gains = [value[f"{kind}_{pixels}"] for pixels in range(4)]
        assert gains == sorted(gains, reverse=True)
    # White noise under a Gaussian of these variances.
    assert value["psf_noise"] == pytest.approx((16 * math.pi**2 * 6.306 * 3.340) ** -0.25, rel=0.01)
    assert value["invisible_white"] == pytest.approx(100 * 15 / 16, abs=0.5)
    # What the camera saw has been put right, so that more of the rest is what it did not see.
    assert value["invisible_bicubic"] < value["invisible_rl"] < 100


def test_chapter_5_prices(value):
    """Multiply-adds of RCAM for an LR tile of 32 x 32 from the description, and of the chunks."""
    units = sum(64 * n * 64 + 7 * 64 * 64 for n in (1, 2, 3, 4))
    per_pixel = 30 * 64 + units + 3 * 9 * 256 * 64 + 256 * 30 + 16 * 30 * 30
    gates = 16 * 2 * 64 * 16  # of a stage, whatever the size of the image
    rcam = (1 + 4) * 32**2 * per_pixel + 2 * gates
    assert value["work_rcam"] == pytest.approx(1e-9 * rcam, rel=1e-9)
    # As the page says.
    assert round(value["parameters_rcam"] / value["parameters_esrt"], 1) == 1.7
    assert round(value["work_rcam"] / value["work_esrt"], 1) == 2.3
    # 1024 tokens ask the 256 of their chunk: 8 heads of 18, once for weights, once for values.
    pairs = 1e-9 * 1024 * 256 * 8 * 18 * 2
    assert value["missed_share"] == pytest.approx(100 * pairs / value["work_esrt"])
    # Twice the side is four times the pixels, and sixteen times the pairs in ESRT's chunks.
    assert value["growth_srformer"] == 4  # 24 and 48 are whole windows
    assert value["growth_rcam"] == pytest.approx(4, rel=1e-4)
    pairs, rest = pairs * (24 / 32) ** 4, (value["work_esrt"] - pairs) * (24 / 32) ** 2
    assert value["growth_esrt"] == pytest.approx((16 * pairs + 4 * rest) / (pairs + rest), rel=1e-3)


def test_chapter_5_domain_drop(value):
    """By means of the gains, where the page goes tile by tile."""
    for model in ("richardson-lucy", "bicubic-centred", "rcam", "esrt", "srformer"):
        gain = [value[f"gain_{domain}_{model}"] for domain in ("swir1", "swir2")]
        assert value[f"drop_{model}"] == pytest.approx(gain[0] - gain[1], abs=1e-6)
        beyond = value[f"drop_{model}"] - value["drop_richardson-lucy"]
        assert value[f"beyond_{model}"] == pytest.approx(beyond, abs=1e-6)
        assert value[f"kept_{model}"] == pytest.approx(100 * gain[1] / gain[0], rel=1e-3)
    assert value["peaked_moved"] > 0  # the temperature of exercise 3 is one


def test_chapter_10_components(value):
    """One shared detail of variance 1 and noise of variance n: (C + n) / (C (1 + n))."""
    assert value["equal_share"] == pytest.approx(31 / 60, abs=0.01)
    for domain in ("swir1", "swir2"):
        assert 100 / 30 < value[f"common_{domain}"] < 100


def test_chapter_10_network(value):
    """Convolutions without biases by hand, and properties that hold for any weights."""
    shared = 9 * (16 * 32 + 12 * 32 * 32 + 32 * 16) + 32 * 24
    own = 9 * (16 * 24 + 2 * 24 * 24 + 24 * 16)
    assert value["parameters"] == shared + own
    assert value["parameters_asnlsr"] == 1_174_824
    assert value["light_error"] < 1e-3 * value["detail"] + 1e-6
    assert value["backwards_error"] < 1e-3 * value["detail"] + 1e-6
    assert value["most"] == pytest.approx(100 * (2e4**0.05 - 1))
    # Two steps come nearer to what was seen than the start does.
    assert value["apart_2"] < value["apart_0"] / 2


def test_chapter_12_values(value):
    """A factor in radiance is a shift in z; windows by arithmetic; a truth is consistent."""
    assert value["decade"] == pytest.approx(math.log(10) / math.log(2e4), abs=1e-5)
    assert value["thousand"] == pytest.approx(3 * value["decade"], abs=1e-5)
    assert 0 < value["outside_swir1"] < 100
    assert 0 < value["outside_swir2"] < 100
    assert value["unknown"] > max(value["outside_swir1"], value["outside_swir2"])
    # 96 pixels, of which 72 are new: 1452 = 24 + 19.8 * 72 and 155 = 24 + 1.8 * 72.
    assert value["published_windows"] == 20 * 2
    # In steps of 6 the second column of windows begins at 60 and has 95 pixels.
    assert value["repeated"] == pytest.approx(100 * (20 * 96 * (96 + 95) / (1452 * 155) - 1))
    # What z cannot hold of the truth, below a radiance of 1e-4, is dark and rare.
    assert value["inconsistency_truth"] < value["inconsistency_bicubic"] / 5
    assert value["wrong_truth"] > 5 * value["inconsistency_truth"]


def test_chapter_12_agrees_with_the_evaluation(value):
    """The two test tiles of preset smoke are the whole scene, but for what lies between them."""
    for model, label in (("bicubic", "bicubic"), ("asnlsr", "A-SNLSR")):
        for domain in ("swir1", "swir2"):
            rmse = in_tiles(model, domain, "rmse")
            peak = rmse * 10 ** (in_tiles(model, domain, "psnr") / 20)  # one for all tiles
            psnr = 20 * math.log10(peak[0]) - 10 * math.log10((rmse**2).mean())
            assert value[f"psnr_{domain}_{label}"] == pytest.approx(psnr, abs=0.5)


# Chapters that show recorded runs: the same rows, found by the names of their runs and averaged
# here by other means

RECORDED = ROOT / "data/results/simulated-demo"


def recorded(table: str) -> pd.DataFrame:
    """Return recorded rows; skip the test where nothing is recorded."""
    path = RECORDED / f"{table}.csv.gz"
    if not path.exists():
        pytest.skip("nothing is recorded")
    return pd.read_csv(path)


def seed_means(model: str, *settings: str, short: bool = False) -> pd.Series:
    """Mean over target tiles of the runs trained to the end or, with `short`, for 1,000 steps."""
    rows = recorded("metrics").query("domain == 'swir2' and metric == 'psnr'")
    whole = [trained_to_the_end(model, seed=seed, texts=settings) for seed in range(10)]
    given = dict(map(setting, settings))
    runs = [replace(run, settings=given) for run in whole] if short else whole
    rows = rows[rows["run"].isin([run.name for run in runs])]
    return rows.groupby("seed")["value"].mean()


def test_chapter_11_adversary(value):
    both = pd.concat([seed_means("asnlsr"), seed_means("snlsr-unmix")], axis=1).dropna()
    d = both.iloc[:, 0] - both.iloc[:, 1]
    assert value["adversary_pairs"] == len(d)
    assert value["adversary"] == pytest.approx(d.mean(), abs=1e-6)
    expected = stats.ttest_rel(*both.to_numpy().T).confidence_interval()
    assert (value["adversary_low"], value["adversary_high"]) == pytest.approx(tuple(expected))
    assert value["spread_pairs"] == pytest.approx(d.std())
    assert value["total"] == pytest.approx(
        (seed_means("asnlsr") - seed_means("bicubic").iloc[0]).mean(), abs=1e-6
    )


def test_chapter_11_parts_are_differences_of_neighbours(value):
    chain = [("snlsr",), ("snlsr-unmix", "relight=0.0"), ("snlsr-unmix",), ("asnlsr",)]
    for key, short in (("part", True), ("long", False)):
        built = [seed_means(*names, short=short) for names in chain]
        for place, (before, after) in enumerate(pairwise(built), 2):
            gap = (after - before).dropna().mean()
            assert value[f"{key}_{place}"] == pytest.approx(gap, abs=1e-6)
    control = seed_means("snlsr-unmix", short=True)
    strong = (seed_means("asnlsr", "reversal=1.0", short=True) - control).dropna().mean()
    assert value["way_psnr_3"] == pytest.approx(strong, abs=1e-6)


def test_chapter_11_published_recipe(value):
    """Counted over the recorded courses of training, whatever their number of steps."""
    history = recorded("history")
    runs = history[history["run"].str.fullmatch(r"asnlsr(_steps=\d+)?-blind-published-s\d+")]
    last = runs.groupby("run")["abundance_std"].last()
    assert (value["collapsed"], value["collapsed_of"]) == ((last < 1e-3).sum(), len(last))


def test_chapter_11_exercises(value):
    assert value["smallest_five"] == 0.0625
    assert value["pairs_needed"] == 8  # 2/2^7 = 0.016, 2/2^8 = 0.008


def test_appendix_b_controls_and_averages(value):
    gain = mean_psnr("snlsr-frozen", "swir2") - mean_psnr("bicubic", "swir2")
    assert value["frozen_gain"] == pytest.approx(gain, abs=1e-6)
    assert value["frozen_std"] < value["trained_std"]
    assert (value["paper_snlsr"], value["paper_bicubic"]) == (31.99, 31.89)
    assert value["rmse_ratio"] == pytest.approx(2, rel=1e-4)  # twice the range
    assert value["psnr_range"] < 1e-3
    # Minus the logarithm is convex and the root is concave: Jensen.
    for name in ("batch_gap", "batch_gap_both", "batch_rmse", "batch_rmse_both"):
        assert value[name] >= -1e-6
    apart = mean_psnr("bicubic", "swir1") - mean_psnr("bicubic", "swir2")
    assert value["mixed_bicubic"] == pytest.approx(apart, abs=1e-6)


def test_appendix_b_published_order(executed):
    """Bicubic has the best ERGAS of the printed table, and the worst PSNR and RMSE."""
    paper = pd.read_csv(ROOT / "data/paper/table1.csv").query("source == 'printed'")
    printed = paper.pivot_table(index="model", columns="metric", values="mean")
    best = glued(executed["appendix_b"])["paper_best_ergas"]
    assert printed["ergas_released"][best] == printed["ergas_released"].min()
    assert printed["psnr"][best] == printed["psnr"].min()
    assert printed["rmse"][best] == printed["rmse"].max()


def test_appendix_b_peak(value):
    """How many pixels carry the peak, counted in the tiles by other means."""
    z = SMOKE.tile_set().pairs("test", "swir2").hr.numpy()
    brightest = np.sort(z.max(axis=1).ravel())
    assert value["peak_all"] == len(brightest)
    out = value["peak_pixels"]
    assert out == pytest.approx(len(brightest) / 10_000, abs=1)
    # Between the brightest that stays and the darkest that goes.
    bounds = 20 * np.log10(np.ptp(z) / (brightest[[-out - 1, -out]] - z.min()))
    assert bounds[1] - 1e-4 <= value["peak_moves"] <= bounds[0] + 1e-4


def test_appendix_b_metrics(value):
    """z > 1/2 is radiance above the geometric mean of floor and top."""
    for domain in ("swir1", "swir2"):
        radiance = unscale(SMOKE.tile_set().pairs("test", domain).hr).numpy()
        share = 100 * (radiance > math.sqrt(1e-4 * 2)).mean()
        assert value[f"cut_{domain}"] == pytest.approx(share, abs=0.1)
    # arccos(1 - e) is close to √(2 e)
    assert value["floor_1e4"] / value["floor_1e8"] == pytest.approx(100, rel=0.01)


def test_appendix_b_borders_and_deconvolution(value, executed):
    for place in ("edge", "corner"):  # chapter 2 has a constant image; these tiles vary
        assert value[f"border_{place}"] == pytest.approx(
            glued(executed["02"])[f"lost_{place}"], abs=10
        )
    # The same half pixel as in chapter 3, by another formula.
    assert value["shift_cost"] == pytest.approx(glued(executed["03"])["handicap_swir2"], abs=1e-3)
    assert value["paper_gain"] == pytest.approx(33.82 - 31.89)
    base = mean_psnr("bicubic", "swir2")
    models = {*pd.read_csv(SMOKE.metrics("blind"))["model"]} - {
        *AT_ONCE,
        CEILING,
        "bandwise-oracle",
    }
    gains = {model: mean_psnr(model, "swir2") - base for model in models}
    assert value["learned_count"] == len(gains)
    assert value["beaten"] == sum(gain < value["rl_gain_swir2"] for gain in gains.values())
    assert value["rl_gain_swir1"] > 0
