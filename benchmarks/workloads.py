"""What is measured: training steps, inference and degradation, their floor and their memory."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from asnlsr.models.registry import build, spec
from asnlsr.training.losses import training_losses
from asnlsr.training.run import keep_freed_memory
from benchmarks.reference import sanl, srformer

keep_freed_memory()  # as training does
NETWORKS = ("rcam", "esrt", "srformer", "snlsr", "asnlsr")
BANDS, SIDE, SCALE, BATCH = 30, 32, 4, 4  # 32 -> 128 pixels, as published

# Other forms of a network, by what they are compared as.
Variant = Callable[[nn.Module], nn.Module]
VARIANTS: dict[str, dict[str, Variant]] = {
    "srformer": {"plain window attention": srformer.plain},
    "asnlsr": {
        "plain SANL": partial(sanl.with_attention, attend=sanl.plain_attention),
        "SANL's attention removed": partial(sanl.with_attention, attend=sanl.no_attention),
        "SANL's queries, keys and values removed too": sanl.without_branch,
    },
}
VARIANTS["snlsr"] = {"plain SANL": VARIANTS["asnlsr"]["plain SANL"]}


def network_of(name: str, variant: str = "") -> nn.Module:
    """Build a network, always with the same weights, or another form of it."""
    torch.manual_seed(0)
    network = build(name, BANDS, SCALE)
    return VARIANTS[name][variant](network) if variant else network


def training_step(name: str, variant: str = "") -> Callable[[], None]:
    """Return a function that does a step: network, losses, gradients, Adam.

    Four source tiles, all of them super-resolved.
    """
    network = network_of(name, variant)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    size = SCALE * SIDE
    batch = {
        "lr": torch.rand(BATCH, BANDS, SIDE, SIDE),
        "lr_x2": torch.rand(BATCH, BANDS, size // 2, size // 2),
        "hr": torch.rand(BATCH, BANDS, size, size),
        "domain": torch.zeros(BATCH, dtype=torch.long),
    }

    def step() -> None:
        optimizer.zero_grad()
        output = network(batch["lr"], *[BATCH] * spec(name).unmixes)
        torch.stack(list(training_losses(output, batch).values())).sum().backward()
        optimizer.step()

    return step


def inference(name: str, variant: str = "") -> Callable[[], None]:
    """Return a function that super-resolves one tile."""
    network = network_of(name, variant).eval()
    tile = torch.rand(1, BANDS, SIDE, SIDE)

    def run() -> None:
        with torch.inference_mode():
            network(tile)

    return run


class _Products(TorchDispatchMode):
    """Collects the convolutions and matrix products that run, with their arguments."""

    NAMES = ("convolution", "mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES or name.startswith((self.NAMES[0], self.NAMES[-1])):
            self.calls.append(partial(func, *args, **kwargs or {}))
        return func(*args, **kwargs or {})


def products_of(step: Callable[[], None]) -> Callable[[], None]:
    """Return a function that does only the convolutions and matrix products of a step.

    The same operators of PyTorch on the same tensors, forward and backward, in the same order:
    the floor of any implementation on top of them.
    """
    step()  # whatever is made only once
    with _Products() as seen:
        step()

    def replay() -> None:
        with torch.no_grad():
            for call in seen.calls:
                call()

    return replay


def rest_of(step: Callable[[], None], largest: int = 5) -> str:
    """Return where a step spends its time, by torch.profiler: operators and their share."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    total = sum(times.values())
    order = sorted(times, key=lambda key: -times[key])[:largest]
    return ", ".join(f"{key.removeprefix('aten::')} {times[key] / total:.0%}" for key in order)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far.

    Not `getrusage`, which starts a child with the peak of its parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":  # a process of its own: python -m benchmarks.workloads NAME VARIANT
    work = inference(sys.argv[1]) if sys.argv[2] == "inference" else training_step(*sys.argv[1:])
    before = peak_memory_mb()
    for _ in range(3):
        work()
    print(before, peak_memory_mb())
