"""The demo: its files, and what it says when something else is in their place."""

import pytest
import torch
from transformers import AutoFeatureExtractor

from hf_prunable import load_prunable
from hf_prunable.cli import demo
from hf_prunable.data.arguments import load_speech
from hf_prunable.data.synthetic_speech import make_speech
from hf_prunable.pruning.arguments import ONE_SHOT
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


def test_the_recipe_prunes_one_shot_without_training(folder):
    recipe = demo.prune.PruningRecipe(*demo.prune.make_parser().parse([str(folder / "recipe.yaml")]))
    assert recipe.options.method == ONE_SHOT and recipe.options.target_sparsity == [0.5, 0.72]
    assert recipe.training.num_final_steps == 0


def test_the_clips_hold_the_crops_of_the_recipe(folder):
    """A clip of the demo gives one crop or none; training clips are what is left after the held-out ones."""
    pytest.importorskip("espeakng_loader")
    _, speech_options, _, _, one_shot = demo.prune.make_parser().parse([str(folder / "recipe.yaml")])
    num_clips = 60
    make_speech(folder / "speech", num_clips)
    clips = load_speech(speech_options, 16000, seed=42).train_clips
    share = sum(seconds >= one_shot.calibration_seconds for seconds in clips["seconds"]) / num_clips
    assert share * demo.make_parser().get_default("num_clips") >= 1.5 * one_shot.calibration_clips


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
