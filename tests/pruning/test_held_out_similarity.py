"""Evaluations during training: what they measure, that they change no training, and what a resumed run logs."""

import copy
import shutil

import pytest
import torch

from hf_prunable.data.labels import load_label_encoding
from hf_prunable.modeling.loading import load_complete
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.fidelity import incomparable_reason
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.student import load_student
from hf_prunable.pruning.trainer import PruningTrainer
from tests.helpers.tiny_models import tiny_prunable
from tests.pruning.test_stages import checkpoint, clips, make_stages, prune  # noqa: F401 - a fixture


TIMES = {"runtime", "samples_per_second", "steps_per_second"}


def evaluations(history):
    """Entries of evaluations without the times that they took."""
    return [
        {name: value for name, value in entry.items() if name.removeprefix("eval_") not in TIMES}
        for entry in history
        if "eval_loss" in entry
    ]


def gated_student(folder, clips, teacher_config=None, **options):  # noqa: F811
    """Stages of a tiny student with gates; dropout is on, so that each step draws from the random state."""
    source = checkpoint(folder / "dense", "wavlm")
    model = load_complete(source, attention_dropout=0.1, hidden_dropout=0.1, layerdrop=0.0)
    model.attach_gates()
    teacher = tiny_prunable("wavlm", **teacher_config) if teacher_config else load_complete(source)
    return make_stages(folder, model, teacher, clips, multiplier_learning_rate=0.5, **options)


@pytest.mark.parametrize("norm_order", ["post", "pre"])
def test_the_values_are_those_of_the_measures_after_training(tmp_path, clips, norm_order):  # noqa: F811
    source = checkpoint(tmp_path / "dense", "wavlm", norm_order)
    model, _ = load_student(source)
    model.attach_gates()
    teacher = load_complete(source)
    stages = make_stages(tmp_path, model, teacher, clips, eval_steps=3, gate_learning_rate=0.7)
    (learned,) = stages.learn_gates(stages.initial_student, [0.4])
    student = learned.load(stages.initial_student)
    masks = torch.cat([gate.deterministic_mask() for _, gate in student.model.named_gates()])
    assert ((masks > 0) & (masks < 1)).any()
    found = evaluations(student.history)
    assert [(entry["stage"], entry["step"]) for entry in found] == [(1, 3), (1, 6)]
    fidelity = stages.fidelity(student.model, teacher)
    last = found[-1]
    assert last["eval_loss"] == stages.held_out_loss(student)
    assert last["eval_cosine_similarity"] == fidelity.mean_cosine < 0.9999
    assert last["eval_relative_error"] == pytest.approx(sum(fidelity.relative_error) / 4)
    assert [last[f"eval_cosine_similarity_layer_{layer}"] for layer in range(4)] == fidelity.cosine
    assert found[0]["eval_cosine_similarity"] != last["eval_cosine_similarity"]


def test_an_evaluation_changes_no_training(tmp_path, clips):  # noqa: F811
    students = []
    for number, options in enumerate(({}, {"eval_steps": 2})):
        stages = gated_student(tmp_path / str(number), clips, **options)
        torch.manual_seed(3)
        (learned,) = stages.learn_gates(stages.initial_student, [0.4])
        students.append(learned.load(stages.initial_student))
    without, evaluated = students
    weights = evaluated.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in without.model.state_dict().items())
    losses = [[entry["loss_with_constraint"] for entry in one.history if "eval_loss" not in entry] for one in students]
    assert losses[0] == losses[1]
    assert not evaluations(without.history) and len(evaluations(evaluated.history)) == 3


def test_a_resumed_run_has_the_same_evaluations(tmp_path, clips):  # noqa: F811
    options = {"eval_steps": 2, "eval_on_start": True, "save_strategy": "steps", "save_steps": 3}

    def train():
        stages = gated_student(tmp_path, clips, **options)
        return stages.train_student(prune(stages, 0.4))

    whole = train()
    assert [(entry["stage"], entry["step"]) for entry in evaluations(whole.history)] == [
        *((1, step) for step in (0, 2, 4, 6)),
        *((2, step) for step in (0, 2)),
    ]
    run = tmp_path / "run"
    for path in (run / "gates_0.4.safetensors", run / "stage_2.safetensors"):
        path.unlink()
    shutil.rmtree(run / "stage_1" / "checkpoint-6")
    shutil.rmtree(run / "stage_2")
    resumed = train()
    assert evaluations(resumed.history) == evaluations(whole.history)
    weights = resumed.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in whole.model.state_dict().items())


def test_a_teacher_of_another_size_leaves_the_loss(tmp_path, clips, caplog):  # noqa: F811
    teacher = {"hidden_size": 36, "num_attention_heads": 6}
    stages = gated_student(tmp_path, clips, teacher, eval_steps=3)
    assert incomparable_reason(stages.initial_student.model.config, stages.teacher.config)
    (learned,) = stages.learn_gates(stages.initial_student, [0.4])
    assert "The hidden states are not compared one by one. " in caplog.text
    for entry in evaluations(learned.load(stages.initial_student).history):
        assert [name for name in entry if name.startswith("eval_")] == ["eval_loss"]


def test_a_task_without_a_teacher_has_a_loss(tmp_path, clips):  # noqa: F811
    source = checkpoint(tmp_path / "dense", "wavlm")
    labelled = clips.add_column("label", ["yes", "no", "yes", "no", "yes"])
    task = load_label_encoding("classification", source, labelled)
    model, _ = load_student(source, auto_class=task.auto_class, **task.model_options)
    learns = ObjectiveArguments("task", task="classification")
    stages = make_stages(tmp_path, model, None, labelled, learns, task, eval_steps=2)
    (entry,) = evaluations(stages.train_student(stages.initial_student).history)
    assert entry["eval_loss"] > 0 and "eval_cosine_similarity" not in entry


def test_wrong_input(tmp_path, clips, monkeypatch):  # noqa: F811
    for steps in (0, -5):
        with pytest.raises(ValueError, match=f"`eval_steps` is {steps}; it must be above 0"):
            PruningTrainingArguments(str(tmp_path), use_cpu=True, eval_steps=steps)
    stages = gated_student(tmp_path, clips, eval_steps=2)
    stages.data.held_out_clips = clips.select([])
    with pytest.raises(ValueError, match="there are no held-out clips to evaluate on"):
        type(stages)(
            copy.deepcopy(stages.initial_student.model), stages.teacher, stages.args, stages.objective, stages.data
        )
    stages.data.held_out_clips = clips
    create_accelerator = PruningTrainer.create_accelerator_and_postprocess

    def create_sharding_accelerator(trainer):
        create_accelerator(trainer)
        trainer.is_fsdp_enabled = True

    monkeypatch.setattr(PruningTrainer, "create_accelerator_and_postprocess", create_sharding_accelerator)
    with pytest.raises(ValueError, match="FSDP shards the student"):
        stages.learn_gates(stages.initial_student, [0.4])
