"""Options that the commands show in their help, and options of transformers' Trainer that have no effect in them."""

from __future__ import annotations

from collections.abc import Mapping

from ..runtime.options import OptionTable


# Short help texts for options of `transformers.TrainingArguments`.
TRAINER_HELP = {
    "output_dir": "Output folder, new or empty.",
    "lr_scheduler_type": "Learning rate after warm-up: linear, cosine, constant, ...",
    "weight_decay": "Weight decay.",
    "gradient_accumulation_steps": "Micro-batches per device and optimizer step.",
    "bf16": "Train in bfloat16 mixed precision.",
    "use_cpu": "Train on the CPU even if there is a GPU.",
    "seed": "Random seed of held-out clips, crops, gate noise and dropout.",
    "dataloader_num_workers": "Number of processes per device that read audio.",
    "report_to": "Trackers of the curves: tensorboard, wandb, trackio, ... or none.",
    "push_to_hub": "Push the finished model to the Hub.",
    "hub_model_id": "Repository on the Hub, such as ORG/NAME; by default the output folder's name.",
    "hub_private_repo": "Make a new repository private.",
}
FINETUNING_HELP = {
    "max_steps": "Number of optimizer steps, instead of `num_train_epochs`.",
    "max_grad_norm": "Maximum norm of the gradients.",
}

PRUNING_GROUPS = {
    "what to prune": (
        "model_name_or_path teacher_name_or_path method target_sparsity target_macs mac_seconds target_loss "
        "target_similarity round_to prune_units stock_shape"
    ),
    "data": (
        "dataset_name dataset_config_name dataset_split streaming min_seconds held_out_fraction held_out_clips "
        "dataloader_num_workers"
    ),
    "objective": ("objective distillation_layers distillation_projections crop_seconds task label_column task_weight"),
    "gates": ("ste initial_drop_rate gate_learning_rate multiplier_learning_rate sparsity_warmup_steps"),
    "one-shot pruning": "calibration_clips calibration_seconds rounds",
    "training": (
        "max_steps final_steps learning_rate final_learning_rate warmup_steps final_warmup_steps lr_scheduler_type "
        "max_grad_norm freeze_feature_encoder per_device_train_batch_size per_device_eval_batch_size "
        "gradient_accumulation_steps bf16 use_cpu seed"
    ),
    "output": (
        "output_dir override latency_seconds logging_steps eval_steps save_steps report_to push_to_hub hub_model_id "
        "hub_private_repo"
    ),
}
PRUNING_RARE_GROUPS = {
    "what to prune, seldom needed": "keep_other_weights",
    "objective and gates, seldom needed": (
        "shortest_crop_seconds distillation_form share_projections gate_start initial_norm_spread refit"
    ),
    "one-shot pruning, seldom needed": (
        "ridge curve_clips price_clips price_fraction reconstruction_steps reconstruction_frames reconstruction_rate "
        "calibration_batch_size allow_few_frames compare_ragged"
    ),
    "output, seldom needed": "save_total_limit",
}
FINETUNING_GROUPS = {
    "what to truncate": "model_name_or_path truncate layer_criterion n_neighbors max_pairs profile_clips num_permutations",
    "data": (
        "dataset_name dataset_config_name task words min_clips_per_speaker label_column audio_column group_column "
        "profile_columns min_clips_per_class clip_seconds split_seed dataloader_num_workers"
    ),
    "classifier": "weighted_layers freeze_feature_encoder freeze_base_model compare seeds",
    "training": (
        "num_train_epochs max_steps learning_rate warmup_steps lr_scheduler_type weight_decay max_grad_norm "
        "per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps bf16 use_cpu eval_strategy "
        "load_best_model_at_end metric_for_best_model"
    ),
    "output": (
        "output_dir override logging_steps save_strategy save_total_limit report_to push_to_hub hub_model_id "
        "hub_private_repo"
    ),
}

# What to do instead of giving options that have no effect, by the names of the options.
REFUSED_BY_BOTH = {
    "do_train do_eval do_predict": "The command trains and evaluates in any case.",
    "resume_from_checkpoint": "The same command, given again, resumes an interrupted run.",
    "overwrite_output_dir": "Give a new `output_dir`.",
    "no_cuda": "Use `use_cpu`.",
    "remove_unused_columns label_names": "The command knows the columns of its data.",
    "group_by_length length_column_name": "There is no column of lengths.",
    "prediction_loss_only include_for_metrics batch_eval_metrics eval_do_concat_batches": (
        "The command chooses its own metrics."
    ),
    "hub_strategy hub_always_push": "The finished model is pushed in one commit.",
    "hub_revision": "Models are pushed to the main branch.",
    "neftune_noise_alpha use_cache past_index": "It is for language models.",
    "use_liger_kernel liger_kernel_config": "There are no Liger kernels for these models.",
}
REFUSED_BY_PRUNING = {
    "num_train_epochs": "Set the steps of the two stages with `max_steps` and `final_steps`.",
    "load_best_model_at_end metric_for_best_model greater_is_better": (
        "Only the model of the last step has the size of the target."
    ),
    "train_sampling_strategy data_seed dataloader_drop_last ignore_data_skip": "`seed` sets the order of the clips.",
    "label_smoothing_factor": "The task's loss is that of the model's head.",
    "average_tokens_across_devices include_num_input_tokens_seen": "Losses and throughput do not count tokens.",
    "optim_target_modules": "Weights, gates and multipliers have parameter groups of their own.",
}
REFUSED_BY_FINETUNING = {
    "seed": "Use `seeds`, one for each training.",
    "restore_callback_states_from_checkpoint": "A resumed run always restores its training time.",
}


def _table(
    groups: Mapping[str, str],
    refused: Mapping[str, str],
    help_texts: Mapping[str, str] = TRAINER_HELP,
    rare_groups: Mapping[str, str] | None = None,
) -> OptionTable:
    return OptionTable(
        groups={title: names.split() for title, names in groups.items()},
        help_texts=help_texts,
        refused={name: advice for names, advice in {**REFUSED_BY_BOTH, **refused}.items() for name in names.split()},
        rare_groups={title: names.split() for title, names in (rare_groups or {}).items()},
    )


PRUNING_TABLE = _table(PRUNING_GROUPS, REFUSED_BY_PRUNING, rare_groups=PRUNING_RARE_GROUPS)
FINETUNING_TABLE = _table(FINETUNING_GROUPS, REFUSED_BY_FINETUNING, TRAINER_HELP | FINETUNING_HELP)
