"""Every network of the registry: counts of the papers, any size of input, gradients, learning."""

import re

import pytest
import torch
from torch.nn import functional as F

from asnlsr.models.registry import MODELS, build, spec

CLASSES = {entry.network: name for name, entry in MODELS.items()}  # a model for each
# Of the original checkpoints (design notes), not of this code; bandwise as chapter 10 counts it.
COUNTS = {
    "bicubic": 0, "snlsr": 1_167_750, "asnlsr": 1_174_824, "rcam": 1_316_856, "esrt": 775_122,
    "srformer": 3_401_838, "bandwise": 137_856,
}  # fmt: skip


@pytest.mark.parametrize("model", COUNTS)
def test_parameter_count(model):
    assert sum(weight.numel() for weight in build(model).parameters()) == COUNTS[model]


@pytest.mark.parametrize("model", CLASSES.values())
@pytest.mark.parametrize(("h", "w", "scale"), [(17, 30, 4), (16, 19, 8), (17, 22, 2)])
@torch.no_grad()
def test_any_size_and_scale(model, h, w, scale):
    out = build(model, bands=3, scale=scale).eval()(torch.rand(2, 3, h, w))
    assert out.sr.shape == (2, 3, scale * h, scale * w)
    assert (out.sr_half is not None) == (spec(model).half and scale > 2)
    if out.sr_half is not None:
        assert out.sr_half.shape == (2, 3, scale * h // 2, scale * w // 2)
    assert (out.abundances is not None) == spec(model).unmixes
    if out.abundances is not None:
        assert out.abundances.shape == (2, 16, h, w)
        assert torch.allclose(out.abundances.sum(1), torch.ones(2, h, w), atol=1e-6)
        assert out.reconstruction.shape == (2, 3, h, w)


@pytest.mark.parametrize("model", ["snlsr", "bandwise", "rcam", "esrt", "srformer"])
def test_unsupported_scale_is_named(model):
    with pytest.raises(ValueError, match="scale 3"):
        build(model, scale=3)


@pytest.mark.parametrize("model", ["rcam", "esrt", "srformer", "asnlsr", "bandwise"])
def test_gradient_reaches_every_weight_but_the_unused(model):
    torch.manual_seed(0)
    network = build(model, bands=6).eval()  # no dropped path
    for name, weight in network.named_parameters():
        if not weight.any():  # those that wait for the first step hold the others' gradient back
            torch.nn.init.normal_(weight, std=0.01)
        if model == "esrt" and "gate.0.bias" in name:  # no ReLU of few gates is closed by chance
            torch.nn.init.ones_(weight)
    out = network(torch.rand(2, 6, 16, 16))
    loss = out.sr.square().mean()
    if model == "asnlsr":
        loss = loss + out.reconstruction.mean() + out.domain_logits[:, 0].sum()
    loss.backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    unused = r"body\.blocks\.\d\.(first|low|high|last)\.s1"  # of four blocks in each of three
    assert [bool(re.fullmatch(unused, n)) for n in silent] == [True] * 12 * (model == "esrt")


@pytest.mark.parametrize(
    ("model", "settings", "steps", "left"),
    [("snlsr", {"skip": False}, 25, 0.04), ("asnlsr", {"skip": False}, 25, 0.04),
     ("bandwise", {}, 80, 0.2)],
)  # fmt: skip
def test_overfits_one_batch(model, settings, steps, left):
    """A network that cannot learn one tile by heart cannot learn."""
    torch.manual_seed(0)
    network = build(model, bands=4, **settings)
    x = torch.rand(1, 4, 16, 16)
    hr = F.avg_pool2d(torch.rand(1, 4, 64, 64), 5, 1, 2)
    if model != "bandwise":
        hr = hr.mean((2, 3), keepdim=True).expand_as(hr)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(network(x).sr, hr)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < left * losses[0]
