"""The command that started a run, as it can be given again."""

import pytest

from hf_prunable.runtime.invocation import started_command


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize(
    "arguments, program",
    [
        (["/env/bin/hf-prunable", "prune"], ["hf-prunable", "prune"]),
        (["/env/hf_prunable/__main__.py", "prune"], ["hf-prunable", "prune"]),
        (["/env/hf_prunable/cli/finetune_speech_commands.py"], ["hf-prunable", "finetune-speech-commands"]),
        (["/home/ada/run_prune.py"], ["python", "run_prune.py"]),
        (["/home/ada/__main__.py"], ["python", "__main__.py"]),
    ],
)
def test_the_command(arguments, program):
    assert started_command([*arguments, "--seed", "1"]) == (program, ["--seed", "1"])


@pytest.mark.parametrize(
    "arguments, program",
    [
        (["/env/bin/hf-prunable", "prune"], ["-m", "hf_prunable.cli.prune"]),
        (["/env/hf_prunable/cli/prune.py"], ["-m", "hf_prunable.cli.prune"]),
        (["run_prune.py"], ["run_prune.py"]),
    ],
)
def test_the_command_of_several_processes(monkeypatch, arguments, program):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert started_command(arguments) == (["accelerate", "launch", "--num_processes", "4", *program], [])


def test_a_recipe_is_written_out_with_what_overrides_it(tmp_path):
    (tmp_path / "recipe.yaml").write_text("{max_steps: 7, targets: [1, 2], use_cpu: true}")
    arguments = ["run_prune.py", str(tmp_path / "recipe.yaml"), "--targets", "3", "--max_steps=9"]
    assert started_command(arguments)[1] == ["--use_cpu", "true", "--targets", "3", "--max_steps=9"]


@pytest.mark.parametrize("arguments", [["tests"], ["settings.yaml"], ["a.txt", "--b"]])
def test_arguments_of_another_program(arguments):
    assert started_command(["/usr/bin/pytest", *arguments]) == (["python", "pytest"], arguments)
