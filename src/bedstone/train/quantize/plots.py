"""What is drawn of a packed model: the error of each weight, and how the change is spread over the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedstone.train.quantize.outcome import error_of
from bedstone.train.report.scale import drawable
from bedstone.train.report.svg import Plot, Point, Series
from bedstone.train.report.wording import say_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bedstone.quant import PackedLayer
    from bedstone.train.quantize.outcome import ComparedText

_DOTS = ("train", "plain", "held")
_LINES = ("smooth", "plain", "held")
_QUANTILES = 99  # in percent; the last hundredth would press the rest flat


def error_plot(layers: Sequence[PackedLayer]) -> Plot:
    """Return the error of each layer in the order of the model, layers of one kind of block in one colour.

    Args:
        layers: At least one, each measured.
    """
    kinds = list(dict.fromkeys(_kind(layer.name) for layer in layers))
    grouped = len(kinds) <= len(_DOTS)
    errors = [100 * error_of(layer) for layer in layers]
    series = [
        Series(
            name=kind or "error",
            points=tuple(
                Point(place, error, error, error)
                for place, (layer, error) in enumerate(zip(layers, errors, strict=True), start=1)
                if not grouped or _kind(layer.name) == kind
            ),
            style=style,
            shape="dots",
            say=_say_percent,
            label=kind if grouped and len(kinds) > 1 else "",
        )
        for kind, style in zip(kinds if grouped else [""], _DOTS, strict=False)
    ]
    return Plot(
        about=f"Relative error of {len(layers)} weights: from {_say_percent(min(errors))} to {_say_percent(max(errors))}.",
        y_title="relative error, percent",
        x_title="layer",
        x_range=(0, len(layers) + 1),
        series=tuple(series),
        say_x=lambda place: layers[round(place) - 1].name,
        x_whole=True,
    )


def divergence_plot(texts: Sequence[ComparedText]) -> Plot | None:
    """Return below which divergence each share of the tokens stays, a line a text; `None` when nothing can be drawn.

    Args:
        texts: Compared; the first three are drawn.
    """
    drawn = [(text, _quantiles(text)) for text in texts[: len(_LINES)]]
    if not all(points for _, points in drawn):
        return None
    series = [
        Series(name=text.name, points=points, style=style, shape="line", say=_say_nats, label=label)
        for (text, points), style, label in zip(drawn, _LINES, _labels(drawn), strict=False)
    ]
    listed = "; ".join(
        f"{text.name}: half of the tokens below {say_loss(text.divergence.kl_quantile(0.5))}" for text, _ in drawn
    )
    return Plot(
        about=f"Divergence from the dense model by share of tokens. {listed}.",
        y_title="KL, nats",
        x_title="percent of the tokens",
        x_range=(0, 100),
        series=tuple(series),
        say_x=lambda share: f"{share:.0f} % of the tokens",
        from_zero=True,
        height=160,
    )


def _quantiles(text: ComparedText) -> tuple[Point, ...]:
    values = [(share, text.divergence.kl_quantile(share / 100)) for share in range(_QUANTILES + 1)]
    return tuple(Point(x, y, y, y) for x, y in values if drawable(y))


def _labels(drawn: Sequence[object]) -> list[str]:
    return [""] if len(drawn) == 1 else [f"text {place}" for place in range(1, len(drawn) + 1)]


def _kind(name: str) -> str:
    """Return the block that a layer belongs to: `self_attn` of `model.layers.0.self_attn.q_proj`.

    >>> _kind("model.layers.0.self_attn.q_proj"), _kind("head")
    ('self_attn', '')
    """
    return name.rpartition(".")[0].rpartition(".")[2]


def _say_percent(value: float) -> str:
    return f"{value:.2f} %"


def _say_nats(value: float) -> str:
    return f"{say_loss(value)} nats"
