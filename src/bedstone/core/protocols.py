"""The contracts that families share: a validated configuration, quantization in two halves, GPU and CPU dispatch.

A `Protocol` describes what is only consumed, an ABC what others extend. Each has at most two methods to write.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast, runtime_checkable

import torch

from bedstone.core.errors import DeviceMismatchError, DeviceNotAvailableError, InvalidConfigError
from bedstone.core.events import ConfigValidated, emit, listening
from bedstone.core.torch_errors import parse_device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bedstone.core.errors import Problem

Q = TypeVar("Q")
Q_co = TypeVar("Q_co", covariant=True)
Q_contra = TypeVar("Q_contra", contravariant=True)
Input = TypeVar("Input")
Output = TypeVar("Output")


class ValidatableConfig(ABC):
    """A configuration that cannot exist in an invalid state: checked when it is made, every problem reported at once.

    Derive a frozen dataclass from it and write `problems`.

    >>> from collections.abc import Iterator
    >>> from dataclasses import dataclass
    >>> from bedstone.core.errors import Problem
    >>> @dataclass(frozen=True)
    ... class LoraShape(ValidatableConfig):
    ...     rank: int
    ...     alpha: float = 16.0
    ...
    ...     def problems(self) -> Iterator[Problem]:
    ...         if self.rank < 1:
    ...             yield Problem("rank", f"(={self.rank}) must be at least 1.", self.rank)
    ...         if self.alpha <= 0:
    ...             yield Problem("alpha", f"(={self.alpha}) must be above 0.", self.alpha)
    >>> LoraShape(rank=8)
    LoraShape(rank=8, alpha=16.0)
    >>> LoraShape(rank=0, alpha=-1.0)
    Traceback (most recent call last):
    bedstone.core.errors.InvalidConfigError: LoraShape has 2 problems:
      `rank` (=0) must be at least 1.
      `alpha` (=-1.0) must be above 0.
    """

    @abstractmethod
    def problems(self) -> Iterable[Problem]:
        """Yield every reason why this configuration cannot be; none when it is sound."""

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check every rule.

        Raises:
            InvalidConfigError: At least one rule is broken; `problems` holds all of them.
        """
        name = type(self).__name__
        found = tuple(self.problems())
        if found:
            count = "a problem" if len(found) == 1 else f"{len(found)} problems"
            raise InvalidConfigError("\n  ".join([f"{name} has {count}:", *map(str, found)]), problems=found)
        if listening(ConfigValidated.level):
            emit(ConfigValidated(config=name))


@runtime_checkable
class Quantize(Protocol[Q_co]):
    """Something that packs a dense tensor; `Q` is the packed type.

    >>> class Signs:
    ...     def quantize(self, tensor, device):
    ...         return (tensor >= 0).to(device)
    >>> isinstance(Signs(), Quantize), isinstance(Signs(), Dequantize)
    (True, False)
    """

    def quantize(self, tensor: torch.Tensor, device: torch.device) -> Q_co:
        """Return `tensor` packed, on `device`."""
        ...


@runtime_checkable
class Dequantize(Protocol[Q_contra]):
    """Something that unpacks what a scheme packed; apart from `Quantize`, since some schemes are one-way.

    >>> class FromSigns:
    ...     def dequantize(self, quantized, device):
    ...         return torch.where(quantized, 1.0, -1.0).to(device)
    >>> isinstance(FromSigns(), Dequantize)
    True
    """

    def dequantize(self, quantized: Q_contra, device: torch.device) -> torch.Tensor:
        """Return the dense tensor on `device`."""
        ...


