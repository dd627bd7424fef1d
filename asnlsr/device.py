"""Where networks run, and how a GPU multiplies single precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Device = Literal["auto", "cpu", "cuda"]


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
