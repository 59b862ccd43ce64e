"""The page of a packed model: is it still the same model, what does it take, and which weights lost most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bedstone.train.quantize.outcome import error_of
from bedstone.train.quantize.plots import divergence_plot, error_plot
from bedstone.train.report.document import document
from bedstone.train.report.figure import figure
from bedstone.train.report.markup import Html, element, foreign, join
from bedstone.train.report.table import Number, folded, table
from bedstone.train.report.wording import say_bytes, say_count, say_loss, say_plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bedstone.quant import PackedLayer
    from bedstone.train.quantize.outcome import ComparedText, Outcome

_ARROW = " \N{RIGHTWARDS ARROW} "
_WORST = 10


def page(outcome: Outcome) -> str:
    """Return the report as the text of one HTML file.

    Args:
        outcome: What `quantize_model` measured.
    """
    said = verdict(outcome)
    sections = [_opening(outcome, said), _comparison(outcome), _errors(outcome), _sizes(outcome), _method(outcome)]
    return document(
        title=f"{model_name(outcome)} as {outcome.scheme.name}: bedstone quantization report",
        description=said,
        content=sections,
        footer="Written by bedstone. The same figures for programs are in quantization.json beside this page.",
    )


def model_name(outcome: Outcome) -> str:
    """Return the last part of what was asked for, without a file's ending, and of a wheel the package alone."""
    path = Path(outcome.model)
    if path.suffix == ".whl":
        return path.name.partition("-")[0]
    return path.stem if path.suffix == ".gguf" else path.name


def verdict(outcome: Outcome) -> str:
    """Return size and distance in a sentence each."""
    share = percent(outcome.packed_bytes / outcome.dense_bytes, 0)
    first = outcome.texts[0].divergence
    return (
        f"{say_bytes(outcome.dense_bytes)}{_ARROW}{say_bytes(outcome.packed_bytes)} ({share}). "
        f"{percent(first.agreement, 0)} of the first choices are those of the dense model; "
        f"it diverges by {say_loss(first.mean_kl)} nats a token."
    )


def percent(share: float, digits: int = 1) -> str:
    r"""Return a share as percent.

    >>> percent(0.0912)
    '9.1\xa0%'
    """
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _opening(outcome: Outcome, said: str) -> Html:
    warning = outcome.second_quantization
    return element(
        "header",
        element("h1", foreign(model_name(outcome)), f" as {outcome.scheme.name}"),
        element("p", "Packed from ", foreign(outcome.model), class_="base"),
        element("p", said, class_="verdict"),
        element("p", warning, class_="warning") if warning else None,
        element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in _facts(outcome))),
    )


def _facts(outcome: Outcome) -> Iterator[tuple[str, object]]:
    for name, value in outcome.scheme.to_dict().items():
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
        yield name.replace("_", " ").capitalize(), foreign(shown)
    yield "Bits a packed weight", f"{outcome.bits_per_weight:.3f}"
    yield "Layers packed", say_count(len(outcome.layers.packed))
    yield "Median weight error", percent(outcome.median_error)
    yield "Device", outcome.circumstances["device"]


def _comparison(outcome: Outcome) -> Html:
    head = [
        "Text",
        *map(Number, ("Tokens", "KL, nats a token", "Half of them below", "Same first choice", "Perplexity")),
    ]
    caption = "Both models on the same tokens; after the mean, its standard error. Perplexity: dense, then packed."
    plot = divergence_plot(outcome.texts)
    told = (
        "Tokens from the least to the most changed, without the last hundredth, whose values can be many times larger."
    )
    return element(
        "section",
        element("h2", "Against the dense model"),
        table(caption, head, [_text_row(text) for text in outcome.texts]),
        figure([plot], told) if plot else None,
    )


