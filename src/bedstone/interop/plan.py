"""`plan_transfer`: what would happen if another framework got a tensor. `to` carries the plan out, so the two cannot disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.interop.frameworks import Framework, framework_named
from bedstone.interop.sharing import Obstacle, bits_dtype, check_detached, lazy_bit

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """How a tensor gets to another framework; made by `plan_transfer`, prints as a line or two.

    Attributes:
        framework: Its name.
        call: The call that hands the memory over.
        carrier: The dtype as which torch hands it over; not the tensor's own where the framework lacks that.
        dtype: What the elements are there, in words.
        writable: Whether the array may be written; writes are then seen on both sides, unless there is a copy.
        owner: What keeps the memory alive.
        copy_reason: Why the memory cannot be taken as it is; empty where it can.
        copy_bytes: What a copy takes; 0 where there is none.
        obstacles: Why it cannot be done here; empty where it can.
    """

    framework: str
    call: str
    carrier: torch.dtype
    dtype: str
    writable: bool
    owner: str
    copy_reason: str = ""
    copy_bytes: int = 0
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def zero_copy(self) -> bool:
        """Whether the array is on the tensor's own memory."""
        return not self.copy_reason

    def __str__(self) -> str:
        way = f"a copy of {self.copy_bytes:,} bytes, since {self.copy_reason};" if self.copy_reason else "zero-copy"
        writable = "writable" if self.writable else "read-only there"
        line = f"{way} by {self.call}; {self.dtype}, {writable}; kept alive by {self.owner}"
        if not self.obstacles:
            return f"{self.framework}: {line}"
        obstacles = (f"{each.message} {each.remedy}" for each in self.obstacles)
        return "\n  ".join([f"{self.framework}: not possible here", *obstacles, f"Without that: {line}"])


# Plans without copy and obstacle, which hold for every tensor of a dtype and a type of device.
_plain: dict[tuple[str, torch.dtype, str], TransferPlan] = {}


def plan_transfer(tensor: torch.Tensor, framework: str) -> TransferPlan:
    """Return how a tensor would get to another framework. Nothing is copied and nothing imported.

    Args:
        tensor: Any strided tensor of any shape, dtype but the quantized ones, and device. It must not require gradients.
        framework: `numpy`, `cupy`, `jax`, `numba`, `warp`, `triton` or `tvm_ffi`. It need not be installed: the plan says so.

    Returns:
        The plan; `plan.obstacles` says what `to` would raise.

    Raises:
        SharingError: The tensor requires gradients; says the call to make.
        UnsupportedError: Sparse, quantized, or without memory of its own.
        InvalidConfigError: Not a tensor.
        UnknownNameError: No such framework.

    >>> import torch
    >>> print(plan_transfer(torch.ones(2, dtype=torch.bfloat16), "numpy"))
    numpy: zero-copy by tensor.numpy(); uint16, the bits of bfloat16, writable; kept alive by the array, which holds the tensor
    >>> plan = plan_transfer(torch.ones(4, 4)[:, ::2], "jax")
    >>> plan.zero_copy, plan.copy_reason, plan.copy_bytes
    (False, 'JAX takes no gaps between elements and none twice, and the strides are (4, 2)', 32)
    """
    taker = framework_named(framework)
    check_detached(tensor)
    return planned(tensor, framework, taker)


def planned(tensor: torch.Tensor, name: str, taker: Framework) -> TransferPlan:
    """Return the plan for a tensor of which only dtype, device, shape and strides count; it may be a fake one."""
    reason, obstacle = _copy_reason(tensor, taker), taker.obstacle(tensor)
    device = "cpu" if tensor.is_cpu else tensor.device.type  # the second takes longer than all the rest here
    plain = None if reason or obstacle else _plain.get((name, tensor.dtype, device))
    if plain is not None and taker.installed:
        return plain
    carrier = _carrier(tensor.dtype, taker, device)
    found = (_wrong_device(tensor, taker), _lacking(tensor.dtype, carrier, taker), obstacle, _missing(taker))
    plan = TransferPlan(
        framework=name,
        call=taker.call if device == "cpu" else taker.gpu_call or taker.call,
        carrier=carrier or tensor.dtype,
        dtype=_described(tensor.dtype, carrier),
        writable=taker.writable,
        owner=taker.owner,
        copy_reason=reason,
        copy_bytes=tensor.numel() * tensor.element_size() if reason else 0,
        obstacles=tuple(each for each in found if each is not None),
    )
    if not reason and not plan.obstacles:
        _plain[name, tensor.dtype, device] = plan
    return plan


def _copy_reason(tensor: torch.Tensor, taker: Framework) -> str:
    bit = lazy_bit(tensor)
    return f"its {bit} bit is set, which its memory does not show" if bit else taker.copy_reason(tensor)


def _carrier(dtype: torch.dtype, taker: Framework, device: str) -> torch.dtype | None:
    """The dtype to hand over: its own, or integers of its width; of a wrong device, what the framework has elsewhere."""
    has = taker.dtypes.get(device) or next(iter(taker.dtypes.values()))
    return dtype if dtype in has else bits_dtype(dtype)


def _described(dtype: torch.dtype, carrier: torch.dtype | None) -> str:
    own = str(dtype).removeprefix("torch.")
    return own if carrier in {dtype, None} else f"{str(carrier).removeprefix('torch.')}, the bits of {own}"


def _wrong_device(tensor: torch.Tensor, taker: Framework) -> Obstacle | None:
    if tensor.device.type in taker.dtypes:
        return None
    reads = " and ".join(taker.dtypes)
    first = next(iter(taker.dtypes))
    return Obstacle(
        "device",
        f"{taker.title} reads memory on {reads}, and this tensor lies on {tensor.device}.",
        f'Call tensor.to("{first}") first, which copies.',
    )


def _lacking(dtype: torch.dtype, carrier: torch.dtype | None, taker: Framework) -> Obstacle | None:
    if carrier is not None:
        return None
    return Obstacle("dtype", f"{taker.title} has no {dtype}.", "Hand over torch.view_as_real(tensor).")


def _missing(taker: Framework) -> Obstacle | None:
    if taker.installed:
        return None
    return Obstacle("missing", f"{taker.title} is not installed.", f"Run `pip install {taker.package}`.")
