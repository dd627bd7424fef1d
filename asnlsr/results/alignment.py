"""How alike the abundances of the two domains are: numbers, and a picture of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from asnlsr.models.snlsr import encode
from asnlsr.tiles.store import load_z, select

Features = NDArray[np.float32]


def abundances(network: nn.Module, tiles: Path, domain: str, ids: list[str]) -> Features:
    """Abundances of low-resolution tiles of a store: (n, K, h, w)."""
    return encode(network, load_z(select(tiles, domain, ids), "lr"))


def pixels(maps: Features, count: int | None = None, seed: int = 0) -> Features:
    """Spectra of abundance maps (n, K, h, w) as rows (count, K), drawn without replacement."""
    rows = np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
    if count is None or count >= len(rows):
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), count, replace=False)]


def proxy_a_distance(train: tuple[Features, Features], test: tuple[Features, Features]) -> float:
    """Proxy A-distance 2 (1 - 2 error) of a logistic domain classifier.

    Parameters
    ----------
    train, test : pair of array, (n, K)
        Source and target features; `test` from tiles that are not in `train`.

    Returns
    -------
    float
        2 where the domains can be told apart without an error, about 0 where not at all. The
        error is the mean of the two domains' own errors, so their sizes do not matter.

    References
    ----------
    Ben-David et al. 2007, "Analysis of representations for domain adaptation".
    """
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    labels = np.repeat([0, 1], [len(part) for part in train])
    classifier.fit(np.concatenate(train), labels)
    wrong = [float(np.mean(classifier.predict(part) != label)) for label, part in enumerate(test)]
    return 2 * (1 - 2 * float(np.mean(wrong)))


def mmd(source: Features, target: Features) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel.

    The kernel is exp(-d^2 / (2 s^2)) with s the median distance in the joint sample. The
    estimate may be slightly negative where the distributions are equal.

    Parameters
    ----------
    source, target : array, (n, K) and (m, K)

    References
    ----------
    Gretton et al. 2012, JMLR 13, equation 3.
    """
    joint = np.concatenate([source, target]).astype(np.float64)
    distances = pdist(joint)
    if not distances.any():
        return 0.0  # collapsed: all rows are equal
    width = 2 * np.median(distances[distances > 0]) ** 2
    n, m = len(source), len(target)
    kernel = np.exp(-cdist(joint, joint, "sqeuclidean") / width)
    within_source = (kernel[:n, :n].sum() - n) / (n * (n - 1))
    within_target = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(within_source + within_target - 2 * kernel[:n, n:].mean())


def domain_distances(source: Features, target: Features, count: int = 1000) -> dict[str, float]:
    """How far apart the abundances of two domains are, of pixels and of tile means.

    Parameters
    ----------
    source, target : array, (n, K, h, w)
        Abundances of the same n >= 2 tiles in both domains.
    count : int
        Pixels per domain, the same places in both.

    Returns
    -------
    dict
        `pad_pixels`, `pad_tiles`: proxy A-distance, the classifier fitted on every other tile
        and tested on the rest, and the other way round. `mmd_pixels`, `mmd_tiles`: squared MMD.
    """
    means = [maps.mean((2, 3)) for maps in (source, target)]
    drawn = [[pixels(maps[n::2], count // 2) for maps in (source, target)] for n in (0, 1)]
    halves = [[maps[n::2] for maps in means] for n in (0, 1)]
    return {
        "pad_pixels": _held_out(drawn),
        "pad_tiles": _held_out(halves),
        "mmd_pixels": mmd(*(np.concatenate(parts) for parts in zip(*drawn, strict=True))),
        "mmd_tiles": mmd(*means),
    }


def _held_out(halves: list[list[Features]]) -> float:
    """Mean proxy A-distance of two halves ([source, target] each), fitted on one, tested on one."""
    (a, b), (c, d) = halves
    return (proxy_a_distance((a, b), (c, d)) + proxy_a_distance((c, d), (a, b))) / 2


def embed(
    source: Features, target: Features, seed: int = 0, perplexity: float = 30.0, init: str = "pca"
) -> tuple[Features, Features]:
    """Joint t-SNE of both domains: (n, 2) and (m, 2). Its distances are not distances.

    `init` "random" shows how much of the picture is its start; "pca" hardly depends on the seed.
    """
    joint = np.concatenate([source, target])
    flat = TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(joint)
    return flat[: len(source)], flat[len(source) :]
