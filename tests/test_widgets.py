"""The band browser: what it stores, and what it shows in a page and in a live JupyterLab."""

import csv
import json
import re
import subprocess
import sys
import time
import zlib
from contextlib import nullcontext
from io import BytesIO

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import xarray as xr
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from asnlsr.notebook.browser import LARGEST, BandBrowser, encode
from asnlsr.scenes.envi import write_scene
from tests.chromium import forget, quiet_requests, wait_until
from tests.conftest import make_scene, smooth_radiance

BANDS, SIDE = 12, 32
NM = np.linspace(1000, 2500, BANDS)
CUBE = np.random.default_rng(0).lognormal(-4, 1, (BANDS, SIDE, SIDE))
LOW = CUBE.reshape(BANDS, 8, 4, 8, 4).mean((2, 4))
TRUTH = CUBE[:, ::-1]
HOSTILE = '</script><img src=x onerror="alert(1, 2)">'


# What is stored


def codes(content):
    """Unpack the stored codes by hand: bands x pixels."""
    packed = np.frombuffer(zlib.decompress(content["codes"]), np.uint8)
    return np.cumsum(packed.reshape(len(content["knee"]), -1), axis=0, dtype=np.uint8)


def test_codes_are_as_near_as_eight_bits_can_be():
    """Unpacked by hand: no value is further than half a step, where steps are even in asinh."""
    cube = CUBE - 0.01  # values on both sides of zero
    cube[0, 0, 0] = 5.0  # a glint far above the rest
    stored = encode([cube, cube[:, ::2, ::2]])
    knee, low, step = (np.array(stored[key])[:, None] for key in ("knee", "low", "step"))
    everything = np.concatenate([cube.reshape(BANDS, -1), cube[:, ::2, ::2].reshape(BANDS, -1)], 1)
    warped = low + codes(stored) * step
    assert np.abs(np.arcsinh(everything / knee) - warped).max() < 0.501 * step.max()
    # Near the median an error of half a step in asinh is a relative one, of a per cent or so.
    values = knee * np.sinh(warped)
    near = np.abs(everything / knee - 1) < 0.2
    assert np.abs(values / everything - 1)[near].max() < 0.03


def test_a_page_with_a_tile_of_both_domains_is_small():
    """The worst case, noise, which cannot be packed; and as HTML, which needs four thirds."""
    noise = np.random.default_rng(0).random((60, 128, 128))
    assert len(BandBrowser(noise, np.linspace(1000, 2500, 60)).html()) < 1.5e6


def test_any_cube_will_do(tmp_path):
    constant = BandBrowser(np.zeros((3, 4, 4)), [1, 2, 3])
    assert constant.content["step"][0] > 0
    array = BandBrowser(CUBE, NM)
    coordinates = {"wavelength_nm": ("band", NM)}
    labelled = xr.DataArray(CUBE, dims=("band", "y", "x"), coords=coordinates)
    assert BandBrowser(labelled).content == array.content
    scene = BandBrowser(make_scene(tmp_path / "scene.hdr", rows=2 * LARGEST, cols=60))
    assert scene.content["cubes"] == [{"name": "", "rows": LARGEST, "cols": 30}]
    assert len(scene.content["wavelength_nm"]) == 60
    scene.region = [0, 0, 3, 3]
    scene.show({"low": LOW, "high": CUBE}, NM)
    assert scene.region == []


