"""What a person sees while a run goes on: two views of the event stream, a bar on a terminal, plain lines elsewhere.

Both are sinks. They move by two events, `training_step` and `progress`, and show every other one of level INFO or
above as its own sentence: a new event needs nothing here (only the choice of a device is told shorter when a warning
has just given its reason, and an interruption is left to the last line). Everything goes to stderr; stdout is for results.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bedstone.cli.errors import printable
from bedstone.cli.pace import Pace, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from bedstone.core.events import Event

EVERY_S = 5.0
"""Seconds between two plain lines of the same work."""


@contextmanager
def show_progress(console: Console | None = None, *, every_s: float = EVERY_S) -> Generator[None]:
    """Show the events that happen inside the block.

    Args:
        console: Where to; rich's console on stderr when left out. A terminal gets the bar, anything else plain lines.
        every_s: Seconds between two plain lines of the same work.

    Where nothing can be shown any more, the work goes on unseen. With `BEDSTONE_LOG_LEVEL` set, bedstone's log lines are shown too, in place of the plain ones.

    Raises:
        InvalidConfigError: That variable is no level.
    """
    from rich.console import Console as RichConsole

    from bedstone.core.device import CpuFallbackWarning
    from bedstone.core.events import sink
    from bedstone.core.logging import LEVEL_VARIABLE, init_logging

    logging_asked = bool(os.environ.get(LEVEL_VARIABLE))
    if logging_asked:
        init_logging()

    class Screen(RichConsole):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process here

    console = console or Screen(stderr=True, highlight=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpuFallbackWarning)  # its event is shown, once is enough
        # Asked of the stream itself: FORCE_COLOR makes rich call a file a terminal, and a file gets no moving bar.
        if console.is_terminal and not console.is_dumb_terminal and console.file.isatty():
            with _bar(console) as progress, sink(_while_it_is_read(BarView(progress))):
                yield
        elif logging_asked:
            yield
        else:
            with sink(_while_it_is_read(LineView(console, every_s=every_s))):
                yield


class LineView:
    """Plain lines: each event as its sentence; steps and other long work once every few seconds.

    Args:
        console: Where to.
        every_s: Seconds between two lines of the same work. The first and the last step always show.
    """

    def __init__(self, console: Console, *, every_s: float = EVERY_S) -> None:
        self._console = console
        self._every_s = every_s
        self._paces: dict[str, Pace] = {}
        self._shown: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Show one event, or not yet."""
        with self._lock:
            if event.name == "training_step":
                self._step(event.record())
            elif event.name == "progress":
                self._phase(event.record())
            elif _worth_a_line(event):
                _print_sentence(self._console, event)

    def _step(self, step: Mapping[str, Any]) -> None:
        pace = self._paces.setdefault("", Pace())
        pace.add(time=step["time"], done=step["step"])
        last = step["step"] == step["total"]
        if last or self._due("", step["time"], at_once=True):
            details = [f"loss {step['loss']:.4f}", *_step_details(step, pace)]
            self._print(f"step {step['step']}/{step['total']}: {', '.join(details)}")

    def _phase(self, phase: Mapping[str, Any]) -> None:
        name, done, total = phase["phase"], phase["done"], phase["total"]
        pace = self._paces.setdefault(name, Pace())
        pace.add(time=phase["time"], done=done)
        if done == 0 or (total and done >= total):  # short work needs no line of its own
            self._shown[name] = phase["time"]
        elif self._due(name, phase["time"], at_once=False):
            amount = f"{done}/{total}" if total else f"{done}"
            self._print(", ".join([f"{name}: {amount} {phase['unit']}".rstrip(), *_left(pace, total)]))

    def _due(self, work: str, time: float, *, at_once: bool) -> bool:
        before = self._shown.setdefault(work, time - self._every_s if at_once else time)
        if time - before < self._every_s:
            return False
        self._shown[work] = time
        return True

    def _print(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class BarView:
    """A bar for the steps, one for whatever else takes its time, and the sentences above them.

    Args:
        progress: rich's progress, started; its columns come from `show_progress`.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Move a bar or print a sentence."""
        with self._lock:
            if event.name == "training_step":
                step = event.record()
                self._move("training", step["time"], step["step"], step["total"], step)
            elif event.name == "progress":
                phase = event.record()
                self._move(phase["phase"], phase["time"], phase["done"], phase["total"], None)
            elif _worth_a_line(event):
                _print_sentence(self._progress.console, event)

    def _move(self, work: str, time: float, done: int, total: int, step: Mapping[str, Any] | None) -> None:
        pace = self._paces.setdefault(work, Pace())
        pace.add(time=time, done=done)
        details = [f"loss {step['loss']:.4f}", *_step_details(step, pace)] if step else _left(pace, total)
        if work not in self._tasks:
            self._tasks[work] = self._progress.add_task(printable(work), total=total or None, detail="")
        self._progress.update(self._tasks[work], completed=done, total=total or None, detail=", ".join(details))
        if step is None and total and done >= total:  # work beside the steps leaves the screen when it is done
            self._progress.remove_task(self._tasks.pop(work))


def _while_it_is_read(view: Callable[[Event], None]) -> Callable[[Event], None]:
    """Show events until that fails: a closed terminal, pipe or full disk under a log must not end hours of training."""
    broken = threading.Event()

    def show(event: Event) -> None:
        if not broken.is_set():
            try:
                view(event)
            except OSError:
                broken.set()

    return show


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    )


def _worth_a_line(event: Event) -> bool:
    # The command's last line tells of an interruption, and more of it.
    return event.level >= logging.INFO and not event.transient and event.name != "run_interrupted"


def _print_sentence(console: Console, event: Event) -> None:
    warns = event.level >= logging.WARNING
    text = f"warning: {_sentence(event)}" if warns else _sentence(event)
    console.print(printable(text), style="yellow" if warns else None, markup=False, highlight=False, soft_wrap=True)


def _sentence(event: Event) -> str:
    if event.name == "device_selected":
        choice = event.record()
        if (choice["requested"], choice["device"]) == ("auto", "cpu"):
            return f"Using cpu (auto from {choice['source']})."
    return event.message()


def _step_details(step: Mapping[str, Any], pace: Pace) -> list[str]:
    from bedstone.core.memory import format_bytes

    details: list[str] = []
    if "tokens_per_s" in step:
        details.append(f"{step['tokens_per_s']:.0f} tokens/s")
    if "memory_bytes" in step:
        details.append(format_bytes(step["memory_bytes"]))
    return details + _left(pace, step["total"])


def _left(pace: Pace, total: int) -> list[str]:
    left = pace.left_s(total)
    return [] if not left else [f"{duration(left)} left"]
