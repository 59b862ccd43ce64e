"""Names and values that other tools use for what bedstone has under axolotl's name."""

from __future__ import annotations

from bedstone.train.config.key_group import NOT_PLANNED, OTHER_NAME, PLANNED, Group

OTHER_TOP_LEVEL = (
    Group(OTHER_NAME, "Use `attn_implementation: sdpa`.", "sdp_attention use_flash_attention flash_attn"),
    Group(OTHER_NAME, "Use `attn_implementation: eager`.", "eager_attention"),
    Group(
        OTHER_NAME,
        "Use `bf16: true`, `bf16: false` or `bf16: auto`.",
        "bfloat16 float32 fp32 mixed_precision precision dtype torch_dtype",
    ),
    Group(
        OTHER_NAME,
        "Use `micro_batch_size` (examples in one forward pass); an optimizer step sees that many times "
        "`gradient_accumulation_steps`.",
        "batch_size train_batch_size per_device_train_batch_size per_device_batch_size global_batch_size effective_batch_size",
    ),
    Group(OTHER_NAME, "Use `eval_batch_size`.", "per_device_eval_batch_size val_batch_size"),
    Group(
        OTHER_NAME,
        "Use `gradient_accumulation_steps`.",
        "grad_accum gradient_accumulation accumulation_steps accumulate_grad_batches gradient_accumulation_iters",
    ),
    Group(OTHER_NAME, "Use `num_epochs`.", "epochs epoch num_train_epochs max_epochs"),
    Group(OTHER_NAME, "Use `max_steps`.", "steps num_steps total_steps max_iters iters"),
    Group(OTHER_NAME, "Use `learning_rate`.", "lr"),
    Group(OTHER_NAME, "Use `lr_scheduler`.", "scheduler lr_scheduler_type scheduler_type"),
    Group(OTHER_NAME, "Use `warmup_steps` or `warmup_ratio`.", "warmup num_warmup_steps lr_warmup_steps"),
    Group(OTHER_NAME, "Use `optimizer`.", "optim optimiser"),
    Group(OTHER_NAME, "Use `adam_beta1` and `adam_beta2`.", "beta1 beta2 betas adam_betas"),
    Group(OTHER_NAME, "Use `adam_epsilon`.", "eps epsilon adam_eps"),
    Group(OTHER_NAME, "Use `max_grad_norm`.", "grad_clip gradient_clip gradient_clip_val clip_grad_norm max_norm"),
    Group(
        OTHER_NAME,
        "Use `base_model`.",
        "model model_name model_id model_path model_name_or_path pretrained_model_name_or_path checkpoint_dir",
    ),
    Group(
        OTHER_NAME,
        "Use `sequence_len`.",
        "max_length max_seq_length max_seq_len seq_len seq_length sequence_length cutoff_len block_size context_length",
    ),
    Group(
        OTHER_NAME,
        "Use `adapter: lora`, or leave `adapter` out to train the whole model.",
        "use_lora use_peft finetuning_type train_type",
    ),
    Group(OTHER_NAME, "Use `lora_r`.", "r rank lora_rank"),
    Group(OTHER_NAME, "Use `lora_alpha`.", "alpha"),
    Group(OTHER_NAME, "Use `lora_dropout`.", "dropout"),
    Group(
        OTHER_NAME,
        "Use `lora_target_modules`, a list, or `lora_target_linear: true`.",
        "target_modules lora_target target_layers",
    ),
    Group(OTHER_NAME, "Use `lora_modules_to_save`.", "modules_to_save additional_target"),
    Group(OTHER_NAME, "Use `peft_use_dora`.", "use_dora dora"),
    Group(OTHER_NAME, "Use `peft_use_rslora`.", "use_rslora rslora"),
    Group(
        OTHER_NAME,
        "Use `datasets`, a list of entries with `type` and `path`.",
        "data data_path data_files train_file train_data train_dataset dataset_name dataset_path dataset_format",
    ),
    Group(
        OTHER_NAME,
        "Use `test_datasets`, a list like `datasets`.",
        "eval_dataset eval_datasets eval_data validation_file val_dataset test_dataset",
    ),
    Group(
        OTHER_NAME,
        "Use `val_set_size`.",
        "val_split val_size val_ratio validation_split validation_size train_split eval_split test_size",
    ),
    Group(OTHER_NAME, "Use `train_on_inputs`.", "train_on_prompt mask_prompt completion_only_loss assistant_only_loss"),
    Group(OTHER_NAME, "Use `dataloader_num_workers`.", "num_workers workers"),
    Group(OTHER_NAME, "Use `logging_steps`.", "log_every log_interval logging_interval log_every_n_steps"),
    Group(OTHER_NAME, "Use `save_steps`.", "save_every save_interval checkpoint_every checkpoint_steps"),
    Group(OTHER_NAME, "Use `eval_steps`.", "eval_every eval_interval val_check_interval"),
    Group(OTHER_NAME, "Use `save_total_limit`.", "max_checkpoints keep_checkpoints"),
    Group(OTHER_NAME, "Use `output_dir`.", "output output_path out_dir save_dir run_name"),
    Group(OTHER_NAME, "Use `seed`.", "random_seed random_state data_seed"),
    Group(OTHER_NAME, "Use `device: cpu`.", "use_cpu no_cuda cpu force_cpu"),
    Group(OTHER_NAME, "Use `device: cuda:1` for the second CUDA device.", "cuda_device gpu gpu_id"),
)

