"""A pruning run from stage to stage, in memory: every family, norm order and kind of unit."""

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
from hf_prunable.modeling.size import PARAMETERS, Measure, UnitCounts, count_parameters
from hf_prunable.modeling.units import PAPER_UNITS
from hf_prunable.pruning.objective import ObjectiveArguments
from hf_prunable.pruning.run import PruningRun
from hf_prunable.pruning.student import NOISE_OFF, load_student, restore_noise_
from hf_prunable.pruning.training_arguments import PruningTrainingArguments
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_inputs, tiny_prunable, tiny_stock


STEPS = 6
# None of these is a default of transformers, and no two are equal.
NOISE = {
    "layerdrop": 0.07,
    "apply_spec_augment": True,
    "hidden_dropout": 0.13,
    "attention_dropout": 0.17,
    "activation_dropout": 0.19,
    "feat_proj_dropout": 0.23,
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    noise = 0.1 * np.random.default_rng(0).standard_normal((5, RATE // 10))
    for number, samples in enumerate(noise):
        write(folder / f"{number}.wav", samples[: len(samples) - 60 * number])
    seconds = [0.1 - 60 * number / RATE for number in range(len(noise))]
    return audio_dataset(sorted(folder.iterdir()), seconds=seconds)


def checkpoint(folder, family, norm_order="post", **config):
    tiny_stock(family, norm_order, **{**NOISE, **config}).save_pretrained(folder)
    return folder


def make_run(folder, student, teacher, clips, objective=None, task=None, measure=PARAMETERS, **options):
    defaults = {"max_steps": STEPS, "final_steps": 2, "gate_learning_rate": 2.0, "logging_steps": 2, "seed": 4}
    args = PruningTrainingArguments(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=2,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **(defaults | options),
    )
    return PruningRun(
        student,
        teacher,
        args,
        objective or ObjectiveArguments(crop_seconds=0.05),
        train_clips=clips.select(range(3)),
        held_out_clips=clips.select(range(3, 5)),
        feature_extractor=Wav2Vec2FeatureExtractor(),
        task=task,
        measure=measure,
    )


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
    student, original = load_student(source)
    student.attach_gates(units)
    run = make_run(tmp_path, student, load_complete(source), clips)
    assert run.held_out_loss() == pytest.approx(0, abs=1e-5)

    run.learn_gates([0.4])
    dense = load_prunable(source)
    with_gates, trained = run.student, run.student.encoder.layers[0].feed_forward.output_dense.weight
    assert not torch.equal(trained, dense.encoder.layers[0].feed_forward.output_dense.weight)
    run.compact(0.4)
    assert run.student is not with_gates and run.student.config.gates is None
    assert not any(isinstance(module, HardConcreteGate) for module in run.student.modules())
    assert not any("log_alpha" in name for name in run.student.state_dict())
    left, dense_size = run.student.num_parameters(), dense.num_parameters()
    assert left == count_parameters(run.student.config, UnitCounts.of(run.student.config.shape))
    # The largest size that is not above the target: a head is a step of a few percent here, an inner unit less than 1.
    assert 0.4 <= 1 - left / dense_size < (0.45 if "head" in units else 0.41)
    channels = run.student.config.shape.conv_channels
    assert channels == (12, 16, 20) or "conv" in units

    after_compaction = run.held_out_loss()
    run.train_student()
    assert 0 < run.held_out_loss() != after_compaction
    assert run.student.num_parameters() == left
    stages = [(entry["stage"], entry["step"]) for entry in run.history]
    assert stages == [(1, 2), (1, 4), (1, 6), (2, 2)]
    assert all("deterministic_sparsity" in entry for entry in run.history[:3])
    assert "target_sparsity" not in run.history[3]

    restore_noise_(run.student, original)
    run.student.save_pretrained(tmp_path / "small")
    loaded = load_prunable(tmp_path / "small")
    assert {name: getattr(loaded.config, name) for name in NOISE} == NOISE
    audio = tiny_inputs(samples=500, padded=False)["input_values"]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(audio)[0], run.student.eval()(audio)[0])


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_loaded_without_noise_and_gets_it_back(tmp_path, family, norm_order):
    source = checkpoint(tmp_path / "dense", family, norm_order)
    student, original = load_student(source)
    assert {name: getattr(student.config, name) for name in NOISE_OFF} == NOISE_OFF
    assert NOISE_OFF.keys() == NOISE.keys()
    assert {name: getattr(original, name) for name in NOISE} == NOISE
    dropouts = [module for module in student.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts and all(module.p == 0 for module in dropouts)
    audio = tiny_inputs(padded=False)["input_values"]
    with torch.no_grad():
        # SpecAugment, layer drop and dropouts would each make a difference.
        assert torch.equal(student.train()(audio)[0], student.eval()(audio)[0])
        assert not torch.equal(*[load_prunable(source).train(mode)(audio)[0] for mode in (True, False)])
    restore_noise_(student, original)
    assert {name: getattr(student.config, name) for name in NOISE} == NOISE


def test_a_student_is_loaded_in_float32(tmp_path):
    tiny_stock("wavlm").bfloat16().save_pretrained(tmp_path)
    student, _ = load_student(tmp_path)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


def test_a_pruned_model_is_pruned_again(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    student, original = load_student(source)
    dense_size, teacher = student.num_parameters(), load_complete(source)
    for number, target in enumerate((0.2, 0.5)):
        if number:
            restore_noise_(student, original)
            student.save_pretrained(tmp_path / "small")
            student, original = load_student(tmp_path / "small")
        student.attach_gates()
        run = make_run(tmp_path / f"run_{number}", student, teacher, clips, max_steps=3)
        run.learn_gates([target])
        run.compact(target)
        student = run.student
        assert target <= 1 - student.num_parameters() / dense_size < target + 0.01
    assert {name: getattr(original, name) for name in NOISE} == NOISE


def test_the_same_seed_gives_the_same_weights(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "hubert")
    ends = []
    for number, seed in enumerate((1, 1, 2)):
        student, _ = load_student(source)
        student.attach_gates()
        run = make_run(
            tmp_path / f"run_{number}", student, load_complete(source), clips, seed=seed, max_steps=3, final_steps=1
        )
        torch.manual_seed(number)
        run.learn_gates([0.4])
        run.compact(0.4)
        run.train_student()
        ends.append(run.student.state_dict())
    first, again, other = ends
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)
    assert any(first[name].shape != other[name].shape or not torch.equal(first[name], other[name]) for name in first)


def convolutions_after(folder, source, clips, units=PAPER_UNITS, teacher=None, **options):
    """Which of the convolutions' tensors a whole run has left as they were."""
    student, _ = load_student(source)
    before = copy.deepcopy(student.feature_extractor.state_dict())
    student.attach_gates(units)
    run = make_run(folder, student, teacher or load_complete(source), clips, **options)
    run.learn_gates([0.4])
    run.compact(0.4)
    run.train_student()
    after = run.student.feature_extractor.state_dict()
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
    student, _ = load_student(source)
    student.attach_gates(units)
    teacher = load_complete(source) if seed is None else tiny_prunable("wavlm", "post", seed=seed)
    run = make_run(tmp_path, student, teacher, clips, freeze_feature_encoder=freeze)
    assert run.shares_features == shares


def test_another_teacher(tmp_path, clips):
    teacher = tiny_prunable("wavlm", "post", num_hidden_layers=6, hidden_size=36, num_attention_heads=6)
    student, _ = load_student(checkpoint(tmp_path / "dense", "wavlm"))
    student.attach_gates()
    run = make_run(tmp_path, student, teacher, clips, max_steps=2)
    run.learn_gates([0.3])
    run.compact(0.3)
    run.train_student()
    assert run.held_out_loss() > 0.1


class TestIncompleteCheckpoints:
    """transformers fills what is missing with random numbers and drops what does not fit."""

    def test_heads_are_left_out(self, tmp_path):
        tiny_stock("wavlm", head="xvector").save_pretrained(tmp_path)
        assert load_complete(tmp_path).encoder is not None

    def test_the_vector_of_spec_augment_may_be_missing(self, tmp_path):
        stock = tiny_stock("wavlm", mask_time_prob=0.0, mask_feature_prob=0.0)
        stock.config.mask_time_prob = 0.1
        stock.save_pretrained(tmp_path)
        assert load_complete(tmp_path).masked_spec_embed is not None

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_weight_is_missing(self, tmp_path, family):
        stock = tiny_stock(family)
        state = stock.state_dict()
        del state["encoder.layers.1.attention.q_proj.weight"]
        stock.save_pretrained(tmp_path, state_dict=state)
        with pytest.raises(ValueError, match=r"disagree. Weights missing: encoder.layers.1.attention.q_proj.weight"):
            load_complete(tmp_path)

    @pytest.mark.parametrize(
        "field, value, cause",
        [
            ("intermediate_size", 41, "of another size: encoder.layers.0"),
            ("num_hidden_layers", 2, "without a place: encoder.layers.2"),
            ("num_hidden_layers", 4, "missing: encoder.layers.3"),
        ],
    )
    def test_the_configuration_is_another_models(self, tmp_path, field, value, cause):
        stock = tiny_stock("wavlm")
        setattr(stock.config, field, value)
        stock.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=f"Configuration and weights of .* disagree. Weights {cause}.*together"):
            load_student(tmp_path)


def test_a_ladder_makes_a_model_at_each_target(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wavlm")
    student, _ = load_student(source)
    dense_size = student.num_parameters()
    student.attach_gates()
    options = {"max_steps": 60, "gate_learning_rate": 0.5, "multiplier_learning_rate": 0.3, "logging_steps": 1}
    run = make_run(tmp_path, student, load_complete(source), clips, **options)
    targets = [0.2, 0.35, 0.5]
    run.learn_gates(targets)
    asked = [entry["target_sparsity"] for entry in run.history]
    assert asked == sorted(asked) and asked[-1] == 0.5 and 0.2 in asked
    sizes, histories = [], []
    for target in targets:
        run.compact(target)
        sizes.append(1 - run.student.num_parameters() / dense_size)
        run.train_student()
        histories.append(run.history)
    assert all(target <= size < target + 0.02 for target, size in zip(targets, sizes, strict=True))
    # Each model's log ends its first stage where its target was reached, and goes on with its own second stage.
    first_stages = [[entry for entry in history if entry["stage"] == 1] for history in histories]
    assert len(first_stages[0]) < len(first_stages[2]) == 60
    for target, history, first_stage in zip(targets[:-1], histories, first_stages, strict=False):
        assert first_stage[-1]["expected_sparsity"] == pytest.approx(target, abs=0.08)
        assert [entry["stage"] for entry in history[len(first_stage) :]] == [2] * 2


def test_a_target_that_was_not_reached_is_made_all_the_same(tmp_path, clips, caplog):
    source = checkpoint(tmp_path / "dense", "hubert")
    student, _ = load_student(source)
    dense_size = student.num_parameters()
    student.attach_gates()
    run = make_run(tmp_path, student, load_complete(source), clips, max_steps=2, gate_learning_rate=0.02)
    run.learn_gates([0.2, 0.5])
    assert "The sparsity had not come to 0.2 when the 2 steps were over" in caplog.text
    run.compact(0.2)
    assert 0.2 <= 1 - run.student.num_parameters() / dense_size < 0.22


def test_targets_in_macs_and_rounded_widths(tmp_path, clips):
    source = checkpoint(tmp_path / "dense", "wav2vec2")
    student, _ = load_student(source)
    student.attach_gates((*PAPER_UNITS, "conv"))
    measure = Measure("macs", 2.0)
    run = make_run(tmp_path, student, load_complete(source), clips, measure=measure)
    run.learn_gates([0.4])
    run.compact(0.4)
    config = run.student.config
    assert 0.4 <= measure.sparsity(config, UnitCounts.of(config.shape)) < 0.42
    assert run.history[-1]["deterministic_sparsity"] > 0
    run.round_to = 4
    run.compact(0.4)
    assert all(layer.intermediate % 4 == 0 for layer in run.student.config.shape.layers if layer.intermediate)


@pytest.mark.parametrize("objective", ["task", "both"])
def test_a_head_is_pruned_with_labels(tmp_path, clips, objective):
    source = checkpoint(tmp_path / "dense", "wavlm")
    labelled = clips.add_column("label", ["yes", "no", "yes", "no", "yes"])
    task = load_label_encoding("classification", source, labelled)
    student, original = load_student(source, auto_class=task.auto_class, **task.model_options)
    student.attach_gates()
    teacher = load_complete(source) if objective == "both" else None
    learns = ObjectiveArguments(objective, task="classification")
    run = make_run(tmp_path, student, teacher, labelled, objective=learns, task=task)
    run.learn_gates([0.4])
    run.compact(0.4)
    run.train_student()
    assert ("distillation_loss" in run.history[0]) == (objective == "both") and "task_loss" in run.history[0]
    restore_noise_(run.student, original)
    run.student.save_pretrained(tmp_path / "small")
    loaded = load_prunable(tmp_path / "small", "AutoModelForAudioClassification")
    assert loaded.config.label2id == {"no": 0, "yes": 1}
    assert 0.4 <= 1 - loaded.base_model.num_parameters() / loaded.config.dense_num_parameters < 0.42
    weights = run.student.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
