"""The demo: its files, and what it says when something else is in their place."""

import pytest
import torch
from transformers import AutoFeatureExtractor

from hf_prunable import load_prunable
from hf_prunable.cli import demo
from hf_prunable.pruning.trainer import GATE_DISTANCE
from hf_prunable.runtime.recipes import load_recipe


@pytest.fixture
def folder(tmp_path):
    return demo.write_teacher_and_recipe(tmp_path / "outputs").parent


def test_the_recipe_names_what_is_there(folder):
    assert {path.name for path in folder.iterdir()} == {"recipe.yaml", "wavlm-mini"}
    recipe = load_recipe(folder / "recipe.yaml")
    model = load_prunable(recipe["model_name_or_path"], dtype=torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_988_136
    assert AutoFeatureExtractor.from_pretrained(recipe["model_name_or_path"]).sampling_rate == 16000
    assert recipe["dataset_name"] == str(folder / "speech")
    assert recipe["output_dir"] == str(folder / "wavlm-mini-pruned")


def test_options_are_all_known_and_let_the_gates_settle(folder):
    options, _, _, training, _ = demo.prune.make_parser().parse([str(folder / "recipe.yaml")])
    assert options.target_sparsity == [0.72]
    steps_at_target = training.max_steps * (1 - training.sparsity_warmup_steps)
    assert training.gate_learning_rate * steps_at_target >= GATE_DISTANCE


def test_the_teacher_is_used_again(folder):
    weights = folder / "wavlm-mini" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    demo.write_teacher_and_recipe(folder)
    assert weights.stat().st_mtime_ns == before


def test_another_teacher_is_refused(folder):
    (folder / "wavlm-mini" / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="not the demo's teacher. Delete it"):
        demo.write_teacher_and_recipe(folder)


def test_a_finished_demo_is_not_overwritten(folder):
    (folder / "wavlm-mini-pruned").mkdir()
    (folder / "wavlm-mini-pruned" / "config.json").touch()
    with pytest.raises(ValueError, match="is not empty"):
        demo.write_teacher_and_recipe(folder)


def test_other_options_are_those_of_prune(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    calls = []
    monkeypatch.setattr(demo.prune, "main", calls.append)
    folder = tmp_path / "first run"
    demo.main(["--output_dir", str(folder), "--target_sparsity", "0.5", "--num_clips", "1"])
    assert calls == [[str(folder / "recipe.yaml"), "--target_sparsity", "0.5"]]
    assert len(list((folder / "speech").glob("*.flac"))) == 1


@pytest.mark.parametrize("arguments", [["--num_clips", "many"], ["--max_stps", "3"]])
def test_wrong_input_is_one_line_before_speech_is_made(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as exit_status:
        demo.main(["--output_dir", str(tmp_path / "outputs"), *arguments])
    assert exit_status.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "outputs" / "speech").exists()
