"""The record of a run, its table and pictures, and the reload in a fresh process."""

import dataclasses
import json
import shutil
import subprocess

import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file, save_file

from hf_prunable import AttentionShape, LayerShape, PrunableWavLMConfig, PrunedShape
from hf_prunable.reporting import pictures, reload_check
from hf_prunable.reporting.measurement import Latency, ModelSize
from hf_prunable.reporting.pictures import draw_shape, draw_sparsity_curve
from hf_prunable.reporting.pruning_report import HeldOutLoss, PruningReport, format_table, verify_reload
from tests.helpers.tiny_models import tiny_inputs, tiny_prunable


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


def make_report(**changes):
    values = {
        "command": "python run_prune.py --target_sparsity 0.72",
        "versions": {"torch": "2.13.0"},
        "machine": "Some CPU, 2 threads, torch 2.13.0",
        "seed": 42,
        "model_name": "microsoft/wavlm-base",
        "family": "wavlm",
        "units": ["mha", "qk", "vo", "ffn", "int"],
        "steps": {"stage_1": 200, "stage_2": 100},
        "skipped_audio": {"empty": 2},
        "target_sparsity": 0.72,
        "met_sparsity": 0.72003,
        "measure": "parameters",
        "round_to": None,
        "objective": "distillation",
        "dense_size": ModelSize(94381936, 73_812_345_678, 10.0),
        "pruned_size": ModelSize(26424235, 24_112_345_678, 10.0),
        "latency_seconds": 10.0,
        "latency_batch_size": 1,
        "dense_latency": Latency(0.8124, 0.79, 0.861, 0.08124, 1.0),
        "pruned_latency": Latency(0.0954, 0.0949, 0.1024, 0.00954, 8.517),
        "held_out_loss": HeldOutLoss(-0.9871, 0.41236, 0.2),
        "shape": SHAPE.to_dict(),
        "history": HISTORY,
    }
    return PruningReport(**(values | changes))


def test_report_survives_json(tmp_path):
    report = make_report()
    path = report.save(tmp_path)
    assert path == tmp_path / "pruning_report.json"
    assert PruningReport.load(path) == PruningReport.load(tmp_path) == report
    assert json.loads(path.read_text())["pruned_size"] == {
        "num_parameters": 26424235,
        "macs": 24112345678,
        "mac_seconds": 10.0,
    }
    assert PrunedShape.from_dict(PruningReport.load(path).shape) == SHAPE


def test_what_json_cannot_hold_becomes_null(tmp_path):
    report = make_report(history=[{"step": 1, "loss": float("nan")}], met_sparsity=float("inf"))
    path = report.save(tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(path.read_text(), parse_constant=refuse)
    loaded = PruningReport.load(path)
    assert loaded.history == [{"step": 1, "loss": None}] and loaded.met_sparsity is None


@pytest.mark.parametrize("change", [{"seed": ...}, {"dense_size": ...}, {"surplus": 1}, {"dense_size": {"macs": 1}}])
def test_other_json_is_refused(tmp_path, change):
    values = json.loads(make_report().save(tmp_path).read_text()) | change
    path = tmp_path / "other.json"
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))
    with pytest.raises(ValueError, match=r"other\.json is not a pruning report"):
        PruningReport.load(path)


NOTE = (
    "Sparsity is the part of all parameters of the dense encoder that is gone. Latency is the median of runs of "
    "both models in turn, from the fastest to the slowest in brackets; the real-time factor is latency over the "
    "length of the audio. Measured on: Some CPU, 2 threads, torch 2.13.0.\n"
)


