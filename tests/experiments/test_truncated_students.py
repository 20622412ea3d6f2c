"""Students of truncation and one-shot pruning: which are compared, and the choice of their depth."""

import numpy as np
import pytest
import torch

from experiments.cross_validation import ProbeTask
from experiments.one_shot_students import load_teacher
from experiments.truncated_students import (
    Pair,
    TruncatedStudent,
    choose_depth,
    plan_pairs,
    students_of,
    truncation_sparsity,
)
from hf_prunable import truncate


@pytest.fixture(scope="module")
def dense(teacher):
    return load_teacher(teacher)


@pytest.fixture(scope="module")
def clips():
    return torch.randn(6, 2000, generator=torch.Generator().manual_seed(0))


def test_sizes_count_from_the_dense_teacher(dense, clips):
    truncated = truncate(dense, 2)
    sparsity = truncation_sparsity(dense.config, 2)
    assert sparsity == pytest.approx(1 - truncated.num_parameters() / dense.num_parameters())
    student = TruncatedStudent(2, 0.6).make(dense, clips)
    assert student.config.num_hidden_layers == 2 and dense.is_stock
    assert student.num_parameters() == pytest.approx(0.4 * dense.num_parameters(), rel=0.02)
    whole = TruncatedStudent(None, round(sparsity, 6)).make(dense, clips)
    assert whole.config.num_hidden_layers == 3
    assert whole.num_parameters() == pytest.approx(truncated.num_parameters(), rel=0.02)


def test_truncation_alone_keeps_the_hidden_states(dense, clips):
    student = TruncatedStudent(1).make(dense, clips)
    states, expected = (model(clips, output_hidden_states=True).hidden_states for model in (student, dense))
    assert len(states) == 2
    assert all(torch.equal(state, other) for state, other in zip(states, expected, strict=False))
    assert TruncatedStudent().make(dense, clips) is dense


def test_pairs_have_one_size(dense):
    sparsity = round(truncation_sparsity(dense.config, 1), 6)
    assert 0.5 < sparsity < 0.85
    assert plan_pairs(dense.config, [3, 1, 1], [0.5, 0.85]) == [
        Pair(TruncatedStudent(None, sparsity), TruncatedStudent(1)),
        Pair(TruncatedStudent(1, 0.85), TruncatedStudent(None, 0.85)),
    ]


def test_every_student_is_made_once(dense):
    students = students_of(plan_pairs(dense.config, [1, 2], [0.85]))
    names = [student.name for student in students]
    assert len(set(names)) == len(names) == 8 and names[0] == "teacher"
    assert {"layers1", "layers2_one_shot_0.85", "one_shot_0.85"} < set(names)
    assert students_of([]) == [TruncatedStudent()]


def test_labels_name_layers_and_size():
    labels = [TruncatedStudent(*values).label for values in ((None, None), (1, None), (None, 0.72), (3, 0.85))]
    assert labels == ["teacher", "first layer", "one-shot to 28 %", "first 3 layers, then one-shot to 15 %"]


def test_the_depth_is_chosen_on_the_training_clips_of_each_fold():
    generator = np.random.default_rng(0)
    labels = np.array(["a", "b"] * 30)
    features = generator.standard_normal((61, 4, 6)).astype("f4")
    folds = np.arange(60) // 20
    # The first row is no clip of the task. Layer 2 separates the classes; layer 1 does so outside the first fold.
    is_first = labels == "a"
    features[1:, 2] += 20 * is_first[:, None]
    features[1:, 1] += 20 * (is_first & (folds > 0))[:, None]
    choice = choose_depth(ProbeTask(np.arange(1, 61), labels, folds, [60], 0.01), features)
    assert choice["by_fold"] == [1, 2, 2] and choice["num_layers"] == 2 and choice["ties_with_layer_0"] == 0
    assert len(choice["convexity"]) == 4 and np.argmax(choice["convexity"]) == 2
    features[1:, 0] += 20 * is_first[:, None]
    assert choose_depth(ProbeTask(np.arange(1, 61), labels, folds, [60], 0.01), features)["ties_with_layer_0"] == 3
