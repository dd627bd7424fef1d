"""What recipe `warm` adds: Muon, clipping, averaged weights, the pooled start, painted images."""

import numpy as np
import torch
from torch import nn

from asnlsr.physics import degrade, gaussian_psf, unscale
from asnlsr.training.folder import load_run
from asnlsr.training.module import SuperResolutionTraining
from asnlsr.training.warm import BANDS, MOMENTUM, RMS, Muon, dead_leaves, orthogonal
from tests.smoke_weights import short_training


def test_orthogonal_keeps_singular_vectors_and_evens_out_singular_values():
    rng = np.random.default_rng(0)
    for shape in ((6, 40), (40, 6)):
        matrix = rng.standard_normal(shape)
        u, _, vt = np.linalg.svd(matrix, full_matrices=False)
        values = u.T @ orthogonal(torch.from_numpy(matrix)).numpy() @ vt.T
        assert np.abs(values - np.diag(np.diag(values))).max() < 1e-6
        assert 0.65 < np.diag(values).min() <= np.diag(values).max() < 1.25


def test_muon_steps_kernels_as_matrices_and_everything_else_as_adam():
    """Two steps, the momentum worked out by hand; the bias beside a torch.optim.Adam."""
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 4, 3)
    bias = nn.Parameter(conv.bias.detach().clone())
    kernel, momentum = conv.weight.detach().clone(), torch.zeros_like(conv.weight)
    groups = [{"params": [conv.weight], "muon": True}, {"params": [conv.bias], "muon": False}]
    muon, adam = Muon(groups, lr=0.01), torch.optim.Adam([bias], lr=0.01)
    for _ in range(2):
        conv.weight.grad, conv.bias.grad = torch.randn(4, 5, 3, 3), torch.randn(4)
        bias.grad = conv.bias.grad.clone()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * conv.weight.grad
        ahead = (1 - MOMENTUM) * conv.weight.grad + MOMENTUM * momentum
        kernel -= 0.01 * RMS * 45**0.5 * orthogonal(ahead.flatten(1)).view(4, 5, 3, 3)
        muon.step()
        adam.step()
    assert torch.allclose(conv.weight, kernel, atol=1e-6)
    assert torch.equal(conv.bias, bias)


def test_run_ends_with_the_running_mean_of_its_weights(tiny_set, tmp_path, monkeypatch):
    seen, update = [], SuperResolutionTraining.on_train_batch_end

    def watch(module, *args):
        update(module, *args)
        if module.global_step > module.config.warmup_steps:
            seen.append(module.network.decoder.weight.detach().clone())

    monkeypatch.setattr(SuperResolutionTraining, "on_train_batch_end", watch)
    settings = {"average": 0.75, "clip": 0.01}
    run = short_training("snlsr", tiny_set, tmp_path, settings=settings)
    mean = seen[0]
    for weight in seen[1:]:
        mean = 0.75 * mean + 0.25 * weight
    assert len(seen) == 4
    assert torch.allclose(load_run(run)[0].decoder.weight, mean, atol=1e-6)


# Images of dead leaves: what they are seen as, that they differ, and edges among them


def painted(seed=0, number=3, scale=4, psf=None):
    return dead_leaves(np.random.default_rng(seed), number, 64, scale, psf or gaussian_psf())


def test_low_resolution_is_the_blurred_image_with_at_most_a_hundredth_of_noise():
    lr, hr = painted()
    assert lr.shape == (3, BANDS, 16, 16)
    assert hr.shape == (3, BANDS, 64, 64)
    seen = degrade(unscale(hr), 4)
    noise = (unscale(lr) - seen).std((2, 3)) / seen.mean((2, 3))
    assert noise.max() < 0.013  # 256 draws estimate a deviation to 5 %
    assert noise.min() > 5e-5


def test_edges_make_differences_heavy_tailed():
    """Of neighbours in a noise the kurtosis is 3; where edges are rare and sharp, far more."""
    _, hr = painted(number=6)
    steps = (hr[..., 1:] - hr[..., :-1]).flatten(1)
    kurtosis = (steps**4).mean(1) / (steps**2).mean(1) ** 2
    assert kurtosis.median() > 5
