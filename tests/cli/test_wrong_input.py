"""Wrong input to the commands, each in a process of its own: one line on the standard error and exit status 2."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import yaml
from transformers import BertConfig, Wav2Vec2FeatureExtractor

from tests.helpers.processes import helper_command, with_root
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_stock


RECIPE = {
    "model_name_or_path": "dense",
    "dataset_name": "audio",
    "output_dir": "out",
    "target_sparsity": 0.4,
    "crop_seconds": 0.1,
    "min_seconds": 0.25,
    "use_cpu": True,
}
WIDE = ("--teacher_name_or_path", "wide")
# What is given, and what the line says.
WRONG = {
    "misspelt option": (
        ["prune", "recipe.yaml", "--max_stps", "3"],
        "no option `--max_stps`. Did you mean `max_steps`?",
    ),
    "misspelt in recipe": (
        ["prune", "misspelt.yaml"],
        "no option `max_stps` in misspelt.yaml. Did you mean `max_steps`?",
    ),
    "no effect": (["prune", "recipe.yaml", "--num_train_epochs", "3"], "has no effect here. Set the steps of the two"),
    "no effect of a seed": (["finetune-speech-commands", "--seed", "3"], "`--seed` has no effect here. Use `seeds`"),
    "not a number": (["prune", "recipe.yaml", "--max_steps", "many"], "--max_steps: invalid int value: 'many'"),
    "not a choice": (["prune", "recipe.yaml", "--lr_scheduler_type", "x"], "invalid choice: 'x' (choose from"),
    "not an objective": (
        ["prune", "recipe.yaml", "--objective", "x"],
        "`objective` is 'x'; choose from 'distillation'",
    ),
    "missing options": (["prune"], "required: --model_name_or_path, --dataset_name"),
    "missing recipe": (["prune", "nowhere.yaml"], "The recipe 'nowhere.yaml' does not exist."),
    "broken recipe": (["prune", "broken.yaml"], "broken.yaml, line 2: "),
    "missing model": (["prune", "recipe.yaml", "--model_name_or_path", "org/nowhere"], "org/nowhere"),
    "other model": (
        ["prune", "recipe.yaml", "--model_name_or_path", "bert"],
        "Model type 'bert' cannot be pruned here.",
    ),
    "missing teacher": (["prune", "recipe.yaml", "--teacher_name_or_path", "./nowhere"], "nowhere"),
    "missing audio": (["prune", "recipe.yaml", "--dataset_name", "./nowhere"], "there is no such file or folder"),
    "no audio": (["prune", "recipe.yaml", "--dataset_name", "bert"], "no audio in it"),
    "target too high": (["prune", "recipe.yaml", "--target_sparsity", "0.99"], "is 0.99, and removing all units"),
    "not a method": (["prune", "recipe.yaml", "--method", "x"], "`method` is 'x'; choose from 'gates', 'one_shot'"),
    "steps without gates": (
        ["prune", "recipe.yaml", "--method", "one_shot", "--max_steps", "9"],
        "`max_steps` has no effect with the method 'one_shot', only with 'gates'.",
    ),
    "option of another method": (
        ["prune", "recipe.yaml", "--method", "gates", "--calibration_clips", "9"],
        "`calibration_clips` has no effect with the method 'gates', only with 'one_shot', `refit` or a `gate_start` other",
    ),
    "refit of one-shot pruning": (
        ["prune", "recipe.yaml", "--method", "one_shot", "--refit"],
        "`refit` has no effect with the method 'one_shot', only with 'gates' or 'magnitude', because",
    ),
    "not a start of gates": (
        ["prune", "recipe.yaml", "--gate_start", "x"],
        "`gate_start` is 'x'; choose from 'weights', 'rotated', 'one_shot'",
    ),
    "not a kind of projections": (
        ["prune", "recipe.yaml", "--method", "gates", "--distillation_projections", "x"],
        "`distillation_projections` is 'x'; choose from 'auto', 'none', 'shared', 'each'",
    ),
    "no projections to a wider teacher": (
        ["prune", "recipe.yaml", "--max_steps", "9", "--distillation_projections", "none", *WIDE],
        "size of the student is 24 and that of the teacher 36. Choose 'shared', one projection for all layers but the first",
    ),
    "too little audio for statistics": (
        ["prune", "recipe.yaml", "--method", "one_shot", "--calibration_seconds", "0.25"],
        "the training clips hold only 11 crops of that length",
    ),
    "two kinds of target": (["prune", "recipe.yaml", "--target_macs", "0.5"], "target_macs"),
    "output in use": (["prune", "recipe.yaml", "--output_dir", "audio"], "audio' is not empty"),
    "no labels": (["prune", "recipe.yaml", "--objective", "task", "--task", "ctc"], "text"),
    "push offline": (
        ["prune", "recipe.yaml", "--push_to_hub", "--hub_model_id", "org/m"],
        "A push to org/m would fail",
    ),
    "missing model to truncate": (
        [
            "finetune-speech-commands",
            "--model_name_or_path",
            "org/nowhere",
            "--dataset_name",
            "x",
            "--output_dir",
            "o",
        ],
        "org/nowhere",
    ),
    "missing archive": (
        [
            "finetune-speech-commands",
            "--model_name_or_path",
            "dense",
            "--dataset_name",
            "./nowhere",
            "--output_dir",
            "o",
        ],
        "nowhere",
    ),
    "export of nothing": (["export", "./nowhere", "model.onnx"], "nowhere"),
    "export to a folder": (["export", "dense", "audio"], "'audio' is a folder"),
    "push of nothing": (["push", "audio", "org/m"], "audio"),
    "wrong results": (["superb", "recipe.yaml"], "recipe.yaml, line 1: "),
    "missing results": (["superb", "nowhere.json"], "No such file"),
    "wrong command": (["prnue"], "there is no command 'prnue'. Did you mean `prune`?"),
}


@dataclass
class Outcome:
    status: int
    output: str
    errors: list[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a checkpoint, audio and recipes."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_stock("wavlm").save_pretrained(folder / "dense")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "dense")
    tiny_stock("wavlm", hidden_size=36, num_attention_heads=6).save_pretrained(folder / "wide")
    BertConfig().save_pretrained(folder / "bert")
    for number, noise in enumerate(0.1 * np.random.default_rng(0).standard_normal((12, RATE * 3 // 10))):
        write(folder / "audio" / f"{number}.wav", noise)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "misspelt.yaml").write_text(yaml.safe_dump({**RECIPE, "max_stps": 3}))
    (folder / "broken.yaml").write_text("max_steps: 3\noutput_dir: a: b\n")
    return folder


@pytest.fixture(scope="module")
def outcomes(folder):
    jobs = [
        {"name": str(number), "arguments": arguments, "folder": str(folder)}
        for number, (arguments, _) in enumerate(WRONG.values())
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = with_root() | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [*helper_command("forked_commands"), str(folder / "jobs.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def read(job):
        texts = [(folder / f"{job['name']}.{suffix}").read_text() for suffix in ("status", "out", "err")]
        return Outcome(int(texts[0]), texts[1], texts[2].splitlines())

    return {name: read(job) for name, job in zip(WRONG, jobs, strict=True)}


@pytest.mark.parametrize("name", WRONG)
def test_one_line_and_exit_status_2(outcomes, name):
    outcome, (arguments, message) = outcomes[name], WRONG[name]
    assert outcome.status == 2, outcome.errors
    program = "hf-prunable" if name == "wrong command" else f"hf-prunable {arguments[0]}"
    assert outcome.errors[-1].startswith(f"{program}: error: ")
    assert message in outcome.errors[-1]
    assert not outcome.output and not any("Traceback" in line or "usage:" in line for line in outcome.errors)


def test_nothing_is_written(outcomes, folder):
    names = {path.name for path in folder.iterdir() if path.suffix not in (".out", ".err", ".status")}
    assert names == {"audio", "bert", "broken.yaml", "dense", "jobs.json", "misspelt.yaml", "recipe.yaml", "wide"}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--max_stps", "3"], "there is no option `--max_stps`. Did you mean `max_steps`?"),
        (["--dataset_name", "./nowhere"], "there is no such file or folder"),
    ],
)
def test_under_two_ranks_the_line_is_printed_once(folder, options, message):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "hf_prunable.cli.prune", "recipe.yaml", *options]
    environment = with_root() | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if "hf-prunable prune" in line]
    assert len(lines) == 1 and lines[0].startswith("hf-prunable prune: error: ") and message in lines[0]
    assert "exitcode: 2" in done.stderr or "exitcode  : 2" in done.stderr, done.stderr
    # The only traceback is the launcher's.
    assert done.stderr.count("Traceback") == 1, os.linesep.join(lines)
