"""What `core_overheads.py` compares: ours, the nearest thing that a peer has, and what they do differently."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopwatch import Mark

ACCELERATE, WHEEL = "accelerate", "rust-ai-core-bindings"
MODULES = {ACCELERATE: "accelerate", WHEEL: "rust_ai_core_bindings"}


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        group: The part it belongs to.
        what: What is measured.
        ours: Our statement; the key of its figures.
        peers: Pairs of package (or of what serves as baseline) and statement.
        note: Where the two differ, or why there is no peer.
        target: The most that the median of ours may be, in the unit.
        unit: `ns` a call, or `ms`.
        agree: Whether all statements must give equal values, checked before they are timed.
    """

    group: str
    what: str
    ours: str
    peers: tuple[tuple[str, str], ...] = ()
    note: str = ""
    target: float | None = None
    unit: str = "ns"
    agree: bool = False


def installed() -> tuple[str, ...]:
    """Return the peers that can be imported."""
    return tuple(package for package, module in MODULES.items() if importlib.util.find_spec(module))


# --- fresh processes -----------------------------------------------------------------------------

_NAMES = "for _name in set(bedstone.__all__) - {'Run', 'finetune', 'load_run'}: getattr(bedstone, _name)"
_TORCH = Mark("import torch")
PROGRAMS: dict[str, tuple[Mark, ...]] = {
    "bedstone": (
        Mark("import torch", "import torch"),
        Mark("import bedstone", "import bedstone", since=1),
        Mark("bedstone.get_device", "import bedstone; bedstone.get_device", since=1),
        Mark(_NAMES, "import bedstone; every name but the training's", since=1),
        Mark("bedstone.get_device()", "first bedstone.get_device()", since=4),
    ),
    ACCELERATE: (
        _TORCH,
        Mark("import accelerate", "import accelerate", since=1),
        Mark("accelerate.PartialState().device", "first accelerate.PartialState().device", since=2),
    ),
    WHEEL: (
        Mark("import rust_ai_core_bindings as wheel", "import rust_ai_core_bindings"),
        Mark("wheel.get_device_info()", "first wheel.get_device_info()", since=1),
    ),
}
_BIN = Path(sys.executable).parent
COMMANDS: dict[str, tuple[str, ...]] = {
    "bedstone --help": (str(_BIN / "bedstone"), "--help"),
    "accelerate --help": (str(_BIN / "accelerate"), "--help"),
    "python -c pass": (sys.executable, "-c", "pass"),
}
_IMPORTS = ((ACCELERATE, "import accelerate"), (WHEEL, "import rust_ai_core_bindings"), ("torch", "import torch"))
_IMPORT_NOTE = "ours and accelerate: beyond `import torch`; the wheel is one extension module and needs no torch"
FRESH = (
    Case("import", "the package", "import bedstone", _IMPORTS, _IMPORT_NOTE, target=50, unit="ms"),
    Case(
        "import",
        "with device selection",
        "import bedstone; bedstone.get_device",
        _IMPORTS[:1],
        "our names load on first use, so this is what a first user pays",
        target=50,
        unit="ms",
    ),
    Case("import", "core and interop", "import bedstone; every name but the training's", _IMPORTS[:1], unit="ms"),
    Case(
        "import",
        "first device",
        "first bedstone.get_device()",
        ((ACCELERATE, "first accelerate.PartialState().device"), (WHEEL, "first wheel.get_device_info()")),
        "ours reads driver, PCI bus and plug-ins, to say why; accelerate asks torch; the wheel is built without CUDA",
        unit="ms",
    ),
    Case(
        "import",
        "help of the command",
        "bedstone --help",
        ((ACCELERATE, "accelerate --help"), ("python", "python -c pass")),
        target=300,
        unit="ms",
    ),
)

# --- in one process ------------------------------------------------------------------------------