class GpuDispatchable(ABC, Generic[Input, Output]):
    """An operation with a GPU and a CPU implementation; `dispatch` routes and checks.

    `Input` is a tensor, or a tuple, list, mapping or dataclass that holds tensors at any depth.

    >>> class Double(GpuDispatchable[torch.Tensor, torch.Tensor]):
    ...     def dispatch_gpu(self, input, device):
    ...         return input + input
    ...
    ...     def dispatch_cpu(self, input, device):
    ...         return input * 2
    >>> Double().dispatch(torch.ones(2), torch.device("cpu"))
    tensor([2., 2.])
    >>> Double().dispatch(torch.ones(2), torch.device("cuda:0"))
    Traceback (most recent call last):
    bedstone.core.errors.DeviceMismatchError: `input` has device cpu, expected cuda:0. Move it with `.to('cuda:0')`.
    """

    gpu_types: ClassVar[frozenset[str]] = frozenset({"cuda", "xpu", "mps"})
    """Device types that `dispatch_gpu` serves, besides the accelerator of the running torch."""

    @abstractmethod
    def dispatch_gpu(self, input: Input, device: torch.device) -> Output:  # noqa: A002 - the document's name
        """Compute on an accelerator; the tensors of `input` lie on `device`."""

    @abstractmethod
    def dispatch_cpu(self, input: Input, device: torch.device) -> Output:  # noqa: A002
        """Compute on the CPU; the tensors of `input` lie there."""

    def dispatch(self, input: Input, device: torch.device | str) -> Output:  # noqa: A002
        """Check that every tensor of `input` lies on `device`, then run the implementation for it.

        Raises:
            DeviceMismatchError: A tensor lies elsewhere; names it and both devices.
            DeviceNotAvailableError: No implementation serves this type of device.
            InvalidConfigError: `device` is a text that names no device.
        """
        device = parse_device(device) if isinstance(device, str) else device
        stray = _find_stray(input, device)
        if stray is not None:
            path, actual = stray
            remedy = f"Move it with `.to('{device}')`."
            raise DeviceMismatchError(expected=str(device), actual=str(actual), argument=f"input{path}", remedy=remedy)
        if device.type == "cpu":
            return self.dispatch_cpu(input, device)
        if self._serves(device):
            return self.dispatch_gpu(input, device)
        raise DeviceNotAvailableError(
            f"{type(self).__name__} has no implementation for the device {device}.",
            device=str(device),
            reason="NO_IMPLEMENTATION",
            remedy=f"It runs on cpu, {', '.join(sorted(self.gpu_types))}.",
        )

    def gpu_available(self) -> bool:
        """Tell whether torch sees an accelerator that `dispatch_gpu` serves; creates no context."""
        current = torch.accelerator.current_accelerator(check_available=True)
        return current is not None and self._serves(current)

    def _serves(self, device: torch.device) -> bool:
        if device.type in self.gpu_types:
            return True
        accelerator = torch.accelerator.current_accelerator()  # a back end of another package names itself here
        return accelerator is not None and device.type == accelerator.type


def lies_on(actual: torch.device, wanted: torch.device) -> bool:
    """Tell whether a place is the one that is wanted.

    "cuda" without a number accepts every ordinal, and the CPU is one place whatever its number.

    >>> lies_on(torch.device("cuda:1"), torch.device("cuda")), lies_on(torch.device("cuda:1"), torch.device("cuda:0"))
    (True, False)
    """
    if actual == wanted:
        return True
    anywhere = wanted.index is None or wanted.type == "cpu"  # pyright: ignore[reportUnnecessaryComparison] - torch's stub
    return anywhere and actual.type == wanted.type


def _find_stray(value: Any, device: torch.device) -> tuple[str, torch.device] | None:
    """Return path and place of the first tensor that lies elsewhere; the path is written only when there is one."""
    if isinstance(value, torch.Tensor):
        return None if lies_on(value.device, device) else ("", value.device)
    parts: Iterable[tuple[Any, Any]]
    if isinstance(value, (tuple, list)):
        parts, step = enumerate(cast("list[Any]", value)), "[{}]"
    elif isinstance(value, (dict, Mapping)):
        parts, step = cast("Mapping[Any, Any]", value).items(), "[{!r}]"
    elif is_dataclass(value) and not isinstance(value, type):
        parts, step = ((field.name, getattr(value, field.name)) for field in fields(value)), ".{}"
    else:
        return None
    for name, item in parts:
        if stray := _find_stray(item, device):
            return step.format(name) + stray[0], stray[1]
    return None
