"""A new kind of device in one class: look (`probe`), judge (`diagnose`), and the kit that proves it.

The device is Intel's Gaudi, which PyTorch calls `hpu`. The backend is for teaching and has seen no real card; every
verdict below comes from facts, so the example needs none. A package would hold the class and declare

    [project.entry-points."bedstone.backends"]
    gaudi = "my_package:BACKEND"
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path

import bedstone as bs
from bedstone.core.device import DeviceRow, Reason, backends
from bedstone.testing.backend import check_backend


@dataclass(frozen=True, kw_only=True)
class GaudiFacts:
    """What can be known without starting a card; plain values, so that any machine's facts can become a test."""

    bridge: bool = False
    nodes: tuple[str, ...] = ()
    mask: str | None = None


class GaudiBackend:
    """Intel Gaudi cards."""

    name = "gaudi"

    def probe(self) -> GaudiFacts:
        """Look: is PyTorch's bridge installed, which cards does the driver show, what does the environment hide?"""
        return GaudiFacts(
            bridge=importlib.util.find_spec("habana_frameworks") is not None,
            nodes=tuple(str(path) for path in sorted(Path("/dev/accel").glob("accel[0-9]*"))),
            mask=os.environ.get("HABANA_VISIBLE_DEVICES"),
        )

    def diagnose(self, facts: GaudiFacts) -> list[DeviceRow]:
        """Judge: one row a card, or one that says why there is none."""
        none = DeviceRow(backend=self.name, verdict="unusable", reason="")
        if not facts.nodes:
            return [replace(none, verdict="absent", code=Reason.NO_DEVICE, reason="There is no card in /dev/accel.")]
        if not facts.bridge:
            reason = f"There are {len(facts.nodes)} cards, but habana_frameworks is not installed."
            return [replace(none, code=Reason.TORCH_CPU_BUILD, reason=reason, remedy="Install Intel's PyTorch bridge.")]
        if facts.mask == "":
            reason = "HABANA_VISIBLE_DEVICES='' hides every card."
            return [replace(none, code=Reason.VISIBLE_DEVICES_EMPTY, reason=reason, remedy="Unset it.")]
        return [self._card(ordinal, node) for ordinal, node in enumerate(facts.nodes)]

    def _card(self, ordinal: int, node: str) -> DeviceRow:
        return DeviceRow(
            backend=self.name,
            verdict="usable",
            reason=f"The driver shows it as {node}.",
            device=f"hpu:{ordinal}",
            ordinal=ordinal,
        )


BACKEND = GaudiBackend()

# Composed by hand. On a machine with cards, `facts_to_json(BACKEND.probe())` records the real thing.
SERVER = GaudiFacts(bridge=True, nodes=("/dev/accel/accel0", "/dev/accel/accel1"))
MACHINES = {
    "a server with two cards": SERVER,
    "the same without the bridge": replace(SERVER, bridge=False),
    "the same with everything hidden": replace(SERVER, mask=""),
    "this machine": BACKEND.probe(),
}


def main() -> None:
    check_backend(BACKEND, recorded=tuple(MACHINES.values()))
    print("The contract holds on every machine below.")
    for machine, facts in MACHINES.items():
        print(f"\n{machine}:")
        for row in BACKEND.diagnose(facts):
            print(f"  {row}")

    backends.add(BACKEND.name, BACKEND)  # what the entry point does for an installed package
    print("\nAsked for by name:")
    try:
        print(f"  {bs.get_device('gaudi')}")
    except bs.DeviceNotAvailableError as error:
        print(f"  {error}")


if __name__ == "__main__":
    main()
