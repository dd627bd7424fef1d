"""How alike the abundances of the two domains are: numbers, and a picture of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from asnlsr.data import load_z, select

Features = NDArray[np.float32]


@torch.no_grad()
def abundances(network: nn.Module, tiles: Path, domain: str, ids: list[str]) -> Features:
    """Abundances of low-resolution tiles: (n, K, h, w)."""
    lr = load_z(select(tiles, domain, ids), "lr")
    return torch.cat([network.encoder(tile[None]) for tile in lr]).numpy()  # type: ignore[operator]


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


def embed(
    source: Features, target: Features, seed: int = 0, perplexity: float = 30.0, init: str = "pca"
) -> tuple[Features, Features]:
    """Joint t-SNE of both domains: (n, 2) and (m, 2). Its distances are not distances.

    `init` "random" shows how much of the picture is its start; "pca" hardly depends on the seed.
    """
    joint = np.concatenate([source, target])
    flat = TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(joint)
    return flat[: len(source)], flat[len(source) :]
