"""A-SNLSR: SNLSR whose abundances a discriminator cannot tell apart by domain."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from asnlsr.models.layers import SuperResolution
from asnlsr.models.snlsr import SNLSR


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None  # type: ignore[attr-defined]


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return x; its gradient comes back times -strength (Ganin & Lempitsky 2015, eq. 3)."""
    return _Reverse.apply(x, strength)  # type: ignore[no-any-return, no-untyped-call]


class Discriminator(nn.Module):
    """Abundance maps (B, K, h, w) to logits of the domain (B, 2)."""

    def __init__(self, materials: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in ((materials, 16), (16, 32)):
            layers += [
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.LeakyReLU(0.01),
                nn.MaxPool2d(2),
                nn.Dropout2d(0.2),
            ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = nn.Linear(32, 2)

    def forward(self, abundances: Tensor) -> Tensor:
        """Classify maps (B, K, h, w): logits (B, 2)."""
        return self.classify(self.features(abundances))  # type: ignore[no-any-return]


class ASNLSR(SNLSR):
    """SNLSR, gradient reversal and a discriminator on the low-resolution abundances.

    Parameters
    ----------
    bands, scale, materials, skip
        As in `SNLSR`.
    reversal : float
        lambda: the gradient of the discriminator reaches the encoder times -lambda.
    """

    def __init__(
        self,
        bands: int = 30,
        scale: int = 4,
        materials: int = 16,
        skip: bool = True,
        reversal: float = 0.01,
    ) -> None:
        super().__init__(bands, scale, materials, skip)
        self.reversal = reversal
        self.discriminator = Discriminator(materials)

    def forward(self, x: Tensor, n_sr: int | None = None) -> SuperResolution:
        """As `SNLSR.forward`, with the domain logits."""
        output = super().forward(x, n_sr)
        assert output.abundances is not None
        reversed_ = reverse_gradient(output.abundances, self.reversal)
        output.domain_logits = self.discriminator(reversed_)
        return output
