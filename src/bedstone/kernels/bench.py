"""How long each implementation of an operation takes here, by turns, so that a busy moment hits all of them."""

from __future__ import annotations

import statistics
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from bedstone.core.errors import DeviceNotAvailableError
from bedstone.kernels.ask import explain
from bedstone.kernels.measured import remember
from bedstone.kernels.native import status
from bedstone.kernels.registry import operations
from bedstone.kernels.samples import sample
from bedstone.kernels.timing import by_turns

if TYPE_CHECKING:
    from bedstone.kernels.choice import KernelChoice
    from bedstone.kernels.implementation import KernelSpec
    from bedstone.kernels.registry import KernelOp


def require_device(device: str) -> None:
    """Raise if torch cannot use a device here.

    Args:
        device: Its type.

    Raises:
        DeviceNotAvailableError: It cannot.

    >>> require_device("cpu")
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that it does not have
        message = f"torch cannot use {device} here: {str(error).splitlines()[0]}."
        remedy = "`bedstone doctor` says what this machine has."
        raise DeviceNotAvailableError(message, device=device, reason="TORCH_REFUSES", remedy=remedy) from error


def measure(op: KernelOp, spec: KernelSpec) -> dict[str, Any]:
    """Return the times of every implementation that can take a specification, and why the others cannot.

    Weights of one call are read again by the next, so a weight that fits into the cache is measured in the cache.

    Args:
        op: The operation.
        spec: What to call it with; the device must be here. Its options are those of the operation's first sample.

    Returns:
        Plain values for JSON: what was measured and with what, `implementations` by name (`median_ms`, `fastest_ms`, `rounds`,
        `weight_gb_per_s`), `rejected` by name.

    Raises:
        DeviceNotAvailableError: The device is not here.
    """
    require_device(spec.device)
    arguments = sample(op, spec)
    spec = op.describe(*arguments)  # with the options of the first kind of sample
    reasons = {each.name: each.cannot(spec) for each in op.implementations}
    fit = {each.name: each.call for each in op.implementations if not reasons[each.name]}
    times = by_turns({name: lambda call=call: call(*arguments) for name, call in fit.items()}, spec.device)
    distributions = metadata.packages_distributions()
    weight = sum(a.nbytes for a in arguments[1 if spec.inputs else 0 :] if isinstance(a, torch.Tensor))
    return {
        "op": op.name,
        "spec": {**spec._asdict(), "dtype": str(spec.dtype).removeprefix("torch.")},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "native": status().isa,
        "gpu": torch.cuda.get_device_name() if spec.device == "cuda" else "",
        "packages": {
            package: metadata.version(package)
            for each in op.implementations
            for module in (each.packages if each.name in fit else ())
            for package in distributions.get(module, ())
        },
        "implementations": {
            name: {
                "median_ms": statistics.median(found) * 1e3,
                "fastest_ms": min(found) * 1e3,
                "rounds": len(found),
                "weight_gb_per_s": weight / statistics.median(found) / 1e9,
            }
            for name, found in times.items()
        },
        "rejected": {name: reason for name, reason in reasons.items() if reason},
    }


def tune(
    op: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (1, 4096, 4096)
) -> KernelChoice:
    """Measure what may be taken for a shape and keep the figures on disk: the policy `auto` takes the fastest from now on.

    Args:
        op: As for `explain`.
        device: Of the arguments; it must be here.
        dtype: Of the input, or of the dense result.
        shape: `(M, N, K)` of a product, `(N, K)` where only a weight goes in. The figures count for all M up to the next power of two.

    Returns:
        What is taken from now on.

    Raises:
        UnknownNameError: The operation.
        DeviceNotAvailableError: The device is not here.
        StorageError: The figures cannot be kept.
    """
    asked = explain(op, device=device, dtype=dtype, shape=shape)
    found = measure(operations[asked.op], asked.spec)
    times = {name: each["median_ms"] / 1e3 for name, each in found["implementations"].items()}
    remember(asked.op, asked.spec._replace(options=found["spec"]["options"]), times)
    return explain(op, device=device, dtype=dtype, shape=shape)
