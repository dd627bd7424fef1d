"""Muon: steps along the orthogonalised momentum of a matrix, and Adam for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
RMS = 0.2  # of a step, in units of the rate: that of Adam, so that both take the same rate
TAPS = 9  # a kernel of a depthwise convolution has no more inputs than this, and is no matrix


class Muon(torch.optim.Adam):
    """Adam whose groups marked `muon` hold kernels that are stepped as matrices (out, in).

    References
    ----------
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the size of
    the steps from Liu et al. 2025, "Muon is scalable for LLM training", equation 4.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Take one step in all groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._turn(parameter, group["lr"])
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step()
        self.param_groups = groups
        return loss

    def _turn(self, parameter: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # Adam looks for it in a checkpoint
        grad, momentum = parameter.grad, state["momentum"]
        assert grad is not None
        momentum.lerp_(grad, 1 - MOMENTUM)
        step = orthogonal(grad.lerp(momentum, MOMENTUM).flatten(1))
        size = RMS * max(step.shape) ** 0.5
        parameter.add_(step.view_as(parameter), alpha=-lr * size)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon may step it: a kernel with several outputs and more inputs than `TAPS`."""
    return parameter.ndim >= 2 and len(parameter) > 1 and parameter[0].numel() > TAPS


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Singular vectors of (m, n) with singular values near 1, by Newton and Schulz."""
    a, b, c = 3.4445, -4.7750, 2.0315  # of a quintic that brings (0, 1] near 1
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x if wide else x.T
    return result