def test_a_header_says_units_and_what_is_no_data(tmp_path):
    """A pixel without data in one channel is masked; micrometres stay micrometres."""
    radiance = smooth_radiance(8, 9, 151, 0)
    radiance[2, 3, 70] = -1
    um = np.linspace(1, 2.5, 151)
    fields = {"data ignore value": -1, "wavelength units": "um"}
    write_scene(tmp_path / "s.hdr", [radiance], radiance.shape, um, **fields)
    content = BandBrowser(tmp_path / "s.hdr").content
    assert content["wavelength_unit"] == "µm"
    assert content["unit"].startswith("radiance, W")
    assert 1000 < content["wavelength_nm"][0] < 1100
    np.testing.assert_array_equal(np.argwhere((codes(content) == 255).all(0)), [[3 + 2 * 9]])
    cube = xr.DataArray(np.where(HOLES, 7, CUBE), dims=("wave", "y", "x"))
    cube["wavelength"] = "wave", NM / 1000, {"units": "um"}
    content = BandBrowser(cube.assign_attrs({"units": "DN", "_FillValue": 7})).content
    assert (content["wavelength_unit"], content["unit"]) == ("µm", "DN")
    np.testing.assert_allclose(content["wavelength_nm"], NM)
    np.testing.assert_array_equal(codes(content) == 255, HOLES.reshape(BANDS, -1))


HOLES = np.zeros(CUBE.shape, bool)
HOLES[:, 3, 4:9] = True
HOLES[2] = True  # a band of which nothing is left


