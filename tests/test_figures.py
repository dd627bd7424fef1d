"""Figures: what a picture shows, not how pretty it is."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from asnlsr.notebook.figures import (
    BOX_COLOUR,
    DOMAIN_COLOUR,
    WIDTH,
    architecture,
    data_flow,
    diagram,
    mark_domains,
    panel,
)
from asnlsr.scenes.bands import false_colour

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


@pytest.fixture
def drawing():
    """Three boxes in a row and an arrow from the first to the last, below the one between."""
    boxes = {
        "in": (0.5, 0.3, "cube", "LR"),
        "between": (1.5, 0.3, "convolution", "conv 3"),
        "out": (2.5, 0.3, "sum", "+"),
    }
    figure = diagram(boxes, ["in between out"], [("in", "out", 0.9)])
    yield figure
    plt.close(figure)


def test_arrows_of_a_diagram_run_from_edge_to_edge(drawing):
    (ax,) = drawing.axes
    first, between, last = (patch.get_path().get_extents() for patch in ax.patches)
    tips = [arrow.xy for arrow in ax.texts if arrow.get_text() == ""]
    assert tips[0] == pytest.approx((between.x0, 0.3))
    assert tips[1] == pytest.approx((last.x0, 0.3))
    assert tips[2] == pytest.approx((2.5, last.y1))  # from below: y runs downwards
    starts = [line.get_xydata()[0] for line in ax.lines]
    assert starts[0] == pytest.approx((first.x1, 0.3))
    assert starts[2] == pytest.approx((0.5, first.y1))


def test_detour_of_a_diagram_keeps_its_line_and_stays_inside(drawing):
    (ax,) = drawing.axes
    assert ax.lines[2].get_xydata()[1:].tolist() == [[0.5, 0.9], [2.5, 0.9]]
    assert ax.get_xlim() == (0, WIDTH)
    assert ax.get_ylim()[0] > 0.9
    assert drawing.get_size_inches().tolist() == pytest.approx([WIDTH, ax.get_ylim()[0]])


def test_boxes_of_a_diagram_say_what_they_are(drawing):
    (ax,) = drawing.axes
    assert [text.get_text() for text in ax.texts][:3] == ["LR", "conv 3", "+"]
    faces = [mpl.colors.to_hex(patch.get_facecolor()) for patch in ax.patches]
    assert faces[1] == BOX_COLOUR["convolution"].lower()
    # The text fits into its box.
    drawing.canvas.draw()
    for patch, text in zip(ax.patches, ax.texts, strict=False):
        box, words = patch.get_window_extent(), text.get_window_extent()
        assert box.x0 < words.x0 < words.x1 < box.x1


@pytest.mark.parametrize("draw", [architecture, data_flow])
def test_drawings_are_tidy(draw):
    """No two boxes or texts overlap, nothing is cut off, and every text fits into its box."""
    figure = draw()
    (ax,) = figure.axes
    figure.canvas.draw()
    words = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(words) > 10
    for n, extent in enumerate(words):
        assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= extent.y0 < extent.y1 <= figure.bbox.y1
        assert [other for other in words[:n] if extent.overlaps(other)] == []
    frames = [patch.get_window_extent() for patch in ax.patches if patch.get_visible()]
    for n, frame in enumerate(frames):
        assert [other for other in frames[:n] if frame.overlaps(other)] == []
        (inside,) = [w for w in words if frame.contains((w.x0 + w.x1) / 2, (w.y0 + w.y1) / 2)]
        assert frame.x0 < inside.x0 < inside.x1 < frame.x1
    plt.close(figure)
