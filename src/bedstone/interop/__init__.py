"""Tensors handed to other frameworks and back without copying; and as plain bytes where memory cannot be shared."""

from bedstone.interop.allocate import allocate_output_buffer as allocate_output_buffer
from bedstone.interop.buffer import TensorBuffer as TensorBuffer
from bedstone.interop.handle import TensorHandle as TensorHandle
from bedstone.interop.handle import tensor_to_handle as tensor_to_handle
from bedstone.interop.plan import TransferPlan as TransferPlan
from bedstone.interop.plan import plan_transfer as plan_transfer
from bedstone.interop.receive import handle_to_tensor as handle_to_tensor
from bedstone.interop.sharing import Obstacle as Obstacle
from bedstone.interop.sharing import SharingError as SharingError
from bedstone.interop.transfer import TransferCopied as TransferCopied
from bedstone.interop.transfer import to as to

__all__ = [
    "Obstacle",
    "SharingError",
    "TensorBuffer",
    "TensorHandle",
    "TransferCopied",
    "TransferPlan",
    "allocate_output_buffer",
    "handle_to_tensor",
    "plan_transfer",
    "tensor_to_handle",
    "to",
]
