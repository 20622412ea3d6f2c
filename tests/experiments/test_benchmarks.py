"""The comparison of students: what is measured on toy data, sizes of all students, and going on where it stopped."""

import json

import numpy as np
import pytest
import soundfile
from transformers import Wav2Vec2FeatureExtractor

from benchmarks import convexity_speed
from experiments import evidence, evidence_report
from experiments.evidence_report import summarize, write_report
from experiments.evidence_results import Run, is_finished, plan_runs
from experiments.gate_curves import draw_gate_curves
from experiments.hidden_states import last_hidden_states, pooled_hidden_states
from experiments.probe import layer_probes, weighted_sum_probe
from experiments.speakers import cut_segments, speaker_utterances, without_test_segments
from experiments.students import ROWS, STUDENTS, TEACHER, uniform_shape
from experiments.units import frame_units, purity, unit_purity
from hf_prunable import PrunableWavLMConfig, compact
from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_dataset import load_speech_dataset
from hf_prunable.pruning.run import PruningRun
from hf_prunable.pruning.training_arguments import PruningTrainingArguments
from tests.helpers.speech_files import RATE, tone, write
from tests.helpers.tiny_models import tiny_stock


TARGET = 0.5
SPLIT_SIZES = {"train": 120, "validation": 40, "test": 200}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a model whose units make up most of it, so that the sizes can be met closely."""
    folder = tmp_path_factory.mktemp("teacher")
    tiny_stock("wavlm", intermediate_size=160).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


def toy_features(signal, num_classes=4, seed=0):
    """Three hidden states of which only the second one knows the class."""
    generator = np.random.default_rng(seed)
    centers = signal * generator.standard_normal((num_classes, 12))
    features, labels = {}, {}
    for split, size in SPLIT_SIZES.items():
        classes = generator.integers(num_classes, size=size)
        features[split] = generator.standard_normal((size, 3, 12)).astype(np.float32)
        features[split][:, 1] += centers[classes]
        labels[split] = [f"class {number}" for number in classes]
    return features, labels


def test_weighted_sum_probe_finds_the_hidden_state_that_knows():
    result = weighted_sum_probe(*toy_features(signal=5.0))
    assert result["accuracy"] == 1.0
    assert np.argmax(result["layer_weights"]) == 1
    assert sum(result["layer_weights"]) == pytest.approx(1)
    assert (result["classes"], result["test_clips"]) == (4, 200)


def test_probes_are_at_chance_on_noise():
    features, labels = toy_features(signal=0.0)
    assert weighted_sum_probe(features, labels)["accuracy"] == pytest.approx(0.25, abs=0.1)
    assert layer_probes(features, labels)["mean_over_layers"] == pytest.approx(0.25, abs=0.1)


def test_weighted_sum_probe_repeats_itself_and_ignores_the_scale_of_hidden_states():
    features, labels = toy_features(signal=1.0)
    first = weighted_sum_probe(features, labels)
    assert weighted_sum_probe(features, labels) == first
    scales = np.array([1, 1000, 0.01], dtype=np.float32)[None, :, None]
    scaled = {split: values * scales for split, values in features.items()}
    assert weighted_sum_probe(scaled, labels)["accuracy"] == pytest.approx(first["accuracy"], abs=0.02)


def test_weighted_sum_probe_counts_an_unknown_class_as_wrong():
    features, labels = toy_features(signal=5.0)
    labels["test"] = ["never trained on"] * SPLIT_SIZES["test"]
    assert weighted_sum_probe(features, labels)["accuracy"] == 0.0


def test_purity():
    generator = np.random.default_rng(0)
    reference = generator.integers(20, size=20_000)
    assert purity(reference, reference) == 1.0
    assert purity((reference + 7) % 20, reference) == 1.0
    assert purity(generator.integers(20, size=20_000), reference) == pytest.approx(1 / 20, abs=0.02)
    # Of three and of two frames, two and one have the most frequent label.
    assert purity(np.array([0, 0, 0, 1, 1]), np.array([4, 4, 5, 5, 4])) == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="5 units and 4 reference labels"):
        purity(np.zeros(5), np.zeros(4))


def test_unit_purity_is_high_for_the_teacher_itself_and_low_for_noise():
    generator = np.random.default_rng(0)
    centers = 10 * generator.standard_normal((10, 8))
    frames = centers[generator.integers(10, size=1000)] + generator.standard_normal((1000, 8))
    units = frame_units(frames, seed=0)
    own = unit_purity(frames, units)
    assert (own["units"], own["frames"]) == (20, 1000)
    noise = unit_purity(generator.standard_normal((1000, 8)), units)
    assert own["purity"] > 0.5 > noise["purity"] >= noise["purity_by_chance"] - 0.05


def test_hidden_states_do_not_depend_on_the_batch():
    model = tiny_stock("wavlm")
    feature_extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False)
    generator = np.random.default_rng(0)
    waveforms = [generator.standard_normal(size).astype(np.float32) for size in (800, 1200, 800, 1200, 1200)]
    pooled = pooled_hidden_states(model, feature_extractor, waveforms)
    frames = last_hidden_states(model, feature_extractor, waveforms)
    assert pooled.shape == (5, 4, 24)
    start = 0
    for number, waveform in enumerate(waveforms):
        alone = last_hidden_states(model, feature_extractor, [waveform])
        np.testing.assert_allclose(frames[start : start + len(alone)], alone, atol=1e-5)
        np.testing.assert_allclose(pooled[number, -1], alone.mean(0), atol=1e-5)
        start += len(alone)
    assert start == len(frames)


def test_segments_of_speakers_are_kept_from_training(tmp_path):
    generator = np.random.default_rng(0)
    lengths = {"7-1-0000": 9.5, "7-1-0001": 20, "12-3-0004": 14, "30-3-0000": 5}
    for name, seconds in lengths.items():
        soundfile.write(tmp_path / f"{name}.flac", 0.1 * generator.standard_normal(round(seconds * RATE)), RATE)
    utterances = speaker_utterances(tmp_path, RATE)
    assert sorted(utterances["speaker"]) == ["12", "7"]
    whole = {clip["speaker"]: decode_audio(clip["audio"], RATE) for clip in utterances}
    segments = {speaker: cut_segments(waveform, RATE) for speaker, waveform in whole.items()}
    assert {split: len(parts) for split, parts in segments["12"].items()} == {"train": 9, "validation": 1, "test": 2}
    assert {split: len(parts) for split, parts in segments["7"].items()} == {"train": 6, "validation": 1, "test": 2}
    np.testing.assert_array_equal(np.concatenate(segments["12"]["test"]), whole["12"][-2 * RATE :])
    trained = without_test_segments(load_speech_dataset(tmp_path), utterances, RATE)
    seconds = {
        clip["audio"]["path"].split("/")[-1][:-5]: len(decode_audio(clip["audio"], RATE)) / RATE for clip in trained
    }
    assert seconds == {"7-1-0000": 7.5, "7-1-0001": 20, "12-3-0004": 12, "30-3-0000": 5}
    soundfile.write(tmp_path / "noise.wav", np.zeros(10 * RATE), RATE)
    with pytest.raises(ValueError, match="noise.wav .* SPEAKER-CHAPTER-UTTERANCE"):
        speaker_utterances(tmp_path, RATE)


@pytest.mark.parametrize("row", STUDENTS)
def test_every_student_has_the_size_asked_for(row, teacher):
    student = STUDENTS[row].make(teacher, TARGET)
    assert (student.config.gates is not None) == STUDENTS[row].learns_gates
    if STUDENTS[row].learns_gates:
        student = compact(student, TARGET)
    size = (1 - TARGET) * student.config.dense_num_parameters
    # Within less than one intermediate unit of two times 24 weights and a bias.
    assert size - 49 < student.num_parameters() <= size
    assert student.dtype.is_floating_point and student.dtype.itemsize == 4


def test_uniform_width_keeps_the_largest_weights_of_each_head(teacher):
    student = STUDENTS["uniform_width"].make(teacher, TARGET)
    layers = student.config.shape.layers
    assert len({layer.attention for layer in layers}) == 1
    widths = layers[0].attention
    assert widths.heads == (0, 1, 2, 3)
    assert len({*widths.query_key, *widths.value_output}) == 1
    intermediates = [layer.intermediate for layer in layers]
    assert intermediates == sorted(intermediates, reverse=True)
    assert intermediates[0] - intermediates[-1] <= 1
    assert widths.query_key[0] / 6 == pytest.approx(intermediates[0] / 160, abs=1 / 6)
    dense = STUDENTS["learned"].make(teacher, TARGET).encoder.layers[1].feed_forward
    norms = dense.output_dense.weight.norm(dim=0)
    kept = norms.topk(intermediates[1]).indices.sort().values
    small = student.encoder.layers[1].feed_forward.output_dense.weight
    np.testing.assert_array_equal(small.detach(), dense.output_dense.weight[:, kept].detach())


def test_from_scratch_has_the_uniform_shape_and_no_weight_of_the_teacher(teacher):
    shaped, fresh = (STUDENTS[row].make(teacher, TARGET) for row in ("uniform_width", "from_scratch"))
    assert fresh.config.shape == shaped.config.shape
    ours, theirs = fresh.state_dict(), shaped.state_dict()
    assert ours.keys() == theirs.keys()
    assert not any(ours[name].equal(theirs[name]) for name in ours)


def test_uniform_shape_refuses_what_cannot_be_met(teacher):
    config = PrunableWavLMConfig.from_pretrained(teacher)
    with pytest.raises(ValueError, match="0.99.*Ask for less"):
        uniform_shape(config, 0.99)


@pytest.mark.parametrize("row", STUDENTS)
def test_every_student_trains_for_the_same_number_of_steps(row, tmp_path):
    student = STUDENTS[row]
    given = PruningTrainingArguments(output_dir=str(tmp_path), max_steps=60, final_steps=40, learning_rate=0.5)
    training = student.training(given, None)
    assert (training.max_steps if student.learns_gates else 0) + training.final_steps == 100
    assert bool(training.final_steps) == student.trains_on
    if not student.learns_gates:
        assert training.final_learning_rate == 0.5
        assert student.training(given, 0.1).final_learning_rate == 0.1
    assert (given.max_steps, given.final_steps) == (60, 40)


def result_of(run, accuracy=0.5):
    """A result as `Comparison.run` gives it."""
    values = {"num_parameters": 500, "sparsity": TARGET, "macs": 10**9, "history": [], "shape": {}}
    values["words"] = {"accuracy": accuracy, "last_layer": 0.4, "mean_over_layers": 0.3, "classes": 2, "test_clips": 4}
    values["speakers"] = {"accuracy": accuracy, "classes": 3, "test_clips": 6}
    values["units"] = {"purity": accuracy, "purity_by_chance": 0.1, "units": 100, "frames": 5000}
    return values if run.row == TEACHER else values | {"held_out_loss": 0.1}


@pytest.fixture
def comparison(monkeypatch, tmp_path):
    """Runs the command with results out of the air; gives the runs that it made."""
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


DATA = ("--teacher", "models/a", "--dataset_name", "b", "--speech_commands", "c")


def test_finished_results_are_not_made_again(comparison):
    rows = ("--rows", "learned", "teacher", "first_layers", "--seeds", "1", "2")
    names = ["teacher", *(f"{row}_0.72_seed{seed}" for seed in (1, 2) for row in ("learned", "first_layers"))]
    assert comparison(*DATA, *rows) == names
    assert comparison(*DATA, *rows) == []
    (comparison.folder / "learned_0.72_seed2.json").unlink()
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
    # The gates' rate does not concern a row without gates, the folder above the data no row at all.
    assert comparison(*DATA, "--rows", "first_layers", "--gate_learning_rate", "0.5") == []
    assert comparison(*DATA, "--rows", "learned", "--dataset_name", "elsewhere/b") == []
    with pytest.raises(ValueError, match="`teacher` was 'a' and is 'z'"):
        comparison(*DATA, "--rows", "learned", "--teacher", "z")


def test_a_result_without_settings_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / "learned.json"
    path.write_text(json.dumps({"row": "learned"}))
    with pytest.raises(ValueError, match="`max_steps` was None and is 5"):
        is_finished(path, {"max_steps": 5})


def test_gates_of_a_ladder_learn_once(teacher, tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path / "clips" / f"{number}.wav", tone(0.1, frequency=200.0 + 50 * number))
    clips = load_speech_dataset(tmp_path / "clips").add_column("seconds", [0.1] * 4)

    class ToyMeasures:
        train_clips, held_out_clips = clips.select(range(2)), clips.select(range(2, 4))
        feature_extractor = Wav2Vec2FeatureExtractor()

        def __init__(self, *args, **kwargs):
            pass

        def __call__(self, model):
            return {}

    monkeypatch.setattr(evidence, "Measures", ToyMeasures)
    stages = []
    train = PruningRun._train
    monkeypatch.setattr(
        PruningRun, "_train", lambda run, stage, *args: stages.append(stage) or train(run, stage, *args)
    )
    targets = [0.5, 0.3]
    options = evidence.EvidenceArguments(teacher, "b", "c", target_sparsities=targets, crop_seconds=0.05)
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


def test_means_and_spreads(tmp_path):
    runs = plan_runs(ROWS, [TARGET], [1, 2, 3])
    results = [
        {"row": run.row, "target_sparsity": run.target_sparsity, "seed": run.seed, "settings": {}, "machine": "CPU"}
        | result_of(run, accuracy=0.1 * (run.seed or 5))
        for run in runs
    ]
    summaries = {summary.row: summary for summary in summarize(results)}
    assert list(summaries) == [TEACHER, *STUDENTS]
    assert summaries["learned"].seeds == (1, 2, 3)
    assert summaries["learned"].mean("words") == pytest.approx(0.2)
    assert summaries["learned"].spread("words") == pytest.approx(0.1)
    assert summaries[TEACHER].mean("held_out_loss") is None
    results[0]["num_parameters"] = 1000
    results[1]["num_parameters"] = 600
    write_report(results, tmp_path)
    text = (tmp_path / "evidence.md").read_text()
    assert "| from scratch | 500 | 1.00 G | 0.1000 ± 0.0000 | 0.200 ± 0.100 |" in text
    assert "**The sizes differ by" in text
    assert "one session a speaker" in text
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert not (tmp_path / "curve.png").exists()
    summary = json.loads((tmp_path / "evidence.json").read_text())["summaries"][1]
    assert summary["values"]["words"] == pytest.approx([0.1, 0.2, 0.3])


def test_curves_show_rows_of_several_sizes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(evidence_report, "draw_comparison", lambda rows, measures, path: drawn.append(rows))
    runs = plan_runs(["learned", "first_layers", TEACHER], [0.3, TARGET], [1]) + [Run("one_stage", TARGET, 1)]
    results = [
        {"row": run.row, "target_sparsity": run.target_sparsity, "seed": run.seed, "settings": {}, "machine": "CPU"}
        | result_of(run)
        for run in runs
    ]
    write_report(results, tmp_path)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert [summary.row for summary in drawn[0]] == [TEACHER, "learned", "one_stage", "first_layers"]
    assert (tmp_path / "evidence.md").read_text().count("| learned |") == 2


def test_gate_curves_are_drawn(tmp_path):
    history = [
        {"stage": 1, "step": step, "distillation_loss": 1.0, "expected_sparsity": 0.1, "target_sparsity": 0.2}
        for step in (1, 2)
    ]
    draw_gate_curves({"learned": history, "one stage": history}, tmp_path / "gates.png")
    assert (tmp_path / "gates.png").stat().st_size > 1000


def test_speed_grows_by_the_power_that_was_measured():
    rows = [{"num_points": points, "processor_seconds": 3e-7 * points**2} for points in (4000, 8000, 12000)]
    # Too few points to say how time grows.
    rows.append({"num_points": 1000, "processor_seconds": 100.0})
    speakers = convexity_speed.estimate(rows)
    assert speakers["power"] == pytest.approx(2)
    assert speakers["processor_seconds_of_a_layer"] == pytest.approx(3e-7 * 43474**2)
    assert speakers["processor_hours_of_13_layers"] == pytest.approx(13 * 3e-7 * 43474**2 / 3600)
    assert convexity_speed.estimate(rows[:1]) == {}


def test_a_measurement_of_speed_names_its_points():
    row = convexity_speed.measure(140, threads=1)
    assert (row["num_points"], row["dense_matrix_bytes"]) == (140, 8 * 140**2)
    assert row["processor_seconds"] > 0 and row["peak_bytes"] >= 0 and 0 < row["score"] <= 1
