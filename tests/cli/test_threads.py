"""OpenMP gets sane values from the command, the user's own are kept, and an import sets nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from bedstone.cli.machine import Cores
from bedstone.cli.threads import set_threads

TWO = Cores(2, "2 physical cores")


def test_threads_match_the_cores_and_wait_quietly():
    """All three variables, in one line for people."""
    environment = {}
    settings = set_threads(environment, TWO)
    assert environment == {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    assert settings.message() == (
        "Threads: OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 (2 physical cores)."
    )


def test_what_the_user_set_is_kept():
    """And said."""
    environment = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "9"}
    settings = set_threads(environment, TWO)
    assert environment == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "9"}
    assert settings.applied == {}
    assert settings.message() == (
        "Threads: kept OMP_NUM_THREADS=7 OMP_WAIT_POLICY=ACTIVE GOMP_SPINCOUNT=9 from the environment."
    )


def test_torch_obeys_when_it_is_imported_afterwards():
    """The order inside the command is what makes it work."""
    program = (
        "from bedstone.cli.machine import Cores\n"
        "from bedstone.cli.threads import set_threads\n"
        "import sys\n"
        "assert 'torch' not in sys.modules\n"
        "set_threads(cores=Cores(1, 'one'))\n"
        "import torch\n"
        "print(torch.get_num_threads())\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1\n"


def test_importing_the_command_sets_no_variable():
    """A library must not decide this for its host."""
    program = "import os; before = dict(os.environ); import bedstone.cli.app; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", program], check=True)
