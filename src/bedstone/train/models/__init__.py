"""Base models: where they come from, and how they are loaded."""

from bedstone.train.models.load import load_model as load_model
from bedstone.train.models.load import load_settings as load_settings
from bedstone.train.models.load import load_tokenizer as load_tokenizer
from bedstone.train.models.load import longest_input as longest_input
from bedstone.train.models.load import quiet_transformers as quiet_transformers
from bedstone.train.models.source import ModelSource as ModelSource
from bedstone.train.models.source import locate as locate

__all__ = [
    "ModelSource",
    "load_model",
    "load_settings",
    "load_tokenizer",
    "locate",
    "longest_input",
    "quiet_transformers",
]
