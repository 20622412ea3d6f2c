"""Truncates a model at the layer where classes are most convex, and fine-tunes it on Speech Commands.

    python run_finetune_speech_commands.py --model_name_or_path microsoft/wavlm-base \
        --dataset_name speech_commands_v0.02 --task word --compare --output_dir wavlm-base-words

All options, the Trainer's included, are listed by `--help`; a .yaml or .json file may hold them. The same command goes on
with a run that was interrupted.
"""

from __future__ import annotations

import copy
import logging
import shlex
import shutil
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor, HfArgumentParser

from hf_prunable.checkpoints import remember_settings
from hf_prunable.clip_profiles import choose_depth, draw_profiles, profile_labels
from hf_prunable.files import check_output_directory, move_into_place, write_text_atomically
from hf_prunable.finetuning import AUTO_CLASS, FinetuningArguments, fine_tune, make_classifier
from hf_prunable.finetuning_report import FinetuningReport, Variant, draw_confusion, format_table, paired_difference
from hf_prunable.measurement import describe_machine, measure_latency, measure_size
from hf_prunable.report import verify_reload
from hf_prunable.size import SAMPLING_RATE
from hf_prunable.speech_commands_tasks import CLIP_SECONDS
from hf_prunable.student import load_complete
from hf_prunable.truncation_arguments import TruncationArguments


logger = logging.getLogger("hf_prunable")

FULL, TRUNCATED = "full", "truncated"


def finetune(options: TruncationArguments, training: FinetuningArguments) -> Path:
    """Chooses the depth, trains, measures, and writes the result to `training.output_dir` when it is complete."""
    output_dir = Path(training.output_dir)
    working_dir = output_dir.with_name(f"{output_dir.name}.partial")
    check_output_directory(output_dir)
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.model_name_or_path)
    with training.main_process_first(desc="reading the clips"):
        splits, skipped = options.load_clips(feature_extractor.sampling_rate)
        if training.process_index == 0:
            remember_settings(working_dir, asdict(options) | training.settings(), options.override)

    features_dir = working_dir / "features"
    with training.main_process_first(desc="scoring the layers"):
        base = load_complete(options.model_name_or_path)
        stages = {"pretrained": profile_labels(base, splits["train"], feature_extractor, options, features_dir)}
    choice = choose_depth(stages["pretrained"], options)
    depth = base.config.num_hidden_layers
    is_truncated = choice is not None and choice.num_layers < depth
    depths = {FULL: depth} if options.compare or not is_truncated else {}
    if is_truncated:
        depths[TRUNCATED] = choice.num_layers
    elif choice is not None:
        logger.warning(f"All {depth} layers are kept, by {choice.criterion}; there is nothing to compare or to save.")

    class_names = splits["train"].features["label"].names
    models, results = {}, defaultdict(list)
    for seed in options.seeds:
        for name, num_layers in depths.items():
            args = copy.copy(training)
            args.seed, args.output_dir = seed, str(working_dir / f"{name}_seed_{seed}")
            model = make_classifier(options, class_names, num_layers, seed)
            results[name].append(fine_tune(model, splits, feature_extractor, args))
            # The first seed's model is measured and kept.
            models.setdefault(name, model.cpu().eval())
    if training.process_index > 0:
        return output_dir

    stages["fine-tuned"] = profile_labels(next(iter(models.values())), splits["train"], feature_extractor, options)
    latency = measure_latency(
        {name: model.to_stock() if model.is_stock else model for name, model in models.items()}, seconds=CLIP_SECONDS
    )
    references = splits["test"]["label"][:]
    report = FinetuningReport(
        command=shlex.join(["python", *sys.argv]),
        model_name=options.model_name_or_path,
        task=options.task,
        machine=describe_machine("cpu"),
        class_names=class_names,
        num_clips={name: len(split) for name, split in splits.items()},
        num_skipped={cause: len(names) for cause, names in skipped.names.items()},
        choice=None if choice is None else asdict(choice),
        variants={
            name: Variant(depths[name], measure_size(model).num_parameters, latency[name], results[name])
            for name, model in models.items()
        },
        references=references,
        difference=paired_difference(results[FULL], results[TRUNCATED], references) if len(depths) == 2 else None,
        profiles={
            stage: {label: profile.to_dict() for label, profile in profiles.items()}
            for stage, profiles in stages.items()
        },
    )
    name, model = list(models.items())[-1]
    folder = working_dir / "result"
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    report.save(folder)
    draw_profiles(stages, choice, options.task, folder / "layer_profile.png")
    draw_confusion(references, results[name][0].predictions, class_names, folder / "confusion.png")
    write_text_atomically(
        folder / "report.md",
        f"# {output_dir.name}\n\n{format_table(report)}\n![Convexity of the layers](layer_profile.png)\n\n"
        "![What clips are taken for](confusion.png)\n",
    )
    input_values = torch.randn(2, SAMPLING_RATE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        hidden_states = model(input_values, output_hidden_states=True).hidden_states
    verify_reload(folder, input_values, hidden_states, AUTO_CLASS)
    move_into_place(folder, output_dir)
    shutil.rmtree(working_dir, ignore_errors=True)
    logger.info(f"{format_table(report)}\nThe model is in {output_dir}.")
    return output_dir


def main() -> None:
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    parser = HfArgumentParser((TruncationArguments, FinetuningArguments))
    if len(sys.argv) == 2 and sys.argv[1].endswith((".yaml", ".yml", ".json")):
        read = parser.parse_json_file if sys.argv[1].endswith(".json") else parser.parse_yaml_file
        arguments = read(sys.argv[1])
    else:
        arguments = parser.parse_args_into_dataclasses()
    finetune(*arguments)


if __name__ == "__main__":
    main()
