"""The commands and their common options; a command is a function in a file of its own, added to the table here.

Nothing heavy is imported at the top of any module of this folder: torch comes with the first line of a command that
needs it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bedstone._version import __version__
from bedstone.cli.doctor import doctor
from bedstone.cli.errors import DEBUG_HELP
from bedstone.cli.generate import generate
from bedstone.cli.kernels import app as kernels
from bedstone.cli.quantize import quantize
from bedstone.cli.train import train, validate

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # Plain help: rich's markdown alone would cost half of the time that --help may take.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (doctor, validate, train, generate, quantize):
    app.command()(_command)
app.add_typer(kernels, name="kernels")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bedstone {__version__}")
        raise typer.Exit


@app.callback()
def bedstone(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help=DEBUG_HELP)] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Fine-tune language models on the hardware you have, and see what happened."""
    del version  # its callback has answered
    context.obj = debug
