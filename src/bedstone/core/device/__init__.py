"""Choose a device and explain the choice: `get_device`, `device_report`, and the contract for new kinds of device."""

from __future__ import annotations

from bedstone.core.device.backend import DeviceBackend
from bedstone.core.device.candidates import backend_names, backends, candidate_rows
from bedstone.core.device.choice import Choice, choose
from bedstone.core.device.config import DeviceConfig
from bedstone.core.device.facts import facts_from_json, facts_to_json
from bedstone.core.device.fallback import CpuFallback, CpuFallbackWarning
from bedstone.core.device.reasons import Reason
from bedstone.core.device.report import DeviceReport, DeviceRow, Verdict
from bedstone.core.device.select import DeviceWish, device_report, get_device, warn_if_cpu

__all__ = [
    "Choice",
    "CpuFallback",
    "CpuFallbackWarning",
    "DeviceBackend",
    "DeviceConfig",
    "DeviceReport",
    "DeviceRow",
    "DeviceWish",
    "Reason",
    "Verdict",
    "backend_names",
    "backends",
    "candidate_rows",
    "choose",
    "device_report",
    "facts_from_json",
    "facts_to_json",
    "get_device",
    "warn_if_cpu",
]
