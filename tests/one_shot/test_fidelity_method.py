"""A target by fidelity as the method of a run: held-out clips of the run, going on after an interruption, plan and errors."""

import pytest
import torch

from hf_prunable.modeling.loading import load_complete
from hf_prunable.one_shot.arguments import OneShotArguments
from hf_prunable.one_shot.fidelity_method import FidelityMethod
from hf_prunable.pruning.arguments import PruningArguments
from hf_prunable.pruning.targets import FidelityTarget
from tests.helpers.tiny_models import tiny_prunable, tiny_stock
from tests.one_shot.test_method import FAST, place, start


__all__ = ["place"]

TARGET = FidelityTarget(max_loss=0.02)


def make_method(target=TARGET, **options):
    return FidelityMethod(PruningArguments("model", method="one_shot", **options), OneShotArguments(**FAST), 3, target)


def only_student(method, stages):
    ((target, student),) = method.students(stages)
    assert target is method.target
    return student


def test_the_student_keeps_the_target_on_the_held_out_clips_of_the_run(place, tmp_path):
    method = make_method()
    stages = start(method, place, tmp_path / "run")
    student = only_student(method, stages)
    fidelity = stages.fidelity(student.model, load_complete(place / "dense"))
    assert fidelity.distillation_loss == method.found.met <= 0.02 < method.found.one_more
    assert method.rounds and method.rounds[-1].sparsity == method.found.sparsity > 0.1
    assert method.rounds[-1].intermediate == [layer.intermediate or 0 for layer in student.model.config.shape.layers]


def test_a_run_goes_on_to_the_bit(place, tmp_path):
    method = make_method()
    student = only_student(method, start(method, place, tmp_path / "run"))
    (tmp_path / "run" / "round_1.safetensors").rename(tmp_path / "first")
    text = (tmp_path / "run" / "candidates.json").read_text()
    for is_begun in (True, False):
        if is_begun:
            (tmp_path / "first").rename(tmp_path / "run" / "round_1.safetensors")
        else:
            (tmp_path / "run" / "candidates.json").unlink()
        again = make_method()
        found = only_student(again, start(again, place, tmp_path / "run"))
        assert (again.found, again.rounds) == (method.found, method.rounds)
        assert (tmp_path / "run" / "candidates.json").read_text() == text
        for name, tensor in student.model.state_dict().items():
            assert torch.equal(tensor, found.model.state_dict()[name]), name


def test_one_target_and_no_size():
    method = make_method()
    assert list(method.targets) == [TARGET] and method.parts() == {TARGET: ""} and not method.sparsities


def test_the_plan_names_target_and_audio():
    method = make_method(FidelityTarget(min_similarity=0.97))
    method.prepare_(tiny_prunable("wavlm"))
    assert method.first_stage(None).name == (
        "one-shot pruning to the smallest model with a mean cosine similarity of the hidden states of at least 0.97, with "
        "statistics of 6 clips of 0.05 s"
    )


def test_a_target_that_the_model_misses_as_it_is_ends_the_set_up(place, tmp_path):
    tiny_stock("wavlm", seed=4).save_pretrained(tmp_path / "other")
    with pytest.raises(
        ValueError,
        match="`target_loss` asks for .* at most 0.02, but before anything is removed .* has [0-9.]+, measured",
    ):
        start(make_method(), place, tmp_path / "run", teacher=tmp_path / "other")
    assert not list((tmp_path / "run").iterdir())


def test_units_are_checked():
    with pytest.raises(ValueError, match="one-shot pruning removes qk, vo, int"):
        make_method(prune_units=["head"]).prepare_(tiny_prunable("wavlm"))
    gated = tiny_prunable("wavlm")
    gated.attach_gates()
    with pytest.raises(ValueError, match="has gates on"):
        make_method().prepare_(gated)
