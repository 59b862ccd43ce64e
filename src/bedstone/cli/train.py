"""`bedstone validate` and `bedstone train`: read a configuration, say what it comes to, run it, say what came of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bedstone.cli.errors import Debug, boundary, printable
from bedstone.cli.pace import duration
from bedstone.cli.threads import set_threads

if TYPE_CHECKING:
    from bedstone.train import Run

Config = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The run, with axolotl's key names.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value that wins over the file's; may be given several times."),
]


def validate(
    context: typer.Context,
    config: Config,
    overrides: Overrides = None,
    everything: Annotated[bool, typer.Option("--all", help="Show the defaults too.")] = False,
    debug: Debug = False,
) -> None:
    """Check a configuration and show what it says.

    Each value is shown with its origin; nothing is loaded or downloaded.
    """
    with boundary(context, debug=debug):
        from bedstone.train.config import dump_effective, load_config

        text = dump_effective(load_config(config, overrides or ()))
        for line in text.splitlines() if everything else value_lines(text):
            typer.echo(printable(line))
        options = [word for override in overrides or () for word in ("--set", override)]
        typer.echo(f"\n{config} is valid. Start it with: {_command('train', str(config), *options)}")


def train(
    context: typer.Context,
    config: Config,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|PATH",
            help="Go on from a checkpoint: `auto` takes the newest good one of the run, or starts when there is none.",
        ),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Fine-tune a model as a configuration says."""
    with boundary(context, debug=debug):
        threads = set_threads()

        from bedstone.cli.progress import show_progress
        from bedstone.train import finetune
        from bedstone.train.config import load_config

        loaded = load_config(config, overrides or ())
        typer.echo(threads.message(), err=True)
        with show_progress():
            run = finetune(loaded, resume=resume)
        show_run(run)


def show_run(run: Run) -> None:
    """Print what came of a run, on a terminal in a box, and below it where everything lies and what to type next.

    Args:
        run: What `finetune` returned.
    """
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False)
    result, places = (printable("\n".join(lines)) for lines in (result_lines(run), place_lines(run)))
    if console.is_terminal:
        console.print(Panel(Text(result), title="done", expand=False))
    else:
        console.print(Text(f"{result}\n"), soft_wrap=True)
    # Outside of the box and unbroken, so that a path or the command can be copied.
    console.print(Text(places), soft_wrap=True)


def result_lines(run: Run) -> list[str]:
    """Return the held-out loss before and after, and the answers before and after, line by line.

    Args:
        run: What `finetune` returned.
    """
    return [_loss_line(run), *_answer_lines(run)]


def place_lines(run: Run) -> list[str]:
    """Return where the parts of a run lie and the next command.

    Args:
        run: What `finetune` returned.
    """
    prompt = run.summary.answers[0].prompt if run.summary.answers else "..."
    return [
        f"{'model' if run.adapter is None else 'adapter':<8}{run.weights}",
        f"report  {run.report}",
        f"all     {run.folder}",
        f"next    {_command('generate', str(run.folder), prompt)}",
    ]


def value_lines(effective: str) -> list[str]:
    r"""Return key, value and origin of what the user wrote, in columns, and how many keys have their default.

    Args:
        effective: What `dump_effective` returned.

    >>> value_lines("# Model\nbase_model: tiny  # line 1\nseed: 42  # default")
    ['base_model: tiny   line 1', '1 more key has its default; --all shows it.']
    """
    lines = [line for line in effective.splitlines() if line and not line.lstrip().startswith("#")]
    rows = [tuple(line.rsplit("  # ", 1)) for line in lines if not line.endswith("  # default")]
    width = max((len(row[0]) for row in rows), default=0)
    shown = ["   ".join([row[0].ljust(width), *row[1:]]).rstrip() for row in rows]
    defaults = len(lines) - len(rows)
    many = f"{defaults} more keys have their defaults; --all shows them."
    return [*shown, "1 more key has its default; --all shows it." if defaults == 1 else many]


def _loss_line(run: Run) -> str:
    result = run.summary
    took = f"{result.steps} step{'' if result.steps == 1 else 's'} in {duration(result.seconds)}"
    if result.loss_before is None or result.loss_after is None:
        return f"{took}; no held-out data, so no held-out loss"
    change = 100 * (result.loss_after - result.loss_before) / result.loss_before if result.loss_before else 0.0
    return f"held-out loss  {result.loss_before:.3f} -> {result.loss_after:.3f}  ({change:+.1f} %), {took}"


def _answer_lines(run: Run) -> list[str]:
    lines: list[str] = []
    for answer in run.summary.answers:
        lines += ["", f"asked   {_one_line(answer.prompt)}"]
        # A question that came with a resume was not asked before the first step.
        lines += [f"before  {_one_line(answer.before)}"] if answer.before is not None else []
        lines += [f"after   {_one_line(answer.after)}"]
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _command(*words: str) -> str:
    return shlex.join(["bedstone", *words])
