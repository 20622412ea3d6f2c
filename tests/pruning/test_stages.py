"""The stages of a pruning run, in memory: every family, norm order and kind of unit."""

import copy

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable import load_prunable
from hf_prunable.data.audio import audio_dataset
from hf_prunable.data.labels import load_label_encoding
from hf_prunable.modeling.gates import HardConcreteGate
from hf_prunable.modeling.loading import load_complete
from hf_prunable.modeling.size import Measure, UnitCounts, count_frames, count_parameters
from hf_prunable.modeling.units import PAPER_UNITS
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.gate_pruning import compact_student
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.stages import TrainingStages
from hf_prunable.pruning.student import load_student, restore_noise_
from hf_prunable.pruning.training_data import TrainingData
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import FAMILIES, NOISE, tiny_inputs, tiny_prunable, tiny_stock
from tests.helpers.training_logs import losses_of


STEPS = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    noise = 0.1 * np.random.default_rng(0).standard_normal((5, RATE // 10))
    for number, samples in enumerate(noise):
        write(folder / f"{number}.wav", samples[: len(samples) - 60 * number])
    seconds = [0.1 - 60 * number / RATE for number in range(len(noise))]
    return audio_dataset(sorted(folder.iterdir()), seconds=seconds)


def checkpoint(folder, family, norm_order="post"):
    tiny_stock(family, norm_order, **NOISE).save_pretrained(folder)
    return folder


def make_stages(folder, model, teacher, clips, objective=None, task=None, **options):
    defaults = {"max_steps": STEPS, "final_steps": 2, "gate_learning_rate": 2.0, "logging_steps": 2, "seed": 4}
    args = PruningTrainingArguments(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=2,
        use_cpu=True,
        disable_tqdm=True,
        **(defaults | {"save_strategy": "no"} | options),
    )
    objective = objective or ObjectiveArguments(crop_seconds=0.05)
    data = TrainingData(
        clips.select(range(3)), clips.select(range(3, 5)), Wav2Vec2FeatureExtractor(), objective.crop_seconds, task
    )
    return TrainingStages(model, teacher, args, objective, data)


def prune(stages, target):
    """The student that is compacted to a target, after its gates have learned."""
    (learned,) = stages.learn_gates(stages.initial_student, [target])
    return compact_student(learned.load(stages.initial_student), target)


CASES = [
    pytest.param(family, norm_order, units, id=f"{family}-{norm_order}-{name}")
    for family in FAMILIES
    for norm_order, name, units in [
        ("post", "paper", PAPER_UNITS),
        ("pre", "paper", PAPER_UNITS),
        ("post", "conv", (*PAPER_UNITS, "conv")),
        ("pre", "head", ("mha", "head", "ffn", "int")),
    ]
]


@pytest.mark.parametrize("family, norm_order, units", CASES)
def test_a_run_from_a_checkpoint_to_a_small_one(tmp_path, clips, family, norm_order, units):
    source = checkpoint(tmp_path / "dense", family, norm_order)
    model, original = load_student(source)
    model.attach_gates(units)
    stages = make_stages(tmp_path, model, load_complete(source), clips)
    assert stages.held_out_loss(stages.initial_student) == pytest.approx(0, abs=1e-5)

    (learned,) = stages.learn_gates(stages.initial_student, [0.4])
    with_gates = learned.load(stages.initial_student)
    dense = load_prunable(source)
    trained, untrained = (one.encoder.layers[0].feed_forward.output_dense.weight for one in (with_gates.model, dense))
    assert not torch.equal(trained, untrained)
    small = compact_student(with_gates, 0.4)
    assert small.model is not with_gates.model and small.model.config.gates is None
    assert not any(isinstance(module, HardConcreteGate) for module in small.model.modules())
    assert not any("log_alpha" in name for name in small.model.state_dict())
    left, dense_size = small.model.num_parameters(), dense.num_parameters()
    assert left == count_parameters(small.model.config, UnitCounts.of(small.model.config.shape))
    # The largest size that is not above the target: a head is a step of a few percent here, an inner unit less than 1.
    assert 0.4 <= 1 - left / dense_size < (0.45 if "head" in units else 0.41)
    channels = small.model.config.shape.conv_channels
    assert channels == (12, 16, 20) or "conv" in units

    after_compaction = stages.held_out_loss(small)
    final = stages.train_student(small)
    assert 0 < stages.held_out_loss(final) != after_compaction
    assert final.model.num_parameters() == left
    numbers = [(entry["stage"], entry["step"]) for entry in final.history]
    assert numbers == [(1, 2), (1, 4), (1, 6), (2, 2)]
    assert all("deterministic_sparsity" in entry for entry in final.history[:3])
    assert "target_sparsity" not in final.history[3]

    restore_noise_(final.model, original)
    final.model.save_pretrained(tmp_path / "small")
    loaded = load_prunable(tmp_path / "small")
    assert {name: getattr(loaded.config, name) for name in NOISE} == NOISE
    audio = tiny_inputs(samples=500, padded=False)["input_values"]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(audio)[0], final.model.eval()(audio)[0])


def test_a_stage_leaves_its_student_as_it_is(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    model, _ = load_student(source)
    model.attach_gates()
    stages = make_stages(tmp_path, model, load_complete(source), clips)
    students = {"dense": stages.initial_student}
    before = {"dense": copy.deepcopy(students["dense"])}
    (learned,) = stages.learn_gates(students["dense"], [0.4])
    for name, make in (
        ("with gates", lambda: learned.load(students["dense"])),
        ("small", lambda: compact_student(students["with gates"], 0.4)),
        ("final", lambda: stages.train_student(students["small"])),
    ):
        students[name] = make()
        before[name] = copy.deepcopy(students[name])
        stages.held_out_loss(students[name])
    for name, student in students.items():
        tensors, expected = student.model.state_dict(), before[name].model.state_dict()
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in tensors.items())
        assert all(torch.equal(tensor, before[name].projections[key]) for key, tensor in student.projections.items())
        assert student.history == before[name].history
    assert [len(student.history) for student in students.values()] == [0, 3, 3, 4]


def test_fidelity_is_measured_in_the_crops_of_the_held_out_loss(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    model, teacher = tiny_prunable("wavlm", seed=1).train(), load_complete(source)
    stages = make_stages(tmp_path, model, teacher, clips)
    fidelity = stages.fidelity(model, teacher)
    # The projections are the identity, and both crops are in one batch.
    held_out_loss = stages.held_out_loss(stages.initial_student)
    assert fidelity.distillation_loss == pytest.approx(held_out_loss, rel=1e-5) and held_out_loss > 0.1
    assert fidelity == stages.fidelity(model, teacher) and model.training
    assert model.device == teacher.device == torch.device("cpu")
    assert stages.fidelity(load_complete(source), teacher).cosine == pytest.approx([1] * 4, abs=1e-6)


def test_a_head_and_its_labels_change_no_fidelity(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    labelled = clips.add_column("label", ["yes", "no", "yes", "no", "yes"])
    task = load_label_encoding("classification", source, labelled)
    model, _ = load_student(source, auto_class=task.auto_class, **task.model_options)
    stages = make_stages(
        tmp_path, model, None, labelled, ObjectiveArguments("task", task="classification"), task, max_steps=1
    )
    reference = tiny_prunable("wavlm", seed=1)
    fidelity = stages.fidelity(model, reference)
    assert fidelity == stages.fidelity(model.base_model, reference)
    # Whole clips of two lengths, and no frame of padding.
    lengths = [round(seconds * RATE) for seconds in clips["seconds"][3:]]
    assert len(set(lengths)) == 2
    assert fidelity.num_frames == sum(count_frames(model.config, length) for length in lengths)


def test_a_teacher_of_another_size_gives_no_fidelity(tmp_path, clips, caplog):
    model, _ = load_student(checkpoint(tmp_path / "dense", "wavlm"))
    teacher = tiny_prunable("wavlm", hidden_size=36, num_attention_heads=6)
    assert make_stages(tmp_path, model, teacher, clips).fidelity(model, teacher) is None
    assert "The hidden states are not compared one by one. " in caplog.text
    assert "hidden size of the student is 24 and that of the teacher 36" in caplog.text


def test_a_pruned_model_is_pruned_again(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    model, original = load_student(source)
    dense_size, teacher = model.num_parameters(), load_complete(source)
    for number, target in enumerate((0.2, 0.5)):
        if number:
            restore_noise_(model, original)
            model.save_pretrained(tmp_path / "small")
            model, original = load_student(tmp_path / "small")
        model.attach_gates()
        model = prune(make_stages(tmp_path / f"run_{number}", model, teacher, clips, max_steps=3), target).model
        assert target <= 1 - model.num_parameters() / dense_size < target + 0.01
    assert {name: getattr(original, name) for name in NOISE} == NOISE


def test_the_same_seed_gives_the_same_weights(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "hubert")
    ends = []
    for number, seed in enumerate((1, 1, 2)):
        model, _ = load_student(source)
        model.attach_gates()
        stages = make_stages(
            tmp_path / f"run_{number}", model, load_complete(source), clips, seed=seed, max_steps=3, final_steps=1
        )
        torch.manual_seed(number)
        ends.append(stages.train_student(prune(stages, 0.4)).model.state_dict())
    first, again, other = ends
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    assert any(first[name].shape != other[name].shape or not torch.equal(first[name], other[name]) for name in first)


def convolutions_after(folder, source, clips, units=PAPER_UNITS, teacher=None, **options):
    """Which of the convolutions' tensors a whole run has left as they were."""
    model, _ = load_student(source)
    before = copy.deepcopy(model.feature_extractor.state_dict())
    model.attach_gates(units)
    stages = make_stages(folder, model, teacher or load_complete(source), clips, **options)
    after = stages.train_student(prune(stages, 0.4)).model.feature_extractor.state_dict()
    return [torch.equal(after[name], tensor) for name, tensor in before.items()]


def test_convolutions_that_are_the_teachers_are_frozen(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    assert all(convolutions_after(tmp_path / "default", source, clips))
    assert not any(convolutions_after(tmp_path / "trained", source, clips, freeze_feature_encoder=False))
    assert not any(convolutions_after(tmp_path / "gated", source, clips, (*PAPER_UNITS, "conv")))
    other = tiny_prunable("wavlm", "post", seed=5)
    assert not any(convolutions_after(tmp_path / "other", source, clips, teacher=other))
    frozen = {"freeze_feature_encoder": True}
    assert all(convolutions_after(tmp_path / "frozen", source, clips, teacher=other, **frozen))
    with pytest.raises(ValueError, match="`freeze_feature_encoder` is given, and the convolutions have gates"):
        convolutions_after(tmp_path / "both", source, clips, ("conv",), **frozen)


def test_convolutions_stay_frozen_in_mixed_precision(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    model, _ = load_student(source)
    model.attach_gates()
    stages = make_stages(tmp_path / "run", model, load_complete(source), clips, bf16=True)
    # The first trainer converts the teacher.
    assert stages.held_out_loss(stages.initial_student) < 0.1
    student = prune(stages, 0.4)
    assert stages.teacher.dtype == torch.bfloat16 and student.model.dtype == torch.float32
    trained = stages.train_student(student)
    for name, tensor in model.feature_extractor.state_dict().items():
        assert torch.equal(trained.model.feature_extractor.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "units, seed, freeze, shares",
    [
        (("int",), None, None, True),
        (("int",), None, True, True),
        (("int",), None, False, False),
        (("int",), 5, True, False),
        (("int", "conv"), None, None, False),
    ],
)
def test_only_convolutions_that_stay_the_teachers_are_shared(tmp_path, clips, units, seed, freeze, shares):
    source = checkpoint(tmp_path / "dense", "wavlm")
    model, _ = load_student(source)
    model.attach_gates(units)
    teacher = load_complete(source) if seed is None else tiny_prunable("wavlm", "post", seed=seed)
    stages = make_stages(tmp_path, model, teacher, clips, freeze_feature_encoder=freeze)
    assert stages.shares_features == shares


def test_another_teacher(tmp_path, clips):
    teacher = tiny_prunable("wavlm", "post", num_hidden_layers=6, hidden_size=36, num_attention_heads=6)
    model, _ = load_student(checkpoint(tmp_path / "dense", "wavlm"))
    model.attach_gates()
    stages = make_stages(tmp_path, model, teacher, clips, max_steps=2)
    assert stages.held_out_loss(stages.train_student(prune(stages, 0.3))) > 0.1


@pytest.mark.parametrize("objective", ["distillation", "task"])
def test_a_teacher_is_given_where_there_is_distillation(tmp_path, clips, objective):
    model, _ = load_student(checkpoint(tmp_path / "dense", "wavlm"))
    learns = ObjectiveArguments(objective, task=None if objective == "distillation" else "classification")
    teacher = None if objective == "distillation" else model
    with pytest.raises(ValueError, match=f"`objective` is '{objective}', and there is (no|a) teacher. Give a teacher"):
        make_stages(tmp_path, model, teacher, clips, learns)


def test_a_ladder_makes_a_model_at_each_target(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    model, _ = load_student(source)
    dense_size = model.num_parameters()
    model.attach_gates()
    options = {"max_steps": 60, "gate_learning_rate": 0.5, "multiplier_learning_rate": 0.3, "logging_steps": 1}
    stages = make_stages(tmp_path, model, load_complete(source), clips, **options)
    targets = [0.2, 0.35, 0.5]
    learned = stages.learn_gates(stages.initial_student, targets)
    assert [gates.target for gates in learned] == targets
    asked = [entry["target_sparsity"] for entry in learned[-1].load(stages.initial_student).history]
    assert asked == sorted(asked) and asked[-1] == 0.5 and 0.2 in asked
    sizes, histories = [], []
    for gates in learned:
        small = compact_student(gates.load(stages.initial_student), gates.target)
        sizes.append(1 - small.model.num_parameters() / dense_size)
        histories.append(stages.train_student(small, f"stage_2_{gates.target}").history)
    assert all(target <= size < target + 0.02 for target, size in zip(targets, sizes, strict=True))
    # Each model's log ends its first stage where its target was reached, and goes on with its own second stage.
    first_stages = [[entry for entry in history if entry["stage"] == 1] for history in histories]
    assert len(first_stages[0]) < len(first_stages[2]) == 60
    for target, history, first_stage in zip(targets[:-1], histories, first_stages, strict=False):
        assert first_stage[-1]["expected_sparsity"] == pytest.approx(target, abs=0.08)
        assert [entry["stage"] for entry in history[len(first_stage) :]] == [2] * 2


def test_a_target_that_was_not_reached_is_made_all_the_same(tmp_path, clips, caplog):
    source = checkpoint(tmp_path / "dense", "hubert")
    model, _ = load_student(source)
    dense_size = model.num_parameters()
    model.attach_gates()
    stages = make_stages(tmp_path, model, load_complete(source), clips, max_steps=2, gate_learning_rate=0.02)
    learned, _ = stages.learn_gates(stages.initial_student, [0.2, 0.5])
    assert "The sparsity had not come to 0.2 when the 2 steps were over" in caplog.text
    small = compact_student(learned.load(stages.initial_student), 0.2)
    assert 0.2 <= 1 - small.model.num_parameters() / dense_size < 0.22


def test_targets_in_macs_and_rounded_widths(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wav2vec2")
    model, _ = load_student(source)
    model.attach_gates((*PAPER_UNITS, "conv"))
    measure = Measure("macs", 2.0)
    stages = make_stages(tmp_path, model, load_complete(source), clips)
    (learned,) = stages.learn_gates(stages.initial_student, [0.4], measure)
    with_gates = learned.load(stages.initial_student)
    small = compact_student(with_gates, 0.4, measure)
    config = small.model.config
    assert 0.4 <= measure.sparsity(config, UnitCounts.of(config.shape)) < 0.42
    assert small.history[-1]["deterministic_sparsity"] > 0
    rounded = compact_student(with_gates, 0.4, measure, round_to=4).model.config.shape
    assert all(layer.intermediate % 4 == 0 for layer in rounded.layers if layer.intermediate)


@pytest.mark.parametrize("objective", ["task", "both"])
def test_a_head_is_pruned_with_labels(tmp_path, clips, objective):
    source = checkpoint(tmp_path / "dense", "wavlm")
    labelled = clips.add_column("label", ["yes", "no", "yes", "no", "yes"])
    task = load_label_encoding("classification", source, labelled)
    model, original = load_student(source, auto_class=task.auto_class, **task.model_options)
    model.attach_gates()
    teacher = load_complete(source) if objective == "both" else None
    learns = ObjectiveArguments(objective, task="classification")
    stages = make_stages(tmp_path, model, teacher, labelled, objective=learns, task=task)
    final = stages.train_student(prune(stages, 0.4))
    entry = final.history[0]
    assert ("distillation_loss" in entry) == (objective == "both") and "task_loss" in entry
    restore_noise_(final.model, original)
    final.model.save_pretrained(tmp_path / "small")
    loaded = load_prunable(tmp_path / "small", "AutoModelForAudioClassification")
    assert loaded.config.label2id == {"no": 0, "yes": 1}
    assert 0.4 <= 1 - loaded.base_model.num_parameters() / loaded.config.dense_num_parameters < 0.42
    weights = final.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", ["gates_0.2", "gates_0.4", "small"])
def test_a_damaged_file_of_a_stage_is_made_again(tmp_path, clips, caplog, damaged):
    """From the stage's checkpoints, or from its start where they are of a later time than the file; to the bit."""
    source = checkpoint(tmp_path / "dense", "wavlm")

    def train():
        model, _ = load_student(source)
        model.attach_gates()
        options = {"max_steps": 30, "multiplier_learning_rate": 0.5, "save_strategy": "steps", "save_steps": 2}
        stages = make_stages(tmp_path, model, load_complete(source), clips, **options)
        learned = [
            gates.load(stages.initial_student) for gates in stages.learn_gates(stages.initial_student, [0.2, 0.4])
        ]
        return [*learned, stages.train_student(compact_student(learned[-1], 0.4), "small")]

    expected = train()
    path = tmp_path / "run" / f"{damaged}.safetensors"
    flip(path)
    found = train()
    assert f"{path} is damaged" in caplog.text
    assert ("The gates are trained anew." in caplog.text) == (damaged == "gates_0.2")
    for student, other in zip(expected, found, strict=True):
        weights = other.model.state_dict()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in student.model.state_dict().items())
        assert losses_of(student.history) == losses_of(other.history)
