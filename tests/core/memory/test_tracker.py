"""The tracker never passes its limit, whatever threads do, and a refused call changes nothing."""

import math
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bedstone.core.errors import InvalidConfigError, OutOfMemoryError, UnknownNameError
from bedstone.core.memory import DeviceUsage, MemoryTracker


def test_allocating_and_freeing_is_counted():
    tracker = MemoryTracker(limit_bytes=8 * 2**30)
    tracker.allocate(3 * 2**30)
    tracker.allocate(2**30)
    tracker.deallocate(2**30)
    assert tracker.usage() == DeviceUsage("default", 3 * 2**30, 4 * 2**30, 8 * 2**30)
    assert (tracker.allocated_bytes, tracker.peak_bytes, tracker.limit_bytes) == (3 * 2**30, 4 * 2**30, 8 * 2**30)
    assert tracker.free_bytes == 5 * 2**30


def test_passing_the_limit_raises_with_the_figures_and_changes_nothing():
    tracker = MemoryTracker(1000)
    tracker.allocate(600)
    before = tracker.usage()
    with pytest.raises(OutOfMemoryError) as raised:
        tracker.allocate(401)
    error = raised.value
    assert str(error) == (
        "Out of memory: requested 401 bytes, allocated 600 bytes, free 400 bytes, limit 1,000 bytes. "
        "Release memory first, ask for less, or raise the limit."
    )
    assert (error.requested_bytes, error.allocated_bytes, error.free_bytes, error.limit_bytes) == (401, 600, 400, 1000)
    assert tracker.usage() == before
    tracker.allocate(400)


def test_releasing_more_than_is_held_raises_and_changes_nothing():
    tracker = MemoryTracker(1000)
    for held in (0, 7):
        tracker.allocate(held)
        with pytest.raises(InvalidConfigError) as raised:
            tracker.deallocate(10)
        assert str(raised.value) == (
            f"`size_bytes` (=10) must not exceed the {held} bytes allocated on default. "
            "Release every allocation once, with the size it was made with."
        )
        assert tracker.allocated_bytes == held
    assert not tracker.would_fit(994)
    assert tracker.would_fit(993)


def test_sizes_that_wrapped_in_the_original_do_not_fit():
    tracker = MemoryTracker("8 GiB")
    tracker.allocate(100)
    with pytest.raises(OutOfMemoryError):
        tracker.allocate(2**64 - 50)
    assert tracker.allocated_bytes == 100


@given(st.integers(1, 2**70), st.integers(0, 2**70), st.integers(0, 2**70))
def test_memory_fits_exactly_when_the_sum_is_within_the_limit(limit, held, more):
    tracker = MemoryTracker(limit)
    assert tracker.would_fit(held) is (held <= limit)
    if held <= limit:
        tracker.allocate(held)
        assert tracker.would_fit(more) is (held + more <= limit)


@pytest.mark.parametrize("limit", [0, -5, True, False, 1.0, math.nan, math.inf, "0 GiB", b"8", -(2**80)])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(InvalidConfigError) as raised:
        MemoryTracker(limit)
    assert str(raised.value) == (
        f"`limit_bytes` (={0 if limit == '0 GiB' else limit!r}) must be a whole number of at least 1."
    )


@pytest.mark.parametrize("limit", ["-1 GiB", "nan", "8G"])
def test_a_limit_that_cannot_be_read_is_named(limit):
    with pytest.raises(
        InvalidConfigError, match=rf"`limits\['cuda:0'\]` \(='{limit}'\) must be a number of at least 0"
    ):
        MemoryTracker(limits={"cuda:0": limit})


def test_without_a_limit_everything_fits():
    tracker = MemoryTracker()
    tracker.allocate(2**90)
    assert (tracker.limit_bytes, tracker.free_bytes, tracker.would_fit(2**100)) == (None, None, True)


@pytest.mark.parametrize("size", [-1, True, 1.0, "5", None])
@pytest.mark.parametrize("call", ["allocate", "deallocate", "would_fit", "reserve", "estimate_with_overhead"])
def test_a_size_that_is_not_one_is_refused(call, size):
    tracker = MemoryTracker(100)
    with pytest.raises(InvalidConfigError) as raised:
        getattr(tracker, call)(size)
    assert str(raised.value) == f"`size_bytes` (={size!r}) must be a whole number of at least 0."
    assert tracker.usage() == DeviceUsage("default", 0, 0, 100)


