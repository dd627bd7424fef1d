"""The band browser: what it stores, and what it shows in a page and in a live JupyterLab."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
import zlib

import nbformat
import numpy as np
import pytest
import xarray as xr
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from asnlsr.notebook.browser import LARGEST, BandBrowser, encode
from tests.chromium import noticed
from tests.conftest import make_scene

BANDS, SIDE = 12, 32
NM = np.linspace(1000, 2500, BANDS)
CUBE = np.random.default_rng(0).lognormal(-4, 1, (BANDS, SIDE, SIDE))
LOW = CUBE.reshape(BANDS, 8, 4, 8, 4).mean((2, 4))
HOSTILE = "</script><img src=x onerror=alert(1)>"


# What is stored


def test_codes_are_as_near_as_eight_bits_can_be():
    """Unpacked by hand: no value is further than half a step, where steps are even in asinh."""
    cube = CUBE - 0.01  # values on both sides of zero
    cube[0, 0, 0] = 5.0  # a glint far above the rest
    stored = encode([cube, cube[:, ::2, ::2]])
    codes = np.frombuffer(zlib.decompress(stored["codes"]), np.uint8).reshape(BANDS, -1)
    codes = np.cumsum(codes, axis=0, dtype=np.uint8)
    knee, low, step = (np.array(stored[key])[:, None] for key in ("knee", "low", "step"))
    everything = np.concatenate([cube.reshape(BANDS, -1), cube[:, ::2, ::2].reshape(BANDS, -1)], 1)
    assert np.abs(np.arcsinh(everything / knee) - (low + codes * step)).max() < 0.501 * step.max()
    # Near the median an error of half a step in asinh is a relative one, of a per cent or so.
    values = knee * np.sinh(low + codes * step)
    near = np.abs(everything / knee - 1) < 0.2
    assert np.abs(values / everything - 1)[near].max() < 0.03


def test_a_page_with_a_tile_of_both_domains_is_small():
    """The worst case, noise, which cannot be packed; and as HTML, which needs four thirds."""
    noise = np.random.default_rng(0).random((60, 128, 128))
    assert len(BandBrowser(noise, np.linspace(1000, 2500, 60)).html()) < 1.5e6


def test_a_constant_band_is_shown():
    assert BandBrowser(np.zeros((3, 4, 4)), [1, 2, 3]).content["step"][0] > 0


def test_any_cube_will_do(tmp_path):
    array = BandBrowser(CUBE, NM)
    coordinates = {"wavelength_nm": ("band", NM)}
    labelled = xr.DataArray(CUBE, dims=("band", "y", "x"), coords=coordinates)
    assert BandBrowser(labelled).content == array.content
    scene = BandBrowser(make_scene(tmp_path / "scene.hdr", rows=2 * LARGEST, cols=60))
    assert scene.content["cubes"] == [{"name": "", "rows": LARGEST, "cols": 30}]
    assert len(scene.content["wavelength_nm"]) == 60
    scene.show({"low": LOW, "high": CUBE}, NM)
    assert scene.region == [0, 0, SIDE, SIDE]


HOLES = np.zeros(CUBE.shape, bool)
HOLES[:, 3, 4:9] = True
HOLES[2] = True  # a band of which nothing is left


@pytest.mark.parametrize("way", ["mask", "nan", "infinite"])
def test_masked_values_count_for_no_scale(way):
    """What stands under a mask, -9999 or NaN, changes nothing: not even the codes beside it."""
    filled = np.where(HOLES, {"mask": -9999, "nan": np.nan, "infinite": np.inf}[way], CUBE)
    content = BandBrowser(np.ma.array(filled, mask=HOLES) if way == "mask" else filled, NM).content
    codes = np.frombuffer(zlib.decompress(content["codes"]), np.uint8).reshape(CUBE.shape)
    codes = np.cumsum(codes, axis=0, dtype=np.uint8)
    assert content["masked"]
    np.testing.assert_array_equal(codes == 255, HOLES)
    for band in (0, 1, 11):
        values = CUBE[band][~HOLES[band]]
        knee, low, step = (content[key][band] for key in ("knee", "low", "step"))
        assert knee == pytest.approx(np.median(values))
        ends = knee * np.sinh([low, low + 254 * step])
        assert ends == pytest.approx([values.min(), values.max()])


@pytest.mark.parametrize(
    "dims",
    [("y", "x", "band"), ("x", "y", "wavelength"), ("row", "b", "column"), ("lat", "lon", "b")],
)
def test_dimensions_go_by_name(dims):
    place = {"y": 1, "row": 1, "lat": 1, "x": 2, "column": 2, "lon": 2}
    values = CUBE[:, :BANDS, :BANDS]  # of equal sides: nothing but the names tells
    bands = next(dim for dim in dims if dim not in place)
    cube = xr.DataArray(
        values.transpose([place.get(dim, 0) for dim in dims]),
        dims=dims, coords={"wavelength_nm": (bands, NM)},
    )  # fmt: skip
    assert BandBrowser(cube).content == BandBrowser(values, NM).content


OTHER = xr.DataArray(CUBE, dims=("b", "h", "w"), coords={"wavelength_nm": ("b", NM + 1)})


@pytest.mark.parametrize(
    ("cubes", "nm", "reason"),
    [
        (CUBE[0], NM, "needs (bands, rows, columns)"),
        (CUBE, NM[:-1], "11 wavelengths"),
        (CUBE, None, "0 wavelengths"),
        ({"a": OTHER, "b": OTHER.assign_coords(wavelength_nm=("b", NM))}, None, "a, b have differ"),
    ],
)
def test_cubes_that_cannot_be_shown_are_refused(cubes, nm, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        BandBrowser(cubes, nm)


def test_no_name_can_end_the_script():
    page = BandBrowser({HOSTILE: CUBE}, NM, unit=HOSTILE).html()
    assert page.count("</script>") == 1
    assert "<img" not in page


# In a static page


@pytest.fixture
def page(browser, tmp_path):
    """Open a page with three cubes, without a kernel; return the Chromium that shows it."""
    cubes = {"low": LOW, HOSTILE: CUBE.copy(), "truth": CUBE[:, ::-1]}
    path = tmp_path / "page.html"
    html = BandBrowser(cubes, NM, unit="radiance").html()
    path.write_text(f"<!doctype html><meta charset=utf-8><title>browser</title>{html}")
    noticed(browser)
    browser.get(path.as_uri())
    wait_for(browser, ".band-browser canvas")
    choose(browser, "show", "one band")
    choose(browser, "colours", "gray")
    choose(browser, "show", "three bands")
    browser.execute_script(
        "const clip = document.querySelector('[aria-label^=clip]');"
        "clip.value = 0; clip.dispatchEvent(new Event('input'))"
    )
    yield browser
    errors, requests = noticed(browser)
    assert errors == []
    assert [a for a in requests if not a.startswith(("file:", "data:", "blob:"))] == []


def wait_for(browser, selector, seconds=60):
    wait_until(lambda: browser.find_elements("css selector", selector), seconds)


def find(browser, selector):
    return browser.find_elements("css selector", f".band-browser {selector}")


def choose(browser, label, text):
    """Choose an option by its text in the list with this label."""
    (select,) = browser.find_elements("xpath", f"//label[starts-with(., '{label} ')]/select")
    select.find_element("xpath", f"option[. = '{text}']").click()


def picture(browser, which, parts=slice(3)):
    """Return the colours of a picture at the centres of its 32 x 32 pixels, uint8 (32, 32, 3)."""
    colours = browser.execute_script(
        "const c = document.querySelectorAll('.pictures canvas')[arguments[0]];"
        "const w = c.width; return [w, [...c.getContext('2d').getImageData(0, 0, w, w).data]]",
        which,
    )
    image = np.array(colours[1], np.uint8).reshape(colours[0], colours[0], 4)
    places = ((np.arange(SIDE) + 0.5) * colours[0] / SIDE).astype(int)
    return image[np.ix_(places, places)][..., parts]


def click(browser, which, row, col):
    """Click on the middle of a pixel of a picture."""
    canvas = find(browser, ".pictures canvas")[which]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    width = canvas.rect["width"]
    offset = [(place + 0.5) * width / SIDE - width / 2 for place in (col, row)]
    ActionChains(browser).move_to_element_with_offset(canvas, *map(round, offset)).click().perform()


def drawn_spectra(browser):
    """Read the curves of the plot with the labels of its axis: label to values."""
    ticks = browser.execute_script(
        "return [...document.querySelectorAll('.spectra text[text-anchor=end]')]"
        ".map(t => [Number(t.getAttribute('y')) - 4, Number(t.textContent)])"
    )
    (y0, v0), (y1, v1) = ticks[0], ticks[-1]
    paths = browser.execute_script(
        "return [...document.querySelectorAll('.spectra path')]"
        ".map(p => [p.textContent, p.getAttribute('d')])"
    )
    heights = {label: re.findall(r"[ML]\S+ (\S+?)(?=[ML]|$)", d) for label, d in paths}
    return {
        label: v0 + (np.array(values, float) - y0) * (v1 - v0) / (y1 - y0)
        for label, values in heights.items()
    }


def stretched(cube, band):
    """Grey levels of a band between its extremes over all three cubes, which share values."""
    low, high = min(CUBE[band].min(), LOW[band].min()), CUBE[band].max()
    return 255 * (cube[band] - low) / (high - low)


@pytest.mark.browser
def test_masked_pixels_are_left_out(browser, tmp_path):
    holes = np.broadcast_to(HOLES[0], CUBE.shape)
    html = BandBrowser(np.ma.array(np.where(holes, -9999, CUBE), mask=holes), NM).html()
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{html}")
    noticed(browser)
    browser.get((tmp_path / "page.html").as_uri())
    wait_for(browser, ".band-browser canvas")
    for view in ("one band", "three bands", "angle to the last pin"):
        choose(browser, "show", view)
        alpha = picture(browser, 0, parts=slice(3, 4))[..., 0]
        np.testing.assert_array_equal(alpha == 0, HOLES[0])
    assert noticed(browser)[0] == []


@pytest.mark.browser
def test_slider_shows_the_band(page):
    choose(page, "show", "one band")
    (slider,) = find(page, "[aria-label=wavelength]")
    slider.send_keys(Keys.HOME)
    first = picture(page, 1)
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert find(page, "output")[0].text == f"{NM[2]:.0f} nm, band 3 of 12"
    for band, shown in ((0, first), (2, picture(page, 1))):
        away = np.abs(shown.astype(float) - stretched(CUBE, band)[..., None])
        away[12:21, 12:21] = 0  # the mark of the pin
        assert away.max() < 6  # of 255: eight bits twice, and half of a step in asinh
    flipped = np.abs(picture(page, 2)[::-1].astype(float) - picture(page, 1))
    flipped[10:22, 12:21] = 0
    assert flipped.max() == 0


@pytest.mark.browser
def test_click_draws_the_spectra_that_numpy_says(page):
    click(page, 1, 5, 20)
    drawn = drawn_spectra(page)
    for name, truth in (
        ("low", LOW[:, 1, 5]),
        (HOSTILE, CUBE[:, 5, 20]),
        ("truth", CUBE[:, SIDE - 1 - 5, 20]),
    ):
        away = np.abs(drawn[f"pin 2 {name}"] - truth)
        assert (away < 0.03 * truth + 0.01 * max(map(np.max, drawn.values()))).all()
    assert find(page, "figcaption")[1].text == HOSTILE  # as text, and no element
    assert find(page, "img") == []


@pytest.mark.browser
def test_composer_changes_one_colour(page):
    before = picture(page, 1).astype(float)
    choose(page, "red", f"{NM[4]:.0f} nm")
    after = picture(page, 1).astype(float)
    away = np.abs(after[..., 0] - stretched(CUBE, 4))
    away[12:21, 12:21] = 0
    assert away.max() < 6
    assert (after[..., 1:] == before[..., 1:]).all()
    assert np.abs(after[..., 0] - before[..., 0]).mean() > 5


@pytest.mark.browser
def test_keys_move_pin_and_zoom(page):
    canvas = find(page, ".pictures canvas")[1]
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ENTER)
    assert [key.text for key in find(page, ".key li")][:2] == ["pin 1 (16, 16)", "pin 2 (15, 18)"]
    canvas.send_keys("+")
    zoomed = picture(page, 1)[2::8, 2::8]  # 16 x 16 pixels now; off the marks
    canvas.send_keys(Keys.ESCAPE)
    whole = picture(page, 1)[7 + 1 : 23 : 4, 10 + 1 : 26 : 4]
    assert (zoomed == whole).mean() > 0.8
    canvas.send_keys(Keys.DELETE)
    assert "pin 2" not in find(page, ".key")[0].text


@pytest.mark.browser
def test_angles_are_those_of_numpy(page):
    choose(page, "show", "angle to truth")
    legend = find(page, ".legend")[0].text
    truth = CUBE[:, ::-1]
    # A low-resolution pixel is compared with the pixel in its middle.
    pairs = [(CUBE, truth), (LOW, truth[:, 2::4, 2::4])]
    cosine = [(a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0)) for a, b in pairs]
    largest = max(np.degrees(np.arccos(c)).max() for c in cosine)
    assert float(re.search(r"([\d.]+) spectral angle", legend)[1]) == pytest.approx(largest, 0.02)


# In a live JupyterLab

NOTEBOOK = """
import json
from pathlib import Path
import numpy as np
from asnlsr.notebook.browser import BandBrowser
cube = np.random.default_rng(0).lognormal(-4, 1, (12, 32, 32))
browser = BandBrowser(cube, np.linspace(1000, 2500, 12))
def clicked(change):
    seen = {"pixel": change.new, "value": float(cube[browser.band][tuple(change.new)])}
    Path("clicked.json").write_text(json.dumps(seen))
    browser.show({"pushed": cube[:, :8, :8], "beside it": cube[:, :8, :8]}, np.linspace(1, 2, 12))
    browser.band = 7
