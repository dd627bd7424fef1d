"""What `make` shows of the workflow: when, how much of it is done, how long the rest takes."""

import sys
import time
from logging import WARNING, LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


def told(seconds: float) -> str:
    """Say in words about how long something takes."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes} minute{'s' * (minutes > 1)}"


class LogHandler(LogHandlerBase):
    """A line where a job begins, a line where it ends; errors as Snakemake tells them.

    `workflow/progress.smk` says first how many seconds each job will take.
    """

    writes_to_stream = True
    writes_to_file = needs_rulegraph = False
    has_filter = True
    has_formatter = False

    def __post_init__(self) -> None:
        """Start the clock."""
        self.start = time.monotonic()
        self.jobs: dict[int, tuple[str, float]] = {}  # what runs, and since when
        self.expected: dict[int, float] = {}  # seconds of every job that has not ended
        self.total, self.cores, self.pace = 0, 1, [60.0, 60.0]

    def emit(self, record: LogRecord) -> None:
        """Write at most one line, whole."""
        seen, now = record.__dict__, time.monotonic()
        match seen.get("event"):
            case "plan":
                self.expected, self.cores = dict(seen["expected"]), seen["cores"]
                self.total = len(self.expected)
                self.write(f"steps to do: {self.total}, {self.cores} at a time; {self.left()}")
            case LogEvent.JOB_INFO if seen["rule_msg"]:
                self.jobs[seen["jobid"]] = seen["rule_msg"], now
                self.write(seen["rule_msg"])
            case LogEvent.JOB_FINISHED:
                expected = self.expected.pop(seen["job_id"], 0.0)
                if seen["job_id"] in self.jobs:
                    message, begun = self.jobs.pop(seen["job_id"])
                    self.pace = [self.pace[0] + now - begun, self.pace[1] + expected]
                    done = f"{self.total - len(self.expected)}/{self.total}"
                    yet = f"; {self.left()} left" if self.expected else ""
                    self.write(f"{done} done in {now - begun:.0f} s: {message}{yet}")
            case _ if record.levelno >= WARNING:
                print(self.format(record), file=sys.stderr, flush=True)

    def left(self) -> str:
        """Say how long the rest takes, at the pace of what is done."""
        busy = sum(self.expected.values()) * self.pace[0] / self.pace[1]
        return told(busy / min(self.cores, max(len(self.expected), 1)))

    def write(self, line: str) -> None:
        """Put the time since the start before a line."""
        minutes, seconds = divmod(round(time.monotonic() - self.start), 60)
        print(f"[{minutes:2d}:{seconds:02d}] {line}", file=sys.stderr, flush=True)
