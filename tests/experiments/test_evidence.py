"""The command of the comparison: which trainings it runs, and what it skips or refuses."""

import pytest
from transformers import Wav2Vec2FeatureExtractor

from experiments import evidence
from experiments.evidence_results import Run
from hf_prunable.data.speech_dataset import load_speech_dataset
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.stages import TrainingStages
from tests.helpers.evidence_results import result_of
from tests.helpers.speech_files import tone, write


DATA = ("--teacher", "models/a", "--dataset_name", "b", "--speech_commands", "c")


@pytest.fixture
def comparison(monkeypatch, tmp_path):
    """A function that runs the command with invented results and returns the names of its trainings."""
    made = []

    class FakeComparison:
        def __init__(self, options):
            pass

        def run(self, run, training, model_folder):
            made.append(run.name)
            return result_of(run, accuracy=0.5 + 0.01 * len(made))

    reported = []
    monkeypatch.setattr(evidence, "Comparison", FakeComparison)
    monkeypatch.setattr(evidence, "write_report", lambda results, folder: reported.append((len(results), folder)))

    def start(*arguments):
        made.clear()
        command = ["evidence", "--output_dir", str(tmp_path / "evidence"), *arguments]
        monkeypatch.setattr("sys.argv", [*command, "--max_steps", "6", "--final_steps", "3"])
        evidence.main()
        return list(made)

    start.folder, start.reported = tmp_path / "evidence", reported
    return start


def test_finished_results_are_not_made_again(comparison):
    rows = ("--rows", "learned", "teacher", "first_layers", "--seeds", "1", "2")
    names = ["teacher", *(f"{row}_0.72_seed{seed}" for seed in (1, 2) for row in ("learned", "first_layers"))]
    assert comparison(*DATA, *rows) == names
    assert comparison(*DATA, *rows) == []
    (comparison.folder / "raw" / "learned_0.72_seed2.json").unlink()
    assert comparison(*DATA, *rows) == ["learned_0.72_seed2"]
    assert comparison(*DATA, *rows, "--target_sparsities", "0.5", "0.72") == [
        f"{row}_0.5_seed{seed}" for seed in (1, 2) for row in ("learned", "first_layers")
    ]
    assert comparison("--report_only") == []
    assert comparison.reported == [(number, comparison.folder) for number in (5, 5, 5, 9, 9)]


def test_results_of_other_settings_are_named(comparison):
    comparison(*DATA, "--rows", "learned", "first_layers")
    with pytest.raises(ValueError, match=r"learned_0.72_seed42.json .*`gate_learning_rate` was 6.0 and is 0.5\. "):
        comparison(*DATA, "--rows", "learned", "--gate_learning_rate", "0.5")
    # A row without gates does not depend on the gates' learning rate, and no row on the parent folder of the data.
    assert comparison(*DATA, "--rows", "first_layers", "--gate_learning_rate", "0.5") == []
    assert comparison(*DATA, "--rows", "learned", "--dataset_name", "elsewhere/b") == []
    with pytest.raises(ValueError, match="`teacher` was 'a' and is 'z'"):
        comparison(*DATA, "--rows", "learned", "--teacher", "z")


def test_gates_of_a_ladder_learn_once(teacher, tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path / "clips" / f"{number}.wav", tone(0.1, frequency=200.0 + 50 * number))
    clips = load_speech_dataset(tmp_path / "clips").add_column("seconds", [0.1] * 4)

    class ToyEvaluation:
        train_clips, held_out_clips = clips.select(range(2)), clips.select(range(2, 4))
        feature_extractor = Wav2Vec2FeatureExtractor()

        def __init__(self, *args, **kwargs):
            pass

        def __call__(self, model):
            return {}

    monkeypatch.setattr(evidence, "EncoderEvaluation", ToyEvaluation)
    stages = []
    train = TrainingStages._train

    def noted(self, name, *args, **options):
        stages.append(name)
        return train(self, name, *args, **options)

    monkeypatch.setattr(TrainingStages, "_train", noted)
    targets = [0.5, 0.3]
    options = evidence.EvidenceArguments(
        teacher=teacher, dataset_name="b", speech_commands="c", target_sparsities=targets, crop_seconds=0.05
    )
    training = PruningTrainingArguments(
        str(tmp_path), max_steps=6, final_steps=2, per_device_train_batch_size=2, use_cpu=True, disable_tqdm=True
    )
    comparison = evidence.Comparison(options)
    for target in targets:
        result = comparison.run(Run("learned_ladder", target, 1), training, tmp_path / f"model-{target}")
        assert result["sparsity"] == pytest.approx(target, abs=0.01)
        assert (tmp_path / f"model-{target}" / "model.safetensors").exists()
    assert stages == ["stage_1", "stage_2_0.5", "stage_2_0.3"]


def test_errors_of_the_command(comparison, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no row 'lerned'; choose from learned, .*teacher"):
        comparison(*DATA, "--rows", "lerned")
    with pytest.raises(ValueError, match="no results in .*evidence"):
        comparison("--report_only")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="`--dataset_name`, `--speech_commands` must be given"):
        evidence.Comparison(evidence.EvidenceArguments(teacher="models/a"))
