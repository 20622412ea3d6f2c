"""Options of the pruning methods: which belong to which, and what a result depends on."""

from dataclasses import asdict

import pytest

from hf_prunable.cli.pruning_methods import (
    OPTIONS_OF,
    check_options,
    found_by,
    given_options,
    make_method,
    settings_of_method,
    with_method,
)
from hf_prunable.one_shot.arguments import OneShotArguments
from hf_prunable.one_shot.fidelity_method import FidelityMethod
from hf_prunable.one_shot.gate_method import GatesFromStatistics
from hf_prunable.one_shot.method import OneShotMethod
from hf_prunable.one_shot.refitted_method import RefittedMethod
from hf_prunable.pruning.arguments import (
    DEFAULT_FINAL_STEPS,
    METHODS,
    PruningArguments,
    PruningTrainingArguments,
)
from hf_prunable.pruning.gate_pruning import GatePruning
from hf_prunable.pruning.magnitude import MagnitudePruning
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.targets import FidelityTarget


CLASSES = {"gates": GatePruning, "one_shot": OneShotMethod, "magnitude": MagnitudePruning}


def check(tmp_path, method, **given):
    """Checks options as a run does; each goes to the dataclass that has it."""
    kinds = {PruningArguments: {"model_name_or_path": "m", "method": method}, OneShotArguments: {}}
    kinds[PruningTrainingArguments] = {"output_dir": str(tmp_path), "use_cpu": True}
    for name, value in given.items():
        kind = next(kind for kind in kinds if name in kind.__dataclass_fields__)
        kinds[kind][name] = value
    check_options(*(kind(**values) for kind, values in kinds.items()))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_class_and_a_number_of_final_steps(tmp_path, method):
    made = make_method(PruningArguments("model", method=method), OneShotArguments(), 5)
    assert type(made) is CLASSES[method]
    training = PruningTrainingArguments(str(tmp_path), use_cpu=True)
    final_steps = training.with_final_steps(made.default_final_steps).final_steps
    assert final_steps == (DEFAULT_FINAL_STEPS if method == "gates" else 0)
    training.final_steps = 7
    assert training.with_final_steps(made.default_final_steps).final_steps == 7


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="`method` is 'gate'; choose from 'gates', 'one_shot', 'magnitude'"):
        PruningArguments("model", method="gate")


@pytest.mark.parametrize("method", METHODS)
def test_a_stock_shape_prunes_intermediate_units_alone(tmp_path, method):
    check(tmp_path, method, stock_shape=True)
    for units in (["int"], ["qk", "vo", "int"]):
        options = PruningArguments("model", method=method, stock_shape=True, prune_units=units)
        assert options.prune_units == ["int"]
    assert PruningArguments("model", method=method).prune_units == ["qk", "vo", "int"]
    with pytest.raises(ValueError, match="`prune_units` is int conv, but with `stock_shape` only intermediate units"):
        PruningArguments("model", method=method, stock_shape=True, prune_units=["int", "conv"])


@pytest.mark.parametrize("method", METHODS)
def test_defaults_are_allowed(tmp_path, method):
    check(tmp_path, method, final_steps=3, final_learning_rate=1e-3, target_sparsity=[0.3])


@pytest.mark.parametrize(
    "method, given, message",
    [
        (
            "one_shot",
            {"max_steps": 9},
            "`max_steps` has no effect .*'one_shot', only with 'gates'.* `final_steps` trains",
        ),
        ("magnitude", {"ste": False, "round_to": 8}, "`round_to`, `ste` have no effect with the method 'magnitude'"),
        ("one_shot", {"gate_learning_rate": 0.3}, "`gate_learning_rate` has no effect"),
        (
            "one_shot",
            {"learning_rate": 0.1},
            "`learning_rate` has .*`final_learning_rate` is that of the pruned model",
        ),
        (
            "gates",
            {"calibration_clips": 9},
            "`calibration_clips` has no effect with the method 'gates', only with 'one_s",
        ),
        ("magnitude", {"rounds": 2}, "`rounds` has no effect"),
        ("magnitude", {"compare_ragged": True, "stock_shape": True}, "`compare_ragged` has no effect"),
        ("one_shot", {"eval_steps": 5}, "the method 'one_shot' trains none without `final_steps`"),
        (
            "magnitude",
            {"report_to": "tensorboard"},
            "`report_to` .* the method 'magnitude' trains nothing without `final_steps`",
        ),
        ("magnitude", {"eval_strategy": "steps", "final_steps": 0}, "the method 'magnitude' trains none without"),
        ("one_shot", {"compare_ragged": True}, "Give `stock_shape` as well"),
        (
            "one_shot",
            {"compare_ragged": True, "stock_shape": True, "final_steps": 5},
            "but `final_steps` is 5, and only the model of the stock shape would be trained",
        ),
        ("gates", {"target_loss": 0.1}, "`target_loss` has no effect with the method 'gates', only with 'one_shot'"),
        ("magnitude", {"target_similarity": 0.9}, "`target_similarity` has no effect with the method 'magnitude'"),
    ],
)
def test_options_of_another_method_are_refused_by_name(tmp_path, method, given, message):
    with pytest.raises(ValueError, match=message):
        check(tmp_path, method, **given)


