"""Where networks run, and what makes them fast on a GPU: TF32, compiled kernels, graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from typing import Literal

import torch
from torch import Tensor, nn

Device = Literal["auto", "cpu", "cuda"]
Losses = dict[str, Tensor]
Objective = Callable[[dict[str, Tensor], bool], tuple[Tensor, Losses]]
WARM_UP = 3  # steps before a recording, in which libraries choose their algorithms
_fusing = False


def device_of(device: Device) -> torch.device:
    """Return the device of a name; `auto` is a CUDA GPU where there is one, else the CPU.

    Raises
    ------
    ValueError
        If `cuda` is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ValueError("device=cuda: PyTorch finds no CUDA GPU here; use cpu or auto")
    return torch.device("cuda" if device != "cpu" and there else "cpu")


def sent(value: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device, without waiting for what the device still does."""
    if device.type != "cuda" or value.is_cuda:
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Let CUDA multiply float32 in TF32 (10 bits of mantissa) or in full; then as before."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = tf32, tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def fusing(on: bool) -> Iterator[None]:
    """Let what is marked `fusable` run as few compiled kernels, in all threads; then as before."""
    global _fusing
    before, _fusing = _fusing, on
    try:
        yield
    finally:
        _fusing = before


def fusable(function: Callable[..., None]) -> Callable[..., None]:
    """Mark a function of many small operations."""

    @cache  # when it is first needed, for the compiler loads slowly
    def compiled() -> Callable[..., None]:
        return torch.compile(function, dynamic=True)

    @wraps(function)
    def run(*tensors: Tensor) -> None:
        (compiled() if _fusing else function)(*tensors)

    return run


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: dict[str, Tensor]  # what it reads, and below what it writes
    total: Tensor
    log: Losses
    grads: list[Tensor | None]


class StepGraphs:
    """Losses and gradients of a step as a CUDA graph, one for each kind of batch.

    A step of A-SNLSR is thousands of kernels of a few microseconds each; started one by one from
    Python they take longer to start than to run. A graph starts them all at once. It is recorded
    when its kind of batch first comes. Dropout draws what it would draw unrecorded: a replay
    starts from the seed of its step.

    Parameters
    ----------
    objective : callable
        Batch and `warming_up` to the sum that is minimised, and its terms for the log; without
        any synchronisation, and the same work whatever the values are.
    network : nn.Module
        Its weights may change between two steps, in place.
    fused : bool
        Whether what is marked `fusable` is compiled.
    """

    def __init__(self, objective: Objective, network: nn.Module, fused: bool = False) -> None:
        self.objective, self.network, self.fused = objective, network, fused
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.recorded: dict[Hashable, _Recorded] = {}

    def __call__(self, batch: dict[str, Tensor], warming_up: bool) -> tuple[Tensor, Losses]:
        """As the objective; `hand_over` then gives the gradients to the parameters."""
        kind = (warming_up, *((name, value.shape) for name, value in batch.items()))
        if kind not in self.recorded:
            with fusing(self.fused):
                self.recorded[kind] = self._record(batch, warming_up)
        self.last = self.recorded[kind]
        for name, value in self.last.batch.items():
            value.copy_(batch[name])
        self.last.graph.replay()
        return self.last.total, self.last.log

    def hand_over(self) -> None:
        """Set the gradients of the parameters; None where this kind of step has none."""
        for parameter, grad in zip(self.parameters, self.last.grads, strict=True):
            parameter.grad = grad

    def _record(self, batch: dict[str, Tensor], warming_up: bool) -> _Recorded:
        batch = {name: value.clone() for name, value in batch.items()}
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._work(batch, warming_up)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self.recorded.values())).graph.pool() if self.recorded else None
        with torch.cuda.graph(graph, pool=pool):
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
