"""SRFormer: its windows, and how it starts; test_benchmarks holds it to its plain form."""

import torch
from torch.nn import functional as F

from asnlsr.models.registry import build
from asnlsr.models.srformer import Block, from_windows, to_windows


def test_windows_are_the_squares_of_the_image():
    image = torch.rand(2, 12, 18, 4)
    windows = to_windows(image)
    assert torch.equal(windows[7].view(6, 6, 4), image[1, :6, 6:12])  # image 1, window (0, 1)
    assert torch.equal(from_windows(windows, 12, 18), image)


def test_dropped_paths_keep_the_mean():
    torch.manual_seed(0)
    block, x = Block(96, 6, shifted=False, drop=0.25), torch.ones(4000, 1, 1, 1)
    dropped = block.drop_path(x)
    assert set(dropped.flatten().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(dropped.mean().item() - 1) < 4 * (1 / 3 / 4000) ** 0.5  # four standard errors
    assert torch.equal(block.eval().drop_path(x), x)


@torch.no_grad()
def test_start_is_blind_to_the_level():
    torch.manual_seed(0)
    network, lr = build("srformer", bands=6).eval(), torch.rand(3, 6, 24, 24)
    network.start(lr, warming_up=False)
    flat = F.conv2d(torch.rand(1, 6, 1, 1).expand(1, 6, 5, 5), network.head.weight)
    assert flat.abs().max() < 1e-4
    assert torch.allclose(network.head(lr).std((0, 2, 3)), torch.ones(96), atol=1e-3)