@pytest.mark.parametrize("way", ["mask", "nan", "infinite", "plain"])
def test_masked_values_count_for_no_scale(way):
    """What stands under a mask, -9999 or NaN, changes nothing: not even the codes beside it."""
    filled = np.where(HOLES, {"nan": np.nan, "infinite": np.inf}.get(way, -9999), CUBE)
    told = pytest.warns(UserWarning, match="-9999 and") if way == "plain" else nullcontext()
    with told:
        cube = np.ma.array(filled, mask=HOLES) if way == "mask" else filled
        content = BandBrowser(cube, NM).content
    assert content["masked"]
    np.testing.assert_array_equal(codes(content).reshape(CUBE.shape) == 255, HOLES)
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
        (CUBE, NM[::-1], "wavelengths decrease"),
        (CUBE[:, :0], NM, "nothing to show"),
        (CUBE * np.nan, NM, "nothing to show"),
        (CUBE * 1j, NM, "complex"),
        ({}, NM, "no cube"),
        ({"a": OTHER, "b": OTHER.assign_coords(wavelength_nm=("b", NM))}, None, "a, b have differ"),
    ],
)
def test_cubes_that_cannot_be_shown_are_refused(cubes, nm, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        BandBrowser(cubes, nm)


# In a static page


@pytest.fixture
def page(browser, tmp_path):
    """Open a page with three cubes, without a kernel; return the Chromium that shows it."""
    cubes = {"low": LOW, HOSTILE: CUBE.copy(), "truth": TRUTH}
    open_page(browser, tmp_path, BandBrowser(cubes, NM, unit=f"radiance {HOSTILE}"))
    choose(browser, "colours", "gray")
    find(browser, "[aria-label^=clip]")[0].send_keys(Keys.HOME)
    yield browser
    quiet_requests(browser)


def open_page(browser, folder, widget):
    """Open a page with a band browser alone, whose files go to the folder."""
    head = "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    (folder / "page.html").write_text(f"{head}<title>browser</title>{widget.html()}")
    to = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", to)
    forget(browser)
    browser.get((folder / "page.html").as_uri())
    wait_for(browser, ".band-browser canvas")
    browser.execute_script("document.querySelector('details').open = true")


def wait_for(browser, selector, seconds=60):
    wait_until(lambda: browser.find_elements("css selector", selector), seconds)


def find(browser, selector):
    return browser.find_elements("css selector", f".band-browser {selector}")


def choose(browser, label, text):
    """Choose an option by its text in the list with this label."""
    (select,) = browser.find_elements("xpath", f"//label[starts-with(., '{label} ')]/select")
    select.find_element("xpath", f".//option[. = '{text}']").click()


def press(browser, text):
    """Press the button, or choose the tool, with this text."""
    path = f"//button[. = '{text}'] | //*[@class = 'tool'][. = '{text}']"
    browser.find_element("xpath", path).click()


def saved(browser, text, path):
    """Press a button; return the bytes of the file that it saves."""
    path.unlink(missing_ok=True)
    press(browser, text)
    wait_until(path.exists)
    return path.read_bytes()


def columns(content):
    """Read the columns of a saved CSV by their names, after its line of remarks."""
    assert content.startswith(b"# ")
    names, *lines = csv.reader(content.decode().splitlines()[1:])
    numbers = np.array([[float(cell or "nan") for cell in line] for line in lines])
    return dict(zip(names, numbers.T, strict=True))


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


def click(browser, which, *pixels):
    """Click on the middle of a pixel of a picture, or drag from the first to the last."""
    canvas = find(browser, ".pictures canvas")[which]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    width = canvas.rect["width"]
    act = ActionChains(browser)
    for n, pixel in enumerate(pixels):
        offset = [round((place + 0.5) * width / SIDE - width / 2) for place in pixel[::-1]]
        act.move_to_element_with_offset(canvas, *offset)
        if n == 0:
            act.click_and_hold()
    act.release().perform()


def drawn_spectra(browser):
    """Read the curves of the plot with the labels of its axis: label to values."""
    ticks, paths = browser.execute_script(
        "const all = (what) => [...document.querySelectorAll(`.spectra ${what}`)];"
        "return [all('text[text-anchor=end]').map(t => [t.getAttribute('y') - 4, +t.textContent]),"
        " all('path:not(.spread)').map(p => [p.textContent, p.getAttribute('d')])]"
    )
    (y0, v0), (y1, v1) = ticks[0], ticks[-1]
    heights = {label: re.findall(r"[ML]\S+ ([^ML]+)", d) for label, d in paths}
    scale = (v1 - v0) / (y1 - y0)
    return {label: v0 + (np.array(y, float) - y0) * scale for label, y in heights.items()}


def shown(browser):
    return [caption.text for caption in find(browser, "figcaption") if caption.is_displayed()]


@pytest.mark.browser
def test_masked_pixels_are_left_out(browser, tmp_path):
    holes = np.broadcast_to(HOLES[0], CUBE.shape)
    cube = np.ma.array(np.where(holes, -9999, CUBE), mask=holes)
    open_page(browser, tmp_path, BandBrowser(cube, NM))
    assert "masked" in find(browser, ".legend")[0].text
    for view in find(browser, ".controls option[value=three]")[0].find_elements("xpath", "../*"):
        view.click()
        alpha = picture(browser, 0, parts=slice(3, 4))[..., 0]
        np.testing.assert_array_equal(alpha == 0, HOLES[0])
    click(browser, 0, (0, 0), (10, 31))
    (row,) = find(browser, "[aria-label=region] tr:has(td)")
    number, mean, deviation, *_ = (float(cell.text) for cell in row.find_elements("xpath", "td"))
    assert number == 11 * 32 - 5
    values = cube[9, :11]  # band 9, 2227 nm, is where the page begins: red of "both domains"
    assert [mean, deviation] == pytest.approx([values.mean(), values.std()], rel=0.02)
    quiet_requests(browser)


@pytest.mark.browser
def test_pictures_show_the_bands(page):
    """Band by band with the slider, and as one of the three colours."""
    choose(page, "red", f"{NM[4]:.0f} nm")
    seen = [(4, picture(page, 1)[..., :1])]
    choose(page, "show", "one band")
    (slider,) = find(page, "[aria-label=wavelength]")
    slider.send_keys(Keys.HOME)
    seen.append((0, picture(page, 1)))
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert find(page, "output")[0].text == f"{NM[2]:.0f} nm, band 3 of 12"
    seen.append((2, picture(page, 1)))
    for band, image in seen:  # the cubes share their extremes
        low, high = LOW[band].min().clip(max=CUBE[band].min()), CUBE[band].max()
        away = np.abs(image - 255 * (CUBE[band, ..., None] - low) / (high - low))
        away[12:21, 12:21] = 0  # the mark of the pin
        assert away.max() < 6  # of 255: eight bits twice, and half of a step in asinh


@pytest.mark.browser
def test_keys_move_pin_and_zoom(page):
    canvas = find(page, ".pictures canvas")[1]
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ENTER)
    assert re.findall(r"pin \d \(.*?\)", find(page, ".key")[0].text) == [
        "pin 1 (16, 16)", "pin 2 (15, 18)"
    ]  # fmt: skip
    canvas.send_keys("+")
    zoomed = picture(page, 1)[2::8, 2::8]  # 16 x 16 pixels now; off the marks
    canvas.send_keys(Keys.ESCAPE)
    whole = picture(page, 1)[7 + 1 : 23 : 4, 10 + 1 : 26 : 4]
    assert (zoomed == whole).mean() > 0.8
    canvas.send_keys(Keys.DELETE)
    assert "pin 2" not in find(page, ".key")[0].text
    find(page, ".tool [value=pin]")[0].send_keys(Keys.ARROW_RIGHT)  # the next tool: region
    canvas.send_keys(Keys.ENTER, Keys.SHIFT, Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ENTER)
    assert "rows 15 to 25, columns 8 to 18" in find(page, "[aria-label=region]")[0].text
    canvas.send_keys("b")
    assert shown(page) == ["low"]
    find(page, ".pictures canvas")[0].send_keys("b")
    assert shown(page) == [HOSTILE]
    press(page, "blink")
    assert len(shown(page)) == 3
    press(page, "blink")
    wait_until(lambda: shown(page) == ["truth"])  # by itself


