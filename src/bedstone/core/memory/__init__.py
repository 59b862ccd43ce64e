"""Memory known before it is taken: exact estimates, and a tracker with a limit that no thread can pass.

What a whole training step needs is another question, answered by tracing it; these are the building blocks.
"""

from bedstone.core.memory.account import DeviceUsage as DeviceUsage
from bedstone.core.memory.account import Reservation as Reservation
from bedstone.core.memory.estimates import estimate_attention_memory as estimate_attention_memory
from bedstone.core.memory.estimates import estimate_tensor_bytes as estimate_tensor_bytes
from bedstone.core.memory.sizes import checked_shape as checked_shape
from bedstone.core.memory.sizes import format_bytes as format_bytes
from bedstone.core.memory.sizes import parse_bytes as parse_bytes
from bedstone.core.memory.storage import has_memory as has_memory
from bedstone.core.memory.tracker import MemoryTracker as MemoryTracker
from bedstone.core.memory.workspace import free_workspaces as free_workspaces
from bedstone.core.memory.workspace import kept_workspace_bytes as kept_workspace_bytes
from bedstone.core.memory.workspace import workspace_buffer as workspace_buffer

__all__ = [
    "DeviceUsage",
    "MemoryTracker",
    "Reservation",
    "checked_shape",
    "estimate_attention_memory",
    "estimate_tensor_bytes",
    "format_bytes",
    "free_workspaces",
    "has_memory",
    "kept_workspace_bytes",
    "parse_bytes",
    "workspace_buffer",
]
