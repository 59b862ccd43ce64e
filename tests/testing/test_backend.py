"""The conformance kit of device backends: passes sound ones, and names each way to break the contract."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace

import pytest

from bedstone.core.device import DeviceRow, backend_names, backends
from bedstone.testing.backend import check_backend


@dataclass(frozen=True)
class Facts:
    count: int = 1
    names: tuple[str, ...] = ("Shelf",)


ROW = DeviceRow(backend="shelf", verdict="usable", reason="It is there.", device="meta")
ABSENT = DeviceRow(backend="shelf", verdict="absent", code="NO_DEVICE", reason="There is none.")


class Shelf:
    """A sound backend; each test breaks one thing."""

    name = "shelf"

    def __init__(self, *rows, facts=Facts()):
        self.rows, self.facts = rows or (ROW,), facts

    def probe(self):
        return self.facts

    def diagnose(self, facts):
        return self.rows


def complaint(backend, **kwargs):
    with pytest.raises(AssertionError) as caught:
        check_backend(backend, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("name", backend_names())
def test_passes_our_own(name):
    """On whatever machine this is."""
    check_backend(backends.get(name))


def test_passes_a_sound_one_with_recorded_facts():
    """And looks at each of them."""
    check_backend(Shelf(), recorded=[Facts(0, ()), Facts(2, ("a", "b"))])


@pytest.mark.parametrize("name", ["auto", "cpu", "Shelf", "my-shelf", "", "1st"])
def test_refuses_a_name_that_nobody_could_write(name):
    """It becomes a part of `get_device("name:1")`."""
    shelf = Shelf()
    shelf.name = name
    assert complaint(shelf) == (
        f"`name` (={name!r}) must be lower-case letters, digits and _, and neither 'auto' nor 'cpu'."
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["row"], "`diagnose()` must return DeviceRow objects, not str."),
        ([replace(ROW, backend="other")], "`backend` (='other') of a row must be the backend's name 'shelf'."),
        ([replace(ROW, verdict="fine")], "`verdict` (='fine') is none of the three."),
        ([replace(ROW, code="BUSY")], "`code` (='BUSY') must be OK exactly when a row is usable."),
        ([replace(ABSENT, code="OK")], "`code` (='OK') must be OK exactly when a row is usable."),
        ([replace(ABSENT, code="no device")], "`code` (='no device') must be in capitals."),
        ([replace(ROW, reason="yes")], "`reason` (='yes') must be a full sentence that ends with a full stop."),
        ([replace(ROW, remedy="do")], "`remedy` (='do') must be empty or a full sentence."),
        ([replace(ROW, device=None)], "A usable row must name its device."),
        ([replace(ABSENT, device="meta")], "What is absent has no device."),
        ([replace(ABSENT, ordinal=0)], "`ordinal` (=0) needs a `device`."),
        ([replace(ROW, device="meta:1", ordinal=0)], "`device` (='meta:1') and `ordinal` (=0) must agree."),
        ([replace(ROW, total_bytes=-1)], "`total_bytes` (=-1) must be None or 0 or more."),
        ([ROW, ABSENT], "A row that says that nothing is there must stand alone."),
        ([replace(ROW, ordinal=0), replace(ROW, ordinal=0)], "Two rows have the same ordinal: [0, 0]."),
    ],
)
def test_names_what_is_wrong_with_a_row(rows, said):
    """One sentence each."""
    assert complaint(Shelf(*rows)) == said


def test_refuses_no_rows_and_impossible_memory():
    """Nothing there is a row too."""
    shelf = Shelf()
    shelf.rows = ()
    assert complaint(shelf) == "`diagnose()` returned no row; with nothing there, one row says why."
    assert complaint(Shelf(replace(ROW, total_bytes=1, free_bytes=2))).startswith("`free_bytes` exceeds `total_bytes`")


def test_refuses_facts_that_are_not_plain_frozen_values():
    """They could not be recorded."""

    @dataclass
    class Thawed:
        count: int = 1

    assert complaint(Shelf(facts=Thawed())) == "`probe()` must return a frozen dataclass, not Thawed."
    assert complaint(Shelf(facts=Facts(names=["a"]))).startswith("The facts must survive JSON: ")


def test_refuses_a_diagnosis_that_looks_at_the_machine(monkeypatch):
    """It reads an environment variable that the facts do not hold."""
    monkeypatch.setenv("SHELF", "1")

    class Peeking(Shelf):
        def diagnose(self, facts):
            return (replace(ROW, name=os.environ.get("SHELF", "")),)

    said = "`diagnose()` must depend on the facts alone: with the same facts it returned other rows."
    assert complaint(Peeking()) == said
    assert os.environ["SHELF"] == "1"


def test_refuses_a_probe_that_warns():
    """A report is asked for; the warning is `get_device`'s."""

    class Loud(Shelf):
        def probe(self):
            warnings.warn("no shelf", stacklevel=1)
            return self.facts

    with pytest.raises(UserWarning, match="no shelf"):
        check_backend(Loud())


def test_looks_at_recorded_facts():
    """A verdict that only another machine comes to is checked here."""

    class Wrong(Shelf):
        def diagnose(self, facts):
            return (ROW,) if facts.count else (replace(ABSENT, reason="none"),)

    check_backend(Wrong())
    assert complaint(Wrong(), recorded=[Facts(0)]) == (
        "`reason` (='none') must be a full sentence that ends with a full stop."
    )