def test_a_target_by_fidelity_has_a_method_of_its_own():
    options = PruningArguments("model", method="one_shot")
    for given, target in (
        ({"target_loss": 0.1}, FidelityTarget(0.1)),
        ({"target_similarity": 0.9}, FidelityTarget(None, 0.9)),
    ):
        made = make_method(options, OneShotArguments(**given), 5)
        assert type(made) is FidelityMethod and made.target == target and found_by(made) is None
    assert found_by(make_method(options, OneShotArguments(), 5)) is None


@pytest.mark.parametrize(
    "sizes, given, message",
    [
        ({"target_sparsity": [0.3]}, {"target_loss": 0.1}, "`target_loss` is given, and so is `target_sparsity`"),
        ({"target_macs": [0.3]}, {"target_similarity": 0.9}, "`target_similarity` is given, and so is `target_macs`"),
        ({}, {"target_loss": 0.1, "target_similarity": 0.9}, "and so is `target_similarity`"),
        ({}, {"target_loss": 0.1, "rounds": 3}, "and so is `rounds`"),
    ],
)
def test_a_target_by_fidelity_is_the_only_one(sizes, given, message):
    with pytest.raises(ValueError, match=message):
        make_method(PruningArguments("model", method="one_shot", **sizes), OneShotArguments(**given), 5)


def test_rates_that_follow_from_the_number_of_steps_are_not_given(tmp_path):
    check(tmp_path, "gates", max_steps=10)
    with pytest.raises(ValueError, match="^`max_steps` has no effect"):
        check(tmp_path, "one_shot", max_steps=10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("refit", [False, True])
def test_settings_are_those_of_the_method(tmp_path, method, refit):
    training = PruningTrainingArguments(str(tmp_path), use_cpu=True)
    options = PruningArguments("model", method=method, refit=refit)
    settings = asdict(options) | training.settings()
    found = settings_of_method(options, settings, OneShotArguments())
    for owner, names in OPTIONS_OF.items():
        assert all((name in found) == (owner == method) for name in names)
    assert found["method"] == method and "final_steps" in found
    assert ("calibration_clips" in found) == (method == "one_shot" or refit)
    assert ("refit" in found) == (method != "one_shot")


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({"method": "gates"}, False),
        ({"method": "gates", "gate_start": "rotated"}, True),
        ({"method": "gates", "gate_start": "one_shot"}, True),
        ({"method": "gates", "refit": True}, True),
        ({"method": "magnitude"}, False),
        ({"method": "magnitude", "refit": True}, True),
        ({"method": "one_shot"}, True),
    ],
)
def test_options_of_statistics_have_an_effect_where_statistics_are_taken(tmp_path, options, used):
    given = {"calibration_clips": 20, "ridge": 0.5}
    if used:
        check(tmp_path, **options, **given)
        return
    with pytest.raises(
        ValueError, match="^`calibration_clips`, `ridge` have no effect .* only with 'one_shot', `refit`"
    ):
        check(tmp_path, **options, **given)


def test_a_refit_of_one_shot_pruning_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="^`refit` has no effect .* only with 'gates' or 'magnitude', because one-shot"
    ):
        check(tmp_path, method="one_shot", refit=True)


def test_methods_with_statistics_share_their_audio():
    options = PruningArguments("model", gate_start="one_shot", refit=True, target_sparsity=[0.3])
    method = make_method(options, OneShotArguments(calibration_clips=7), seed=3)
    assert isinstance(method, RefittedMethod) and isinstance(method.method, GatesFromStatistics)
    assert method.source is method.method.source and method.source.request.num_crops == 7
    assert method.default_final_steps == GatePruning.default_final_steps
    assert make_method(PruningArguments("model", method="magnitude", refit=True), OneShotArguments(), 3).targets == [
        0.72
    ]


@pytest.mark.parametrize(
    ("options", "training", "expected"),
    [
        ({}, {}, "one_shot"),
        ({"target_sparsity": [0.3], "stock_shape": True}, {"final_steps": 5, "final_learning_rate": 1e-3}, "one_shot"),
        ({"prune_units": ["int", "conv"]}, {}, "one_shot"),
        ({}, {"max_steps": 400}, "gates"),
        ({}, {"gate_learning_rate": 0.1}, "gates"),
        ({"round_to": 8}, {}, "gates"),
        ({"gate_start": "one_shot"}, {}, "gates"),
        ({"prune_units": ["mha", "qk", "vo", "ffn", "int"]}, {}, "gates"),
        ({"method": "one_shot", "prune_units": ["mha"]}, {"max_steps": 400}, "one_shot"),
        ({"method": "magnitude"}, {}, "magnitude"),
    ],
)
def test_the_method_is_the_one_that_the_options_ask_for(tmp_path, options, training, expected):
    arguments = PruningTrainingArguments(str(tmp_path), use_cpu=True, **training)
    chosen = with_method(PruningArguments("model", **options), ObjectiveArguments(), arguments)
    assert chosen.method == expected
    for name, value in options.items():
        assert getattr(chosen, name) == value


def test_the_method_for_a_task_is_gates(tmp_path):
    training = PruningTrainingArguments(str(tmp_path), use_cpu=True)
    for objective in ("task", "both"):
        task = ObjectiveArguments(objective, task="classification")
        assert with_method(PruningArguments("model"), task, training).method == "gates"
        assert with_method(PruningArguments("model", method="one_shot"), task, training).method == "one_shot"


def test_given_options_are_those_that_differ_from_the_defaults():
    assert given_options(PruningArguments("m", target_macs=[0.3], prune_units=["qk", "vo", "int"])) == {
        "model_name_or_path": "m",
        "target_macs": [0.3],
    }
    assert given_options(OneShotArguments()) == {}
