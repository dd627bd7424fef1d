"""RCAM: the unit, the stages, what supervises them, and how it starts."""

import torch
from torch.nn import functional as F

from asnlsr.models.layers import SuperResolution, enlarge
from asnlsr.models.rcam import ChannelAttention
from asnlsr.models.registry import build
from asnlsr.training.losses import training_losses


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


def test_loss_by_hand():
    """Mean absolute errors at both sizes, without the angle of SNLSR."""
    out = SuperResolution(sr=torch.full((1, 2, 4, 4), 3.0), sr_half=torch.zeros(1, 2, 2, 2))
    batch = {"lr": torch.zeros(1, 2, 1, 1), "hr": torch.ones(1, 2, 4, 4)}
    losses = training_losses(out, batch | {"lr_x2": torch.full((1, 2, 2, 2), 0.5)})
    assert {name: value.item() for name, value in losses.items()} == {
        "loss_sr": 2.0,
        "loss_half": 0.5,
    }


@torch.no_grad()
def test_start_of_the_stages_gives_layers_of_unit_variance():
    torch.manual_seed(0)
    network = build("rcam", bands=6)
    level = torch.rand(3, 6, 1, 1)
    lr = level + 0.02 * torch.rand(3, 6, 16, 16)  # far more level than detail, as in tiles
    network.start(lr, warming_up=False)
    seen = {}
    for name, layer in network.stages[1].named_modules():
        if isinstance(layer, torch.nn.Conv2d) and "gate" not in name:
            layer.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.clone()}))
    network(lr)
    end = seen.pop("blocks.3.fuse.0")
    assert torch.allclose(end.std((0, 2, 3)), torch.full((6,), 0.1), atol=1e-3)
    assert len(seen) == 1 + 4 * 4 * 2 + 3
    for y in seen.values():
        assert torch.allclose(y.std((0, 2, 3)), torch.ones(64), atol=1e-2)
        assert y.mean((0, 2, 3)).abs().max() < 1e-2
    for block in network.stages[0].blocks[:3]:  # a flat area gives nothing but its bias
        assert block.fuse[0].weight.sum((2, 3)).abs().max() < 1e-4