@pytest.mark.parametrize("factor", [0.99, 0, -1, math.nan, math.inf, -math.inf, True, "1.1", None, Decimal("NaN")])
def test_a_factor_below_one_or_not_finite_is_refused(factor):
    with pytest.raises(InvalidConfigError) as raised:
        MemoryTracker(overhead_factor=factor)
    assert str(raised.value) == f"`overhead_factor` (={factor!r}) must be a finite number of at least 1."


@given(st.integers(0, 2**200))
def test_overhead_is_rounded_up_exactly(size):
    assert MemoryTracker().estimate_with_overhead(size) == -(-size * 11 // 10)
    assert MemoryTracker(overhead_factor=1).estimate_with_overhead(size) == size
    assert MemoryTracker(overhead_factor=Fraction(4, 3)).estimate_with_overhead(size) == -(-size * 4 // 3)
    assert MemoryTracker(overhead_factor=Decimal("1.25")).estimate_with_overhead(size) == -(-size * 5 // 4)


def test_one_float_with_overhead_takes_five_bytes():
    assert MemoryTracker().estimate_with_overhead(4) == 5  # the original: 4
    assert MemoryTracker().overhead_factor == 1.1


def test_devices_have_accounts_of_their_own():
    tracker = MemoryTracker(50, limits={"cuda:0": "1 KiB", torch.device("cuda", 1): None, "cpu": 10})
    assert tracker.devices == ("default", "cuda:0", "cuda:1", "cpu")
    tracker.allocate(1024, "cuda")
    tracker.allocate(2**40, torch.device("cuda:1"))
    tracker.allocate(10, "cpu:0")
    assert tracker.usage("cuda:0") == DeviceUsage("cuda:0", 1024, 1024, 1024)
    assert tracker.usage("cuda:1").free_bytes is None
    assert (tracker.allocated_bytes, tracker.would_fit(1, "cpu"), tracker.would_fit(50)) == (0, False, True)
    with pytest.raises(OutOfMemoryError, match=r"^Out of memory on cuda:0: requested 1 bytes") as raised:
        tracker.reserve(1, "cuda:0")
    assert raised.value.device == "cuda:0"


def test_a_device_without_an_account_is_refused():
    with pytest.raises(UnknownNameError) as raised:
        MemoryTracker(limits={"cuda:0": 5}).allocate(1, "cuda:1")
    assert str(raised.value) == (
        "No device of this tracker is called 'cuda:1'. Did you mean 'cuda:0'? Known: cuda:0, default. "
        "Name it in MemoryTracker(limits={'cuda:1': None}) to track it, with a limit or without."
    )


def test_what_is_no_device_is_refused():
    with pytest.raises(InvalidConfigError) as raised:
        MemoryTracker(limits={"gpu0": 5})
    assert str(raised.value) == (
        "`device` (='gpu0') is not a device that torch knows. Write, for example, 'cpu', 'cuda:0', 'mps' or 'xpu:1'."
    )


def test_one_memory_cannot_have_two_limits():
    with pytest.raises(InvalidConfigError) as raised:
        MemoryTracker(limits={"cuda": 5, "cuda:0": 6})
    assert str(raised.value) == "`limits` names cuda:0 twice."


def test_a_reservation_is_given_back_once():
    tracker = MemoryTracker(100)
    tracker.allocate(30)
    held = tracker.reserve(60)
    assert repr(held) == "Reservation(60 bytes on default, held)"
    assert tracker.allocated_bytes == 90
    held.release()
    held.release()
    assert (tracker.allocated_bytes, tracker.peak_bytes) == (30, 90)
    assert repr(held) == "Reservation(60 bytes on default, released)"


def fail_while_holding(tracker):
    with tracker.reserve(60):
        raise KeyError("inside")


def test_a_reservation_is_given_back_when_its_block_fails():
    tracker = MemoryTracker(100)
    with pytest.raises(KeyError, match="inside"):
        fail_while_holding(tracker)
    assert tracker.allocated_bytes == 0


def test_a_reservation_from_before_a_reset_gives_nothing_back():
    tracker = MemoryTracker(100)
    before = tracker.reserve(60)
    tracker.reset()
    assert tracker.usage() == DeviceUsage("default", 0, 0, 100)
    tracker.allocate(70)
    before.release()
    assert tracker.allocated_bytes == 70


def test_the_peak_can_start_again():
    tracker = MemoryTracker()
    with tracker.reserve(90):
        pass
    tracker.allocate(5)
    tracker.reset_peak()
    assert tracker.usage() == DeviceUsage("default", 5, 5, None)


def hammer(tracker, seed, over):
    """Reserve and release at random; note every moment at which the tracker is outside its bounds."""
    chance, held = random.Random(seed), []
    for _ in range(400):
        if held and chance.random() < 0.5:
            held.pop(chance.randrange(len(held))).release()
        else:
            try:
                held.append(tracker.reserve(chance.randrange(1, 700)))
            except OutOfMemoryError as error:
                over.append(error.allocated_bytes + error.requested_bytes <= error.limit_bytes)
        usage = tracker.usage()
        over.append(not 0 <= usage.allocated_bytes <= usage.peak_bytes <= usage.limit_bytes)
    for reservation in held:
        reservation.release()


@pytest.mark.parametrize("threads", [8, 16])
def test_threads_never_pass_the_limit(threads):
    tracker, over = MemoryTracker(1000), []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda seed: hammer(tracker, seed, over), range(threads)))
    assert len(over) > 400 * threads
    assert not any(over)
    assert tracker.allocated_bytes == 0


def test_of_threads_that_want_more_than_half_one_gets_it():
    for _ in range(200):
        tracker, gate, won = MemoryTracker(1000), threading.Barrier(4), []

        def ask(tracker=tracker, gate=gate, won=won):
            gate.wait()
            try:
                tracker.allocate(600)
            except OutOfMemoryError:
                return
            won.append(True)

        workers = [threading.Thread(target=ask) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert (len(won), tracker.allocated_bytes) == (1, 600)


def test_threads_that_release_one_reservation_release_it_once():
    tracker = MemoryTracker(1000)
    tracker.allocate(400)
    held = tracker.reserve(400)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: held.release(), range(64)))
    assert tracker.allocated_bytes == 400


