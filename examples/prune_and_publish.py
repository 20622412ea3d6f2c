"""Prunes a model to several sizes without training, and publishes the smallest that stays near the teacher, with its card.

    python examples/prune_and_publish.py --model_name_or_path microsoft/wavlm-base-plus --dataset_name recordings/ \
        --target_sparsity 0.3 0.5 0.72 --min_similarity 0.998 --output_dir smaller --hub_model_id my-org/wavlm-smaller

Without `--hub_model_id` nothing is published. Further options are those of `hf-prunable prune`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from hf_prunable.hub import push_folder
from hf_prunable.reporting.pruning_report import PruningReport


@dataclass
class PublishArguments:
    """Sizes, fidelity, and where the result goes."""

    output_dir: str = field(metadata={"help": "Folder of the pruned models."})
    target_sparsity: list[float] = field(
        metadata={"help": "Fractions of the encoder's parameters to remove, two or more in ascending order."}
    )
    min_similarity: float = field(
        default=0.998,
        metadata={"help": "Smallest mean cosine similarity of the hidden states to the teacher's on held-out audio."},
    )
    hub_model_id: str | None = field(
        default=None, metadata={"help": "Repository on the Hub, such as my-org/wavlm-smaller; by default no push."}
    )
    hub_private_repo: bool = field(default=False, metadata={"help": "Whether a new repository is private."})


def main() -> None:
    arguments, pruning_options = HfArgumentParser(PublishArguments).parse_args_into_dataclasses(
        return_remaining_strings=True
    )
    sizes = [str(size) for size in arguments.target_sparsity]
    options = ["--target_sparsity", *sizes, "--output_dir", arguments.output_dir, *pruning_options]
    subprocess.run([sys.executable, "-m", "hf_prunable", "prune", "--method", "one_shot", *options], check=True)
    folder = choose(Path(arguments.output_dir), arguments.min_similarity)
    print(f"The card is {folder / 'README.md'}.")
    if arguments.hub_model_id is not None:
        commit = push_folder(folder, arguments.hub_model_id, private=arguments.hub_private_repo or None)
        print(f"Pushed to {commit.repo_url}.")


def choose(output_dir: Path, min_similarity: float) -> Path:
    """Returns the folder of the smallest model that is near enough to the teacher.

    Args:
        output_dir: Folder with the folder of each pruned model.
        min_similarity: Smallest mean cosine similarity of the hidden states.
    """
    near = {}
    for path in sorted(output_dir.glob(f"*/{PruningReport.FILE_NAME}")):
        report = json.loads(path.read_text())
        similarity = statistics.fmean(report["results"]["fidelity"]["cosine"])
        num_parameters = report["sizes"]["pruned"]["num_parameters"]
        print(f"{path.parent.name}: {num_parameters:,} encoder parameters, cosine similarity {similarity:.4f}")
        if similarity >= min_similarity:
            near[num_parameters] = path.parent
    if not near:
        raise SystemExit(f"No model reaches a similarity of {min_similarity}. Give a lower `--target_sparsity`.")
    return near[min(near)]


if __name__ == "__main__":
    main()
