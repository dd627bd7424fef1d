"""Spectral abundance non-local attention (SANL) without its 64 x 64 matrix per pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from asnlsr.device import fusable

# Coefficients c_n of the degree-7 Chebyshev interpolant of exp on [-1, 1], largest error 2.2e-7.
# A Taylor series needs ten terms for the same accuracy.
_EXP = tuple(
    np.polynomial.chebyshev.Chebyshev.interpolate(np.exp, 7)
    .convert(kind=np.polynomial.Polynomial)
    .coef.tolist()
)
_TERMS = len(_EXP)
_CHUNK = 4096  # pixels worked on at a time, so that the intermediates stay in a CPU's cache


def _moments(value: Tensor, t: Tensor, count: int) -> Tensor:
    """Return sum over channels of value * t^n, n = 0..count-1: (count, P, 1) from (P, C)."""
    rows = []
    term = value.clone()
    for n in range(count):
        rows.append(term.sum(1, keepdim=True))
        if n + 1 < count:
            term *= t
    return torch.stack(rows)


def _series(moments: Tensor, t: Tensor) -> Tensor:
    """Evaluate sum_n c_n t^n moments[n] by Horner's rule: (P, C) from (8, P, 1), (P, C)."""
    total = torch.addcmul(moments[-2] * _EXP[-2], t, moments[-1] * _EXP[-1])
    for n in range(_TERMS - 3, -1, -1):
        torch.addcmul(moments[n] * _EXP[n], total, t, out=total)
    return total


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale rows (P, C) to unit norm; also return the norms (P, 1)."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=1e-12)
    return x / norm, norm


def _through_unit(grad: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
    """Gradient of the rows that `_unit` scaled, from the gradient of the scaled ones."""
    along = (grad * unit).sum(1, keepdim=True)
    return grad.addcmul_(unit, along, value=-1).div_(norm)


def _parts(x: Tensor) -> list[slice]:
    """Cut rows into chunks on the CPU; a GPU wants all at once."""
    size = max(len(x), 1) if x.is_cuda else _CHUNK
    return [slice(start, start + size) for start in range(0, len(x), size)]


class _Attention(torch.autograd.Function):
    """o_i = sum_j softmax_j(q_i k_j) v_j for tokens (P, C), q and k scaled to unit norm."""

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        out = torch.empty_like(v)
        for part in _parts(q):
            _forward_chunk(q[part], k[part], v[part], out[part])
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors  # type: ignore[attr-defined]
        grads = tuple(torch.empty_like(t) for t in saved)
        for part in _parts(grad):
            _backward_chunk(grad[part], *(t[part] for t in saved), *(g[part] for g in grads))
        return grads


@fusable
def _forward_chunk(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """Write the attention of one chunk."""
    (q, _), (k, _) = _unit(q), _unit(k)
    numerator = _series(_moments(v, k, _TERMS), q)
    denominator = _series(_moments(torch.ones_like(k), k, _TERMS), q)
    torch.div(numerator, denominator, out=out)


@fusable
def _backward_chunk(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor
) -> None:
    """Write the gradients of one chunk; since exp' = exp they are series of the same form.

    With a_i = g_i / D(q_i):  dq_i = a_i (N'(q_i) - o_i D'(q_i)),  dv_j = sum_i a_i e^(q_i k_j),
    dk_j = sum_i a_i q_i (v_j - o_i) e^(q_i k_j).
    """
    (q, norm_q), (k, norm_k) = _unit(q), _unit(k)
    of_v = _moments(v, k, _TERMS + 1)
    of_1 = _moments(torch.ones_like(k), k, _TERMS + 1)
    denominator = _series(of_1[:-1], q)
    a = grad / denominator
    out = _series(of_v[:-1], q).div_(denominator)
    slope = _series(of_v[1:], q)
    slope.addcmul_(out, _series(of_1[1:], q), value=-1).mul_(a)
    grad_q.copy_(_through_unit(slope, q, norm_q))
    of_a = _moments(a, q, _TERMS + 1)
    grad_v.copy_(_series(of_a[:-1], k))
    minus = _series(_moments(out.mul_(a).mul_(q), q, _TERMS), k)
    grad_k.copy_(_through_unit(_series(of_a[1:], k).mul_(v).sub_(minus), k, norm_k))


def abundance_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r"""Channel attention of every token with itself, without a matrix per token.

    .. math:: o_i = \sum_j \mathrm{softmax}_j(q_i k_j)\, v_j

    with q and k scaled to unit norm first, so that abs(q_i k_j) <= 1.
    Since q_i k_j is a product of two scalars, o_i = N(q_i)/D(q_i) with one scalar function per
    token, N(t) = sum_j e^(t k_j) v_j and D(t) = sum_j e^(t k_j). A polynomial for the
    exponential turns both into a few moments of k: cost C x 8 in place of C x C.

    Parameters
    ----------
    q, k, v : Tensor, (P, C), float
        Queries, keys and values of P tokens. The polynomial holds to 2.2e-7.

    Returns
    -------
    Tensor, (P, C)

    References
    ----------
    Hu et al. 2024, IEEE TIP 33, section III-C (the attention); the series is ours.
    """
    wide = torch.promote_types(v.dtype, torch.float32)  # moments do not bear bfloat16
    return _Attention.apply(*(t.to(wide).contiguous() for t in (q, k, v)))  # type: ignore[no-any-return, no-untyped-call]


class SANL(nn.Module):
    """Spectral abundance non-local block: (B, C, h, w) to the same shape."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over channels; a method so that another form can be put here."""
        return abundance_attention(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        """Embed, attend, add: (B, C, h, w)."""
        B, C, h, w = x.shape
        e = self.embed(x)
        tokens = e.permute(0, 2, 3, 1).reshape(-1, C)  # (B h w, C)
        o = self.attend(self.query(tokens), self.key(tokens), self.value(tokens))
        attended: Tensor = e + self.out(o).view(B, h, w, C).permute(0, 3, 1, 2)
        return attended
