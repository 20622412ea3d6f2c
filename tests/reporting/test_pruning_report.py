"""The record of a pruning run and its table."""

import dataclasses
import json

import pytest

from hf_prunable import AttentionShape, LayerShape, Measure, PrunedShape
from hf_prunable.modeling.size import UnitCounts, count_macs
from hf_prunable.pruning.fidelity import Fidelity
from hf_prunable.reporting.measurement import Latency, ModelSize
from hf_prunable.reporting.provenance import Provenance
from hf_prunable.reporting.pruning_inputs import PruningInputs
from hf_prunable.reporting.pruning_report import (
    HeldOutLoss,
    PruningReport,
    PruningResults,
    PruningSizes,
    measure_pruning,
)
from hf_prunable.reporting.pruning_table import format_fidelity_table, format_table
from tests.helpers.tiny_models import tiny_prunable


SHAPE = PrunedShape(
    (5, 16, 20),
    (
        LayerShape(AttentionShape((1, 3), (0, 4), (6, 2)), 7),
        LayerShape(None, 0),
        LayerShape(AttentionShape((), (), ()), None),
    ),
)
HISTORY = [
    {
        "step": step,
        "stage": 1,
        "loss": 0.5,
        "distillation_loss": 0.4,
        "target_sparsity": step / 300,
        "expected_sparsity": step / 310,
        "deterministic_sparsity": step / 330,
    }
    for step in (100, 200)
] + [{"step": 100, "stage": 2, "loss": 0.3, "distillation_loss": 0.3}]
FIDELITY = Fidelity(
    cosine=[0.99871, 0.97342, 0.94128, 0.90004],
    relative_error=[0.0512, 0.2237, 0.3391, 0.4352],
    distillation_loss=0.12344,
    num_frames=12345,
)


def make_report(**changes):
    """Makes a complete report; each change goes to the part that has a field of its name."""
    parts = (
        PruningInputs(
            command="python run_prune.py --target_sparsity 0.72",
            model_name="microsoft/wavlm-base",
            family="wavlm",
            sampling_rate=16000,
            num_skipped={"empty": 2},
            teacher_name=None,
            objective="distillation",
            has_projections=True,
            units=["mha", "qk", "vo", "ffn", "int"],
            steps={"stage_1": 200, "stage_2": 100},
            seed=42,
        ),
        Provenance({"torch": "2.13.0"}, None, "Some CPU, 2 threads, torch 2.13.0"),
        PruningSizes(
            measure="parameters",
            target_sparsity=0.72,
            met_sparsity=0.72003,
            round_to=None,
            dense=ModelSize(94381936, 73_812_345_678, 10.0),
            pruned=ModelSize(26424235, 24_112_345_678, 10.0),
            shape=SHAPE.to_dict(),
        ),
        PruningResults(
            held_out_loss=HeldOutLoss(-0.9871, 0.41236, 0.2),
            fidelity=FIDELITY,
            latency={
                "dense": Latency(0.8124, 0.79, 0.861, 0.08124, 1.0, 10.0),
                "pruned": Latency(0.0954, 0.0949, 0.1024, 0.00954, 8.517, 10.0),
            },
            history=HISTORY,
        ),
    )
    return PruningReport(*with_changes(parts, changes))


def with_changes(parts, changes):
    """Replaces fields of dataclasses, each of which has other fields."""
    changed = []
    for part in parts:
        names = {field.name for field in dataclasses.fields(part)} & changes.keys()
        changed.append(dataclasses.replace(part, **{name: changes.pop(name) for name in names}))
    assert not changes
    return changed


@pytest.mark.parametrize(
    ("objective", "has_projections", "name"),
    [
        ("distillation", False, "Distillation loss"),
        ("distillation", True, "Distillation loss behind the learned projections"),
        ("task", False, "Task loss"),
        ("both", False, "Distillation loss, plus task loss"),
        ("both", True, "Distillation loss behind the learned projections, plus task loss"),
    ],
)
def test_name_of_the_loss(objective, has_projections, name):
    report = make_report(objective=objective, has_projections=has_projections)
    assert report.inputs.loss_name == name
    assert f"| {name}, held-out audio, after compaction |" in format_table(report)


@pytest.mark.parametrize(
    ("after_compaction", "after_final_steps", "warns"),
    [(0.03, 0.02, False), (0.03, 0.03, False), (0.03, None, False), (0.02, 0.03, True)],
)
def test_final_steps_that_made_the_model_worse_are_named(after_compaction, after_final_steps, warns):
    warning = HeldOutLoss(0.0, after_compaction, after_final_steps).warning
    assert (warning is not None) == warns
    if warning is not None:
        assert "was 0.0200 before them and is 0.0300 after. Lower `final_learning_rate`" in warning


def test_report_is_nested_json(tmp_path):
    report = make_report()
    path = report.save(tmp_path)
    assert path == tmp_path / "pruning_report.json"
    values = json.loads(path.read_text())
    assert values == dataclasses.asdict(report)
    assert list(values) == ["inputs", "provenance", "sizes", "results"]
    assert values["sizes"]["pruned"] == {"num_parameters": 26424235, "macs": 24112345678, "mac_seconds": 10.0}
    assert values["results"]["latency"]["pruned"]["clip_seconds"] == 10.0
    assert PrunedShape.from_dict(values["sizes"]["shape"]) == SHAPE


