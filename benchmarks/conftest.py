"""Interleaved measurements, and the tables that they end in."""

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import pytest
from tabulate import tabulate

# Must hold: what is compared, with what, and the bound on the ratio.
BARS = {
    ("asnlsr training step", "plain SANL"): (">=", 5.0),
    ("asnlsr training step", "SANL's attention removed"): ("<=", 1.35),
    ("asnlsr peak memory", "plain SANL"): ("<=", 0.45),
    ("srformer training step", "plain window attention"): (">=", 1.5),
    ("esrt training step", "its own convolutions and products"): ("<=", 1.2),
    ("rcam training step", "its own convolutions and products"): ("<=", 1.2),
    ("PSF degradation", "loop over pixels"): (">=", 5.0),
}
HEADERS = {
    "Ratios": ["what", "unit", "ours", "against", "its", "ratio", "bar", "held"],
    "Costs": ["what", "unit", "ours"],
    "Where a training step spends its time": ["network", "operators"],
}
_TABLES = pytest.StashKey[dict[str, list[list[str]]]]()


class Report:
    """Rows of the tables."""

    def __init__(self, tables: dict[str, list[list[str]]]) -> None:
        self.tables = tables

    def row(self, table: str, *cells: str) -> None:
        """Add a row."""
        self.tables.setdefault(table, []).append(list(cells))

    def cost(self, what: str, unit: str, ours: float) -> None:
        """Add what something takes."""
        self.row("Costs", what, unit, f"{ours:.1f}")

    def ratio(
        self, what: str, unit: str, ours: float, other: str, its: float, quotient: float
    ) -> None:
        """Add a comparison; `quotient` is ours / its, and a bar of >= is on its inverse."""
        sense, bar = BARS.get((what, other), ("", 0.0))
        shown = quotient if sense == "<=" else 1 / quotient
        held = {">=": shown >= bar, "<=": shown <= bar, "": None}[sense]
        kind = "ours / its" if sense == "<=" else "its / ours"
        bound = f"{sense} {bar}" if sense else ""
        verdict = {True: "yes", False: "NO", None: ""}[held]
        cells = [what, unit, f"{ours:.1f}", other, f"{its:.1f}", f"{kind} = {shown:.2f}"]
        self.row("Ratios", *cells, bound, verdict)


def pytest_configure(config: pytest.Config) -> None:
    """Start with empty tables."""
    config.stash[_TABLES] = {}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the tables in Markdown."""
    for title, rows in config.stash[_TABLES].items():
        table = tabulate(rows, HEADERS[title], tablefmt="github", disable_numparse=True)
        terminalreporter.write_line(f"\n### {title}\n\n{table}")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Return the tables of this session."""
    return Report(request.config.stash[_TABLES])


@pytest.fixture
def compare(
    benchmark: Callable, report: Report, request: pytest.FixtureRequest
) -> Iterator[Callable[..., None]]:
    """Return a function that times ours and its rivals in turns: A B C A B C ...

    So a machine that is busy for a while slows all of them. A ratio is the median of the ratios
    of neighbours in time.
    """

    def run(what: str, ours: Callable, rivals: dict[str, Callable]) -> None:
        times: dict[str, list[float]] = {name: [] for name in rivals}

        def setup() -> None:
            for name, rival in rivals.items():
                start = perf_counter()
                rival()
                times[name].append(perf_counter() - start)

        rounds = request.config.getoption("benchmark_min_rounds")
        benchmark.pedantic(ours, setup=setup, rounds=rounds, warmup_rounds=1)
        mine = benchmark.stats.stats.data
        report.cost(what, "ms", 1e3 * median(mine))
        for name, measured in times.items():
            its = measured[-rounds:]  # without the warm-up
            quotient = median(a / b for a, b in zip(mine, its, strict=True))
            benchmark.extra_info[f"ours / {name}"] = quotient
            report.ratio(what, "ms", 1e3 * median(mine), name, 1e3 * median(its), quotient)

    return run
