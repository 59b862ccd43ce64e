"""The training config: a strict YAML file with axolotl's flat keys, read and checked before anything is loaded."""

from bedstone.train.config.effective import dump_effective as dump_effective
from bedstone.train.config.identity import config_hash as config_hash
from bedstone.train.config.identity import hashed_values as hashed_values
from bedstone.train.config.load import load_config as load_config
from bedstone.train.config.load import parse_config as parse_config
from bedstone.train.config.quantization import BaseQuantization as BaseQuantization
from bedstone.train.config.quantization import base_quantization as base_quantization
from bedstone.train.config.schema import DatasetConfig as DatasetConfig
from bedstone.train.config.schema import TrainConfig as TrainConfig

__all__ = [
    "BaseQuantization",
    "DatasetConfig",
    "TrainConfig",
    "base_quantization",
    "config_hash",
    "dump_effective",
    "hashed_values",
    "load_config",
    "parse_config",
]
