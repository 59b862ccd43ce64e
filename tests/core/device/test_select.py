"""`get_device`: decided once, said once (threads, forks, ranks, filters), fast afterwards; `warn_if_cpu` by the same rule."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass

import pytest
import torch

from bedstone.core.device import CpuFallbackWarning, DeviceConfig, DeviceRow, get_device, select, warn_if_cpu
from bedstone.core.errors import DeviceNotAvailableError, InvalidConfigError

AUTO = DeviceConfig(package="demo")


@dataclass(frozen=True)
class ShelfFacts:
    free: int = 1000


class Shelf:
    """A real backend for torch's `meta` device, which every machine has; it counts how often it is asked."""

    name = "shelf"

    def __init__(self):
        self.asked = 0

    def probe(self):
        self.asked += 1
        return ShelfFacts()

    def diagnose(self, facts):
        reason = "It is always there."
        return [DeviceRow(backend="shelf", verdict="usable", reason=reason, device="meta", free_bytes=facts.free)]


def quietly(call, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(*args, **kwargs)


def test_a_chosen_cpu_is_no_warning(monkeypatch, events):
    """By argument in every form, and by variable: a choice is a choice."""
    for wish in ("cpu", torch.device("cpu"), DeviceConfig(force_cpu=True)):
        assert quietly(get_device, wish) == torch.device("cpu")
    monkeypatch.setenv("BEDSTONE_FORCE_CPU", "1")
    assert quietly(get_device) == torch.device("cpu")
    selected = [event for event in events if event.name == "device_selected"]
    assert [(event.device, event.requested, event.source) for event in selected] == [("cpu", "cpu", "argument")]


@pytest.mark.usefixtures("no_accelerator")
def test_auto_warns_once_with_cause_remedy_and_silence():
    """And points at the line that asked."""
    with pytest.warns(CpuFallbackWarning) as caught:
        assert get_device(AUTO) == torch.device("cpu")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert text.startswith("demo: using the CPU, though an accelerator was wanted. ")
    assert text.endswith('To silence this, choose the CPU: BEDSTONE_FORCE_CPU=1 or DeviceConfig("cpu").')
    quietly(get_device, AUTO)
    quietly(get_device, AUTO, refresh=True)
    quietly(warn_if_cpu, "cpu", "demo")


def test_the_warning_carries_the_cause_of_the_row(no_accelerator):
    """Word for word."""
    with pytest.warns(CpuFallbackWarning) as caught:
        get_device(AUTO)
    assert no_accelerator.reason in str(caught[0].message)
    assert no_accelerator.remedy in str(caught[0].message)


@pytest.mark.usefixtures("no_accelerator")
def test_each_package_is_told_once():
    """The second package cannot know what the first was told."""
    with pytest.warns(CpuFallbackWarning, match="^demo: "):
        get_device(AUTO)
    with pytest.warns(CpuFallbackWarning, match="^other: "):
        get_device(DeviceConfig(package="other"))


def test_the_log_and_the_events_say_it_too(no_accelerator, events, caplog):
    """One stream: a warning in the log with fields, and one selection."""
    caplog.set_level(logging.INFO, "bedstone")
    with pytest.warns(CpuFallbackWarning):
        get_device(AUTO)
    get_device(AUTO)
    fallback, selected = (event for event in events if event.name in {"cpu_fallback", "device_selected"})
    assert (fallback.package, fallback.code) == ("demo", str(no_accelerator.code))
    assert (selected.device, selected.requested, selected.source) == ("cpu", "auto", "default")
    levels = [(record.levelname, record.event["event"]) for record in caplog.records]
    assert levels == [("WARNING", "cpu_fallback"), ("INFO", "device_selected")]


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("environment", "count"),
    [({"RANK": "0"}, 1), ({"RANK": "1"}, 0), ({"LOCAL_RANK": "2"}, 0), ({"RANK": "4", "LOCAL_RANK": "0"}, 0)],
)
def test_only_rank_0_speaks(monkeypatch, environment, count):
    """A thousand workers say it once."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        get_device(AUTO)
    assert len(caught) == count


@pytest.mark.usefixtures("no_accelerator")
def test_a_filter_that_makes_it_an_error_does_not_use_it_up(events):
    """Nothing counts as said or chosen: the next call says it again."""
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error", CpuFallbackWarning)
            with pytest.raises(CpuFallbackWarning):
                get_device(AUTO)
    assert [event for event in events if event.name in {"cpu_fallback", "device_selected"}] == []
    with pytest.warns(CpuFallbackWarning):
        get_device(AUTO)


@pytest.mark.usefixtures("no_accelerator")
def test_eight_threads_are_told_once():
    """All start together, four times over."""
    for package in ("a", "b", "c", "d"):
        barrier = threading.Barrier(8)

        def ask(package=package, barrier=barrier):
            barrier.wait()
            get_device(DeviceConfig(package=package))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(caught) == 1


FORK = """
import json, os, sys, threading, warnings
from bedstone.core import device
from bedstone.core.events import add_sink

said = []
add_sink(lambda event: said.append(event.name))
warnings.simplefilter("always")
warnings.showwarning = lambda *args, **kwargs: said.append("warning")
auto, other = device.DeviceConfig(package="first"), device.DeviceConfig(package="second")
device.get_device(auto)
parent = list(said)
lock, held, done = device.select._said._lock, threading.Event(), threading.Event()

def hold():
    with lock:
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    said.clear()
    device.get_device(auto)
    device.warn_if_cpu("cpu", "first")
    repeated = list(said)
    device.get_device(other)
    os.write(writer, json.dumps([repeated, said]).encode())
    os._exit(0)
