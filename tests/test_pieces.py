"""What a network is given of a scene: windows of it, or of what was unmixed as a whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from asnlsr.models.registry import build
from asnlsr.physics import log_scale
from asnlsr.scenes.bands import SceneBands
from asnlsr.scenes.envi import open_scene, write_scene
from asnlsr.upscale import enlarged_rows, in_pieces
from tests.conftest import smooth_radiance


def scene_bands(folder, rows, cols, channels):
    """Bands of a scene that is ten times as bright at its lower end."""
    radiance = smooth_radiance(rows, cols, channels)
    radiance *= np.linspace(0.3, 3, rows, dtype=np.float32)[:, None, None]
    wavelength_nm = np.linspace(1000, 2500, channels)
    write_scene(folder / "s.hdr", [radiance], radiance.shape, wavelength_nm)
    bands = SceneBands(open_scene(folder / "s.hdr"))
    return bands, log_scale(torch.from_numpy(bands.read_rows(0, rows)))


class SeesAll:
    """Abundances of one material: how far the first band is from its mean over all pixels."""

    def encoder(self, x):
        return x[:, :1] - x[:, :1].mean((2, 3), keepdim=True)

    def super_resolve(self, x, abundances):
        return F.interpolate(x + abundances, scale_factor=4)


def test_unmixed_is_the_whole_scene(tmp_path):
    bands, z = scene_bands(tmp_path, 130, 20, 6)
    network, strips = in_pieces(SeesAll(), bands, group=3, unmixes=True)
    found = np.concatenate(list(enlarged_rows(network, strips, z.shape, 4)), 1)
    deviation = (z - z.mean((1, 2), keepdim=True))[[0, 0, 0, 3, 3, 3]]  # of each group's first band
    expected = F.interpolate((z + deviation)[None], scale_factor=4)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Means of windows would not do: the upper one is darker.
    assert (z[0, :96].mean() - z[0].mean()).abs() > 0.01


@pytest.mark.parametrize(("model", "unmixes"), [("snlsr", True), ("esrt", False)])
def test_one_window_is_the_network_itself(tmp_path, model, unmixes):
    bands, z = scene_bands(tmp_path, 17, 20, 60)
    torch.manual_seed(0)
    network = build(model).eval()
    function, strips = in_pieces(network, bands, group=30, unmixes=unmixes)
    (found,) = enlarged_rows(function, strips, z.shape, 4)
    with torch.no_grad():
        expected = torch.cat([network(part[None]).sr[0] for part in torch.split(z, 30)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_very_large_scene_is_not_unmixed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("asnlsr.upscale._WHOLE", 17 * 20 - 1)
    bands, _ = scene_bands(tmp_path, 17, 20, 60)
    _, strips = in_pieces(build("snlsr"), bands, group=30, unmixes=True)
    (strip,) = strips([0])
    assert strip.shape == (60, 17, 20)  # no abundances behind the bands
