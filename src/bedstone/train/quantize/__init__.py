"""A model packed from the command line: loaded, packed, measured against itself, saved as a transformers folder."""

from bedstone.train.quantize.job import quantize_model as quantize_model
from bedstone.train.quantize.outcome import ComparedText as ComparedText
from bedstone.train.quantize.outcome import Outcome as Outcome

__all__ = ["ComparedText", "Outcome", "quantize_model"]