done.set()
thread.join()
os.waitpid(pid, 0)
print(json.dumps([parent, *json.loads(os.read(reader, 65536))]))
"""


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_does_not_repeat_its_parent_and_does_not_hang():
    """The fork happens while another thread holds our lock; a package that is new to the child is still told."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    parent, repeated, child = json.loads(result.stdout)
    assert parent.count("warning") == parent.count("cpu_fallback") == parent.count("device_selected") == 1
    assert "warning" not in repeated
    assert "device_selected" not in repeated
    assert child.count("warning") == 1


def test_a_plug_in_is_chosen_by_name_and_by_auto(install, events):
    """It needs no line in this package; `auto` tries it after ours."""
    install(Shelf())
    assert get_device("shelf") == torch.device("meta")
    assert [(event.device, event.requested) for event in events if event.name == "device_selected"] == [
        ("meta", "shelf")
    ]
    with pytest.raises(DeviceNotAvailableError) as caught:
        get_device(DeviceConfig("shelf", min_free_bytes=2000))
    assert (caught.value.reason, caught.value.device) == ("OUT_OF_FREE_MEMORY", "shelf")


def test_asks_once_and_again_when_told_to(install):
    """A cached answer does not touch the hardware; an explicit wish asks its own backend alone."""
    shelf = install(Shelf())
    for _ in range(3):
        get_device("shelf")
    assert shelf.asked == 1
    get_device("shelf", refresh=True)
    get_device("cpu")
    assert shelf.asked == 2


def test_the_environment_is_read_once_and_again_when_told_to(monkeypatch, install):
    """A variable that changes later changes nothing by itself."""
    install(Shelf())
    monkeypatch.setenv("BEDSTONE_FORCE_CPU", "1")
    assert get_device() == torch.device("cpu")
    monkeypatch.setenv("BEDSTONE_FORCE_CPU", "maybe")
    assert get_device() == torch.device("cpu")
    with pytest.raises(InvalidConfigError, match="BEDSTONE_FORCE_CPU"):
        get_device(refresh=True)


@pytest.mark.usefixtures("no_accelerator")
def test_a_variable_that_is_set_is_explicit(monkeypatch):
    """No fallback: the error names the variable, and is not remembered as an answer."""
    monkeypatch.setenv("RUST_AI_CUDA_DEVICE", "0")
    for _ in range(2):
        with pytest.raises(DeviceNotAvailableError) as caught:
            quietly(get_device)
        assert caught.value.source == "RUST_AI_CUDA_DEVICE"
        assert "(from RUST_AI_CUDA_DEVICE)" in str(caught.value)


@pytest.mark.parametrize("wish", [0, True, 1.5, ["cuda"], b"cpu"])
def test_refuses_what_is_no_wish(wish):
    """The whole message."""
    with pytest.raises(InvalidConfigError) as caught:
        get_device(wish)
    assert str(caught.value) == (
        f"`config` (={wish!r}) must be a DeviceConfig, a text such as 'cuda:1', a torch.device or None."
    )


def test_a_cached_call_is_fast():
    """Median of many; a generous bound, the benchmark quotes the figure."""
    get_device("cpu")
    config = DeviceConfig("cpu")
    get_device(config)
    for wish in ("cpu", config):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            for _ in range(50):
                get_device(wish)
            times.append((time.perf_counter() - start) / 50)
        assert sorted(times)[100] < 5e-6


@pytest.mark.usefixtures("no_accelerator")
def test_warn_if_cpu_speaks_when_nobody_chose_the_cpu():
    """Once a package; never for an accelerator."""
    quietly(warn_if_cpu, "cuda:0", "demo")
    with pytest.warns(CpuFallbackWarning, match="^demo: ") as caught:
        warn_if_cpu(torch.device("cpu"), "demo")
    assert caught[0].filename == __file__
    quietly(warn_if_cpu, "cpu", "demo")


@pytest.mark.usefixtures("no_accelerator")
def test_warn_if_cpu_is_silent_when_the_cpu_was_chosen():
    """In code, or by a variable."""
    get_device("cpu")
    quietly(warn_if_cpu, "cpu", "demo")
    with pytest.warns(CpuFallbackWarning, match="^bedstone: "):
        get_device("auto")
    with pytest.warns(CpuFallbackWarning, match="^demo: "):
        warn_if_cpu("cpu", "demo")


def test_warn_if_cpu_is_silent_when_a_variable_chose_the_cpu(monkeypatch):
    """The way that the warning itself recommends."""
    monkeypatch.setenv("BEDSTONE_FORCE_CPU", "1")
    quietly(warn_if_cpu, "cpu", "demo")


def test_warn_if_cpu_is_silent_when_an_accelerator_could_be_had(install):
    """Then whoever uses the CPU wants it."""
    install(Shelf())
    quietly(warn_if_cpu, "cpu", "demo")


def test_a_refresh_forgets_the_answer_to_every_wish():
    """The machine was read again, so an answer from before may be wrong."""
    get_device("cpu")
    assert len(select._devices) == 1
    get_device(DeviceConfig("cpu"), refresh=True)
    assert list(select._devices) == [DeviceConfig("cpu")]


def test_warn_if_cpu_names_a_device_that_is_none():
    """The error of torch lists 30 kinds of device."""
    with pytest.raises(InvalidConfigError, match=r"`device` \(='gpu'\) is not a device that torch knows."):
        warn_if_cpu("gpu")
