"""A signal is noted once and then left to whoever had it before; an ignored one stays ignored."""

from __future__ import annotations

import os
import signal

import pytest

from bedstone.train.signals import StopRequest, StopRequested, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_to_stop_and_the_old_handler_is_back(number):
    """A second one no longer waits."""
    before, request = signal.getsignal(number), StopRequest()
    request.check()
    with stop_on_signals(request):
        os.kill(os.getpid(), number)
        assert request.signal == number
        assert signal.getsignal(number) == before
        with pytest.raises(StopRequested):
            request.check()


def test_an_ignored_signal_stays_ignored():
    """As `nohup` arranges it for a closed terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        request = StopRequest()
        with stop_on_signals(request):
            os.kill(os.getpid(), signal.SIGHUP)
        assert request.signal is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
