"""Thread counts and waiting policy for OpenMP, set before torch is imported and only by commands that compute.

By default OpenMP's threads spin while they wait. On a shared machine the spinning takes the cores away from the threads
that work, and training becomes many times slower; passive waiting costs a few per cent on an idle one. A variable that
the user has set is never changed. An import of bedstone sets nothing: a library must not decide this for its host.

References:
    GNU libgomp manual, `OMP_WAIT_POLICY` and `GOMP_SPINCOUNT`. https://gcc.gnu.org/onlinedocs/libgomp/
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bedstone.cli.machine import usable_cores

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from bedstone.cli.machine import Cores


@dataclass(frozen=True, slots=True)
class ThreadSettings:
    """The variables in force, and who set them.

    Attributes:
        cores: What the number of threads was chosen by.
        applied: Variables set here.
        kept: Variables that the user had set.
    """

    cores: Cores
    applied: Mapping[str, str]
    kept: Mapping[str, str]

    def message(self) -> str:
        """Return the settings as one line for people."""
        mine = " ".join(f"{name}={value}" for name, value in self.applied.items())
        yours = " ".join(f"{name}={value}" for name, value in self.kept.items())
        parts = [f"{mine} ({self.cores.reason})"] if mine else []
        parts += [f"kept {yours} from the environment"] if yours else []
        return f"Threads: {'; '.join(parts)}."


def set_threads(environment: MutableMapping[str, str] = os.environ, cores: Cores | None = None) -> ThreadSettings:
    """Give OpenMP sane values; call it before torch is imported, since OpenMP reads them once.

    Args:
        environment: Where the variables are.
        cores: How many threads can compute at once; measured when left out.

    Returns:
        What was set and what was kept.

    >>> from bedstone.cli.machine import Cores
    >>> print(set_threads({"OMP_NUM_THREADS": "1"}, Cores(2, "2 physical cores")).message())
    Threads: OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 (2 physical cores); kept OMP_NUM_THREADS=1 from the environment.
    """
    cores = cores or usable_cores()
    wanted = {"OMP_NUM_THREADS": str(cores.count), "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    kept = {name: environment[name] for name in wanted if name in environment}
    applied = {name: value for name, value in wanted.items() if name not in kept}
    environment.update(applied)
    return ThreadSettings(cores, applied, kept)
