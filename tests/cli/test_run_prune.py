"""run_prune.py from checkpoint and audio to a folder that AutoModel loads, and what it says to bad input."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from matplotlib.image import imread
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModel, BertConfig, HfArgumentParser, Wav2Vec2FeatureExtractor

from hf_prunable import PrunableWavLMModel
from hf_prunable.cli import prune as run_prune
from hf_prunable.data.arguments import SpeechArguments
from hf_prunable.hub import PushError
from hf_prunable.pruning.arguments import PruningArguments, PruningTrainingArguments
from hf_prunable.pruning.gate_sparsity import SETTLED_TOLERANCE
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from tests.helpers.processes import ROOT
from tests.helpers.speech_files import RATE, tone, write
from tests.helpers.tiny_models import tiny_inputs, tiny_prunable, tiny_stock
from tests.helpers.training_logs import losses_of


SCRIPT = ROOT / "run_prune.py"
FILES = {
    "README.md",
    "config.json",
    "fidelity.png",
    "model.safetensors",
    "modeling_hf_prunable.py",
    "preprocessor_config.json",
    "pruning_report.json",
    "shape.png",
    "sparsity_curve.png",
}
MODEL_FILES = {"config.json", "model.safetensors", "modeling_hf_prunable.py", "preprocessor_config.json"}
SKIPPED = {"unreadable": 1, "empty": 2, "with NaN or infinite samples": 1, "shorter than 0.25 s": 1}
OPTIONS = {
    "target_sparsity": 0.4,
    "crop_seconds": 0.1,
    "min_seconds": 0.25,
    "held_out_fraction": 0.3,
    "latency_seconds": 0.2,
}
TRAINING = {
    "max_steps": 4,
    "final_steps": 2,
    "gate_learning_rate": 2.0,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": 11,
}


def save_checkpoint(folder, model):
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "dense", tiny_stock("wavlm", hidden_dropout=0.13))


def write_unusable(folder):
    """One file of every kind that has to be left out."""
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "garbage.wav").write_bytes(b"this is no sound")
    (folder / "sub" / "nothing.flac").write_bytes(b"")
    write(folder / "no_samples.wav", np.zeros(0))
    write(folder / "nan.wav", np.where(np.arange(RATE) == 9, np.nan, 0.1), subtype="FLOAT")
    write(folder / "short.wav", tone(0.2))


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """Files that can be used, of three rates and two numbers of channels, among files that cannot."""
    folder = tmp_path_factory.mktemp("audio")
    noise = 0.1 * np.random.default_rng(0).standard_normal((4, RATE * 3 // 10))
    for number, samples in enumerate(noise):
        write(folder / "speaker" / f"{number}.wav", samples)
    write(folder / "stereo.flac", np.stack([tone(0.4), noise[0][:1].repeat(6400)], axis=1))
    write(folder / "telephone.wav", tone(0.3, rate=8000), rate=8000)
    write(folder / "cd.wav", tone(0.3, rate=44100), rate=44100)
    write_unusable(folder)
    return folder


@pytest.fixture
def run(checkpoint, audio, tmp_path):
    """Calls `prune` with small settings; anything can be replaced."""

    def prune(model=checkpoint, dataset=audio, output_dir=tmp_path / "out", **changes):
        changes = {**OPTIONS, **TRAINING, **changes}
        changes |= {"model_name_or_path": str(model), "dataset_name": str(dataset), "output_dir": str(output_dir)}
        kinds = (run_prune.PruningArguments, SpeechArguments, ObjectiveArguments, PruningTrainingArguments)
        parts = [{name: changes.pop(name) for name in kind.__dataclass_fields__ if name in changes} for kind in kinds]
        assert not changes
        return run_prune.prune(*(kind(**part) for kind, part in zip(kinds, parts, strict=True)))

    return prune


@pytest.fixture(scope="module")
def result(checkpoint, audio, tmp_path_factory):
    """One whole run as a user starts it: a process of its own, options in a YAML file."""
    folder = tmp_path_factory.mktemp("result")
    options = {"model_name_or_path": str(checkpoint), "dataset_name": str(audio), "output_dir": "pruned"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**options, **OPTIONS, **TRAINING}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), "recipe.yaml"]
    completed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return folder / "pruned", completed.stderr


def read_report(folder):
    return json.loads((folder / "pruning_report.json").read_text())


def test_the_folder_is_complete(result):
    folder, log = result
    assert {path.name for path in folder.iterdir()} == FILES
    # Nothing that was written on the way is left.
    assert {path.name for path in folder.parent.iterdir()} == {"pruned", "recipe.yaml"}
    assert "The pruned model is in pruned." in log and "| Target sparsity |" in log
    for picture in ("shape.png", "sparsity_curve.png", "fidelity.png"):
        assert imread(folder / picture).std() > 0.05
    assert json.loads((folder / "config.json").read_text())["hidden_dropout"] == 0.13


def test_a_run_shows_its_plan_and_announces_its_stages(result):
    _, log = result
    lines = log.splitlines()
    assert "Stage 1: train gates and weights, 4 steps of 2 clips" in lines and "Output: pruned" in lines
    first, second = (
        lines.index(f"Stage {number} of 2: {name} steps.")
        for number, name in ((1, "train gates and weights, 4"), (2, "train the pruned model, 2"))
    )
    assert lines.index("Output: pruned") < first < second


def test_the_report_of_a_run(result):
    folder, log = result
    report = read_report(folder)
    inputs, sizes, results = report["inputs"], report["sizes"], report["results"]
    assert inputs["num_skipped"] == SKIPPED
    saved_bytes = (folder / "model.safetensors").stat().st_size
    assert results["footprint"]["pruned"]["files"] == {"num_bytes": saved_bytes, "dtype": "float32"}
    assert all(footprint["peak_bytes"] > 0 for footprint in results["footprint"].values())
    assert "5 of 12 clips cannot be used" in log and "1 with NaN or infinite samples" in log
    # The recipe is written out, so that the command alone makes the model again.
    python, script, *options = shlex.split(inputs["command"])
    assert (python, script) == ("python", SCRIPT.name)
    parsed = HfArgumentParser((PruningArguments, SpeechArguments, ObjectiveArguments, PruningTrainingArguments))
    parts = parsed.parse_args_into_dataclasses(options)
    values = {name: value for part in parts for name, value in vars(part).items()}
    for name, value in {**OPTIONS, **TRAINING, "target_sparsity": [0.4]}.items():
        assert values[name] == value, name
    assert (inputs["seed"], inputs["family"], sizes["target_sparsity"]) == (11, "wavlm", 0.4)
    assert 0.4 <= sizes["met_sparsity"] < 0.42
    assert sizes["met_sparsity"] == pytest.approx(
        1 - sizes["pruned"]["num_parameters"] / sizes["dense"]["num_parameters"]
    )
    assert inputs["steps"] == {"with gates": 4, "after compaction": 2}
    assert [(entry["stage"], entry["step"]) for entry in results["history"]] == [
        *[(1, step) for step in range(1, 5)],
        *[(2, step) for step in range(1, 3)],
    ]
    losses = results["held_out_loss"]
    assert losses["dense"] < 1e-5 < losses["after_compaction"]
    assert losses["after_final_steps"] not in (losses["after_compaction"], None)
    fidelity = results["fidelity"]
    assert len(fidelity["cosine"]) == len(fidelity["relative_error"]) == 4
    assert all(0 < cosine < 1 for cosine in fidelity["cosine"][1:]) and fidelity["distillation_loss"] > 0
    card = ModelCard.load(folder / "README.md")
    assert f"| 3 (last) | {fidelity['cosine'][3]:.4f} | {fidelity['relative_error'][3]:.4f} |" in card.text
    assert "\n# pruned\n" in card.text and "(shape.png)" in card.text and "(sparsity_curve.png)" in card.text
    assert f"{sizes['pruned']['num_parameters']:,}" in card.text and report["provenance"]["machine"] in card.text
    assert card.data.eval_results[0].metric_value == pytest.approx(losses["after_final_steps"], abs=1e-6)
    assert str(folder.parent) not in card.text.replace(inputs["command"], "")


def test_gates_far_from_their_target_are_told_in_log_report_and_card(result):
    folder, log = result
    results = read_report(folder)["results"]
    gates, last = results["gate_sparsity"], [entry for entry in results["history"] if entry["stage"] == 1][-1]
    assert gates["target"] == 0.4 and gates["have_learned"]
    for name in ("expected", "deterministic"):
        assert gates[name] == pytest.approx(last[f"{name}_sparsity"], abs=1e-6)
    # Four steps are not enough.
    assert abs(gates["expected"] - 0.4) > SETTLED_TOLERANCE
    assert (
        f"sparsity of 0.4000 in parameters, but the expected sparsity of the gates is {gates['expected']:.4f}" in log
    )
    assert gates["warning"] in log and f"- {gates['warning']}\n" in (folder / "README.md").read_text()


def test_auto_model_loads_the_result(result):
    folder, _ = result
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, PrunableWavLMModel) and not any(info.values())
    sizes = read_report(folder)["sizes"]
    assert model.num_parameters() == sizes["pruned"]["num_parameters"]
    assert model.config.gates is None and model.config.shape.to_dict() == sizes["shape"]
    assert AutoFeatureExtractor.from_pretrained(folder).sampling_rate == RATE
    assert model.eval()(tiny_inputs()["input_values"]).last_hidden_state.isfinite().all()


def test_a_run_is_repeatable_and_leaves_no_partial_folder(run, result, tmp_path):
    """Here, where another process's random state was left behind by other tests."""
    torch.manual_seed(12345)
    folder = run(target_sparsity=0.4)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    weights, expected = load_file(folder / "model.safetensors"), load_file(result[0] / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    history, expected_history = (read_report(path)["results"]["history"] for path in (folder, result[0]))
    assert losses_of(history) == losses_of(expected_history)


def test_a_new_head_is_a_function_of_the_seed(run, checkpoint, audio, tmp_path):
    clips = sorted((audio / "speaker").iterdir())
    rows = {"audio": [{"bytes": clip.read_bytes(), "path": None} for clip in clips], "label": ["yes", "no"] * 2}
    Dataset.from_dict(rows).to_parquet(tmp_path / "labelled.parquet")
    options = {"objective": "task", "task": "classification", "max_steps": 1, "final_steps": 0}
    weights = []
    for number in range(2):
        # What the process drew before does not matter.
        torch.manual_seed(number)
        folder = run(checkpoint, tmp_path / "labelled.parquet", tmp_path / f"out{number}", **options)
        weights.append(load_file(folder / "model.safetensors"))
    assert "classifier.weight" in weights[0] and weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("kind", ["json", "yaml", "yml", "flags"])
def test_options_come_from_a_file_or_from_the_command_line(monkeypatch, tmp_path, kind):
    options = {"model_name_or_path": "m", "dataset_name": "d", "target_sparsity": 0.5, "prune_units": ["mha", "ffn"]}
    options |= {"ste": False, "distillation_layers": [0, 3], "output_dir": "o", "max_steps": 7, "learning_rate": 1e-3}
    if kind == "flags":
        arguments = ["--no_ste"]
        for name, value in options.items():
            values = value if isinstance(value, list) else [value]
            arguments += [] if name == "ste" else [f"--{name}", *map(str, values)]
    else:
        file = tmp_path / f"options.{kind}"
        file.write_text(json.dumps(options) if kind == "json" else yaml.safe_dump(options))
        arguments = [str(file)]
    seen = []

    class NotedRecipe(run_prune.PruningRecipe):
        folder = None

        def __init__(self, *parts):
            seen.append({name: value for part in parts for name, value in vars(part).items()})

        def setup(self):
            pass

        prune = finish = setup

    monkeypatch.setattr(run_prune, "PruningRecipe", NotedRecipe)
    monkeypatch.setattr(sys, "argv", ["run_prune.py", *arguments])
    run_prune.main()
    options["target_sparsity"] = [0.5]
    assert {name: seen[0][name] for name in options} == options


def test_an_option_that_does_not_exist(monkeypatch, tmp_path, capsys):
    (tmp_path / "o.yaml").write_text("{model_name_or_path: m, dataset_name: d, output_dir: o, target_sparsty: 0.5}")
    monkeypatch.setattr(sys, "argv", ["run_prune.py", str(tmp_path / "o.yaml")])
    with pytest.raises(SystemExit, match="2"):
        run_prune.main()
    assert "target_sparsty" in capsys.readouterr().err


class TestBadInput:
    """Every error names the cause and the cure, and nothing is written."""

    @pytest.fixture(autouse=True)
    def nothing_is_written(self, tmp_path):
        yield
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(("out", ".out"))]

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"target_sparsity": 0.0}, "must lie between 0 and 1, but is 0.0. .*0.72 leaves 28 %"),
            ({"target_sparsity": 72.0}, "must lie between 0 and 1, but is 72.0. .*0.72 leaves 28 %"),
            (
                {"target_sparsity": 0.9},
                r"is 0.9, and removing all units of the kinds qk, vo, int .*at most 0\.6\d+ .*Ask for less, or prune more",
            ),
            ({"prune_units": ["mha", "heads"]}, r"Unknown units \['heads'\]: choose one or more of mha, head, qk"),
            ({"initial_drop_rate": 0.0}, "`initial_drop_rate` must be between 0 and 1, but is 0.0"),
            ({"distillation_layers": [0, 9]}, r"must be in 0\.\.3, but are \[0, 9\]"),
            ({"min_seconds": 5.0}, "No clip is left: 12 of 12 .*Give audio that soundfile can read, of 5 s or longer"),
            ({"held_out_fraction": 1.0}, "`held_out_fraction` is 1.0; it must lie between 0 and 1"),
            ({"crop_seconds": 0.0}, "crop_seconds is 0.0; it must be above 0"),
            ({"dataset_split": "test"}, "no sub-folder 'test'; .* only the split 'train'"),
        ],
    )
    def test_options(self, run, options, message):
        with pytest.raises(ValueError, match=message):
            run(**options)

    def test_another_kind_of_model(self, run, tmp_path):
        BertConfig().save_pretrained(tmp_path / "bert")
        with pytest.raises(
            ValueError, match="Model type 'bert' cannot be pruned here. Supported are 'wavlm', 'hubert'"
        ):
            run(tmp_path / "bert")

    def test_convolutions_that_cannot_have_gates(self, run, tmp_path):
        folder = save_checkpoint(tmp_path / "layer_norm", tiny_stock("wavlm", "pre"))
        with pytest.raises(ValueError, match=r"need `feat_extract_norm='group'`.*Leave 'conv' out of the units"):
            run(folder, prune_units=["mha", "conv"])

    def test_a_folder_without_audio(self, run, tmp_path):
        (tmp_path / "audio").mkdir()
        (tmp_path / "audio" / "readme.txt").write_text("no sound")
        with pytest.raises(ValueError, match=r"no audio in it; the extensions looked for are \.wav, \.flac"):
            run(dataset=tmp_path / "audio")

    def test_a_folder_that_does_not_exist(self, run, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
            run(dataset=tmp_path / "audio")

    def test_a_folder_of_unusable_files(self, run, tmp_path):
        write_unusable(tmp_path / "audio")
        with pytest.raises(ValueError, match="No clip is left: 5 of 5 clips cannot be used: .*of 0.25 s or longer"):
            run(dataset=tmp_path / "audio")

    @pytest.mark.parametrize("which", ["model", "teacher"])
    def test_shape_and_weights_disagree(self, run, checkpoint, tmp_path, which):
        shape = tiny_prunable("wavlm").config.shape.to_dict()
        shape["layers"][1]["intermediate"] = 12
        folder = save_checkpoint(tmp_path / "pruned", tiny_prunable("wavlm", pruned_shape=shape))
        config = json.loads((folder / "config.json").read_text())
        config["pruned_shape"]["layers"][1]["intermediate"] = 13
        (folder / "config.json").write_text(json.dumps(config))
        sources = {"model": folder} if which == "model" else {"teacher_name_or_path": str(folder)}
        with pytest.raises(ValueError, match=r"pruned' disagree. Weights of another size: .*layers\.1\.feed_forward"):
            run(**sources)

    def test_a_future_format(self, run, tmp_path):
        folder = save_checkpoint(tmp_path / "future", tiny_stock("wavlm"))
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "prunable_wavlm", "pruned_shape": {"format_version": 2, "something": "new"}}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            Exception, match=r"format version 2, and this hf_prunable reads up to 1. Upgrade with `pip"
        ):
            run(folder)