def test_table_is_exactly_this():
    assert format_table(make_report()) == (
        "|  | dense | pruned | pruned / dense |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| Parameters of the encoder | 94,381,936 | 26,424,235 | 28.0 % |\n"
        "| Multiply-accumulates, 10 s clip | 73.8 G | 24.1 G | 32.7 % |\n"
        "| Latency, 10 s clip | 812 ms (790 to 861) | 95.4 ms (94.9 to 102) | 8.52x as fast |\n"
        "| Real-time factor | 0.0812 | 0.00954 | 11.7 % |\n"
        "| Distillation loss, held-out audio, after compaction | -0.9871 | 0.4124 |  |\n"
        "| Distillation loss, held-out audio, after the final steps | -0.9871 | 0.2000 |  |\n"
        "| Sparsity asked for |  | 72.00 % |  |\n"
        "| Sparsity met |  | 72.00 % |  |\n\n" + NOTE
    )


def test_table_without_final_steps_and_with_batches():
    loss = HeldOutLoss(-1.0, float("nan"))
    lines = format_table(make_report(held_out_loss=loss, latency_batch_size=4, latency_seconds=2.5)).splitlines()
    assert lines[4].startswith("| Latency, batch of 4 2.5 s clips |")
    assert lines[6:9] == [
        "| Distillation loss, held-out audio | -1.0000 | not finite |  |",
        "| Sparsity asked for |  | 72.00 % |  |",
        "| Sparsity met |  | 72.00 % |  |",
    ]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """A folder with a pruned model, an input and its hidden states."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = tiny_prunable("wavlm", pruned_shape=SHAPE.to_dict())
    model.save_pretrained(folder)
    input_values = tiny_inputs(padded=False)["input_values"]
    with torch.inference_mode():
        hidden_states = model(input_values, output_hidden_states=True).hidden_states
    return folder, input_values, hidden_states


@pytest.fixture
def in_process(monkeypatch):
    """Runs the child's code here: a fresh process takes seconds to import."""

    def run(command, **options):
        monkeypatch.setattr("sys.argv", command[2:])
        try:
            reload_check.main()
        except SystemExit as error:
            return subprocess.CompletedProcess(command, 1, stderr=str(error.code))
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr("hf_prunable.reporting.pruning_report.subprocess.run", run)


def test_reload_in_a_fresh_process_is_exact(saved_model):
    assert verify_reload(*saved_model) == 0.0


def test_reload_with_a_missing_key_fails_in_a_fresh_process(saved_model, tmp_path):
    folder, input_values, hidden_states = saved_model
    incomplete, weights = _copy(folder, tmp_path / "incomplete")
    del weights["encoder.layers.1.layer_norm.weight"]
    save_file(weights, incomplete / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"(?s)disagree. Weights missing: encoder\.layers\.1\.layer_norm\.weight"):
        verify_reload(incomplete, input_values, hidden_states)


def test_reload_of_tampered_weights_fails(saved_model, tmp_path, in_process):
    folder, input_values, hidden_states = saved_model
    assert verify_reload(folder, input_values, hidden_states) == 0.0
    tampered, weights = _copy(folder, tmp_path / "tampered")
    weights["encoder.layers.0.feed_forward.output_dense.weight"][3, 2] += 0.1
    save_file(weights, tampered / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="computes something else: hidden state 1 differs by"):
        verify_reload(tampered, input_values, hidden_states)


def test_reload_with_a_surplus_key_fails(saved_model, tmp_path, in_process):
    folder, input_values, hidden_states = saved_model
    surplus, weights = _copy(folder, tmp_path / "surplus")
    save_file(weights | {"more": torch.ones(1)}, surplus / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"(?s)does not load.*unexpected_keys.*more"):
        verify_reload(surplus, input_values, hidden_states)


def test_reload_of_heads_and_other_dtypes(tmp_path, in_process):
    model = tiny_prunable("hubert", head="ctc").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    input_values = tiny_inputs(padded=False)["input_values"].to(torch.bfloat16)
    with torch.inference_mode():
        hidden_states = model(input_values, output_hidden_states=True).hidden_states
    assert verify_reload(tmp_path, input_values, hidden_states, "AutoModelForCTC") == 0.0
    # Without its head, the model has keys that nothing takes.
    with pytest.raises(RuntimeError, match="lm_head"):
        verify_reload(tmp_path, input_values, hidden_states)


