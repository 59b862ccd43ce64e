"""`bedstone quantize`: pack a model's weights, say what that saves and what it costs, and leave a folder that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bedstone.cli.errors import Debug, boundary, printable
from bedstone.cli.pace import duration
from bedstone.cli.threads import set_threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console
    from rich.table import Table

    from bedstone.quant import PackedLayer, Scheme
    from bedstone.train.quantize import Outcome

_WIDTH = 110  # of tables in a pipe or a file
_ARROW = "->"


def quantize(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model folder, a .gguf file, a .whl that holds one, or a hub id.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write; must be absent or empty.")],
    scheme: Annotated[str, typer.Option(metavar="NAME", help="nf4, fp4, int8, fp8, ternary, or a plug-in's.")] = "nf4",
    block_size: Annotated[int | None, typer.Option(metavar="N", help="Weights that share a scale.")] = None,
    double_quant: Annotated[bool, typer.Option("--double-quant", help="Quantize the scales too (nf4, fp4).")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Another option of the scheme; may be given several times."),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Layers to leave dense; may be given several times.")
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A text to measure on, instead of Python's language reference; several times."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(metavar="N", help="How many tokens of each text to measure on.")] = 2048,
    debug: Debug = False,
) -> None:
    """Pack a model's weights and measure what that costs.

    Writes a folder that transformers loads, with a report.
    """
    with boundary(context, debug=debug):
        threads = set_threads()

        from bedstone.cli.progress import show_progress
        from bedstone.train.quantize import quantize_model

        chosen = scheme_of(scheme, double_quant=double_quant, block_size=block_size, options=options or ())
        typer.echo(threads.message(), err=True)
        with show_progress():
            outcome = quantize_model(model, out, chosen, skip=skip or (), texts=text or (), tokens=tokens)
        show_outcome(outcome)


def scheme_of(name: str, *, double_quant: bool, block_size: int | None, options: Sequence[str]) -> Scheme:
    """Return the scheme that the options of the command describe.

    Args:
        name: Of the scheme.
        double_quant: Whether `--double-quant` was given.
        block_size: The value of `--block-size`.
        options: The values of `--option`, `KEY=VALUE` each.

    Raises:
        UnknownNameError: No scheme has this name.
        InvalidConfigError: An option is unknown, has no value, is given twice, is not allowed, or would have no effect.

    >>> scheme_of("fp8", double_quant=False, block_size=None, options=["format=e5m2"])
    FP8(granularity='row', block_size=64, format='e5m2')
    """
    from bedstone.core.errors import InvalidConfigError
    from bedstone.quant import scheme_from_dict

    values: dict[str, Any] = {"double_quant": True} if double_quant else {}
    values |= {} if block_size is None else {"block_size": block_size}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            message = f"`--option` (={option!r}) must be KEY=VALUE, for example granularity=block."
            raise InvalidConfigError(message, argument="option", value=option)
        if key in values:
            raise InvalidConfigError(f"The option {key!r} is given twice.", argument=key, value=value)
        values[key] = _value(value)
    made = scheme_from_dict({"scheme": name, **values})
    if "block_size" in values and getattr(made, "granularity", "block") != "block":
        message = (
            f"`block_size` (={values['block_size']}) has no effect: a scale of {name} is for a {made.granularity}."  # pyright: ignore[reportAttributeAccessIssue] - it has one
        )
        remedy = "Add --option granularity=block."
        raise InvalidConfigError(message, argument="block_size", value=values["block_size"], remedy=remedy)
    return made


def show_outcome(outcome: Outcome) -> None:
    """Print sizes, distances and errors as tables, and below them where everything lies and how to load it.

    Args:
        outcome: What `quantize_model` returned.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    for title, table in (_sizes(outcome), _texts(outcome), _errors(outcome)):
        # Not the title of the table, which would be broken at its width.
        console.print(Text(printable(title), style="bold"), soft_wrap=True)
        console.print(table)
    if note := outcome.second_quantization:
        console.print(Text(f"{note}\n", style="yellow"))
    _print_places(console, outcome)


def _sizes(outcome: Outcome) -> tuple[str, Table]:
    layers = outcome.layers
    rest = outcome.dense_bytes - layers.dense_bytes, outcome.packed_bytes - layers.packed_bytes
    rows = [
        _size_row(f"{len(layers.packed)} packed layers", layers.dense_bytes, layers.packed_bytes),
        _size_row("everything else", *rest),
        _size_row("whole model", outcome.dense_bytes, outcome.packed_bytes),
    ]
    title = f"{outcome.model} as {_described(outcome.scheme)}: {outcome.bits_per_weight:.4g} bits a packed weight"
    return title, _table(("", "before", "after", "share"), rows)


def _size_row(what: str, before: int, after: int) -> tuple[str, ...]:
    from bedstone.core.memory import format_bytes

    return what, format_bytes(before), format_bytes(after), f"{after / before:.1%}" if before else ""


def _texts(outcome: Outcome) -> tuple[str, Table]:
    rows = [
        (
            text.name,
            f"{found.tokens:,}",
            f"{found.mean_kl:.4f} +- {found.kl_error:.4f}",
            f"{found.agreement:.1%}",
            f"{found.reference_perplexity:.2f} {_ARROW} {found.perplexity:.2f}",
        )
        for text in outcome.texts
        for found in [text.divergence]
    ]
    head = ("text", "tokens", "KL, nats a token", "same first choice", "perplexity")
    return "Against the dense model", _table(head, rows)


def _errors(outcome: Outcome) -> tuple[str, Table]:
    kinds: dict[str, list[PackedLayer]] = {}
    for layer in outcome.layers.packed:
        kinds.setdefault(layer.name.rpartition(".")[2], []).append(layer)
    rows = [_error_row(kind, layers) for kind, layers in kinds.items()]
    return "Relative error of the weights", _table(("layers", "count", "median", "worst", "which"), rows)


def _error_row(kind: str, layers: Sequence[PackedLayer]) -> tuple[str, ...]:
    import statistics  # not at the top: it takes a tenth of the time that --help has

    errors = {layer.name: layer.error or 0.0 for layer in layers}
    worst = max(errors, key=lambda name: errors[name])
    return kind, str(len(layers)), f"{statistics.median(errors.values()):.2%}", f"{errors[worst]:.2%}", worst


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD)
    for name in head:
        made.add_column(name, justify="left" if name in {"", "text", "layers", "which"} else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def _print_places(console: Console, outcome: Outcome) -> None:
    from rich.text import Text

    lines = [
        *(f"{name} stays dense: {reason}." for name, reason in outcome.layers.skipped),
        f"took    {duration(outcome.seconds)}",
        f"model   {outcome.folder}",
        f"report  {outcome.report}",
        f"load    from bedstone.quant import BedstoneConfig; AutoModelForCausalLM.from_pretrained({str(outcome.folder)!r})",
    ]
    # Unbroken, so that a path can be copied.
    console.print(Text(printable("\n".join(lines))), soft_wrap=True)


def _described(scheme: Scheme) -> str:
    """Return the name of a scheme with its options: `nf4 (block_size 64, double_quant False)`."""
    options = ", ".join(f"{key} {value}" for key, value in scheme.to_dict().items() if key != "scheme")
    return f"{scheme.name} ({options})" if options else scheme.name


def _value(text: str) -> Any:
    """Return what an option's text means: a number, true or false, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