# In the pixels of the finer cube; a low-resolution pixel covers 4 x 4 of them.
PLACES = {"low": LOW.repeat(4, axis=1).repeat(4, axis=2), HOSTILE: CUBE, "truth": TRUTH}


def principal(cube):
    """First principal component of all pixels of the three cubes, by numpy."""
    pixels = np.concatenate([each.reshape(BANDS, -1) for each in (LOW, CUBE, TRUTH)], axis=1)
    vector = np.linalg.eigh(np.cov(pixels))[1][:, -1]
    vector *= np.sign(vector[np.abs(vector).argmax()])
    return np.tensordot(vector, cube - pixels.mean(axis=1)[:, None, None], axes=1)


def rmse(cube):
    return ((cube - TRUTH) ** 2).mean(0) ** 0.5


def angle(cube):
    cosine = (cube * TRUTH).sum(0) / np.sqrt((cube**2).sum(0) * (TRUTH**2).sum(0))
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


MAPS = {  # name of a map, what it is, and how near eight bits come to it
    "one band": ("{}", lambda a: a[9], 0.01),
    "ratio of two bands": ("{}", lambda a: a[0] / a[9], 0.02),
    "normalised difference of two bands": ("{}", lambda a: (a[0] - a[9]) / (a[0] + a[9]), 0.03),
    "principal components": ("{}", principal, 0.05),
    "difference in one band": ("{} − truth", lambda a: a[9] - TRUTH[9], 0.02),
    "RMSE over all bands": ("{} against truth", rmse, 0.01),
    "spectral angle": ("{} against truth", angle, 0.01),
}


@pytest.mark.browser
def test_maps_are_those_of_numpy(page, tmp_path):
    """Every map, read off the file with its values along row 5."""
    press(page, "profile")
    click(page, 2, (5, 0), (5, SIDE - 1))
    for view, (name, of, near) in MAPS.items():
        choose(page, "show", view)
        found = columns(saved(page, "save profile", tmp_path / "profile.csv"))
        layers = {name.format(n): of(c) for n, c in PLACES.items() if name == "{}" or n != "truth"}
        assert list(found) == ["distance (pixels)", "row", "column", *layers]
        np.testing.assert_array_equal(found["column"], np.arange(SIDE))
        for n, layer in layers.items():
            np.testing.assert_allclose(found[n], layer[5], atol=near * np.abs(layer).max())
    # Nothing is clipped here: the scale ends at the largest of the last maps.
    top = max(layer.max() for layer in layers.values())
    assert float(find(page, ".legend")[0].text.split()[1]) == pytest.approx(top, 0.02)


