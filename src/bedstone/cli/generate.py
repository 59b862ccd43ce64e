"""`bedstone generate`: ask a finished run."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from bedstone.cli.errors import Debug, boundary
from bedstone.cli.threads import set_threads


def generate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `bedstone train` wrote.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A question, as a user would type it.")],
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Where to stop at the latest.")] = 128,
    debug: Debug = False,
) -> None:
    """Answer a question with a fine-tuned model.

    Only the answer goes to stdout.
    """
    with boundary(context, debug=debug):
        set_threads()

        from bedstone.cli.progress import show_progress
        from bedstone.train import load_run

        with show_progress():
            answer = load_run(run).generate(prompt, max_new_tokens=max_new_tokens)
        typer.echo(answer)
