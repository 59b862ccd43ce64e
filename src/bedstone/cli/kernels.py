"""`bedstone kernels`: which implementations of an operation there are, which one runs and why, whether they are right, how fast they are."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bedstone.cli.errors import Debug, boundary

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Say what operations run in, and why.")

Op = Annotated[str, typer.Argument(metavar="OP", help="Such as nf4_linear; `bedstone kernels list` has them all.")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, ...")]
Dtype = Annotated[str, typer.Option(metavar="DTYPE", help="float32, bfloat16 or float16.")]
Shape = Annotated[str, typer.Option(metavar="M,N,K", help="Rows of the input, rows and columns of the weight.")]


@app.command("list")
def list_(context: typer.Context, debug: Debug = False) -> None:
    """List the operations and their implementations, the first ones first."""
    with boundary(context, debug=debug):
        from bedstone.kernels import operation, operations
        from bedstone.kernels.native import status

        operation("nf4_linear")  # registers them all
        rows = [
            [op.name, ", ".join(f"{each.name} ({each.numerics})" for each in op.implementations)]
            for _, op in sorted(operations.items())
        ]
        _table(["operation", "implementations"], rows)
        found = status()
        typer.echo(f"native: {found.isa or f'not here. {found.reason} {found.remedy}'}")


@app.command()
def explain(
    context: typer.Context,
    op: Op,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    shape: Shape = "1,4096,4096",
    grad: Annotated[bool, typer.Option("--grad", help="A derivative will be asked of it.")] = False,
    options: Annotated[str, typer.Option(metavar="WORDS", help="What else is asked, such as 'causal softcap'.")] = "",
    debug: Debug = False,
) -> None:
    """Say which implementation is taken and why not the others; the device need not be here."""
    with boundary(context, debug=debug):
        from bedstone.core.dtype import parse_dtype
        from bedstone.kernels import explain as asked

        given = {"dtype": parse_dtype(dtype), "shape": _numbers(shape), "grad": grad, "options": options}
        typer.echo(str(asked(op, device=device, **given)))


@app.command("test")
def check(
    context: typer.Context,
    op: Annotated[str, typer.Argument(metavar="[OP]", help="One operation; all when left out.")] = "",
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Check every implementation against plain torch; exit code 1 when one breaks its contract."""
    with boundary(context, debug=debug):
        from bedstone.kernels import KernelExtension, operation, operations
        from bedstone.kernels.bench import require_device
        from bedstone.testing import check_kernel

        require_device(device)
        first = operation(op or "nf4_linear")
        broken = 0
        for name in [first.name] if op else sorted(operations):
            for each in operations[name].implementations:
                elsewhere = (
                    f"it runs on {', '.join(each.devices)}" if each.devices and device not in each.devices else ""
                )
                if away := elsewhere or each.lacks():
                    typer.echo(f"--      {name}: {each.name} is not tried: {away}")
                    continue
                try:
                    taken = check_kernel(KernelExtension(name, each), device=device)
                    typer.echo(f"ok      {name}: {each.name}, {taken} specifications")
                except AssertionError as error:
                    broken += 1
                    typer.echo(f"BROKEN  {name}: {each.name}: {error}")
        if broken:
            raise typer.Exit(1)


@app.command()
def bench(
    context: typer.Context,
    op: Op,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    shape: Shape = "1,4096,4096",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures as JSON.")] = None,
    debug: Debug = False,
) -> None:
    """Measure every implementation that can, by turns, with the threads that torch uses here."""
    with boundary(context, debug=debug):
        from bedstone.core.dtype import parse_dtype
        from bedstone.kernels import KernelSpec, operation
        from bedstone.kernels.bench import measure
        from bedstone.repro import write_json_atomic

        inputs, rows, columns = (0, *_numbers(shape))[-3:]
        spec = KernelSpec(device, parse_dtype(dtype), inputs, rows, columns)
        result = measure(operation(op), spec)
        figures = result["implementations"]
        _table(
            ["implementation", "median", "fastest", "weight read"],
            [
                [name, f"{f['median_ms']:.4g} ms", f"{f['fastest_ms']:.4g} ms", f"{f['weight_gb_per_s']:.3g} GB/s"]
                for name, f in figures.items()
            ],
        )
        for name, reason in result["rejected"].items():
            typer.echo(f"not {name}: {reason}")
        if out is not None:
            write_json_atomic(out, result)
            typer.echo(f"wrote {out}")


def _numbers(text: str) -> tuple[int, ...]:
    from bedstone.core.errors import InvalidConfigError

    parts = text.replace("x", ",").split(",")
    if len(parts) not in (2, 3) or not all(part.strip().isdigit() for part in parts):
        message = f"`--shape` (={text!r}) must be two or three whole numbers, such as 1,4096,4096."
        raise InvalidConfigError(message, argument="shape", value=text)
    return tuple(map(int, parts))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=None).print(table)