@pytest.mark.browser
def test_largest_difference_is_pinned(page):
    press(page, "largest difference")
    said = find(page, "[role=status]")[0].text
    value, row, col = re.search(r": ([\d.]+) radiance .* at row (\d+), column (\d+)", said).groups()
    assert f"pin 2 ({row}, {col})" in find(page, ".key")[0].text
    cube = PLACES["low" if "low against truth" in said else HOSTILE]
    top = max(rmse(each).max() for each in PLACES.values())
    assert [float(value), rmse(cube)[int(row), int(col)]] == pytest.approx([top, top], rel=0.02)
    apart = np.abs(cube - TRUTH)[:, int(row), int(col)]
    band = np.abs(NM - float(re.search(r"most at (\S+) nm", said)[1])).argmin()
    assert apart[band] == pytest.approx(apart.max(), rel=0.02)
    find(page, "[aria-label^='remove pin 2']")[0].click()
    assert "Largest" not in find(page, "[role=status]")[0].text


@pytest.mark.browser
def test_pins_and_a_region_are_drawn_and_saved(page, tmp_path):
    click(page, 1, (5, 20))
    click(page, 2, (4, 6), (11, 20))
    found = columns(saved(page, "save spectra", tmp_path / "spectra.csv"))
    region = columns(saved(page, "save mean spectrum", tmp_path / "region.csv"))
    assert list(region) == [name for name in found if not name.startswith("pin")]
    assert all((region[name] == found[name]).all() for name in region)
    drawn = drawn_spectra(page)
    np.testing.assert_allclose(found["wavelength (nm)"], NM, rtol=1e-6)
    region = np.s_[:, 4:12, 6:21]
    pixels = {"low": LOW[:, 1:3, 1:6], HOSTILE: CUBE[region], "truth": TRUTH[region]}
    for name, cube in pixels.items():
        pin, mean = PLACES[name][:, 5, 20], cube.mean((1, 2))
        for curve, values in ((drawn[f"pin 2 {name}"], pin), (drawn[f"region {name}"], mean)):
            np.testing.assert_allclose(curve, values, rtol=0.03, atol=3e-4)
        np.testing.assert_allclose(found[f"pin 2 (5 20) {name}"], pin, rtol=0.02, atol=3e-4)
        np.testing.assert_allclose(found[f"region mean {name}"], mean, rtol=0.01)
        deviation = found[f"region standard deviation {name}"]
        np.testing.assert_allclose(deviation, cube.std((1, 2)), rtol=0.02)
        assert (found[f"region pixels {name}"] == cube[0].size).all()
    assert find(page, "figcaption")[1].text == HOSTILE  # as text, and no element
    assert find(page, "img") == []
    image = plt.imread(BytesIO(saved(page, "save picture", tmp_path / "picture.png")))
    canvas = picture(page, 0)[2, 2] / 255  # the file begins with a margin of 16
    np.testing.assert_allclose(image[16 + 30, 16 + 30, :3], canvas, atol=0.01)


@pytest.mark.browser
def test_a_finger_draws_a_region_on_a_phone(page):
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        press(page, "region")
        x, y, width = page.execute_script(
            "const c = document.querySelector('canvas'); c.scrollIntoView();"
            "const {x, y, width} = c.getBoundingClientRect(); return [x, y, width]"
        )
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        for kind, at in (("Start", 0.1), ("Move", 0.3), ("Move", 0.5), ("End", None)):
            points = [{"x": x + at * width, "y": y + at * width}] if at else []
            touch = {"type": f"touch{kind}", "touchPoints": points}
            page.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
        assert "rows 3 to 16, columns 3 to 16" in find(page, "[aria-label=region]")[0].text
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


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
    browser.view = "difference"
    browser.band = 7