OTHER_IN_DATASET = (
    Group(
        OTHER_NAME,
        "Set it once for all data sets, outside the list.",
        "seed sequence_length max_length sequence_len train_on_inputs",
    ),
    Group(
        OTHER_NAME,
        "Use `message_property_mappings: {role: ..., content: ...}`.",
        "message_field_role message_field_content",
    ),
    Group(OTHER_NAME, "Use `field_messages`.", "messages_field conversations_field field_conversations"),
    Group(OTHER_NAME, "Use `type`.", "dataset_type prompt_type prompt_style template"),
    Group(OTHER_NAME, "Use `path`.", "file files data_path url dataset"),
    Group(OTHER_NAME, "Use `limit`.", "max_samples num_samples max_rows n_samples"),
    Group(OTHER_NAME, "Use `field_instruction`.", "input_field instruction_field"),
    Group(OTHER_NAME, "Use `field_output`.", "output_field response_field"),
)

NESTED_SECTIONS: dict[str, dict[str, str]] = {
    "lora": {
        "r": "lora_r",
        "alpha": "lora_alpha",
        "dropout": "lora_dropout",
        "target_modules": "lora_target_modules",
    },
    "dataset": {
        "path": "datasets[0].path",
        "format": "datasets[0].type",
        "type": "datasets[0].type",
        "input_field": "datasets[0].field_instruction",
        "output_field": "datasets[0].field_output",
        "max_length": "sequence_len",
        "val_split": "val_set_size",
        "train_split": "val_set_size",
    },
    "training": {
        "epochs": "num_epochs",
        "batch_size": "micro_batch_size",
        "mixed_precision": "bf16",
    },
}
"""The sections of axolotl-rs and what their keys are called here; a key that is not listed keeps its name."""

OTHER_VALUES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "adapter": (
        ("dora", OTHER_NAME, "Use `adapter: lora` with `peft_use_dora: true`."),
        ("full", OTHER_NAME, "Leave `adapter` out to train the whole model."),
        ("llama-adapter", NOT_PLANNED, "Use `adapter: lora`."),
    ),
    "attn_implementation": (
        ("flash_attention_2", NOT_PLANNED, "Use `sdpa`, which runs the fastest code torch has for the device."),
        ("flash_attention_3", NOT_PLANNED, "Use `sdpa`, which runs the fastest code torch has for the device."),
        ("flex_attention", NOT_PLANNED, "Use `sdpa`; flex attention cannot train on a CPU."),
    ),
    "optimizer": (
        ("adamw_8bit", PLANNED, "Use `adamw_torch`."),
        ("adamw_bnb_8bit", PLANNED, "Use `adamw_torch`."),
        ("paged_adamw_8bit", PLANNED, "Use `adamw_torch`."),
        ("adamw_torch_fused", OTHER_NAME, "Use `adamw_torch`."),
        ("adamw", OTHER_NAME, "Use `adamw_torch`."),
        ("sgd", PLANNED, "Use `adamw_torch`."),
    ),
    "lr_scheduler": (
        ("constant_with_warmup", OTHER_NAME, "Use `constant` with `warmup_steps`."),
        ("cosine_with_min_lr", OTHER_NAME, "Use `cosine` with `cosine_min_lr_ratio`."),
        ("warmup_stable_decay", PLANNED, "Use `cosine`."),
    ),
    "excess_length_strategy": (("error", OTHER_NAME, "Use `raise`."),),
}
