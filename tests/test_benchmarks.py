"""The plain formulations of `benchmarks/` compute what the fast ones do, and the floor is one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.workloads import VARIANTS, _Products, network_of


def test_plain_srformer_is_the_same_network():
    x = torch.rand(1, 30, 16, 21)
    outputs, gradients = [], []
    for network in (network_of("srformer"), network_of("srformer", "plain window attention")):
        network.eval()  # no dropped path
        outputs.append(network(x).sr)
        outputs[-1].square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert torch.allclose(*outputs, atol=1e-5)
    for ours, its in zip(*gradients, strict=True):
        assert (ours - its).abs().max() <= 1e-4 * its.abs().max() + 1e-8


@pytest.mark.parametrize("variant", [name for name in VARIANTS["asnlsr"] if "removed" in name])
def test_removed_attention_leaves_a_network_that_trains(variant):
    """No gradient for queries and keys, some for the convolutions around them."""
    network = network_of("asnlsr", variant)
    network(torch.rand(1, 30, 16, 16)).sr.square().mean().backward()
    sanl = network.sr.stages[0].blocks[0].sanl
    assert sanl.query.weight.grad is None
    assert sanl.embed[0].weight.grad.abs().max() > 0


def test_floor_holds_every_product_forward_and_backward():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2))
    x, q = torch.rand(1, 3, 6, 6), torch.rand(1, 2, 5, 8, requires_grad=True)
    with _Products() as seen:
        layers(x).sum().backward()
        (torch.rand(5, 8) @ nn.Linear(8, 3).weight.T).sum().backward()
        F.scaled_dot_product_attention(q, q, q).sum().backward()
    names = [call.func.overloadpacket.__name__ for call in seen.calls]
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    both = ["convolution", "convolution_backward"]
    assert sorted(names) == sorted(2 * both + ["mm", "mm", attention, attention + "_backward"])
    for call in seen.calls:
        call()  # can be repeated
