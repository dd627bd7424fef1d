"""RCAM: the count of the paper, every size and scale, the stages and what supervises them."""

import pytest
import torch
from torch.nn import functional as F

from asnlsr.models.layers import enlarge
from asnlsr.models.rcam import ChannelAttention
from asnlsr.models.registry import SuperResolution, build
from asnlsr.training.losses import training_losses
from tests.test_models import count, silent_weights


def test_parameter_count():
    assert count(build("rcam")) == 1_316_856


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_scales(scale):
    with torch.no_grad():
        out = build("rcam", bands=3, scale=scale)(torch.rand(1, 3, 16, 19))
    assert out.sr.shape == (1, 3, 16 * scale, 19 * scale)
    if scale == 2:
        assert out.sr_half is None
    else:
        assert out.sr_half.shape == (1, 3, 8 * scale, 19 * scale // 2)


def test_unit_is_gated_and_residual():
    torch.manual_seed(0)
    unit, x = ChannelAttention(8, 16), torch.rand(2, 8, 5, 7)
    first, _, second = unit.mix
    y = second(F.relu(first(x)))
    _, squeeze, _, excite, _ = unit.gate
    mean = torch.stack([image.flatten(1).mean(1) for image in y])[:, :, None, None]
    gate = 1 / (1 + torch.exp(-excite(F.relu(squeeze(mean)))))
    assert torch.allclose(unit(x), y * gate + y, atol=1e-6)


def test_skip_enlarges_the_input_after_every_stage():
    """With silent stages the network is bicubic, at both sizes: each skip starts anew."""
    network, x = build("rcam", bands=3), torch.rand(1, 3, 16, 17)
    for stage in network.stages:
        torch.nn.init.zeros_(stage.up.weight)
        torch.nn.init.zeros_(stage.up.bias)
    with torch.no_grad():
        out = network(x)
        assert torch.equal(out.sr, enlarge(x, 4))
        assert torch.equal(out.sr_half, enlarge(x, 2))
        network.skip = False
        assert not network(x).sr.any()


def test_gradient_reaches_every_weight():
    torch.manual_seed(0)
    network = build("rcam", bands=6)
    out = network(torch.rand(2, 6, 16, 16))
    out.sr.square().mean().backward()
    assert silent_weights(network) == []


def test_loss_by_hand():
    """Mean absolute errors at both sizes, without the angle of SNLSR."""
    out = SuperResolution(sr=torch.full((1, 2, 4, 4), 3.0), sr_half=torch.zeros(1, 2, 2, 2))
    batch = {"lr": torch.zeros(1, 2, 1, 1), "hr": torch.ones(1, 2, 4, 4)}
    losses = training_losses(out, batch | {"lr_x2": torch.full((1, 2, 2, 2), 0.5)})
    assert {name: value.item() for name, value in losses.items()} == {
        "loss_sr": 2.0,
        "loss_half": 0.5,
    }
