"""Where networks run, and how a GPU multiplies single precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

_fusing = False
Device = Literal["auto", "cpu", "cuda"]
_P = ParamSpec("_P")
_R = TypeVar("_R")


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


def fusable(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Mark a function of many small operations."""
    compiled: list[Callable[_P, _R]] = []  # when it is first needed, for the compiler loads slowly

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not _fusing:
            return function(*args, **kwargs)
        if not compiled:
            compiled.append(torch.compile(function, dynamic=True))
        return compiled[0](*args, **kwargs)

    return run
