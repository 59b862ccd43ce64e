"""What an implementation of an operation says of itself: what it can take, what it needs, how exact it is.

The registry reads these statements before anything runs, so a choice can be explained on a machine that lacks the device.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from bedstone.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

Numerics = Literal["exact", "rounded", "approximate"]
"""`exact`: products with the dequantized weight in float32 or wider, 1e-6, or of bfloat16 inputs as a dense layer of bfloat16 computes.
`rounded`: 2e-4. `approximate`: by name only."""


def full_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype as torch has it.

    >>> full_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


class KernelSpec(NamedTuple):
    """What a choice depends on.

    Attributes:
        device: Type of the device, such as `cpu` or `cuda`.
        dtype: Of the input; of what comes out where only a weight goes in.
        inputs: Rows of x (M); 0 where only a weight goes in.
        rows: Rows of the weight (N).
        columns: Columns of the weight (K).
        contiguous: Whether the inputs lie in row-major order without gaps.
        grad: Whether a derivative will be asked of the implementation itself.
        options: What else is asked of it, in words of the operation, such as `causal softcap`.
    """

    device: str
    dtype: torch.dtype
    inputs: int
    rows: int
    columns: int
    contiguous: bool = True
    grad: bool = False
    options: str = ""

    def shape_class(self) -> KernelSpec:
        """Return the specification that stands for all of nearly as many rows: M up to the next power of two.

        >>> KernelSpec("cpu", torch.float32, 5, 64, 64).shape_class().inputs
        8
        """
        return self._replace(inputs=1 << (self.inputs - 1).bit_length() if self.inputs else 0)

    def __str__(self) -> str:
        size = "x".join(str(value) for value in (self.inputs, self.rows, self.columns) if value)
        marks = ["with gaps"] * (not self.contiguous) + ["differentiable"] * self.grad
        marks += [self.options] * bool(self.options)
        return ", ".join([self.device, full_name(self.dtype), size, *marks])


@dataclass(frozen=True)
class KernelImpl:
    """One implementation of an operation.

    Attributes:
        name: Such as `native` or `reference`.
        call: Takes the operation's arguments, gives its result.
        workspace: Of the same arguments: the bytes it needs besides them and the result.
        unfit: Of a specification: why it cannot take it, in a sentence; empty when it can. For what the other fields do not say.
        numerics: How exact it is.
        deterministic: Whether the same inputs give the same bits.
        devices: Types of devices that it runs on; empty for all.
        dtypes: That it takes; empty for all.
        contiguous: Whether its inputs must lie without gaps.
        backward: Whether a derivative can be taken of it.
        capability: The least compute capability of a CUDA device, such as `(8, 0)`.
        packages: What must be importable.
        install: The line that installs them.
        missing: What this machine lacks besides packages, in a sentence; empty when it can run.
        only: Why it runs on no other devices, for those who ask.
    """

    name: str
    call: Callable[..., Any]
    workspace: Callable[..., int]
    unfit: Callable[[KernelSpec], str] = lambda spec: ""  # noqa: ARG005 - plain torch takes everything
    numerics: Numerics = "exact"
    deterministic: bool = True
    devices: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = ()
    contiguous: bool = False
    backward: bool = True
    capability: tuple[int, int] | None = None
    packages: tuple[str, ...] = ()
    install: str = ""
    missing: Callable[[], str] = lambda: ""
    only: str = ""

    def refuses(self, spec: KernelSpec) -> str:
        """Return why it could take a specification on no machine, or nothing.

        >>> half = KernelImpl("half", abs, abs, devices=("cuda",), dtypes=(torch.float16,))
        >>> half.refuses(KernelSpec("cuda", torch.float32, 1, 8, 8))
        'it takes float16, not float32'
        """
        if self.devices and spec.device not in self.devices:
            why = f": {self.only}" if self.only else ""
            return f"it runs on {' and '.join(self.devices)}, not on {spec.device}{why}"
        if self.dtypes and spec.dtype not in self.dtypes:
            return f"it takes {', '.join(map(full_name, self.dtypes))}, not {full_name(spec.dtype)}"
        if self.contiguous and not spec.contiguous:
            return "it takes inputs without gaps between their elements"
        if spec.grad and not self.backward:
            return "it has no derivative"
        return self.unfit(spec)

    def lacks(self) -> str:
        """Return what this machine lacks for it, and the line that mends it; or nothing."""
        for package in self.packages:
            if not _importable(package):
                remedy = f": {self.install}" if self.install else ""
                return f"{package} is not installed{remedy}"
        if self.capability and torch.cuda.is_available() and torch.cuda.get_device_capability() < self.capability:
            return (
                f"it needs compute capability {self.capability}, this device has {torch.cuda.get_device_capability()}"
            )
        return self.missing()

    def cannot(self, spec: KernelSpec) -> str:
        """Return why it cannot take a specification here, or nothing."""
        return self.refuses(spec) or self.lacks()

    def but(self, **changes: Any) -> KernelImpl:
        """Return the same implementation with other statements."""
        return replace(self, **changes)


@functools.cache
def _importable(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@dataclass(frozen=True)
class KernelExtension:
    """An implementation that another package adds to an operation.

    Attributes:
        op: The operation, such as `linear_4bit`.
        implementation: Its name must differ from those that the operation has.
    """

    op: str
    implementation: KernelImpl


extensions: Registry[KernelExtension] = Registry("kernel", "bedstone.kernels")
"""What other packages add, by the name of the entry point; `extensions.add` does it by hand, and `forget_choices` lets it be seen."""
