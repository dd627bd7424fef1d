"""Time of training steps, inference and data preparation."""

from functools import partial

import numpy as np
import pytest
import torch

from asnlsr.physics import degrade, gaussian_psf
from benchmarks.reference.psf import plain_loop
from benchmarks.workloads import (
    NETWORKS,
    VARIANTS,
    inference,
    products_of,
    rest_of,
    training_step,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_step(name, compare, report):
    step = training_step(name)
    rivals = {variant: training_step(name, variant) for variant in VARIANTS.get(name, {})}
    rivals["its own convolutions and products"] = products_of(step)
    compare(f"{name} training step", step, rivals)
    report.row("Where a training step spends its time", name, rest_of(step))


@pytest.mark.parametrize("name", NETWORKS)
def test_inference(name, compare):
    plain = [variant for variant in VARIANTS.get(name, {}) if variant.startswith("plain")]
    rivals = {variant: inference(name, variant) for variant in plain}
    compare(f"{name} inference of a tile", inference(name), rivals)


def test_psf_degradation(compare):
    """A tile of 30 bands and 128 x 128 pixels, float32."""
    tile = np.random.default_rng(0).random((30, 128, 128), dtype=np.float32)
    loop = partial(plain_loop, tile, gaussian_psf().astype(np.float32), 4, "scene")
    compare("PSF degradation", partial(degrade, torch.from_numpy(tile)), {"loop over pixels": loop})
