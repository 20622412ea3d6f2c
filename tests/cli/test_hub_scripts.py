"""The scripts from a base model on a Hub to repositories on it, each in a process of its own."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import Wav2Vec2FeatureExtractor

from tests.helpers.hub_server import HubServer
from tests.helpers.processes import ROOT
from tests.helpers.speech_files import RATE, tone, write, write_speech_commands
from tests.helpers.tiny_models import tiny_stock


CARD = b"---\nlicense: mit\n---\n# A tiny model\n"
TRAINING = {
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
    "push_to_hub": True,
    "hub_private_repo": True,
    "hub_token": "hf_ada",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with a base model on it."""
    folder = tmp_path_factory.mktemp("base")
    tiny_stock("wavlm", mask_time_prob=0.0, mask_feature_prob=0.0).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    with HubServer() as hub:
        hub.add_user("ada", "hf_ada", orgs=("org",))
        hub.add_repository(
            "org/base", {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": CARD}
        )
        yield hub


def run_script(hub, folder, script, recipe, status=0):
    """Runs a script on a recipe; returns what it logged, and checks its exit status."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    environment = hub.environment(folder / "cache", OMP_NUM_THREADS="1")
    command = [sys.executable, str(ROOT / script), "recipe.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == status, done.stderr[-3000:]
    return done.stderr


def assert_push_can_be_repeated(hub, folder, log, program, model_folder, repo_id):
    """The last line tells what failed and what is kept; the command in it makes the same push."""
    assert "Traceback" not in log
    line = log.splitlines()[-1]
    assert line.startswith(f"{program}: error: {model_folder} was not pushed to {repo_id}: ")
    assert line.endswith(f"The finished output is kept in {model_folder.parts[0]}.")
    assert not (folder / f"{model_folder.parts[0]}.partial").exists() and "hf_ada" not in line
    kept = contents(folder / model_folder)
    command = shlex.split(re.search("Repeat this push with `(.*?)`", line)[1])
    assert command == ["hf-prunable", "push", str(model_folder), repo_id, "--private"]
    environment = hub.environment(folder / "cache", HF_TOKEN="hf_ada", PYTHONPATH=str(ROOT))
    command[:1] = [sys.executable, "-m", "hf_prunable"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.repositories[repo_id].files == contents(folder / model_folder)
    assert contents(folder / model_folder).keys() == kept.keys()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pruning_recipe(folder, **changes):
    """Writes audio, and returns the recipe of a small run on it."""
    for number, noise in enumerate(0.1 * np.random.default_rng(0).standard_normal((4, RATE * 3 // 10))):
        write(folder / "audio" / f"{number}.wav", noise)
    return {
        "model_name_or_path": "org/base",
        "dataset_name": "audio",
        "output_dir": "pruned",
        "hub_model_id": "org/wavlm",
        "target_sparsity": [0.2, 0.4],
        "crop_seconds": 0.1,
        "min_seconds": 0.25,
        "held_out_fraction": 0.3,
        "latency_seconds": 0.2,
        "max_steps": 2,
        "final_steps": 1,
        "gate_learning_rate": 2.0,
        "save_steps": 1,
        "per_device_train_batch_size": 2,
        **TRAINING,
        **changes,
    }


def test_run_prune_pushes_a_repository_for_each_target(hub, tmp_path):
    log = run_script(hub, tmp_path, "run_prune.py", pruning_recipe(tmp_path))
    assert set(hub.repositories) >= {"org/wavlm-sparsity-0.2", "org/wavlm-sparsity-0.4"}
    for part in ("sparsity-0.2", "sparsity-0.4"):
        repository = hub.repositories[f"org/wavlm-{part}"]
        assert repository.private and len(repository.commits) == 2
        assert repository.files == contents(tmp_path / "pruned" / part)
        assert not [name for name in repository.files if name.endswith((".bin", ".pt", ".pth"))]
        card = ModelCard(repository.files["README.md"].decode())
        assert (card.data.license, card.data.base_model) == ("mit", "org/base")
        assert f'from_pretrained("org/wavlm-{part}")' in card.text and f"# wavlm-{part}\n" in card.text
        assert f"/org/wavlm-{part}." in log
    everything = b"".join(content for repository in hub.repositories.values() for content in repository.files.values())
    assert b"hf_ada" not in everything


def test_a_push_of_run_prune_that_fails_is_one_line(hub, tmp_path):
    hub.broken_commits["org/broken-sparsity-0.2"] = 1
    recipe = pruning_recipe(tmp_path, hub_model_id="org/broken", final_steps=0)
    log = run_script(hub, tmp_path, "run_prune.py", recipe, status=2)
    # The other part is pushed.
    part = "sparsity-0.4"
    assert hub.repositories[f"org/broken-{part}"].files == contents(tmp_path / "pruned" / part)
    part = Path("pruned", "sparsity-0.2")
    assert_push_can_be_repeated(hub, tmp_path, log, "hf-prunable prune", part, "org/broken-sparsity-0.2")


def finetuning_recipe(folder, **changes):
    """Writes clips, and returns the recipe of a small run on them."""
    frequencies = {"no": 300.0, "up": 700.0, "yes": 1500.0}
    names = [f"{word}/{speaker}_nohash_{take}" for word in frequencies for speaker in "abc" for take in range(6)]
    lists = {
        split: [name for name in names if name.endswith(take)]
        for split, take in (("validation", "_4"), ("test", "_5"))
    }
    write_speech_commands(folder / "clips", names, **lists)
    generator = np.random.default_rng(0)
    for name in names:
        noise = 0.05 * generator.standard_normal(RATE // 10)
        write(folder / "clips" / f"{name}.wav", tone(0.1, frequency=frequencies[name.split("/")[0]]) + noise)
    return {
        "model_name_or_path": "org/base",
        "dataset_name": "clips",
        "output_dir": "words",
        "hub_model_id": "org/words",
        "truncate": "1",
        "profile_clips": 60,
        "n_neighbors": 5,
        "num_permutations": 2,
        "num_train_epochs": 1,
        **TRAINING,
        **changes,
    }


def test_a_push_of_run_finetune_that_fails_is_one_line(hub, tmp_path):
    hub.broken_commits["org/broken-words"] = 1
    recipe = finetuning_recipe(tmp_path, hub_model_id="org/broken-words")
    log = run_script(hub, tmp_path, "run_finetune_speech_commands.py", recipe, status=2)
    program = "hf-prunable finetune-speech-commands"
    assert_push_can_be_repeated(hub, tmp_path, log, program, Path("words"), "org/broken-words")


def test_run_finetune_pushes_a_stock_repository(hub, tmp_path):
    run_script(hub, tmp_path, "run_finetune_speech_commands.py", finetuning_recipe(tmp_path))
    repository = hub.repositories["org/words"]
    assert repository.private and len(repository.commits) == 2
    assert repository.files == contents(tmp_path / "words")
    assert repository.files.keys() == {
        "README.md",
        "config.json",
        "confusion.png",
        "layer_profile.png",
        "model.safetensors",
        "preprocessor_config.json",
        "report.json",
    }
    assert json.loads(repository.files["config.json"])["model_type"] == "wavlm"
    card = ModelCard(repository.files["README.md"].decode())
    assert (card.data.license, card.data.base_model, card.data.pipeline_tag) == (
        "mit",
        "org/base",
        "audio-classification",
    )
    report = json.loads(repository.files["report.json"])
    accuracy = report["results"]["variants"]["truncated"]["results"][0]["metrics"]["accuracy"]
    assert card.data.eval_results[0].metric_value == pytest.approx(accuracy, abs=1e-6)
    assert not os.path.exists(tmp_path / "words.partial")
