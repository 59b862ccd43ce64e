"""Training data: rows are read, rendered as text, tokenized with a mask, and put into batches.

`formats` holds the ways to write rows down; importing this package registers ours, and entry points of the group
`bedstone.datasets` are read on the first look-up.
"""

from bedstone.train.data.alpaca import Alpaca as Alpaca
from bedstone.train.data.batches import Batch as Batch
from bedstone.train.data.batches import batch_order as batch_order
from bedstone.train.data.batches import collate as collate
from bedstone.train.data.batches import fixed_order as fixed_order
from bedstone.train.data.batches import padding_id as padding_id
from bedstone.train.data.batches import train_loader as train_loader
from bedstone.train.data.chat import Chat as Chat
from bedstone.train.data.errors import DataError as DataError
from bedstone.train.data.example import IGNORED as IGNORED
from bedstone.train.data.example import Example as Example
from bedstone.train.data.example import fit as fit
from bedstone.train.data.example import tokenize as tokenize
from bedstone.train.data.format import DataFormat as DataFormat
from bedstone.train.data.format import Row as Row
from bedstone.train.data.format import Segment as Segment
from bedstone.train.data.format import format_of as format_of
from bedstone.train.data.format import formats as formats
from bedstone.train.data.jsonl import read_jsonl as read_jsonl
from bedstone.train.data.render import ChatRenderer as ChatRenderer
from bedstone.train.data.render import Turn as Turn
from bedstone.train.data.render import instruction_prompt as instruction_prompt
from bedstone.train.data.split import DataReport as DataReport
from bedstone.train.data.split import DataSplit as DataSplit
from bedstone.train.data.split import fingerprint as fingerprint
from bedstone.train.data.split import load_split as load_split
from bedstone.train.data.split import split_validation as split_validation
from bedstone.train.data.stdlib_docstrings import StdlibDocstrings as StdlibDocstrings

__all__ = [
    "IGNORED",
    "Alpaca",
    "Batch",
    "Chat",
    "ChatRenderer",
    "DataError",
    "DataFormat",
    "DataReport",
    "DataSplit",
    "Example",
    "Row",
    "Segment",
    "StdlibDocstrings",
    "Turn",
    "batch_order",
    "collate",
    "fingerprint",
    "fit",
    "fixed_order",
    "format_of",
    "formats",
    "instruction_prompt",
    "load_split",
    "padding_id",
    "read_jsonl",
    "split_validation",
    "tokenize",
    "train_loader",
]