class Ledger(RuleBasedStateMachine):
    """Any order of calls agrees with plain sums."""

    def __init__(self):
        super().__init__()
        self.tracker, self.limit = MemoryTracker(1000), 1000
        self.held, self.loose, self.peak = [], 0, 0

    @property
    def total(self):
        return self.loose + sum(reservation.size_bytes for reservation in self.held)

    @rule(size=st.integers(0, 1200))
    def allocate(self, size):
        if self.total + size <= self.limit:
            self.tracker.allocate(size)
            self.loose += size
            self.peak = max(self.peak, self.total)
        else:
            with pytest.raises(OutOfMemoryError):
                self.tracker.allocate(size)

    @rule(size=st.integers(0, 1200))
    def deallocate(self, size):
        if size <= self.loose:
            self.tracker.deallocate(size)
            self.loose -= size
        elif size > self.total:
            with pytest.raises(InvalidConfigError):
                self.tracker.deallocate(size)

    @rule(size=st.integers(0, 1200))
    def reserve(self, size):
        if self.total + size <= self.limit:
            self.held.append(self.tracker.reserve(size))
            self.peak = max(self.peak, self.total)

    @rule(data=st.data())
    def release(self, data):
        if self.held:
            reservation = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            reservation.release()
            reservation.release()

    @rule()
    def reset_peak(self):
        self.tracker.reset_peak()
        self.peak = self.total

    @invariant()
    def the_sums_agree(self):
        assert self.tracker.usage() == DeviceUsage("default", self.total, self.peak, self.limit)


TestLedger = Ledger.TestCase


def test_a_finalizer_may_give_memory_back_at_any_moment():
    """The garbage collector runs it in whatever thread it is in, also in the middle of a call to the same tracker."""
    program = """
import faulthandler, gc
from bedstone.core.memory import MemoryTracker
faulthandler.dump_traceback_later(20, exit=True)  # where it would wait for itself
tracker, kept = MemoryTracker(10**6), []
class Cycle:
    __slots__ = ("me", "held")
    def __init__(self): self.me, self.held = self, tracker.reserve(1)
    def __del__(self): self.held.release()
for threshold in range(1, 30):
    gc.collect(); gc.set_threshold(threshold, 1000, 1000)
    for _ in range(300):
        Cycle(); kept.append(tracker.usage())
    kept.clear()
gc.collect()
assert tracker.allocated_bytes == 0, tracker.usage()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_limit_may_be_any_whole_number():
    assert MemoryTracker(np.int64(2**40)).limit_bytes == 2**40
