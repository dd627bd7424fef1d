"""Losses and gradients of a step as one CUDA graph.

A step of A-SNLSR is thousands of kernels of a few microseconds each; started one by one from
Python they take longer to start than to run. A graph starts them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asnlsr.device import fusing

Losses = dict[str, Tensor]
WARM_UP = 3  # steps before a recording, in which libraries choose their algorithms


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: dict[str, Tensor]  # what it reads, and below what it writes
    total: Tensor
    log: Losses
    grads: list[Tensor | None]


class StepGraphs:
    """Records the step of each kind of batch when it first comes, then replays it.

    Dropout draws what it would draw unrecorded: a replay starts from the seed of its step.

    Parameters
    ----------
    objective : callable
        Batch and `warming_up` to the sum that is minimised, and its terms for the log; without
        any synchronisation, and the same work whatever the values are.
    network : nn.Module
        Its weights may change between two steps, in place.
    fused : bool
        Whether what is marked `device.fusable` is compiled.
    """

    def __init__(
        self,
        objective: Callable[[dict[str, Tensor], bool], tuple[Tensor, Losses]],
        network: nn.Module,
        fused: bool = False,
    ) -> None:
        self.objective, self.network, self.fused = objective, network, fused
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.pool = torch.cuda.graph_pool_handle()
        self.recorded: dict[Hashable, _Recorded] = {}
        self.last: _Recorded | None = None

    def __call__(self, batch: dict[str, Tensor], warming_up: bool) -> tuple[Tensor, Losses]:
        """As the objective; `hand_over` then gives the gradients to the parameters."""
        kind = (warming_up, *((name, value.shape) for name, value in batch.items()))
        if kind not in self.recorded:
            with fusing(self.fused):
                self.recorded[kind] = self._record(batch, warming_up)
        step = self.last = self.recorded[kind]
        for name, value in step.batch.items():
            value.copy_(batch[name])
        step.graph.replay()
        return step.total, step.log

    def hand_over(self) -> None:
        """Set the gradients of the parameters; None where this kind of step has none."""
        assert self.last is not None
        for parameter, grad in zip(self.parameters, self.last.grads, strict=True):
            parameter.grad = grad

    def _record(self, batch: dict[str, Tensor], warming_up: bool) -> _Recorded:
        batch = {name: value.clone() for name, value in batch.items()}
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._work(batch, warming_up)
        main.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            total, log, grads = self._work(batch, warming_up)
        for buffer, value in zip(self.network.buffers(), buffers, strict=True):
            buffer.copy_(value)  # the warm-up was no step
        torch.manual_seed(torch.initial_seed())
        return _Recorded(graph, batch, total, log, grads)

    def _work(
        self, batch: dict[str, Tensor], warming_up: bool
    ) -> tuple[Tensor, Losses, list[Tensor | None]]:
        total, log = self.objective(dict(batch), warming_up)
        grads = torch.autograd.grad(total, self.parameters, allow_unused=True)
        laid: list[Tensor | None] = [
            None if grad is None else _as_laid(grad, parameter)
            for grad, parameter in zip(grads, self.parameters, strict=True)
        ]
        return total.detach(), {key: value.detach() for key, value in log.items()}, laid


def _as_laid(grad: Tensor, parameter: Tensor) -> Tensor:
    """Return a gradient in the memory layout of its parameter, as the fused Adam wants it."""
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter).copy_(grad)