def _text_row(text: ComparedText) -> Sequence[object]:
    found = text.divergence
    figures = (
        say_count(found.tokens),
        f"{say_loss(found.mean_kl, 4)} \N{PLUS-MINUS SIGN} {say_loss(found.kl_error, 4)}",
        say_loss(found.kl_quantile(0.5), 4),
        percent(found.agreement),
        f"{say_loss(found.reference_perplexity, 2)}{_ARROW}{say_loss(found.perplexity, 2)}",
    )
    return [foreign(text.name), *map(Number, figures)]


def _errors(outcome: Outcome) -> Html:
    worst = sorted(outcome.layers.packed, key=error_of, reverse=True)[:_WORST]
    told = "Each dot is a weight, in the order of the model. Relative error: the length of the difference over that of the weight."
    everything = folded(
        f"All {say_plural(len(outcome.layers.packed), 'layer')}",
        _layer_table("Every packed layer.", outcome.layers.packed),
    )
    return element(
        "section",
        element("h2", "Error of each weight"),
        figure([error_plot(outcome.layers.packed)], told),
        _layer_table("The layers that lost most.", worst),
        everything if len(outcome.layers.packed) > _WORST else None,
    )


def _layer_table(caption: str, layers: Iterable[PackedLayer]) -> Html:
    head = ["Layer", *map(Number, ("Shape", "Relative error", "Before", "After"))]
    rows = [
        [
            foreign(layer.name),
            Number(" \N{MULTIPLICATION SIGN} ".join(map(str, layer.shape))),
            Number(percent(error_of(layer), 2)),
            Number(say_bytes(layer.dense_bytes)),
            Number(say_bytes(layer.packed_bytes)),
        ]
        for layer in layers
    ]
    return table(caption, head, rows)


def _sizes(outcome: Outcome) -> Html:
    packed = outcome.layers
    rest = outcome.dense_bytes - packed.dense_bytes, outcome.packed_bytes - packed.packed_bytes
    rows = [
        _size_row(
            f"{say_plural(len(packed.packed), 'packed layer')}, scales included",
            packed.dense_bytes,
            packed.packed_bytes,
        ),
        _size_row("Everything else: embeddings, norms, what stays dense", *rest),
        _size_row("The whole model", outcome.dense_bytes, outcome.packed_bytes),
    ]
    head = ["", *map(Number, ("Before", "After", "Share"))]
    dense = [element("li", foreign(name), f": {reason}.") for name, reason in packed.skipped]
    return element(
        "section",
        element("h2", "Bytes"),
        table(f"Parameters and buffers; dense ones are {outcome.dtype.removeprefix('torch.')}.", head, rows),
        join([element("p", "Linear layers that stay dense:"), element("ul", *dense)]) if dense else None,
    )


def _size_row(what: str, before: int, after: int) -> Sequence[object]:
    share = percent(after / before) if before else ""
    return [what, Number(say_bytes(before)), Number(say_bytes(after)), Number(share)]


_FORMULAS = """
KL: the mean over the tokens of the sum over the vocabulary of p (log p - log q), where p are the probabilities of the dense model \
and q those of the packed one, in nats. It is 0 for the same model and sees every change.
Same first choice: the share of the tokens for which both rank the same token first.
Perplexity: e to the mean of -log of the probability of the token that came. It sees only that token and may even fall by \
chance, so judge by the other two.
A text is cut into windows of at most 512 tokens, each read on its own. Another text gives other figures, and close results may \
change places.
"""


def _method(outcome: Outcome) -> Html:
    load = (
        "from bedstone.quant import BedstoneConfig  # teaches transformers to read it\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{outcome.folder.name}")'
    )
    rows = [[name, foreign(value)] for name, value in outcome.circumstances.items()]
    return element(
        "section",
        element("h2", "How it was measured, and how to load it"),
        element("ul", *(element("li", text) for text in _FORMULAS.strip().splitlines())),
        element("pre", load),
        folded("Versions and device", table("Where this was measured.", ["What", "Value"], rows)),
    )
