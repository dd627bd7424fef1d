"""What the command line shows: bars or lines of progress, warnings, errors in one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.std import tqdm

from asnlsr.files import told

EVERY = 20  # seconds, of a line of progress


@contextmanager
def plain_terminal() -> Iterator[None]:
    """Let unusable input end in one line and exit code 2, and progress be of use in a log file."""
    for stream in (sys.stdout, sys.stderr):  # tables hold arrows, whatever the locale; paths, bytes
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    if "ASNLSR_LINES" in os.environ or not sys.stderr.isatty():
        # Bars would garble log files, and each other where jobs run side by side.
        tqdm.display, tqdm.clear = _line, lambda *_, **__: None  # type: ignore[assignment, method-assign]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]
            yield
        return
    except (ValueError, OSError, MemoryError) as error:
        message = told(error)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what Typer makes of wrong arguments has it
            raise
        message = f"{error.format_message().rstrip('.')}. See asnlsr --help."
    sys.stderr.write("asnlsr: " + " ".join(message.split()) + "\n")
    sys.exit(2)


def _line(bar: tqdm[Any], msg: str | None = None, pos: int | None = None) -> None:
    """Write a line in place of a bar, unless the last one or the beginning was just now."""
    bar.leave = False  # no line of its own at the end
    state = bar.format_dict
    if state["elapsed"] - getattr(bar, "told", 0) >= EVERY:
        bar.told = state["elapsed"]  # type: ignore[attr-defined]
        state["unit"] += "s" * (state["unit"] != "B")
        state["bar_format"] = "{desc}: {n_fmt} of {total_fmt} {unit}, {remaining} left\n"
        bar.fp.write(bar.format_meter(**state))


def _warn(message: Warning | str, *_: object) -> None:
    tqdm.write(f"asnlsr: warning: {message}", file=sys.stderr)  # not into the middle of a bar
