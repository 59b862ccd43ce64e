"""The compiled CPU library: whether it runs here (`status`), and with which instruction set (`isas`, `use_isa`)."""

from bedstone.kernels.native.library import NativeStatus as NativeStatus
from bedstone.kernels.native.library import isas as isas
from bedstone.kernels.native.library import status as status
from bedstone.kernels.native.library import use_isa as use_isa

__all__ = ["NativeStatus", "isas", "status", "use_isa"]
