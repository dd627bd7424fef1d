"""Figures: what a picture shows, not how pretty it is."""

import html
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.contour import ContourSet

from asnlsr.notebook.figures import DOMAIN_COLOUR, domain_contours, gain_strips, mark_domains, panel
from asnlsr.scenes.bands import DOMAINS, false_colour
from tests.smoke_book import ROOT

mpl.use("Agg")
WAVELENGTH_NM = np.array([1050.0, 1250.0, 1650.0, 1690.0])


@pytest.fixture
def cube():
    """Four bands of 20 x 20; band k holds 0..399 times k + 1."""
    return np.arange(400.0).reshape(20, 20) * np.arange(1, 5)[:, None, None]


def test_long_wavelengths_are_red(cube):
    cube[2] = cube[2, ::-1]  # 1650 nm, upside down
    picture = false_colour(cube, WAVELENGTH_NM, "swir1")
    assert picture.shape == (20, 20, 3)
    assert picture[0, 0, 0] > 0.9  # red: brightest at the top
    assert picture[0, 0, 2] == 0  # blue: brightest at the bottom


def test_stretch_puts_percentiles_at_the_ends(cube):
    picture = false_colour(cube, WAVELENGTH_NM, "swir1")
    assert (picture.min(), picture.max()) == (0, 1)
    assert picture[10, 0].tolist() == pytest.approx([(200 - 3.99) / (395.01 - 3.99)] * 3)


def test_pictures_stretched_alike_keep_their_brightness(cube):
    darker = false_colour(cube / 2, WAVELENGTH_NM, "swir1", like=cube)
    alone = false_colour(cube / 2, WAVELENGTH_NM, "swir1")
    assert darker.mean() < 0.55 * alone.mean()


def test_constant_band_gives_no_nan():
    assert (false_colour(np.ones((4, 5, 5)), WAVELENGTH_NM, "swir1") == 0).all()


def test_panel_shows_maps_on_one_scale(cube):
    figure = panel([cube[0], cube[1], cube[2]], ["a", "b", "c"], columns=2, label="angle (deg)")
    images = [image for ax in figure.axes for image in ax.get_images()]
    assert [image.get_clim() for image in images] == [(0, cube[2].max())] * 3
    assert "angle (deg)" in {ax.get_ylabel() for ax in figure.axes}
    plt.close(figure)


def test_domains_are_marked_where_they_are():
    figure, ax = plt.subplots()
    mark_domains(ax)
    faces = {mpl.colors.to_hex(patch.get_facecolor()): patch for patch in ax.patches}
    for name, ends in {"swir1": (1000, 1700), "swir2": (1700, 2500)}.items():
        span = faces[DOMAIN_COLOUR[name].lower()]
        assert (span.get_x(), span.get_x() + span.get_width()) == ends
    assert ax.get_xlabel() == "wavelength (nm)"
    plt.close(figure)


def test_lowest_contour_of_a_domain_holds_nine_tenths_of_its_points():
    source = np.random.default_rng(0).normal(size=(400, 2))
    figure, ax = plt.subplots()
    domain_contours(ax, source, source + 50)
    contours = [drawn for drawn in ax.collections if isinstance(drawn, ContourSet)]
    for drawn, inside in zip(contours, (0.9, 0), strict=True):
        lowest = [mpl.path.Path(line) for line in drawn.get_paths()[0].to_polygons()]
        held = np.any([line.contains_points(source) for line in lowest], axis=0)
        assert held.mean() == pytest.approx(inside, abs=0.01)
    colours = [mpl.colors.to_hex(drawn.get_facecolor()) for drawn in ax.collections[1::2]]
    assert colours == [colour.lower() for colour in DOMAIN_COLOUR.values()]
    plt.close(figure)


def test_gains_are_dots_with_a_bar_at_their_mean():
    gains = pd.DataFrame({"swir1": [1.0, 2.0, 6.0], "swir2": [0.0, -1.0, -2.0]})
    figure, ax = plt.subplots()
    gain_strips(ax, {"first": gains, "second": gains + 1})
    dots = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[1, 2, 6], [0, -1, -2], [2, 3, 7], [1, 0, -1]]
    bars = [bar.get_segments()[0] for bar in ax.collections]
    assert [bar[0, 1] for bar in bars] == [3, -1, 4, 0]
    assert [round(bar[:, 0].mean(), 2) for bar in bars] == [-0.15, 0.15, 0.85, 1.15]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["first", "second"]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [domain.title for domain in DOMAINS.values()]
    plt.close(figure)


@pytest.mark.parametrize(
    "source", sorted((ROOT / "book/drawings").glob("*.dot")), ids=lambda path: path.stem
)
def test_drawings_are_those_of_their_sources(source):
    """Every word of the source is drawn (`make drawings`), in letters that a phone shows."""
    svg = html.unescape(source.with_suffix(".svg").read_text())
    labels = re.findall(r'label="\s*([^"]+?)\s*"', source.read_text())
    words = {line for label in labels for line in label.split("\\n") if line.strip()}
    assert len(words) > 5
    assert words <= set(re.findall(r">([^<>]+)</text>", svg))
    width = float(re.search(r'<svg width="([\d.]+)pt"', svg)[1])
    assert 11 * 358 / width >= 9  # pixels, from 11 points, where the column is 358 wide
    chapters = "".join(path.read_text() for path in (ROOT / "book").glob("*.ipynb"))
    assert f"(drawings/{source.stem}.svg)" in chapters
