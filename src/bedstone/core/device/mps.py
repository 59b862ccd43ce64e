"""The `mps` backend: the GPU of an Apple computer. Unverified: never run on a real one yet."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from bedstone.core.device.reasons import Reason
from bedstone.core.device.report import DeviceRow, Verdict

_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"


@dataclass(frozen=True, slots=True, kw_only=True)
class MpsFacts:
    """Everything that the verdict on `mps` is made from.

    Attributes:
        torch_version: Version of PyTorch.
        system: `Darwin` on a Mac.
        machine: `arm64` for Apple's own chips.
        os_version: The version of macOS, empty elsewhere.
        built: Whether this PyTorch has MPS.
        available: What PyTorch says; `None` when not asked.
        fallback: The value of the variable that sends missing operations to the CPU, `None` when not set.
    """

    torch_version: str
    system: str
    machine: str = ""
    os_version: str = ""
    built: bool = False
    available: bool | None = None
    fallback: str | None = None


class MpsBackend:
    """The GPU of an Apple computer.

    >>> MpsBackend().diagnose(MpsFacts(torch_version="2.13.0", system="Linux"))[0].code
    <Reason.NO_DEVICE: 'NO_DEVICE'>
    """

    name = "mps"

    def probe(self) -> MpsFacts:
        """Return the operating system, PyTorch's build and, on a Mac, whether PyTorch finds Metal."""
        built = torch.backends.mps.is_built()
        return MpsFacts(
            torch_version=str(torch.__version__),
            system=platform.system(),
            machine=platform.machine(),
            os_version=platform.mac_ver()[0],
            built=built,
            available=torch.backends.mps.is_available() if built else None,
            fallback=os.environ.get(_FALLBACK),
        )

    def diagnose(self, facts: MpsFacts) -> tuple[DeviceRow, ...]:
        """Return the one row: a Mac has one GPU."""
        verdict, code, reason, remedy = _judge(facts)
        usable = verdict == "usable"
        return (
            DeviceRow(
                backend="mps",
                verdict=verdict,
                code=code,
                reason=reason,
                remedy=remedy,
                device="mps" if usable else None,
                ordinal=0 if usable else None,
                name=f"Apple GPU ({facts.machine})" if facts.system == "Darwin" else "",
                runtime=f"macOS {facts.os_version}" if facts.os_version else None,
                notes=_notes(facts) if usable else (),
            ),
        )


def _judge(facts: MpsFacts) -> tuple[Verdict, Reason, str, str]:
    if facts.system != "Darwin":
        return "absent", Reason.NO_DEVICE, f"MPS is a part of macOS; this is {facts.system}.", ""
    if not facts.built:
        reason = f"PyTorch {facts.torch_version} is built without MPS ({facts.machine})."
        return "unusable", Reason.TORCH_CPU_BUILD, reason, "Install the arm64 build of PyTorch with an arm64 Python."
    if not facts.available:
        reason = f"PyTorch has MPS but finds no usable Metal device on macOS {facts.os_version}."
        return "unusable", Reason.NO_METAL, reason, "Update macOS; in a virtual machine there is no Metal device."
    return "usable", Reason.OK, "PyTorch finds the Metal device; its memory is the computer's own.", ""


def _notes(facts: MpsFacts) -> tuple[str, ...]:
    if facts.fallback in {None, "", "0"}:
        return ()
    effect = "operations that MPS lacks run on the CPU in silence"
    return (f"{Reason.OP_FALLBACK_ENABLED}: {_FALLBACK}={facts.fallback}, so {effect}.",)
