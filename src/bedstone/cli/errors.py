"""The boundary between a command and the shell: every failure becomes one paragraph on stderr and an exit code.

    exit code     what happened
    1             a bug of bedstone, or `bedstone doctor` found something broken
    2             something the user can mend: any `CoreError`; also the code of a mistyped option
    128 + signal  stopped: 130 by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal; a run has left a checkpoint

A traceback is shown with `--debug` only. Nothing of bedstone is imported here before a failure needs it: an error whose
module was never loaded cannot have been raised.
"""

from __future__ import annotations

import functools
import signal
import sys
import traceback
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Generator

DEBUG_HELP = "Show the traceback of a failure."

Debug = Annotated[bool, typer.Option("--debug", help=DEBUG_HELP)]
"""The option `--debug` of a command; the same before the command's name counts too."""

EXIT_BUG = 1
EXIT_USER = 2


@contextmanager
def boundary(context: typer.Context, *, debug: bool) -> Generator[None]:
    """Answer for everything that the block raises or warns.

    Args:
        context: The command's; holds the global `--debug`.
        debug: The command's own `--debug`.

    Raises:
        typer.Exit: The block failed; the paragraph was written and `exit_code` says how.
    """
    debug = debug or bool(context.obj)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_show_warning, debug)
            yield
    except (typer.Exit, BrokenPipeError):  # typer leaves quietly when the reader of a pipe has gone
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last one; each is reported
        if debug:
            traceback.print_exception(error)
        raise typer.Exit(_report(error)) from None


def _report(error: BaseException) -> int:
    if _interrupted(error):
        say("stopped:", "Interrupted; nothing more was written.", style="yellow")
        return 128 + signal.SIGINT
    stopped_by = getattr(error, "signal", None) if _is(error, "bedstone.train.errors", "InterruptedRunError") else None
    if stopped_by is not None:
        say("stopped:", str(error), style="yellow")
        return 128 + int(stopped_by)
    if _is(error, "bedstone.core.errors", "CoreError"):
        say("error:", str(error), style="bold red")
        return EXIT_USER
    if isinstance(error, ModuleNotFoundError) and (remedy := _install_line(error.name or "")):
        say("error:", f"The package {error.name!r} is not installed. {remedy}", style="bold red")
        return EXIT_USER
    text = str(error).strip() or "no message"
    say(
        "bug:",
        f"{type(error).__name__}: {text}\nThis is a bug of bedstone, not of your input. "
        "Run the same command with --debug and report what it shows.",
        style="bold red",
    )
    return EXIT_BUG


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: Python 3.11 wraps one that comes while a class is being built in a RuntimeError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _is(error: BaseException, module: str, name: str) -> bool:
    loaded: Any = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _install_line(module: str) -> str:
    """Return how to install a missing package that an extra of bedstone asks for; empty for any other."""
    from bedstone.cli.parts import own_requirements

    package = {"yaml": "pyyaml"}.get(module.partition(".")[0], module.partition(".")[0])
    extra = next((r.extra for r in own_requirements() if r.extra and r.name == package), "")
    return f"Run `pip install 'bedstone[{extra}]'`." if extra else ""


def _show_warning(debug: bool, message: Warning | str, category: type[Warning], *_place: object) -> None:
    # A library that will change tells its programmers, not the person at this terminal.
    if debug or not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        say("warning:", str(message), style="yellow")


def say(head: str, text: str, *, style: str) -> None:
    """Write one paragraph to stderr, as it is: no markup is read, no path is broken, no control character gets through.

    Args:
        head: The first word, coloured on a terminal.
        text: The rest; line breaks stay.
        style: The colour, in rich's words.
    """
    from rich.console import Console
    from rich.text import Text

    paragraph = Text.assemble((head, style), " ", printable(text))
    Console(stderr=True, highlight=False).print(paragraph, soft_wrap=True)


def printable(text: str) -> str:
    r"""Return `text` with control characters spelled out, so that a file cannot steer the terminal.

    >>> print(printable("row 1\nrow \x1b[31m2"))
    row 1
    row \x1b[31m2
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
