"""The compiled CPU library is found, or it is said why not and plain torch computes instead."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

import bedstone as bs
from bedstone.core.errors import UnknownNameError
from bedstone.kernels import choice as choices
from bedstone.kernels import explain, native, operations
from bedstone.kernels.native import library


@pytest.fixture
def forget():
    """What was found out about the library is found out anew, before and after."""

    def clear():
        library._load.cache_clear()
        choices._told.clear()
        for op in operations.values():
            op.forget()

    yield clear
    clear()


def test_is_here_and_says_with_what():
    """CI has a compiler: a build that fails must not pass as a choice of plain torch."""
    assert native.status().reason == ""
    assert native.status().isa == native.isas()[0]
    assert native.isas()[-1] == "portable"


def test_importing_loads_nothing():
    """The library is looked for inside the first call."""
    code = (
        "import bedstone.kernels.fourbit, bedstone.kernels.native\n"
        "assert 'libbedstone_cpu' not in open('/proc/self/maps').read()\n"
        "bedstone.kernels.native.status()\n"
        "assert 'libbedstone_cpu' in open('/proc/self/maps').read()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shares_the_threads_of_torch():
    """One OpenMP runtime in the process: two would spin against each other."""
    code = (
        "import torch, bedstone.kernels.native\nbedstone.kernels.native.status()\ntorch.ones(10**6).sum()\n"
        "names = {line.split('/')[-1].strip() for line in open('/proc/self/maps') if 'gomp' in line or 'iomp' in line}\n"
        "assert len(names) == 1, names\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("exact_kernels")
def test_without_it_torch_computes_the_same_and_one_event_says_so(forget, monkeypatch, events):
    """As after an installation without a compiler."""
    weight = torch.randn(8, 64)
    x = torch.randn(2, 64)
    packed = bs.quantize(weight, "nf4")
    product = torch.nn.functional.linear(x, packed)
    monkeypatch.setattr(library, "_find", lambda: None)
    forget()
    again = bs.quantize(weight, "nf4")
    assert all(torch.equal(again.parts[name], part) for name, part in packed.parts.items())
    torch.testing.assert_close(torch.nn.functional.linear(x, again), product)
    told = [event for event in events if event.name == "kernel_fallback"]
    assert len(told) == 1
    assert told[0].message() == (
        "Packed weights are computed in plain torch, not by the compiled CPU library. bedstone was installed without its compiled CPU "
        "library (libbedstone_cpu.so): there was no C++ compiler. Install g++, then bedstone again: "
        "`pip install --force-reinstall --no-deps`."
    )
    assert native.isas() == ()
    assert native.status().isa == ""
    choice = explain("linear_4bit", shape=(2, 8, 64))
    assert choice.name == "reference"
    assert "there was no C++ compiler" in dict(choice.rejected)["native"]


def test_one_of_another_version_is_refused(forget, monkeypatch):
    """Its functions may take other arguments."""
    abi = library.ABI
    monkeypatch.setattr(library, "ABI", 999)
    forget()
    assert f"has version {abi}, this bedstone needs 999." in native.status().reason


def test_a_file_that_is_none_is_refused(forget, monkeypatch, tmp_path):
    """With what the loader says."""
    (tmp_path / library.NAME).write_text("not a library")
    monkeypatch.setattr(library, "_find", lambda: tmp_path / library.NAME)
    forget()
    assert "does not load: " in native.status().reason


def test_an_unknown_instruction_set_is_refused():
    """With those that this CPU has."""
    with pytest.raises(UnknownNameError, match=r"No instruction set of the CPU library is called 'sse9'.*portable"):
        native.use_isa("sse9")
    assert native.status().isa == native.isas()[0]


def test_every_function_has_the_number_of_arguments_that_the_source_declares():
    """`ctypes` believes what it is told."""
    from pathlib import Path

    source = (Path(library.__file__).parent / "cpp" / "dispatch.cpp").read_text()
    for name, arguments in library.SIGNATURES.items():
        declared = source.partition(f" bs_{name}(")[2].partition(")")[0].split(",")
        kinds = {"*": ctypes.c_void_p, "int64_t": ctypes.c_int64, "int": ctypes.c_int, "float": ctypes.c_float}
        expected = [
            next(kind for word, kind in kinds.items() if word in " ".join(each.split()[:-1])) for each in declared
        ]
        assert list(arguments) == expected, name