browser.observe(clicked, "pixel")
browser
"""
FIGURES = """
from asnlsr.notebook.explore import Adaptation, Deblurring, Embeddings, FiveFaces, Triangle
rng = np.random.default_rng(0)
faces = FiveFaces(*(0.3 + 0.4 * rng.random((2, 4, 20, 24))), [0, 1, 2], 0.7, 0.05)
deblurring = Deblurring(rng.lognormal(-4, 0.5, (60, 68)), 0.7)
corners, shares = rng.random((3, 2)), rng.dirichlet([1, 1, 1], 60)
triangle = Triangle(shares @ corners, shares, corners, ["grass", "soil", "roof"])
clouds = [(rng.normal(size=(40, 2)), np.arange(40) % 2) for _ in range(4)]
plane = Adaptation(tuple(clouds[:2]), {"moved": tuple(clouds[2:])})
placed = {("raw", p, "pca"): tuple(rng.normal(size=(2, 9, 2))) for p in (5, 30)}
def turned(change):
    Path("turned.txt").write_text(str(change.new))
    deblurring.iterations = 7
deblurring.observe(turned, "noise")
display(faces, deblurring, triangle, plane, Embeddings(placed, {"raw": {"A": 1.5}}))
"""


@pytest.fixture
def lab(tmp_path, browser, monkeypatch):
    """Start JupyterLab on one notebook, run it, and wait for the widget."""
    cells = [nbformat.v4.new_code_cell(source) for source in (NOTEBOOK, FIGURES)]
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "live.ipynb")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.port=0", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
    command += ["--LabApp.expose_app_in_browser=True", f"--notebook-dir={tmp_path}"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        wait_until(lambda: [*tmp_path.glob("jpserver-*-open.html")])  # written after the address
        (told,) = tmp_path.glob("jpserver-*.json")
        browser.get(json.loads(told.read_text())["url"] + "lab/tree/live.ipynb")
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


@pytest.mark.browser
@pytest.mark.slow
def test_kernel_hears_of_a_click_and_answers(lab, tmp_path):
    forget(lab)
    # The keys of JupyterLab's command mode are the slider's while the reader is at the slider.
    (slider,) = find(lab, "[aria-label=wavelength]")
    first = int(slider.get_attribute("value"))
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert int(slider.get_attribute("value")) == first + 1
    assert find(lab, "output")[0].text.endswith(f"band {first + 2} of 12")
    assert lab.switch_to.active_element == slider

    def click_until_heard():  # JupyterLab may still be moving the output about
        click(lab, 0, (5, 20))
        time.sleep(3)
        return (tmp_path / "clicked.json").exists()

    wait_until(click_until_heard)
    seen = json.loads((tmp_path / "clicked.json").read_text())
    assert seen["pixel"] == [5, 20]
    assert seen["value"] == CUBE[first + 1, 5, 20]  # the kernel knows of the slider, too
    wait_until(lambda: shown(lab) == ["pushed − beside it", "beside it, 1.64 nm"])
    wait_until(lambda: find(lab, "output")[0].text.endswith("band 8 of 12"))
    quiet_requests(lab, "http://127.0.0.1")


@pytest.mark.browser
@pytest.mark.slow
def test_explorable_figures_compute_beside_a_kernel(lab, tmp_path):
    def said():
        done = lab.find_elements("css selector", ".explorable[aria-busy=false] [role=status]")
        return [line.get_property("textContent") for line in done]

    wait_until(lambda: len([*filter(None, said())]) == 5)
    lab.find_element("css selector", ".explorable [aria-label^=noise]").send_keys(Keys.ARROW_RIGHT)
    heard = tmp_path / "turned.txt"
    wait_until(lambda: heard.exists() and heard.read_text() == "3.5")
    wait_until(lambda: any(line.startswith("PSNR after 7 iterations") for line in said()))
    quiet_requests(lab, "http://127.0.0.1")
