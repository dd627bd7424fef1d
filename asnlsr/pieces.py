"""How a network takes a scene in pieces: what it is given, and what is computed from it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from asnlsr.binning import SceneBands
from asnlsr.data import log_scale
from asnlsr.windows import WINDOW, Strips

# Low-resolution pixels that an encoder takes at once, in 1 GB. Its gates look at means and maxima
# over all that it is given, so that in windows abundances would depend on the window.
_WHOLE = 400_000

Network = Callable[[Tensor], Tensor]


def in_pieces(network: Any, bands: SceneBands, group: int, unmixes: bool) -> tuple[Network, Strips]:  # noqa: ANN401
    """Return a function of windows (1, any, h, w) and the strips to take them from.

    A network that unmixes does so for the whole scene first, unless that is very large.

    Parameters
    ----------
    network : Module
        Of the registry.
    bands : SceneBands
    group : int
        Bands that it takes at a time.
    unmixes : bool
        Whether it has an encoder.
    """
    if unmixes and bands.scene.rows * bands.scene.cols <= _WHOLE:
        return _unmixed(network, bands, group)

    def strips(starts: Sequence[int]) -> Iterator[Tensor]:
        for strip in bands.strips(starts, WINDOW, 0):
            yield log_scale(torch.from_numpy(strip))

    def super_resolve(window: Tensor) -> Tensor:
        parts = [network(part).sr for part in torch.split(window, group, 1)]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]  # no copy of all bands

    return super_resolve, strips


@torch.no_grad()
def _unmixed(network: Any, bands: SceneBands, group: int) -> tuple[Network, Strips]:  # noqa: ANN401
    """Put the abundances of every domain behind its bands; windows start from both."""
    z = log_scale(torch.from_numpy(bands.read_rows(0, bands.scene.rows)))
    both = torch.cat(
        [torch.cat([part, network.encoder(part[None])[0]]) for part in torch.split(z, group)]
    )
    size = len(both) * group // len(z)  # of a domain: its bands and its abundances

    def super_resolve(window: Tensor) -> Tensor:
        parts = torch.split(window, size, 1)
        return torch.cat([network.super_resolve(p[:, :group], p[:, group:]) for p in parts], 1)

    return super_resolve, lambda starts: (both[:, start : start + WINDOW] for start in starts)
