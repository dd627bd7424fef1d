"""SANL with its 64 x 64 matrix per pixel, and without any attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asnlsr.models.sanl import SANL


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One C x C softmax matrix per token of (P, C), of unit queries and keys (Hu et al. 2024)."""
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    weights = torch.softmax(q[:, :, None] * k[:, None, :], dim=-1)  # (P, C, C)
    return (weights @ v[:, :, None])[..., 0]


def no_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Only the values; queries and keys are still computed, but get no gradient."""
    return v


def with_attention(network: nn.Module, attend: object) -> nn.Module:
    """Put another attention into every SANL of a network."""
    for module in network.modules():
        if isinstance(module, SANL):
            module.attend = attend
    return network


def without_branch(network: nn.Module) -> nn.Module:
    """Leave only the two convolutions of every SANL: no queries, keys, values nor output map."""
    for module in network.modules():
        if isinstance(module, SANL):
            module.forward = module.embed.forward
    return network
