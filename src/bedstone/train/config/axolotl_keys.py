"""The keys of axolotl that bedstone does not have: planned or not, and what to do instead.

bedstone shares axolotl's names, so a file written for axolotl gets an answer for every key of it. The names are those of
the schemas of the repository axolotl-ai-cloud/axolotl at 067b021 (July 2026); only names were taken.
"""

from __future__ import annotations

from bedstone.train.config.key_group import NOT_PLANNED, OTHER_NAME, PLANNED, Group

AXOLOTL_TOP_LEVEL = (
    # --- planned ---
    Group(
        PLANNED,
        "The base model is packed by `load_in_4bit`, `load_in_8bit` or `quantization`.",
        "gptq bnb_config_kwargs loftq_config model_quantization_config* qlora_* qat",
    ),
    Group(
        PLANNED,
        "Each row is an example of its own and a batch is padded to its longest row; remove the key.",
        "sample_packing* eval_sample_packing pad_to_sequence_len pad_to_multiple_of batch_flattening multipack_* "
        "pretrain_multipack_* curriculum_sampling group_by_length eval_sequence_len min_sample_len",
    ),
    Group(
        PLANNED,
        "The tokenizer and its chat template are those of `base_model`.",
        "tokenizer_* base_model_config cls_model_config chat_template* special_tokens tokens added_tokens_overrides eot_tokens "
        "default_system_message fix_untrained_tokens resize_token_embeddings_to_32x mean_resizing_embeddings "
        "shrink_embeddings embeddings_skip_upcast overrides_of_model_config overrides_of_model_kwargs model_config "
        "model_config_type model_kwargs model_revision revision_of_model rope_scaling",
    ),
    Group(PLANNED, "Use `bf16: auto` or `bf16: false`.", "fp16 float16 tf32 gpu_memory_limit max_memory"),
    Group(PLANNED, "Models run uncompiled; remove the key.", "torch_compile*"),
    Group(
        PLANNED,
        "One device trains at present; choose it with `device`.",
        "fsdp* ddp* dp_shard_size dp_replicate_size world_size local_rank accelerator_config",
    ),
    Group(
        PLANNED,
        "Each run writes its numbers to `events.jsonl` in `output_dir`.",
        "use_wandb wandb_* use_mlflow mlflow_* hf_mlflow_log_artifacts use_trackio trackio_* use_tensorboard "
        "include_tokens_per_second include_tkps profiler_steps* eval_table_size",
    ),
    Group(
        PLANNED,
        "Use `save_steps` and `eval_steps`, which count optimizer steps.",
        "saves_per_epoch evals_per_epoch save_strategy eval_strategy evaluation_strategy save_first_step dynamic_checkpoint",
    ),
    Group(
        PLANNED,
        "The adapter of the last step is exported; earlier checkpoints stay in `output_dir`.",
        "early_stopping_patience load_best_model_at_end metric_for_best_model greater_is_better loss_watchdog_* "
        "merge_lora merge_method lora_model_dir save_only_model",
    ),
    Group(
        PLANNED,
        "Data sets are local files or built at run time, and are read whole.",
        "pretraining_dataset pretraining_sample_concatenation streaming streaming_* preprocess_iterable skip_prepare_dataset "
        "dataset_prepared_path",
    ),
    Group(
        PLANNED,
        "Upload the folder `adapter` of the run with `hf upload`.",
        "hub_* push_dataset_to_hub hf_use_auth_token",
    ),
    Group(
        PLANNED,
        "Supervised fine-tuning is what there is; DPO and ORPO come later.",
        "rl rl_beta dpo_* orpo_alpha simpo_gamma cpo_alpha kto_* rpo_alpha precompute_ref_log_probs max_prompt_len",
    ),
    Group(
        PLANNED,
        "The plain implementations of torch run; remove the key.",
        "chunked_cross_entropy* cut_cross_entropy liger_* lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel "
        "use_kernels activation_offloading layer_offloading selective_checkpointing gradient_checkpointing_kwargs",
    ),
    Group(
        PLANNED,
        "Every adapter layer has `lora_r`, `lora_alpha` and peft's defaults.",
        "lora_target_parameters lora_rank_pattern lora_alpha_pattern lora_fan_in_fan_out lora_on_cpu loraplus_* "
        "peft peft_layers_* peft_layer_replication peft_init_lora_weights peft_trainable_token_indices "
        "peft_ensure_weight_tying peft_autocast_adapter_dtype unfrozen_parameters",
    ),
    Group(
        PLANNED,
        "Call `bedstone generate` after the run, or list questions in `sample_prompts`.",
        "generate_samples num_generation_samples generation_* eval_max_new_tokens do_causal_lm_eval eval_causal_lm_metrics "
        "do_bench_eval bench_* lm_eval_*",
    ),
    # --- not planned ---
    Group(
        NOT_PLANNED,
        "Use `attn_implementation: sdpa`, which runs the fastest code torch has for the device.",
        "xformers_attention flex_attention flex_attn_compile_kwargs flash_attention flash_attn_* flash_optimum sage_attention "
        "gemma4_* large_head_attention sdpa_varlen fused_attn_kernel s2_attention scaling_softmax*",
    ),
    Group(
        NOT_PLANNED,
        "One device trains at present; FSDP is planned.",
        "deepspeed deepcompile tensor_parallel_size context_parallel_size sequence_parallel_degree ring_attn_func "
        "heads_k_stride device_map use_ray ray_* resources_per_worker expert_parallel_* experimental_skip_move_to_device "
        "low_cpu_mem_usage",
    ),
    Group(
        NOT_PLANNED,
        "Other trackers can be added as a package with an entry point in the group `bedstone.trackers`.",
        "use_comet comet_* use_swanlab swanlab_* use_otel_metrics otel_metrics_*",
    ),
    Group(
        NOT_PLANNED,
        "bedstone does supervised fine-tuning, no reinforcement learning with rollouts.",
        "trl vllm vllm_* ebft reward_model process_reward_model center_rewards_coefficient num_labels nemo_gym_* hatchery "
        "diffusion kd_*",
    ),
    Group(
        NOT_PLANNED,
        "Packages extend bedstone through entry points, see `bedstone doctor`; a config loads no code.",
        "plugins trainer_cls torchdistx_path",
    ),
    Group(
        NOT_PLANNED,
        "Models are dense and read text only.",
        "quantize_moe_experts experts_implementation llama4_linearized_experts expert_backend nonexpert_quantization moe_* "
        "use_scattermoe use_sonicmoe use_dsv4_kernels use_glm_dsa_kernels dsv4_* nvfp4_* dense_mixer image_size "
        "image_resize_algorithm role_boundaries processor_* freeze_mm_modules",
    ),
    Group(
        NOT_PLANNED,
        "`optimizer: adamw_torch` has one learning rate for all weights.",
        "embedding_lr embedding_lr_scale lr_groups optim_args optim_target_modules adam_epsilon2 adam_beta3 dion_* qgalore_* "
        "grokfast_* lisa_* spectrum_*",
    ),
    Group(
        NOT_PLANNED,
        "Use `lr_scheduler` with `warmup_steps` and `cosine_min_lr_ratio`.",
        "lr_scheduler_kwargs lr_quadratic_warmup cosine_constant_lr_ratio lr_div_factor jagged_*",
    ),
    Group(
        NOT_PLANNED,
        "Remove the key.",
        "relora relora_* mora llmcompressor neftune_noise_alpha noisy_embedding_alpha use_eaft eaft_* use_pose pose_* tiled_mlp* "
        "reinit_weights use_onebitllms fp8* fp32_norms fp32_norm_classes gradio_* auto_find_batch_size "
        "is_falcon_derived_model is_llama_derived_model is_mistral_derived_model is_qwen_derived_model type_of_model "
        "model_type beta capabilities env_capabilities is_preprocess total_num_tokens total_supervised_tokens axolotl_config_path "
        "gc_steps gc_collect_steps torch_empty_cache_steps remove_unused_columns inference",
    ),
    Group(
        NOT_PLANNED,
        "Rows are read in the order of the files and shuffled each epoch from `seed`.",
        "shuffle_merged_datasets shuffle_before_merging_datasets dataset_shard_* num_dataset_shards_to_save dataset_processes "
        "dataset_num_proc dataset_exact_deduplication dataset_keep_in_memory dataloader_pin_memory "
        "dataloader_prefetch_factor dataloader_drop_last max_packed_sequence_len",
    ),
    # --- always so here ---
    Group(
        OTHER_NAME, "It is always so: unknown keys are refused, and weights are safetensors.", "strict save_safetensors"
    ),
    Group(
        OTHER_NAME,
        "Going on is asked for on the command line: `bedstone train CONFIG --resume auto`, or `--resume PATH`.",
        "resume_from_checkpoint auto_resume_from_checkpoints resume",
    ),
)

