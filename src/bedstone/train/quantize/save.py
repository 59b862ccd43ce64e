"""A packed model on the disk: a folder that transformers loads, with tokenizer, figures and page, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bedstone.repro.files import make_folder, write_new_file
from bedstone.repro.publish import put_in_place, temporary_folder
from bedstone.train.export import storage_errors, write_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from bedstone.quant import QuantizationReport


def save(model: Any, tokenizer: PreTrainedTokenizerBase, files: Mapping[str, bytes], target: Path) -> None:
    """Write the folder.

    Args:
        model: Packed, and marked by `mark_as_packed`.
        tokenizer: Its tokenizer.
        files: What else belongs into the folder, by name.
        target: A name that is free or an empty folder; its missing parents are made.

    Raises:
        StorageError: It could not be written; nothing is left of it.
    """
    with storage_errors(target, doing="save the packed model"):
        make_folder(target.parent)
        with temporary_folder(target.parent, target.name) as draft:
            write_model(model, tokenizer, draft)
            for name, content in files.items():
                write_new_file(draft / name, [content])
            put_in_place(draft, target)


def mark_as_packed(model: Any, report: QuantizationReport) -> None:
    """Tell transformers that the weights of a model are packed, as if it had packed them while loading.

    Args:
        model: Whose linear layers `bedstone.quantize` packed.
        report: What it returned.
    """
    from bedstone.quant import BedstoneConfig
    from bedstone.quant.formats.transformers_quantizer import BedstoneQuantizer

    config = BedstoneConfig(report.scheme, skip=[name for name, _ in report.skipped])
    model.hf_quantizer = BedstoneQuantizer(config, pre_quantized=True)
    model.config.quantization_config = config
