"""The explorable figures: their arithmetic against that of the package, in a real browser."""

import re

import nbformat
import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from traitlets import TraitError

from asnlsr.metrics import psnr, tile_metrics
from asnlsr.notebook.explore import Adaptation, Deblurring, Embeddings, FiveFaces, Triangle
from asnlsr.physics import degrade, gaussian_psf, log_scale
from tests.chromium import forget, quiet_requests, wait_until
from tests.smoke_book import ROOT

pytestmark = pytest.mark.browser
PEAK, HOSTILE, RNG = 0.7, "</script><b>soil", np.random.default_rng(0)
RADIANCE = RNG.lognormal(-4, 0.5, (60, 68))
DATA = "unpack(model.get('content'))"
LIST = "JSON.stringify({}, (name, value) => ArrayBuffer.isView(value) ? [...value] : value)"


@pytest.fixture
def opened(browser, tmp_path):
    """Open a figure from the file system; return a function that evaluates JavaScript inside."""

    def open_(figure):
        html = figure.html().replace("model: standIn(", "model: window.model = standIn(")
        assert html.count("</script>") == 1  # no text can end the script
        inside = f"window.inside = (code) => JSON.parse(eval(`{LIST.format('${code}')}`));"
        path = tmp_path / "page.html"
        path.write_text("<!doctype html><meta charset=utf-8><title>figure</title>" + inside.join(
            re.split(r"(?=\nrender\(\{ model)", html)))  # fmt: skip
        forget(browser)
        browser.get(path.as_uri())
        said(browser)
        return lambda code: browser.execute_script("return inside(arguments[0])", code)

    yield open_
    quiet_requests(browser)


def find(browser, selector):
    return browser.find_element("css selector", f".explorable{selector}")


def said(browser):
    """Wait until all is computed; return the numbers of the line that says what is shown."""
    wait_until(lambda: find(browser, "").get_attribute("aria-busy") == "false", 60)
    text = find(browser, " [role=status]").text
    return [float(number) for number in re.findall(r"(?<![\d.])-?\d+\.?\d*", text)]


def turn(browser, label, *keys):
    find(browser, f" [aria-label^='{label}']").send_keys(*keys)
    return said(browser)