_ANSWER = (
    "accelerate: a property of an object at hand, and its process-wide singleton; the wheel decides anew each time"
)
_SIZES = "the same arguments"
STATEMENTS = (
    Case("timer", "the loop itself", "pass", note="part of every figure below, not subtracted"),
    Case(
        "get_device",
        "cached, no wish",
        "bs.get_device()",
        (
            (ACCELERATE, "accelerator.device"),
            (ACCELERATE, "accelerate.PartialState().device"),
            (WHEEL, "wheel.get_device_info()"),
        ),
        _ANSWER,
        target=1000,
    ),
    Case(
        "get_device",
        "cached, text",
        "bs.get_device('cpu')",
        ((WHEEL, "wheel.get_device_info(force_cpu=True)"),),
        "accelerate takes a wish only once, when its state is made",
        target=1000,
    ),
    Case(
        "get_device", "cached, DeviceConfig", "bs.get_device(config)", target=1000, note="the object of the first call"
    ),
    Case(
        "get_device", "cached, equal config", "bs.get_device(equal_config)", target=1000, note="another, equal object"
    ),
    Case(
        "get_device",
        "decided anew",
        "bs.get_device(refresh=True)",
        ((ACCELERATE, "accelerate.PartialState().default_device"), (WHEEL, "wheel.get_device_info()")),
        "ours reads environment, driver and PCI bus again; accelerate asks torch; the wheel is built without CUDA",
    ),
    Case(
        "estimates",
        "tensor, 4 dimensions",
        "bs.estimate_tensor_bytes([1, 32, 4096, 128], 'bf16')",
        ((WHEEL, "wheel.estimate_tensor_bytes([1, 32, 4096, 128], 'bf16')"),),
        _SIZES + "; accelerate estimates whole models only, from the hub",
        agree=True,
    ),
    Case(
        "estimates", "tensor, torch's types", "bs.estimate_tensor_bytes(shape, bf16)", note="a tuple and a torch.dtype"
    ),
    Case(
        "estimates",
        "attention",
        "bs.estimate_attention_memory(1, 32, 4096, 128, 'bf16')",
        ((WHEEL, "wheel.estimate_attention_memory(1, 32, 4096, 128, 'bf16')"),),
        _SIZES,
        agree=True,
    ),
    Case(
        "estimates",
        "bytes of a named dtype",
        "bs.bytes_per_element('bf16')",
        ((WHEEL, "wheel.bytes_per_dtype('bf16')"),),
        _SIZES,
        agree=True,
    ),
    Case(
        "estimates",
        "bytes of a torch.dtype",
        "bs.bytes_per_element(bf16)",
        ((ACCELERATE, "accelerate.utils.dtype_byte_size(bf16)"),),
        _SIZES,
        agree=True,
    ),
    Case(
        "tracker",
        "allocate and deallocate",
        "tracker.allocate(n); tracker.deallocate(n)",
        ((WHEEL, "wheel.tracker_allocate(other, n); wheel.tracker_deallocate(other, n)"),),
        "ours in Python with exact integers, the wheel's in Rust; accelerate has no tracker",
    ),
    Case(
        "tracker",
        "reserve block",
        "with tracker.reserve(n): pass",
        ((WHEEL, "wheel.tracker_allocate(other, n)\ntry: pass\nfinally: wheel.tracker_deallocate(other, n)"),),
        "the wheel has no block; the same by hand",
    ),
    Case("tracker", "would_fit", "tracker.would_fit(n)", ((WHEEL, "wheel.tracker_would_fit(other, n)"),), agree=True),
    Case("tracker", "peak", "tracker.peak_bytes", ((WHEEL, "wheel.tracker_peak_bytes(other)"),)),
    Case(
        "tracker",
        "a named device's pair",
        "devices.allocate(n, 'cuda:0'); devices.deallocate(n, 'cuda:0')",
        (("ours", "tracker.allocate(n); tracker.deallocate(n)"),),
        "the wheel has one account",
    ),
    Case(
        "dispatch",
        "one tensor",
        "op.dispatch(one, cpu)",
        (("bare call", "op.dispatch_cpu(one, cpu)"), ("torch", "torch.add(one, one)")),
        "no peer: the wheel has no dispatch in Python, accelerate none; the sum of 8 floats shows the scale",
    ),
    Case("dispatch", "tuple of three", "op.dispatch(three, cpu)", (("bare call", "op.dispatch_cpu(three, cpu)"),)),
    Case(
        "dispatch", "dataclass of three", "op.dispatch(inputs, cpu)", (("bare call", "op.dispatch_cpu(inputs, cpu)"),)
    ),
    Case(
        "errors",
        "translate_torch_errors",
        "translated(one, one)",
        (("bare call", "bare(one, one)"),),
        "the function returns its argument; nothing is raised. No peer has the like",
    ),
    Case("errors", "the same, a small sum", "translated_sum(one, one)", (("torch", "torch.add(one, one)"),)),
    Case("errors", "a shape check", "checked(one, one)", (("bare call", "bare(one, one)"),), "two shapes compared"),
    Case(
        "errors",
        "try and except",
        "try: bare(one, one)\nexcept bs.CoreError: raise",
        (("bare call", "bare(one, one)"),),
        "nothing raised",
    ),
    Case(
        "errors",
        "config validated at birth",
        "bs.DeviceConfig('cpu')",
        (("dataclass", "Plain('cpu')"),),
        "a frozen dataclass of the same fields without rules",
    ),
    Case(
        "errors",
        "emit, nobody listens",
        "bs.emit(event)",
        (("logging", "logger.info('step %d', 1)"),),
        "the standard logger, below its level",
    ),
    Case(
        "errors",
        "log_training_step, the same",
        "bs.log_training_step(1, 100, 2.5, 1e-4)",
        (("logging", "logger.info('step %d of %d: loss %f, lr %f', 1, 100, 2.5, 1e-4)"),),
        "the standard logger, below its level",
    ),
    Case(
        "errors",
        "raised and caught",
        "try: raise bs.ShapeMismatchError(expected=(2, 3), actual=(3, 2))\nexcept ValueError: pass",
        (("python", "try: raise ValueError('`tensor` has shape (3, 2), expected (2, 3).')\nexcept ValueError: pass"),),
        "for information: ours builds its message, facts and context",
    ),
    Case(
        "interop",
        "8 floats, there and back",
        "bs.handle_to_tensor(bs.tensor_to_handle(one))",
        (("torch", "torch.from_dlpack(one)"), ("numpy", "torch.from_numpy(one.numpy())")),
        "ours refuses gradients, conjugates, fake tensors; no peer: the wheel has no interop in Python",
    ),
    Case(
        "interop",
        "64 MiB, there and back",
        "bs.handle_to_tensor(bs.tensor_to_handle(large))",
        (("torch", "torch.from_dlpack(large)"), ("a copy", "large.clone()")),
        "the same memory, checked: the time does not depend on the size",
    ),
    Case(
        "interop",
        "from a NumPy array",
        "bs.handle_to_tensor(array)",
        (("torch", "torch.from_dlpack(array)"), ("numpy", "torch.from_numpy(array)")),
        "ours reads the capsule first: torch ends the process on negative strides",
    ),
)


def names_of_statements(peers: tuple[str, ...]) -> dict[str, Any]:
    """Return the objects that the statements use; imports torch, ours and the peers."""
    import core_subjects

    names = vars(core_subjects) | core_subjects.peer_objects(peers)
    check_agreement(names, peers)
    return names


def check_agreement(names: dict[str, Any], peers: tuple[str, ...]) -> None:
    """Refuse to time statements that do not give what is said of them."""
    for case in (case for case in STATEMENTS if case.agree):
        expected = eval(case.ours, names)
        for package, statement in case.peers:
            if package in peers and (value := eval(statement, names)) != expected:
                raise AssertionError(f"{case.ours} is {expected}, but {statement} is {value}")
    for source in ("one", "large"):
        shared = eval(f"bs.handle_to_tensor(bs.tensor_to_handle({source})).data_ptr() == {source}.data_ptr()", names)
        assert shared, f"the round trip of `{source}` made a copy"
