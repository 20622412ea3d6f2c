"""One-shot pruning as the method of a run: students, records of the rounds, going on after an interruption."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable import Measure
from hf_prunable.data.audio import audio_dataset
from hf_prunable.modeling.loading import load_complete
from hf_prunable.modeling.size import PARAMETERS, UnitCounts
from hf_prunable.one_shot.arguments import OneShotArguments
from hf_prunable.one_shot.config import OneShotConfig
from hf_prunable.one_shot.method import OneShotMethod
from hf_prunable.one_shot.round_files import load_round, round_path
from hf_prunable.pruning.arguments import PruningArguments, PruningTrainingArguments
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.stages import TrainingStages
from hf_prunable.pruning.student import load_student
from hf_prunable.pruning.training_data import TrainingData
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_prunable, tiny_stock


FAST = {"calibration_clips": 6, "calibration_seconds": 0.05, "reconstruction_steps": 2, "calibration_batch_size": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint and clips."""
    place = tmp_path_factory.mktemp("place")
    tiny_stock("wavlm").save_pretrained(place / "dense")
    for number, samples in enumerate(0.1 * np.random.default_rng(0).standard_normal((7, RATE // 10))):
        write(place / "audio" / f"{number}.wav", samples)
    return place


def make_method(one_shot=None, seed=3, **options):
    options = {"target_sparsity": [0.3, 0.5], **options}
    arguments = PruningArguments("model", method="one_shot", **options)
    return OneShotMethod(arguments, OneShotArguments(**(FAST | (one_shot or {}))), seed)


def start(method, place, folder, teacher="dense", objective=None, **training):
    """Does what a run does before it prunes; returns its stages."""
    clips = audio_dataset(sorted((place / "audio").iterdir()), seconds=[0.1] * 7)
    data = TrainingData(clips, clips.select([0]), Wav2Vec2FeatureExtractor(), 0.05)
    args = PruningTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, save_strategy="no", **training)
    model, _ = load_student(place / "dense")
    method.prepare_(model)
    teacher = None if teacher is None else load_complete(place / teacher)
    stages = TrainingStages(model, teacher, args, objective or ObjectiveArguments(crop_seconds=0.05), data)
    folder.mkdir(exist_ok=True)
    method.read_input(stages)
    return stages


def states(students):
    return {target: student.model.state_dict() for target, student in students.items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for target, state in found.items():
        assert state.keys() == expected[target].keys()
        assert all(torch.equal(tensor, expected[target][name]) for name, tensor in state.items())


@pytest.mark.parametrize("option, measure", [("target_sparsity", PARAMETERS), ("target_macs", Measure("macs", 0.05))])
def test_a_student_for_each_target(place, tmp_path, option, measure):
    targets = {"target_sparsity": None, option: [0.3, 0.5], "mac_seconds": 0.05}
    method = make_method(**targets)
    stages = start(method, place, tmp_path / "run")
    before = {name: tensor.clone() for name, tensor in stages.initial_student.model.state_dict().items()}
    assert method.measure == measure
    num_rounds, records = {}, {}
    students = {}
    for target, student in method.students(stages):
        students[target], num_rounds[target], records[target] = student, len(method.rounds), method.rounds[-1]
    assert list(students) == [0.3, 0.5] and num_rounds[0.5] == method.num_rounds > num_rounds[0.3]
    for target, student in students.items():
        config = student.model.config
        sparsity = measure.sparsity(config, UnitCounts.of(config.shape))
        assert target <= sparsity < target + 0.03 and not student.history
        record = records[target]
        assert record.sparsity == sparsity
        assert record.intermediate == [layer.intermediate or 0 for layer in config.shape.layers]
        assert record.query_key == [sum(layer.attention.query_key) for layer in config.shape.layers]
        assert {(price.layer_idx, price.unit) for price in record.prices} == {
            (layer_idx, unit) for layer_idx in range(3) for unit in ("qk", "vo", "int")
        }
        assert all(price.loss_growth > 0 for price in record.prices)
    after = stages.initial_student.model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_a_run_goes_on_after_its_last_finished_round(place, tmp_path):
    method = make_method({"rounds": 3})
    students = method.students(start(method, place, tmp_path / "whole"))
    whole = {}
    for target, student in students:
        whole[target] = student
    expected, rounds = states(whole), method.rounds
    for num_left in range(len(rounds)):
        for number in range(num_left + 1, len(rounds) + 1):
            round_path(tmp_path / "whole", number).unlink()
        again = make_method({"rounds": 3})
        found = states(dict(again.students(start(again, place, tmp_path / "whole"))))
        assert_equal(found, expected)
        assert again.rounds == rounds


def test_what_a_student_becomes_does_not_change_the_rounds_after_it(place, tmp_path):
    found = []
    for is_changed in (False, True):
        method = make_method()
        stages = start(method, place, tmp_path / str(is_changed))
        students = {}
        for target, student in method.students(stages):
            students[target] = {name: tensor.clone() for name, tensor in student.model.state_dict().items()}
            if is_changed:
                for parameter in student.model.parameters():
                    parameter.data.zero_()
        found.append(students)
    assert_equal(*found)


def test_the_file_of_a_round_holds_model_and_record(place, tmp_path):
    method = make_method(target_sparsity=[0.3])
    stages = start(method, place, tmp_path / "run")
    ((_, student),) = method.students(stages)
    path = round_path(tmp_path / "run", 1)
    assert [file.name for file in (tmp_path / "run").glob("*.safetensors")] == [path.name]
    model, record = load_round(path, stages.initial_student.model)
    assert model.config.shape == student.model.config.shape and [record] == method.rounds
    assert_equal({0: model.state_dict()}, {0: student.model.state_dict()})


def test_the_plan_names_rounds_and_audio(place):
    method = make_method({"rounds": 3}, target_sparsity=[0.5])
    method.prepare_(tiny_prunable("wavlm"))
    stage = method.first_stage(None)
    assert stage.name == "one-shot pruning in 3 rounds, with statistics of 6 clips of 0.05 s" and stage.num_steps == 0


def test_options_are_settings():
    one_shot = OneShotArguments(ridge=0.5, calibration_batch_size=3, reconstruction_steps=7, allow_few_frames=True)
    config = OneShotArguments.config(one_shot, 11)
    assert config == OneShotConfig(ridge=0.5, batch_size=3, reconstruction_steps=7, allow_few_frames=True, seed=11)
    settings = {field.name for field in dataclasses.fields(OneShotConfig)} - {"batch_size", "seed"}
    assert settings < {field.name for field in dataclasses.fields(OneShotArguments)}


@pytest.mark.parametrize(
    "one_shot, options, message",
    [
        ({"calibration_clips": 0}, {}, "`calibration_clips` is 0"),
        ({"rounds": 0}, {}, "`rounds` is 0; it must be 1 or more"),
        ({"ridge": 0.0}, {}, "`ridge` must be above 0"),
        ({}, {"prune_units": ["qk", "head"]}, "one-shot pruning removes qk, vo, int"),
        ({}, {"target_sparsity": [0.3, 0.9]}, "`target_sparsity` is 0.9, and removing all units"),
        ({}, {"target_sparsity": [0.5, 0.3]}, "`target_sparsity` must be in ascending order"),
        ({}, {"target_sparsity": [0.5], "stock_shape": True}, "`target_sparsity` is 0.5, and removing all units"),
    ],
)
def test_what_cannot_be_done_is_refused_before_audio_is_read(one_shot, options, message):
    with pytest.raises(ValueError, match=message):
        make_method(one_shot, **options).prepare_(tiny_prunable("wavlm"))


def test_a_model_with_gates_is_refused():
    model = tiny_prunable("wavlm")
    model.attach_gates()
    with pytest.raises(ValueError, match="has gates on"):
        make_method().prepare_(model)


def test_too_little_audio_is_refused(place, tmp_path):
    with pytest.raises(ValueError, match="hold only 14 crops of that length"):
        start(make_method({"calibration_clips": 15}), place, tmp_path / "run")
    with pytest.raises(ValueError, match="frames.*`allow_few_frames`"):
        start(make_method({"calibration_clips": 1, "calibration_seconds": 0.02}), place, tmp_path / "run")
    few = {"calibration_clips": 1, "calibration_seconds": 0.02, "allow_few_frames": True}
    start(make_method(few), place, tmp_path / "run")


def test_a_teacher_of_another_size_is_refused(place, tmp_path):
    tiny_stock("wavlm", hidden_size=32).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="hidden size of the student is 24 and that of the teacher 32"):
        start(make_method(), place, tmp_path / "run", teacher=tmp_path / "other")


def test_without_a_teacher_the_hidden_states_are_those_of_the_model(place, tmp_path):
    found = []
    for teacher in ("dense", None):
        method = make_method(target_sparsity=[0.4])
        objective = None if teacher else ObjectiveArguments("task", task="classification")
        found.append(states(dict(method.students(start(method, place, tmp_path / str(teacher), teacher, objective)))))
    assert_equal(*found)


def test_a_stock_shape(place, tmp_path):
    method = make_method(stock_shape=True, target_sparsity=[0.1])
    ((_, student),) = method.students(start(method, place, tmp_path / "run"))
    assert student.model.is_stock and not method.rounds[0].prices
    assert len(set(method.rounds[0].intermediate)) == 1 and method.rounds[0].intermediate[0] < 40


def test_convolutions(place, tmp_path):
    method = make_method(target_sparsity=None, target_macs=[0.04], mac_seconds=0.05, prune_units=["conv"])
    stages = start(method, place, tmp_path / "run", final_steps=2, final_warmup_steps=0)
    ((_, student),) = method.students(stages)
    channels = student.model.config.shape.conv_channels
    assert sum(channels) < 48 and method.rounds[-1].conv_channels == list(channels)
    assert {price.layer_idx for price in method.rounds[-1].prices if price.unit == "conv"} == {0, 1}
    # Neither frozen nor replaced by the teacher's in what follows.
    assert stages.held_out_loss(student) > stages.held_out_loss(stages.initial_student)
    trained = stages.train_student(student).model
    weights, before = (model.feature_extractor.conv_layers[1].conv.weight for model in (trained, student.model))
    assert weights.shape == before.shape and not torch.equal(weights, before)
