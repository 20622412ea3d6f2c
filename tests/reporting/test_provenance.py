"""Which command and which software made a result, as reports and cards say it."""

import json
import re

import pytest
import yaml

from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.reporting.provenance import Provenance, command_line, library_versions, source_commit


@pytest.mark.parametrize(
    "arguments",
    [["--hub_token", "hf_x"], ["--hub_token=hf_x"], ["--hub-token", "hf_x"], ["--hub_tok", "hf_x"]],
)
def test_the_command_is_shown_without_its_token(arguments):
    command = command_line(["/srv/run.py", "--push_to_hub", *arguments, "--output_dir", "my models"])
    assert "hf_x" not in command
    assert command.startswith("python run.py --push_to_hub --hub") and command.endswith("--output_dir 'my models'")


def test_the_command_is_shown_without_the_folders_of_a_machine():
    command = command_line(
        ["run.py", "--dataset_name", "/home/ada/speech", "--output_dir=/srv/out/words", "--seed", "1"]
    )
    assert command == "python run.py --dataset_name speech --output_dir=words --seed 1"
    command = command_line(["run.py", "--model_name_or_path", "org/model", "--dataset_name", "data/speech"])
    assert command == "python run.py --model_name_or_path org/model --dataset_name data/speech"


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_recipe_is_written_out_in_the_command(tmp_path, suffix):
    recipe = {
        "ste": False,
        "max_steps": 7,
        "seeds": [1, 2],
        "hub_token": "hf_x",
        "task": None,
        "output_dir": "my models",
    }
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(json.dumps(recipe) if suffix == "json" else yaml.safe_dump(recipe, sort_keys=False))
    assert command_line(["run.py", str(path)]) == (
        "python run.py --ste false --max_steps 7 --seeds 1 2 --hub_token ... --task none --output_dir 'my models'"
    )


def test_versions_and_commit():
    assert {"hf_prunable", "torch", "transformers"} <= library_versions().keys()
    commit = source_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}( with local changes)?", commit)
    assert Provenance.of_this_process("cpu") == Provenance(library_versions(), commit, describe_machine("cpu"))


def test_another_checkout_around_an_installed_library_says_nothing(tmp_path, monkeypatch):
    package = tmp_path / "environment" / "hf_prunable"
    package.mkdir(parents=True)
    monkeypatch.setattr("hf_prunable.reporting.provenance.PACKAGE_FOLDER", package)
    answers = {"rev-parse --show-toplevel": str(tmp_path), "rev-parse HEAD": "3f2a", "status": ""}

    def git(folder, *arguments):
        return next(answer for start, answer in answers.items() if " ".join(arguments).startswith(start))

    monkeypatch.setattr("hf_prunable.reporting.provenance._git", git)
    assert source_commit() is None
    answers["rev-parse --show-toplevel"] = str(package.parent)
    assert source_commit() == "3f2a"
    answers["status"] = " M hf_prunable/gates.py"
    assert source_commit() == "3f2a with local changes"
