"""How a run shows itself: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_S = 5.0


def duration(seconds: float) -> str:
    """`1:02:03` or `4:05`."""
    minutes, s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


class Progress:
    """The state that is shown. The run writes it; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stdout)
        self._live: Live | None = None
        self._began = time.monotonic()
        self._pairs_began: float | None = None
        self._last_line = 0.0
        self.phase = ""
        self.quotas: dict[str, int] = {}
        self.reachable: dict[str, int] = {}
        self.accepted: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.unmade = 0
        self.load: Callable[[], dict[str, tuple[int, int]]] = dict

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """One line that stays."""
        self._console.print(Text(line), soft_wrap=True)

    def enter(self, phase: str) -> None:
        """A new phase of the run."""
        self.phase = phase
        if not self._live:
            self.say(f"[{duration(time.monotonic() - self._began)}] {phase}")

    def begin_pairs(self, quotas: dict[str, int], jobs: dict[str, int]) -> None:
        """From here on pairs are counted: quotas and planned jobs by slice."""
        self.quotas = quotas
        self.reachable = {name: min(quota, jobs[name]) for name, quota in quotas.items()}
        self._pairs_began = time.monotonic()

    def changed(self) -> None:
        """Something was counted; without a terminal a line is printed now and then."""
        if not self._live and self.load() and time.monotonic() - self._last_line > PLAIN_EVERY_S:
            self._last_line = time.monotonic()
            self.say(f"[{duration(time.monotonic() - self._began)}] {self.line()}")

    def line(self) -> str:
        """All of it in one line."""
        parts = [f"{name} {self.accepted[name]}/{quota}" for name, quota in self.quotas.items()]
        if self.rejected:
            parts.append("rejected " + ", ".join(f"{reason} {n}" for reason, n in self.rejected.most_common()))
        if self.unmade:
            parts.append(f"not made {self.unmade}")
        parts += [f"{pool} {busy}/{size} busy" for pool, (busy, size) in self.load().items()]
        if (left := self._remaining_s()) is not None:
            parts.append(f"about {duration(left)} left")
        return "; ".join(parts)

    def _remaining_s(self) -> float | None:
        done = sum(min(self.accepted[name], quota) for name, quota in self.reachable.items())
        if self._pairs_began is None or not done:
            return None
        return (time.monotonic() - self._pairs_began) / done * (sum(self.reachable.values()) - done)

    def _table(self) -> Group:
        table = Table("slice", "accepted / quota", "in flight", box=None, pad_edge=False)
        for name, quota in self.quotas.items():
            table.add_row(name, f"{self.accepted[name]} / {quota}", str(self.running[name]))
        left = self._remaining_s()
        clock = f"{duration(time.monotonic() - self._began)} elapsed" + (f", about {duration(left)} left" if left is not None else "")
        lines = [Text(f"{self.phase} — {clock}", style="bold")]
        if self.rejected:
            lines.append(Text("rejected: " + ", ".join(f"{reason} {n}" for reason, n in self.rejected.most_common())))
        if self.unmade:
            lines.append(Text(f"quarantined or undecided: {self.unmade}", style="red"))
        lines += [Text(f"pool {pool}: {busy} of {size} busy") for pool, (busy, size) in self.load().items()]
        return Group(*lines, *([table] if self.quotas else []))