def test_differences_are_found_without_the_process(saved_model, monkeypatch):
    """The comparison itself, on outputs that a process might have left."""
    folder, input_values, hidden_states = saved_model
    states = [state.clone() for state in hidden_states]

    def leave(*outputs):
        def run(command, **options):
            save_file({str(number): output.clone() for number, output in enumerate(outputs)}, command[5])
            return subprocess.CompletedProcess(command, 0, stderr="")

        monkeypatch.setattr("hf_prunable.reporting.pruning_report.subprocess.run", run)

    leave(*states)
    assert verify_reload(folder, input_values, hidden_states) == 0.0
    leave(states[0] + 1e-6, *states[1:])
    assert 0 < verify_reload(folder, input_values, hidden_states) < 2e-6
    states[2][0, 0, 0] = float("nan")
    leave(*states)
    with pytest.raises(RuntimeError, match="hidden state 2 differs by nan"):
        verify_reload(folder, input_values, hidden_states)
    leave(*states[:2])
    with pytest.raises(RuntimeError, match="has 2 hidden states, and in memory 4"):
        verify_reload(folder, input_values, hidden_states)
    leave(states[0][:1], *states[1:])
    with pytest.raises(RuntimeError, match="hidden state 0 has the shape"):
        verify_reload(folder, input_values, hidden_states)


def _copy(folder, target):
    """Copies a model; returns the new folder and the weights."""
    shutil.copytree(folder, target)
    return target, load_file(target / "model.safetensors")


def pixels(path):
    height, width, _ = imread(path).shape
    return width, height


@pytest.mark.parametrize(
    ("num_layers", "num_heads", "size"), [(12, 12, (1410, 1170)), (24, 16, (2490, 1350)), (3, 4, (1110, 1020))]
)
def test_picture_of_a_shape(tmp_path, num_layers, num_heads, size):
    config = PrunableWavLMConfig(
        hidden_size=num_heads * 16, num_attention_heads=num_heads, num_hidden_layers=num_layers, intermediate_size=96
    )
    dense = PrunedShape.dense(config)
    layers = (LayerShape(None, None), LayerShape(AttentionShape((0, 2), (0, 5), (16, 3)), 0), *dense.layers[2:])
    draw_shape(PrunedShape((7, *dense.conv_channels[1:]), layers), config, tmp_path / "shape.png")
    assert pixels(tmp_path / "shape.png") == size
    assert imread(tmp_path / "shape.png")[..., :3].std() > 0.1


def test_narrow_bias_only_and_removed_blocks_look_different(tmp_path):
    config = tiny_prunable("wavlm").config
    dense = PrunedShape.dense(config)
    pictures_of = []
    for attention in (AttentionShape((0,), (0,), (1,)), AttentionShape((), (), ()), None):
        shape = dataclasses.replace(dense, layers=(*dense.layers[:2], LayerShape(attention, 40)))
        draw_shape(shape, config, tmp_path / "shape.png")
        # Below the title, which names the parameters.
        pictures_of.append(imread(tmp_path / "shape.png")[60:])
    narrow, bias, gone = pictures_of
    assert (narrow != bias).any(-1).mean() > 0.02 and (bias != gone).any(-1).mean() > 0.02


def test_picture_of_the_sparsity(tmp_path):
    for name, history in (("two.png", HISTORY), ("one.png", HISTORY[:2]), ("none.png", [])):
        draw_sparsity_curve(history, tmp_path / name)
        assert pixels(tmp_path / name) == (1200, 825)
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in ("two", "one", "none")}) == 3


def test_stages_follow_each_other():
    assert pictures._continuous_steps(HISTORY) == ([100, 200, 300], [200])
    going_on = [{"step": 1, "stage": 1}, {"step": 2, "stage": 1}, {"step": 3, "stage": 2}, {"step": 9, "stage": 2}]
    assert pictures._continuous_steps(going_on) == ([1, 2, 3, 9], [2])
    assert pictures._continuous_steps([]) == ([], [])