def test_what_is_there_is_not_overwritten(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="out' is not empty. Give the name of a new or an empty folder"):
        run()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_a_teacher_with_nan_stops_the_run(run, checkpoint, tmp_path):
    folder = save_checkpoint(tmp_path / "broken", tiny_stock("wavlm"))
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layers.2.final_layer_norm.bias"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FloatingPointError, match="loss on held-out audio is nan.*Check the checkpoints"):
        run(teacher_name_or_path=str(folder))
    assert not (tmp_path / "out").exists()


def test_fidelity_is_to_the_teacher_of_the_run(run, checkpoint, tmp_path):
    teacher = save_checkpoint(tmp_path / "teacher", tiny_stock("wavlm", seed=1))
    options = {"max_steps": 1, "final_steps": 0}
    found = [
        read_report(run(output_dir=tmp_path / name, **options, **changes))["results"]["fidelity"]
        for name, changes in {"own": {}, "other": {"teacher_name_or_path": str(teacher)}}.items()
    ]
    assert found[0]["cosine"][0] > 0.99 > found[1]["cosine"][0]
    larger = save_checkpoint(tmp_path / "larger", tiny_stock("wavlm", hidden_size=32))
    folder = run(output_dir=tmp_path / "none", teacher_name_or_path=str(larger), **options)
    assert read_report(folder)["results"]["fidelity"] is None
    assert {path.name for path in folder.iterdir()} == FILES - {"fidelity.png"}


def test_an_option_that_would_do_nothing_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="`resume_from_checkpoint` is not supported"):
        run(resume_from_checkpoint=True)
    assert not list(tmp_path.iterdir())


def test_a_push_that_would_fail_stops_the_run_before_it_begins(run, tmp_path):
    # These tests are offline.
    with pytest.raises(PushError, match="(?s)A push to org/model would fail: .*push the finished folder later"):
        run(push_to_hub=True, hub_model_id="org/model", hub_token="hf_x")
    assert not list(tmp_path.iterdir())


def test_a_result_that_does_not_reload_is_not_published(run, monkeypatch, tmp_path):
    seen = []

    def verify_reload(folder, *args, **options):
        seen.append({path.name for path in Path(folder).iterdir()})
        raise RuntimeError("the model computes something else")

    monkeypatch.setattr("hf_prunable.reporting.publication.verify_reload", verify_reload)
    with pytest.raises(RuntimeError, match="computes something else"):
        run(max_steps=1, final_steps=0)
    # Nothing was said of it yet, and it was there under another name.
    assert seen == [MODEL_FILES]
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
