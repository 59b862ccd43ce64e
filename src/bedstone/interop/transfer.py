"""`to`: a tensor handed to another framework, as its plan says."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from bedstone.core.device.caller import outside_stacklevel
from bedstone.core.errors import CoreError, DeviceMismatchError, UnsupportedError
from bedstone.core.events import Event, emit
from bedstone.core.torch_errors import translate_torch_errors
from bedstone.interop.frameworks import framework_named
from bedstone.interop.plan import planned
from bedstone.interop.sharing import SharingError, check_detached, copied, lazy_bit

if TYPE_CHECKING:
    from bedstone.interop.frameworks import Framework
    from bedstone.interop.plan import TransferPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCopied(Event):
    """A framework got a copy of a tensor, since it cannot take the memory as it is; told once for each line that asks for it.

    Attributes:
        framework: Its name.
        reason: Why.
        bytes: What the copy takes.
        location: The line that asked, as `file:line`.
    """

    name: ClassVar[str] = "transfer_copied"
    level: ClassVar[int] = logging.WARNING
    framework: str
    reason: str
    bytes: int
    location: str

    def message(self) -> str:
        """Say it in a sentence."""
        return (
            f"{self.location} hands {self.framework} a copy of {self.bytes:,} bytes: {self.reason}. "
            "This is told once for this line; strict=True refuses copies."
        )


_told: set[tuple[str, str]] = set()


def to(tensor: torch.Tensor, framework: str, *, strict: bool = False) -> Any:
    """Return an array of another framework on the memory of a tensor, or on a copy where its plan says so.

    Args:
        tensor: Any strided tensor of any shape, dtype but the quantized ones, and device. It must not require gradients.
        framework: `numpy`, `cupy`, `jax`, `numba`, `warp`, `triton` or `tvm_ffi`.
        strict: Refuse to copy. Otherwise a copy is one event (`transfer_copied`) for each line that asks for it.

    Returns:
        What the framework has: an `ndarray` for NumPy and for Numba on a CPU, the tensor itself for Triton.

    Raises:
        SharingError: It requires gradients; or it would be copied and `strict` forbids that; or the framework refuses it.
        DeviceMismatchError: The framework cannot read memory where the tensor lies.
        UnsupportedError: The framework is not installed or cannot have this dtype or shape; or the tensor is sparse,
            quantized, or without memory of its own.
        InvalidConfigError: Not a tensor.
        UnknownNameError: No such framework.

    >>> tensor = torch.zeros(3)
    >>> array = to(tensor, "numpy", strict=True)
    >>> array[1] = 7
    >>> tensor
    tensor([0., 7., 0.])
    """
    taker = framework_named(framework)
    check_detached(tensor)
    plan = planned(tensor, framework, taker)
    if plan.obstacles:
        raise _impossible(plan, tensor, taker)
    if plan.copy_reason:
        tensor = _copy(plan, tensor, strict=strict)
    if tensor.dtype is not plan.carrier:
        tensor = tensor.view(plan.carrier)
    try:
        return taker.hand_over(tensor)
    except (BufferError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(plan, tensor, taker, error) from error


def _impossible(plan: TransferPlan, tensor: torch.Tensor, taker: Framework) -> CoreError:
    """The error of the first obstacle; its remedy tells of the others too."""
    first, *others = plan.obstacles
    remedy = " ".join([first.remedy, *(f"{each.message} {each.remedy}" for each in others)])
    if first.kind == "device":
        reads = " or ".join(taker.dtypes)
        return DeviceMismatchError(first.message, expected=reads, actual=str(tensor.device), remedy=remedy)
    return UnsupportedError(first.message, feature=plan.framework, remedy=remedy)


def _refused(plan: TransferPlan, tensor: torch.Tensor, taker: Framework, why: Exception) -> CoreError:
    if isinstance(why, ImportError):
        message = f"{taker.title} is installed and does not load: {why}."
        return UnsupportedError(message, feature=plan.framework, remedy=f"Run `pip install {taker.package}`.")
    message = f"{taker.title} refused {tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}: {why}"
    return SharingError(message, remedy="Try tensor.clone(), which lies elsewhere.")


def _copy(plan: TransferPlan, tensor: torch.Tensor, *, strict: bool) -> torch.Tensor:
    """The copy that the plan announced, in row-major order; what the lazy bits say is carried out in the same pass."""
    if strict:
        raise SharingError(
            f"{plan.framework} cannot take this memory without a copy of {plan.copy_bytes:,} bytes: {plan.copy_reason}.",
            remedy="Hand over a tensor that it can take, or pass strict=False.",
            framework=plan.framework,
            reason=plan.copy_reason,
            copy_bytes=plan.copy_bytes,
        )
    _tell(plan)
    with translate_torch_errors(doing=f"copy a tensor for {plan.framework}", device=tensor.device):
        if lazy_bit(tensor):
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
        return copied(tensor, contiguous=True)


def _tell(plan: TransferPlan) -> None:
    level = outside_stacklevel()
    frame = sys._getframe(level - 1)  # noqa: SLF001 - the line of the caller, as `warnings` finds it
    location = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    if (plan.framework, location) not in _told:
        _told.add((plan.framework, location))
        event = TransferCopied(
            framework=plan.framework, reason=plan.copy_reason, bytes=plan.copy_bytes, location=location
        )
        emit(event, stacklevel=level)