def test_what_json_cannot_hold_becomes_null(tmp_path):
    report = make_report(history=[{"step": 1, "loss": float("nan")}], met_sparsity=float("inf"))
    path = report.save(tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    values = json.loads(path.read_text(), parse_constant=refuse)
    assert values["results"]["history"] == [{"step": 1, "loss": None}] and values["sizes"]["met_sparsity"] is None


def test_sizes_are_those_of_the_two_models():
    dense, pruned = tiny_prunable("wavlm"), tiny_prunable("wavlm", pruned_shape=SHAPE.to_dict())
    sizes = measure_pruning(dense, pruned, measure=Measure("macs", 2.0), target=0.5, round_to=4)
    assert (
        sizes.dense.num_parameters == dense.num_parameters() > pruned.num_parameters() == sizes.pruned.num_parameters
    )
    macs = [count_macs(model.config, UnitCounts.of(model.config.shape), 2.0) for model in (dense, pruned)]
    assert sizes.met_sparsity == 1 - macs[1] / macs[0]
    assert (sizes.measure, sizes.target_sparsity, sizes.round_to) == ("multiply-accumulates of a 2 s clip", 0.5, 4)
    assert sizes.shape == SHAPE.to_dict()


NOTE = (
    "Sparsity is the fraction of the dense encoder's parameters that was removed. Latency is the median over forward "
    "passes of the two models in alternation, with the fastest and the slowest pass in parentheses; the real-time "
    "factor is latency divided by the length of the audio. Hidden states are compared frame by frame with those of the "
    "teacher on held-out audio, without a projection; the relative error is the norm of the difference divided by the "
    "norm of the teacher's. Measured on: Some CPU, 2 threads, torch 2.13.0.\n"
)


def test_table_is_exactly_this():
    assert format_table(make_report(teacher_name="microsoft/wavlm-base")) == (
        "|  | dense | pruned | pruned / dense |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| Encoder parameters | 94,381,936 | 26,424,235 | 28.0 % |\n"
        "| Multiply-accumulates, 10 s clip | 73.8 G | 24.1 G | 32.7 % |\n"
        "| Latency, 10 s clip | 812 ms (790 to 861) | 95.4 ms (94.9 to 102) | 8.52x as fast |\n"
        "| Real-time factor | 0.0812 | 0.00954 | 11.7 % |\n"
        "| Cosine to the teacher, mean of all hidden states |  | 0.9534 |  |\n"
        "| Cosine to the teacher, last hidden state |  | 0.9000 |  |\n"
        "| Relative error, last hidden state |  | 0.4352 |  |\n"
        "| Distillation loss without a projection, held-out audio |  | 0.1234 |  |\n"
        "| Distillation loss behind the learned projections, held-out audio, after compaction | -0.9871 | 0.4124 |  |\n"
        "| Distillation loss behind the learned projections, held-out audio, after the final steps | -0.9871 | 0.2000 |  |\n"
        "| Target sparsity |  | 72.00 % |  |\n"
        "| Achieved sparsity |  | 72.00 % |  |\n\n" + NOTE
    )


def test_table_without_final_steps_and_with_batches():
    loss = HeldOutLoss(-1.0, float("nan"))
    latency = {name: Latency(0.8, 0.8, 0.8, 0.08, 1.0, clip_seconds=2.5, batch_size=4) for name in ("dense", "pruned")}
    lines = format_table(make_report(held_out_loss=loss, latency=latency, fidelity=None)).splitlines()
    assert lines[4].startswith("| Latency, batch of 4 2.5 s clips |")
    assert lines[6:9] == [
        "| Distillation loss behind the learned projections, held-out audio | -1.0000 | not finite |  |",
        "| Target sparsity |  | 72.00 % |  |",
        "| Achieved sparsity |  | 72.00 % |  |",
    ]


def test_table_of_a_run_that_goes_on():
    complete = make_report()
    started = PruningReport(complete.inputs, complete.provenance, complete.sizes)
    table = format_table(started)
    assert "Encoder parameters" in table
    assert not any(absent in table for absent in ("Latency", "loss", "Cosine", "Hidden states"))
    started.results.held_out_loss = complete.results.held_out_loss
    assert "behind the learned projections, held-out audio, after compaction" in format_table(started)
    started.results = complete.results
    assert format_table(started) == format_table(complete)


def test_without_a_teacher_the_dense_model_is_compared_with():
    table = format_table(make_report(objective="task"))
    assert "| Cosine to the dense model, last hidden state |  | 0.9000 |  |" in table
    assert "| Task loss, held-out audio, after compaction | -0.9871 | 0.4124 |  |" in table
    assert "teacher" not in table and "frame by frame with those of the dense model on" in table


def test_table_of_the_hidden_states():
    fidelity = dataclasses.replace(FIDELITY, relative_error=[0.0512, 0.2237, float("nan"), 0.4352])
    assert format_fidelity_table(fidelity) == (
        "| Hidden state | Cosine | Relative error |\n"
        "| --- | ---: | ---: |\n"
        "| 0 (input of the first layer) | 0.9987 | 0.0512 |\n"
        "| 1 | 0.9734 | 0.2237 |\n"
        "| 2 | 0.9413 | not finite |\n"
        "| 3 (last) | 0.9000 | 0.4352 |"
    )


@pytest.mark.parametrize(
    "given, written",
    [
        ("/home/ada/wavlm", "wavlm"),
        ("../../ada/wavlm", "wavlm"),
        ("https://ada:secret@host/wavlm", "wavlm"),
        ("/home/ada", "..."),
        ("org/wavlm", "org/wavlm"),
    ],
)
def test_local_names_are_written_without_their_folders(tmp_path, given, written):
    report = make_report(model_name=given, teacher_name=given, dataset_name=given)
    values = json.loads(report.save(tmp_path).read_text())
    assert {values["inputs"][name] for name in ("model_name", "teacher_name", "dataset_name")} == {written}
    assert report.inputs.model_name == given
