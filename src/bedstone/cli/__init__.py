"""The command `bedstone`; a light entry, so that `bedstone --help` answers before torch could be imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line in `sys.argv` and leave the process with its exit code.

    Raises:
        SystemExit: Always: 0 done, 1 a bug or a broken installation, 2 something the user can mend, 128 + signal stopped.
    """
    try:
        from bedstone.cli.app import app

        app(prog_name="bedstone")
    except KeyboardInterrupt:  # before a command had begun; afterwards its boundary answers
        sys.stderr.write("stopped: Nothing had been started.\n")
        raise SystemExit(130) from None


__all__ = ["main"]
