"""How much loss does a model give up when it learns ternary weights? Dense and BitLinear, equal steps, real text.

    python benchmarks/bitlinear_loss.py            # measure; writes results/bitlinear_loss.json
    python benchmarks/bitlinear_loss.py --quote    # print what the page says of it
    python benchmarks/bitlinear_loss.py --write    # put it between the markers of the page

The model is a three-layer Llama of 336,000 weights, the text the docstrings of Python's standard library in bytes and a few common words.
Both arms start from the same weights and see the same batches; only the linear layers differ (the embedding, which is also
the output head, stays dense in both, as in BitNet). Each arm gets the learning rate that was best for it on a part of the training
text, at the full number of steps and with a seed that is not used again. Then three seeds each, measured on modules that
training never mentions. Target: the ternary model's held-out loss is at most 10 % above the dense one's, for every seed.

Control: the trained dense model with its weights rounded to trits afterwards. What the straight-through training is worth is
the distance to that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# Before torch: waiting threads sleep, so that a shared machine does not slow the run tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import record
import torch

import bedstone as bs
from bedstone.quant.bitlinear_model import pack, to_bitlinear
from bedstone.repro import SeedTree
from bedstone.testing import tiny_llama, tiny_tokenizer
from bedstone.train.config import DatasetConfig
from bedstone.train.data import format_of
from bedstone.train.schedule import Schedule

STEPS, BATCH, WINDOW, MEASURED_EVERY = 250, 8, 128, 50
SEEDS, SWEEP_SEED = (1, 2, 3), 0
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
SHAPE = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3}
VALIDATION_SHARE = 0.1
TARGET = 0.10
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "train-a-ternary-model.md"
BEGIN, END = "<!-- figures: written by benchmarks/bitlinear_loss.py -->", "<!-- end of figures -->"


def tokens_of(split: str) -> torch.Tensor:
    """Return the docstrings of one split as one line of tokens."""
    dataset = DatasetConfig(type="stdlib_docstrings", split=split)
    text = "\n".join(str(row.fields["answer"]) for row in format_of(dataset).rows(dataset))
    return torch.tensor(tiny_tokenizer()(text)["input_ids"])


def windows_of(tokens: torch.Tensor) -> torch.Tensor:
    """Return `[windows, WINDOW]`: all of the text once, without the rest at its end."""
    return tokens[: len(tokens) // WINDOW * WINDOW].view(-1, WINDOW)


@torch.no_grad()
def loss_on(model: Any, windows: torch.Tensor) -> float:
    """Return the mean loss in nats a token."""
    batches = windows.split(4 * BATCH)
    total = sum(model(input_ids=batch, labels=batch).loss.item() * len(batch) for batch in batches)
    return total / len(windows)


def train(
    arm: str, seed: int, rate: float, text: torch.Tensor, measured: torch.Tensor, every: int = MEASURED_EVERY
) -> tuple[Any, list[list[float]]]:
    """Return the trained model, and its loss on `measured` at every so many steps as pairs of step and loss."""
    model = tiny_llama(seed, **SHAPE)
    if arm == "ternary":
        to_bitlinear(model)  # the output head shares the weight of the embedding and stays dense by itself
    order = SeedTree(seed).generator("batches")
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = Schedule("cosine", peak=rate, total=STEPS, warmup=STEPS // 10)
    curve = [[0, loss_on(model, measured)]]
    for step in range(1, STEPS + 1):
        starts = torch.randint(len(text) - WINDOW, (BATCH, 1), generator=order)
        batch = text[starts + torch.arange(WINDOW)]
        optimizer.param_groups[0]["lr"] = schedule.lr(step)
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % every == 0:
            curve.append([step, loss_on(model, measured)])
    return model, curve


def sweep(text: torch.Tensor) -> dict[str, dict[str, float]]:
    """Return for each arm the loss on the validation part at each learning rate."""
    cut = int(len(text) * (1 - VALIDATION_SHARE))
    found: dict[str, dict[str, float]] = {"dense": {}, "ternary": {}}
    for arm, losses in found.items():
        for rate in RATES:
            _, curve = train(arm, SWEEP_SEED, rate, text[:cut], windows_of(text[cut:]), every=STEPS)
            losses[f"{rate:g}"] = curve[-1][1]
            print(f"{arm} at {rate:g}: {curve[-1][1]:.4f}", flush=True)
    return found


def compare(seed: int, rates: dict[str, float], text: torch.Tensor, held_out: torch.Tensor) -> dict[str, Any]:
    """Return curves and final losses of one seed."""
    dense, dense_curve = train("dense", seed, rates["dense"], text, held_out)
    bs.quantize(dense, "ternary")
    ternary, ternary_curve = train("ternary", seed, rates["ternary"], text, held_out)
    packed = pack(ternary)
    result = {
        "seed": seed,
        "dense": dense_curve[-1][1],
        "ternary": ternary_curve[-1][1],
        "ratio": ternary_curve[-1][1] / dense_curve[-1][1],
        "ternary_packed": loss_on(ternary, held_out),
        "dense_rounded_afterwards": loss_on(dense, held_out),
        "linear_bytes": {"dense": sum(p.dense_bytes for p in packed), "packed": sum(p.packed_bytes for p in packed)},
        "curves": {"dense": dense_curve, "ternary": ternary_curve},
    }
    print({name: value for name, value in result.items() if name != "curves"}, flush=True)
    return result


def measure() -> bool:
    """Measure, write the result file, and tell whether the target is met."""
    torch.set_num_threads(2)
    started = time.monotonic()
    text, held_out = tokens_of("train"), windows_of(tokens_of("heldout"))
    losses = sweep(text)
    rates = {arm: float(min(found, key=found.__getitem__)) for arm, found in losses.items()}
    runs = [compare(seed, rates, text, held_out) for seed in SEEDS]
    met = all(run["ratio"] <= 1 + TARGET for run in runs)
    figures = {
        "steps": STEPS,
        "batch": BATCH,
        "window": WINDOW,
        "shape": SHAPE,
        "weights": tiny_llama(**SHAPE).num_parameters(),
        "tokens": {"train": len(text), "heldout": held_out.numel()},
        "validation_loss_by_rate": losses,
        "rates": rates,
        "runs": runs,
        "ratio": record.spread([run["ratio"] for run in runs]),
        "target_ratio": 1 + TARGET,
        "met": met,
        "seconds": time.monotonic() - started,
    }
    record.write("bitlinear_loss", figures, packages=("torch", "transformers"))
    return met


def section() -> str:
    """Return what the page says, as Markdown."""
    figures = json.loads((record.RESULTS / "bitlinear_loss.json").read_text(encoding="utf-8"))["figures"]
    runs, ratio = figures["runs"], figures["ratio"]
    size = runs[0]["linear_bytes"]
    rates = figures["validation_loss_by_rate"]
    lines = [
        (
            f"A Llama of {figures['weights']:,} weights, trained from scratch on the docstrings of the standard library for "
            f"{figures['steps']} steps of {figures['batch'] * figures['window']:,} tokens, ends with a held-out loss "
            f"{ratio['min'] - 1:.1%} to {ratio['max'] - 1:.1%} above that of the same model with dense layers "
            f"({len(runs)} seeds, the same first weights and batches; target: at most {figures['target_ratio'] - 1:.0%}). "
            f"The weights of its linear layers take {size['packed']:,} bytes packed and {size['dense']:,} dense."
        ),
        "",
        "| seed | dense | BitLinear | ratio | BitLinear, packed | dense, rounded to trits afterwards |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run['seed']} | {run['dense']:.4f} | {run['ternary']:.4f} | {run['ratio']:.3f} | {run['ternary_packed']:.4f} "
        f"| {run['dense_rounded_afterwards']:.4f} |"
        for run in runs
    ]
    lines += [
        "",
        "Held-out loss in nats a token, median of the seeds, on the way:",
        "",
        *_curve_table(runs),
        "",
        (
            "Each arm has the learning rate that was best for it on a tenth of the training text, with another seed: "
            + "; ".join(
                f"{arm} {', '.join(f'{rate}: {loss:.3f}' for rate, loss in found.items())}"
                for arm, found in rates.items()
            )
            + "."
        ),
    ]
    return "\n".join(lines)


def _curve_table(runs: list[dict[str, Any]]) -> list[str]:
    steps = [int(step) for step, _ in runs[0]["curves"]["dense"]]
    rows = [f"| step | {' | '.join(map(str, steps))} |", "|---" * (len(steps) + 1) + "|"]
    for arm, name in (("dense", "dense"), ("ternary", "BitLinear")):
        losses = [statistics.median(run["curves"][arm][place][1] for run in runs) for place in range(len(steps))]
        rows.append(f"| {name} | {' | '.join(f'{loss:.3f}' for loss in losses)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quote", action="store_true", help="print the section of the page, measure nothing")
    parser.add_argument("--write", action="store_true", help="put the section into the page, measure nothing")
    args = parser.parse_args()
    if args.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{section()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    elif args.quote:
        print(section())
    else:
        sys.exit(not measure())


if __name__ == "__main__":
    main()