browser.observe(clicked, "pixel")
browser
"""


@pytest.fixture
def lab(tmp_path, browser):
    """Start JupyterLab on one notebook, run it, and wait for the widget."""
    cell = nbformat.v4.new_code_cell(NOTEBOOK)
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "live.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
    command += ["--LabApp.expose_app_in_browser=True", f"--notebook-dir={tmp_path}"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/api"))
        browser.get(f"http://127.0.0.1:{port}/lab/tree/live.ipynb")
        wait_for(browser, ".jp-Notebook .jp-CodeCell", 120)
        wait_until(lambda: browser.execute_script(READY))
        browser.execute_script("jupyterapp.commands.execute('notebook:run-all-cells')")
        wait_for(browser, ".band-browser canvas", 120)
        yield browser
    finally:
        browser.get("about:blank")
        server.terminate()
        server.wait(30)


READY = """
const shown = window.jupyterapp?.shell?.currentWidget;
return shown?.sessionContext?.session?.kernel?.status === 'idle'"""


def answers(address):
    try:
        return urllib.request.urlopen(address, timeout=2).status == 200
    except OSError:
        return False


def wait_until(ready, seconds=120):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


@pytest.mark.browser
@pytest.mark.slow
def test_kernel_hears_of_a_click_and_answers(lab, tmp_path):
    noticed(lab)
    # The keys of JupyterLab's command mode are the slider's while the reader is at the slider.
    (slider,) = find(lab, "[aria-label=wavelength]")
    first = int(slider.get_attribute("value"))
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert int(slider.get_attribute("value")) == first + 1
    assert find(lab, "output")[0].text.endswith(f"band {first + 2} of 12")
    assert lab.switch_to.active_element == slider

    def click_until_heard():  # JupyterLab may still be moving the output about
        click(lab, 0, 5, 20)
        time.sleep(3)
        return (tmp_path / "clicked.json").exists()

    wait_until(click_until_heard)
    seen = json.loads((tmp_path / "clicked.json").read_text())
    assert seen["pixel"] == [5, 20]
    assert seen["value"] == CUBE[first + 1, 5, 20]  # the kernel knows of the slider, too
    wait_until(lambda: [f.text for f in find(lab, "figcaption")] == ["pushed", "beside it"])
    wait_until(lambda: find(lab, "output")[0].text.endswith("band 8 of 12"))
    errors, requests = noticed(lab)
    assert errors == []
    assert [a for a in requests if not a.startswith(("http://127.0.0.1", "data:", "blob:"))] == []
