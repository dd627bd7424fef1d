"""Windows over a scene: they cover it, and what is blended is what the whole scene would give."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from asnlsr.models.registry import build
from asnlsr.physics import log_scale
from asnlsr.scenes.bands import SceneBands
from asnlsr.scenes.envi import open_scene
from asnlsr.upscale import LEAST, OVERLAP, WINDOW, enlarged_rows, ramps, spans
from tests.conftest import make_scene

REACH = OVERLAP // 4  # low-resolution pixels from which a blended window knows all around it


@pytest.mark.parametrize("length", [*range(LEAST, 420, 7), 96, 97, 155, 168, 169, 1452])
def test_windows_cover_a_side(length):
    along = spans(length)
    assert along[0][0] == 0
    assert along[-1][1] == length
    for start, stop in along:
        assert start % 6 == 0
        assert LEAST <= stop - start <= WINDOW
    for (_, stop), (start, _) in itertools.pairwise(along):
        assert stop - start >= OVERLAP


@pytest.mark.parametrize("length", [50, 97, 155, 1452])
@pytest.mark.parametrize("scale", [2, 4])
def test_weights_sum_to_one_and_leave_out_the_edges(length, scale):
    along = spans(length)
    total = np.zeros(scale * length)
    for (start, stop), ramp in zip(along, ramps(along, scale=scale), strict=True):
        total[scale * start : scale * stop] += ramp.numpy()
        inner_edge = ramp[: scale * REACH] if start else ramp[-scale * REACH :]
        if stop < length or start:
            assert inner_edge.max() == 0
        assert ramp.diff().abs().max() <= 1 / (scale * OVERLAP / 2) + 1e-6  # no step: no seam
    np.testing.assert_allclose(total, 1, atol=1e-6)


class Local(torch.nn.Module):
    """Knows exactly `REACH` pixels around each: the largest reach for which windows are exact."""

    def __init__(self, bands):
        super().__init__()
        torch.manual_seed(0)
        self.kernel = torch.rand(16 * bands, bands, 2 * REACH + 1, 2 * REACH + 1) / bands / 169

    def forward(self, z):
        return F.pixel_shuffle(F.conv2d(z, self.kernel, padding=REACH), 4)


@pytest.fixture
def z(tmp_path):
    bands = SceneBands(open_scene(make_scene(tmp_path / "s.hdr", 230, 110, channels=3)))
    return log_scale(torch.from_numpy(bands.read_rows(0, 230)))


def blocks_of(network, z, *options):
    def strips(starts):
        return (z[:, start : start + WINDOW] for start in starts)

    return list(enlarged_rows(network, strips, z.shape, 4, *options))


@pytest.fixture(params=["local", "bicubic"])
def network(request):
    if request.param == "local":
        return Local(3)
    bicubic = build("bicubic")
    return lambda z: bicubic(z).sr


def test_windows_give_what_the_whole_scene_gives(z, network):
    blocks = blocks_of(network, z)
    assert len(blocks) == len(spans(230)) > 2
    np.testing.assert_allclose(np.concatenate(blocks, 1), network(z[None])[0], atol=1e-6)


def test_later_blocks_do_not_need_the_earlier_ones(z, network):
    blocks = blocks_of(network, z)
    for first in range(1, len(blocks)):
        calls = []
        again = blocks_of(network, z, first, lambda calls=calls: calls.append(1))
        assert len(calls) == (len(blocks) - first) * len(spans(110))
        for one, other in zip(blocks[first:], again, strict=True):
            np.testing.assert_array_equal(one, other)