AXOLOTL_IN_DATASET = (
    Group(
        PLANNED,
        "Data sets are local files of one JSON object a line, given with `path`; or built at run time.",
        "data_files ds_type name revision shards shards_idx preprocess_shards skip",
    ),
    Group(
        PLANNED,
        "Rows are read as `type` says; the chat template is that of `base_model`.",
        "chat_template chat_template_jinja system_prompt "
        "system_format field_system format no_input_format input_format input_transform field_tools drop_system_message "
        "text_column field field_human field_model roles conversation",
    ),
    Group(NOT_PLANNED, "The end of a trained turn is always learned.", "train_on_eos train_on_eot"),
    Group(
        NOT_PLANNED,
        "Roles are learned whole; choose them with `roles_to_train`.",
        "message_field_training message_field_training_detail",
    ),
    Group(
        NOT_PLANNED,
        "Reasoning is learned as a part of the answer.",
        "field_thinking template_thinking_key split_thinking",
    ),
    Group(
        NOT_PLANNED,
        "bedstone does supervised fine-tuning on turns.",
        "logprobs_field temperature field_prompt field_chosen field_rejected "
        "prompt_format chosen_format rejected_format step_separator max_completion_length train_on_last_step_only field_completion "
        "field_label completion_format",
    ),
    Group(NOT_PLANNED, "Data sets run no code of their own.", "trust_remote_code"),
    Group(
        NOT_PLANNED,
        "Use `type: stdlib_docstrings` for data that needs no download.",
        "length min_input_id max_input_id",
    ),
)
