"""What HF peft needs from us, nothing more: peft does adapters.

Every peft tuner wraps, trains, saves and loads a packed model as it does a dense one, since a packed layer is an ordinary
`nn.Linear`. Here is the rest: a model made ready for training, a merge that loses nothing, or says what it lost, and
errors that name what to change.

>>> import torch
>>> from peft import LoraConfig, get_peft_model
>>> import bedstone as bs
>>> from bedstone import adapters
>>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
>>> report = bs.quantize(model, "nf4")
>>> model = get_peft_model(adapters.prepare_for_adapters(model), LoraConfig(r=2, target_modules=["0", "2"]))
>>> type(adapters.merge(model)[0].weight).__name__
'Parameter'
"""

from bedstone.adapters.errors import AdapterNotFoundError as AdapterNotFoundError
from bedstone.adapters.errors import MergeError as MergeError
from bedstone.adapters.errors import RankTooLargeError as RankTooLargeError
from bedstone.adapters.merge_report import MergedLayer as MergedLayer
from bedstone.adapters.merge_report import MergeReport as MergeReport
from bedstone.adapters.merging import merge as merge
from bedstone.adapters.prepare import prepare_for_adapters as prepare_for_adapters
from bedstone.adapters.rank import check_rank as check_rank

__all__ = [
    "AdapterNotFoundError",
    "MergeError",
    "MergeReport",
    "MergedLayer",
    "RankTooLargeError",
    "check_rank",
    "merge",
    "prepare_for_adapters",
]