def test_five_faces_have_the_metrics_of_the_package(browser, opened):
    truth, smooth = 0.3 + 0.4 * RNG.random((2, 4, 20, 24))
    run = opened(FiveFaces(truth, smooth, [0, 1, 2], PEAK, 0.05))
    errors = {k: np.reshape(e, truth.shape) for k, e in run(f"errorsOf({DATA})").items()}
    assert [np.sqrt((e**2).mean()) for e in errors.values()] == pytest.approx([0.05] * 5)
    tilt = np.linspace(-1, 1, 4)[:, None, None] + 0 * truth
    alike = {"tilted spectra": tilt, "shifted": np.roll(truth, 1, 2) - truth}
    for name, expected in (alike | {"blurred": smooth - truth}).items():  # no left of column 0
        each = [e[..., 1:].ravel() for e in (errors[name], expected)]
        assert np.corrcoef(each)[0, 1] == pytest.approx(1, abs=1e-6)
    assert np.ptp(errors["brighter"]) < 1e-12
    assert abs(np.corrcoef(errors["noisy"].reshape(4, -1)) - np.eye(4)).max() < 0.15
    find(browser, " input[value=noisy]").send_keys(Keys.SPACE)
    shown = turn(browser, "strength", Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert run("[model.get('error'), model.get('strength')]") == ["noisy", 0.3]
    x = torch.from_numpy(truth)[None]
    scores = tile_metrics(x + 0.3 * torch.from_numpy(errors["noisy"])[None], x, PEAK)
    wanted = ("psnr", "ssim", "sam_rad_deg", "ergas", "sam_deg")
    assert shown[1:] == pytest.approx([float(scores[key]) for key in wanted], abs=0.006)


def test_deblurring_sees_and_restores_as_the_equations_say(browser, opened):
    run = opened(Deblurring(RADIANCE, PEAK))
    noisy = turn(browser, "iterations", Keys.HOME, *[Keys.ARROW_RIGHT] * 3)
    clean = turn(browser, "noise", Keys.HOME)
    place, psf = np.arange(32) - 16, gaussian_psf()  # whose tilt the page leaves out

    def matrices(width):
        for axis, count in ((1, 8), (0, 10)):
            taps = np.exp(-0.5 * place**2 / (width**2 * (psf.sum(axis) @ place**2)))
            rows = [np.pad(taps / taps.sum(), (4 * k, 4 * (count - 1 - k))) for k in range(count)]
            yield np.array(rows)

    for width, assumed in ((1.2, 0.8), (1.0, 1.0)):
        (A, B), (C, D) = matrices(width), matrices(assumed)
        y = A @ RADIANCE @ B.T
        assert run(f"observed({DATA}, {width}, 0)") == pytest.approx(y.ravel(), rel=1e-3)
        x = (C.T @ y @ D) / (share := C.T @ np.ones_like(y) @ D)
        for _ in range(3):
            x = x * (C.T @ (y / (C @ x @ D.T)) @ D) / share
        steps = f"richardsonLucy(observed({DATA}, {width}, 0), {DATA}, {assumed})"
        assert run(f"{steps}.drop(3).next().value") == pytest.approx(x.ravel(), rel=2e-3)
    seen = degrade(torch.from_numpy(RADIANCE), border="open").numpy()
    assert np.corrcoef(seen.ravel(), y.ravel())[0, 1] > 0.99  # that of the package, with its tilt
    grain = np.array(run(f"observed({DATA}, 1, 5)")) - y.ravel()
    assert grain.std() / y.mean() == pytest.approx(0.05, rel=0.3)
    z = [log_scale(torch.tensor(e))[None, None, 14:-14, 14:-14] for e in (x, RADIANCE)]
    assert clean[:2] == pytest.approx([3, float(psnr(*z, PEAK))], abs=0.02)
    assert noisy[1] < clean[1]
    misjudged = turn(browser, "assumed width", *[Keys.ARROW_RIGHT] * 3)
    assert misjudged[-1] == 30  # per cent too wide


def test_unmixing_is_constrained_least_squares(browser, opened):
    true, shares = np.array([[0, 0], [1, 0.2], [0.3, 0.9]]), RNG.dirichlet([1, 1, 1], 60)
    points = shares @ true + 0.02 * RNG.standard_normal((60, 2))
    opened(Triangle(points, shares, true, ["grass", HOSTILE, "asphalt"]))
    assert HOSTILE in find(browser, " svg").text
    turn(browser, "endmember grass", Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_UP)
    handle = find(browser, " [data-corner='0']")
    ActionChains(browser).drag_and_drop_by_offset(handle, 30, -20).perform()
    residual, error, outside, _ = said(browser)
    corners = np.array(browser.execute_script("return model.get('corners')"))
    assert corners[0, 0] > 0.1
    np.testing.assert_array_equal(corners[1:], true[1:])
    system = np.vstack([corners.T, np.full(3, 1e4)])
    found = np.array([nnls(system, np.append(point, 1e4))[0] for point in points])
    away = np.square(found @ corners - points).sum(1)
    share = away.mean() / np.square(points - points.mean(0)).sum(1).mean()
    assert residual == pytest.approx(100 * np.sqrt(share), abs=0.1)
    assert error == pytest.approx(np.abs(found - shares).mean(), abs=2e-3)
    assert outside == (away > 1e-8).sum()


def test_adaptation_is_trained_as_on_the_page(browser, opened):
    """From the same weights, the classes of chapter 7 end with the same line and accuracies."""
    cells = nbformat.read(ROOT / "book/07_adaptation_in_the_plane.ipynb", 4).cells
    page = {"np": np, "torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    for cell in cells:
        if re.match("def cloud|class Reverse|class Runs|def entropy", cell.source):
            exec(cell.source, page)
    source, target, *tests = (page[k] for k in ("source", "target", "source_test", "target_test"))
    run = opened(Adaptation((source, tests[0]), {"moved": (target, tests[1])}))
    start = torch.tensor(run("firstWeights()")).split([2, 1, 1, 16, 16, 16, 1])

    class Started(page["Runs"]):
        def __init__(self, gamma):
            super().__init__(gamma)
            for own, part in zip(self.parameters(), start, strict=True):
                own.data = part.reshape(own[:1].shape).expand_as(own).clone()

    page["Runs"] = Started
    runs = page["fit"](source, target, torch.tensor([0.0, 1.0]))
    for row, shown in enumerate((said(browser), turn(browser, "γ", Keys.END))):
        found = [[each[row].detach().numpy() for each in runs(torch.tensor(x))] for x, _ in tests]
        right = [100 * np.mean((f[1][:, 0] > 0) == t[1]) for f, t in zip(found, tests, strict=True)]
        told = 50 * (np.mean(found[0][2] <= 0) + np.mean(found[1][2] > 0))
        x, y = (runs.direction[row, :, 0] * runs.label[row].sign()[0]).tolist()
        assert shown[0] == row
        assert shown[3:] == pytest.approx([*right, told, np.degrees(np.arctan2(y, x))], abs=2)
    assert shown[4] > 95  # of the target, with gamma = 1


def test_kernel_and_page_set_the_same_settings(browser, opened):
    """What the kernel sets is shown, what the reader chooses arrives, and nonsense is refused."""
    clouds = {(p, s): RNG.normal([[[0]], [[p]]], 1, (2, 9, 2)) for p in (5, 30) for s in "ab"}
    figure = Embeddings({("raw", *k): tuple(v) for k, v in clouds.items()}, {"raw": {"A": 1.5}})
    assert {"features", "perplexity", "start"} <= set(figure.keys)  # what a kernel keeps in step
    figure.perplexity = 30
    opened(figure)
    find(browser, " select[name=start] option:last-child").click()
    for p in (30, 5):
        browser.execute_script("model.set('perplexity', arguments[0])", p)  # as from a kernel
        within = clouds[p, "b"] - (middles := clouds[p, "b"].mean(1, keepdims=True))
        gap = np.linalg.norm(middles[0] - middles[1]) / np.sqrt((within**2).sum(2).mean())
        assert said(browser) == pytest.approx([gap, 1.5], abs=0.006)
        shown = browser.execute_script("return [model.get('start'), model.get('perplexity')]")
        assert [*shown, find(browser, " select[name=perplexity]").get_property("value")] == [
            "b", p, str(p)]  # fmt: skip
    with pytest.raises(TraitError, match="201"):
        Deblurring(RADIANCE, PEAK).iterations = 201
