"""Ctrl-C, SIGTERM and a closed terminal ask a run to stop between two steps; a second signal no longer waits."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType


class StopRequested(Exception):  # noqa: N818 - a request, not an error; the run turns it into InterruptedRunError
    """Raised by `StopRequest.check` at a point where the run can stop."""


class StopRequest:
    """Whether a signal has asked to stop, and which."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def check(self) -> None:
        """Raise `StopRequested` when a signal has come; called where nothing is half done."""
        if self.signal is not None:
            raise StopRequested


@contextmanager
def stop_on_signals(request: StopRequest) -> Generator[None]:
    """Note SIGINT, SIGTERM and SIGHUP in `request`; the handlers before it come back with the first one and at the end.

    A signal that is ignored, as `nohup` and `&` in a script arrange, stays ignored. Outside the main thread, where Python
    allows no handlers, all stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        restore()

    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        restore()
