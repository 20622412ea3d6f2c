"""Exported models against the ones they came from, at batch sizes and lengths that were not traced."""

import json
import logging
import re
import shutil

import pytest
import torch
from torch.export import Dim
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from hf_prunable import OnnxModel, export, export_onnx, load_prunable
from hf_prunable.data.audio import decode_audio
from hf_prunable.reporting.onnx_agreement import Agreement, check_agreement
from tests.helpers.fresh_processes import AUTO_CLASSES, FAMILY_HEADS, ragged
from tests.helpers.tiny_models import randomize_, tiny_config, tiny_emptied, tiny_inputs, tiny_prunable


# float32 rounding over a few layers of values around 1, at thousands of frames.
TOLERANCE = 1e-4
SIZES = ((1, 300), (2, 1111), (5, 4000))


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def short_export(folder, path, **options):
    return export_onnx(folder, path, **{"check_seconds": (0.1, 0.25), "latency_seconds": None, **options})


@torch.no_grad()
def assert_agrees(exported, model, with_mask=True):
    names = ("input_values", "attention_mask") if with_mask else ("input_values",)
    for batch_size, samples in SIZES:
        inputs = {name: tiny_inputs(batch_size, samples, padded=with_mask)[name] for name in names}
        expected, found = model(**inputs, output_hidden_states=True), exported(**inputs)
        expected |= {f"hidden_states.{number}": state for number, state in enumerate(expected.hidden_states)}
        for name in exported.outputs:
            torch.testing.assert_close(found[name], expected[name], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory):
    """A ragged model, its folder and what the export says."""
    root = tmp_path_factory.mktemp("wavlm")
    model = ragged("wavlm")
    saved(model, root / "model")
    options = {"attention_mask": True, "output_hidden_states": True, "latency_seconds": 0.1, "num_threads": 1}
    return model, root / "model", short_export(root / "model", root / "new" / "model.onnx", **options)


def test_ragged_wavlm_with_every_hidden_state(wavlm):
    model, _, exported = wavlm
    assert exported.inputs == ["input_values", "attention_mask"]
    assert exported.outputs == ["last_hidden_state", *(f"hidden_states.{number}" for number in range(4))]
    graph = OnnxModel(exported.path)
    assert_agrees(graph, model)
    audio = tiny_inputs(2, 700, padded=False)["input_values"]
    with torch.no_grad():
        expected = model(audio).last_hidden_state
    torch.testing.assert_close(graph(audio)["last_hidden_state"], expected, atol=TOLERANCE, rtol=0)


def test_what_the_export_says(wavlm):
    _, _, exported = wavlm
    assert [agreement.batch_size for agreement in exported.agreements] == [1, 2]
    assert [agreement.seconds for agreement in exported.agreements] == [0.1, 0.25]
    assert 0 < exported.largest_difference < TOLERANCE
    assert exported.largest_difference == max(agreement.difference for agreement in exported.agreements)
    assert exported.auto_class == "AutoModel" and exported.opset_version >= 18
    assert exported.num_bytes == exported.path.stat().st_size
    # Nothing but the file is left: the weights are in it.
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
    assert set(exported.latencies) == {"PyTorch", "onnxruntime"} and exported.latency_seconds == 0.1
    assert exported.latencies["PyTorch"].speedup == 1 and "1 thread" in exported.machine
    assert all(latency.median_seconds > 0 for latency in exported.latencies.values())


def test_dense_classifier(tmp_path):
    """Before it was pruned: from a stock checkpoint."""
    model = tiny_prunable("wav2vec2", "pre", "classification", num_labels=3)
    folder = saved(model, tmp_path / "model")
    exported = short_export(folder, tmp_path / "model.onnx")
    assert exported.inputs == ["input_values"] and exported.outputs == ["logits"]
    assert not exported.latencies and exported.latency_seconds is None
    assert_agrees(OnnxModel(exported.path), model, with_mask=False)


@pytest.mark.slow
@pytest.mark.parametrize("make", (ragged, tiny_emptied))
@pytest.mark.parametrize(("family", "head"), FAMILY_HEADS)
def test_every_head(tmp_path, family, head, make):
    model = make(family, head=head)
    with_mask = head != "xvector"
    exported = short_export(saved(model, tmp_path / "model"), tmp_path / "model.onnx", attention_mask=with_mask)
    assert exported.auto_class == AUTO_CLASSES[head]
    assert exported.inputs == ["input_values", "attention_mask"][: 1 + with_mask]
    graph = OnnxModel(exported.path)
    assert_agrees(graph, model, with_mask)
    if not with_mask:
        assert exported.outputs == ["logits", "embeddings"]
        with pytest.raises(ValueError, match="The file takes no mask"):
            graph(**tiny_inputs())


@pytest.mark.slow
def test_real_clips(tmp_path, shared_models, shared_data):
    folder = shared_models / "wavlm-mini"
    exported = OnnxModel(export_onnx(folder, tmp_path / "model.onnx", latency_seconds=None).path)
    model = load_prunable(folder)
    clips = sorted((shared_data / "librispeech").rglob("*.flac"))[:6]
    assert clips
    lengths = set()
    for clip in clips:
        audio = torch.from_numpy(decode_audio({"path": str(clip), "bytes": None}, 16000)).unsqueeze(0)
        with torch.no_grad():
            expected = model(audio).last_hidden_state
        found = exported(audio)["last_hidden_state"]
        torch.testing.assert_close(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
        lengths.add(audio.shape[1])
    assert len(lengths) > 1


@pytest.mark.parametrize(("family", "make"), [("wavlm", ragged), ("hubert", tiny_emptied), ("wav2vec2", tiny_emptied)])
def test_torch_export(family, make):
    """The model itself, as it is used, with both dimensions dynamic."""
    model = make(family)
    dynamic = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    inputs = tiny_inputs(3, 900)
    program = torch.export.export(
        model, (), inputs, dynamic_shapes={name: dynamic for name in inputs}, strict=False
    ).module()
    with torch.no_grad():
        for batch_size, samples in SIZES:
            given = tiny_inputs(batch_size, samples)
            expected = model(**given).last_hidden_state
            torch.testing.assert_close(program(**given).last_hidden_state, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("family", "make"), [("wavlm", tiny_prunable), ("wavlm", ragged), ("wavlm", tiny_emptied), ("hubert", ragged)]
)
def test_torch_export_with_named_sizes(family, make):
    """A named size must hold for every length, not only for those that the traced one divides."""
    model = make(family)
    sizes = {0: Dim("batch"), 1: Dim("samples", min=300, max=16000)}
    inputs = tiny_inputs(3, 900)
    program = torch.export.export(
        model, (), inputs, dynamic_shapes=dict.fromkeys(inputs, sizes), strict=False
    ).module()
    with torch.no_grad():
        for batch_size, samples in ((2, 311), (4, 1111)):
            given = tiny_inputs(batch_size, samples)
            expected = model(**given).last_hidden_state
            torch.testing.assert_close(program(**given).last_hidden_state, expected, atol=TOLERANCE, rtol=0)


def test_a_graph_that_disagrees_is_not_written(wavlm, tmp_path, monkeypatch):
    _, _, other = wavlm

    monkeypatch.setattr(export, "write", lambda program, path, metadata: shutil.copy(other.path, path))
    folder = saved(randomize_(ragged("wavlm"), seed=7), tmp_path / "model")
    path = tmp_path / "model.onnx"
    path.write_text("before")
    with pytest.raises(RuntimeError, match=r"1 x 0.1 s: \d\S+, \d\S+ of the largest value; 2 x 0.25 s: .*1e-04"):
        short_export(folder, path)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 2


def test_nan_is_no_agreement():
    with pytest.raises(RuntimeError, match="nan"):
        check_agreement("x", [Agreement(1, 1.0, 0.0, 0.0), Agreement(2, 1.0, *[float("nan")] * 2)])


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (
            {"auto_class": "AutoModelForAudioXVector", "attention_mask": True},
            "cannot be exported with `attention_mask`",
        ),
        ({"auto_class": "AutoModelForCTC"}, "missing: lm_head.bias, lm_head.weight"),
        ({"auto_class": "AutoModelForX"}, "prunable_wavlm has no AutoModelForX"),
        ({"check_seconds": ()}, "`check_seconds` must be one or more positive"),
        ({"check_seconds": (1.0, 0.0)}, "`check_seconds` must be one or more positive"),
        ({"check_seconds": (1.0, 0.001)}, "`check_seconds` has 0.001 s; the shortest clip of this model has 0"),
        ({"opset_version": 3}, "`opset_version` 3 cannot be written; torch wrote 18. Give that, or none"),
        ({"hidden_states": {4: "a"}}, "no hidden state 4: the model has 3 layers"),
        ({"hidden_states": {1: "a"}, "output_hidden_states": True}, "Both `hidden_states` and"),
        ({"input_name": ""}, "`input_name` is ''; give a letter"),
        ({"input_name": "logits"}, "`input_name` is 'logits', the name of another input or output"),
    ),
)
def test_impossible_options(wavlm, tmp_path, options, message):
    _, folder, _ = wavlm
    with pytest.raises(ValueError, match=message):
        export_onnx(folder, tmp_path / "model.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_impossible_checkpoints(tmp_path, monkeypatch):
    gated = tiny_prunable("hubert")
    gated.attach_gates()
    with pytest.raises(ValueError, match="still to be pruned"):
        export_onnx(saved(gated, tmp_path / "gated"), tmp_path / "x.onnx")
    randomize_(Wav2Vec2ForPreTraining(tiny_config("wav2vec2"))).save_pretrained(tmp_path / "pretraining")
    with pytest.raises(
        ValueError, match=r"saved as \['Wav2Vec2ForPreTraining'\].*`auto_class`: AutoModel, AutoModelForCTC"
    ):
        export_onnx(tmp_path / "pretraining", tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="is a folder. Give the name of a file"):
        export_onnx(tmp_path / "pretraining", tmp_path)
    monkeypatch.setattr(export, "SINGLE_FILE_BYTES", 2**16)
    with pytest.raises(ValueError, match="MiB of weights in float32"):
        export_onnx(tmp_path / "pretraining", tmp_path / "x.onnx", auto_class="AutoModel")
    assert not (tmp_path / "x.onnx").exists()


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda package: None if package != "onnx" else object())
    with pytest.raises(
        ImportError, match=r"needs onnxscript, onnxruntime. Install `pip install hf_prunable\[export\]`"
    ):
        export_onnx(tmp_path, tmp_path / "x.onnx")


def test_the_command_reports_agreement_and_latency(wavlm, tmp_path, caplog):
    _, folder, _ = wavlm
    path = tmp_path / "model.onnx"
    options = ["--check_seconds", "0.1", "--latency_seconds", "0.1", "--num_threads", "1"]
    with caplog.at_level(logging.INFO, "hf_prunable"):
        export.main(
            [str(folder), str(path), *options, "--hidden_states", "2=unit12", "0=first", "--input_name", "audio"]
        )
    first, *latencies, machine = [record.getMessage() for record in caplog.records][-4:]
    assert re.fullmatch(rf"{path}: \d+\.\d MiB, opset \d+, differs from PyTorch by at most \d\.\de-\d+\.", first)
    assert [line.split(":")[0] for line in latencies] == ["PyTorch", "onnxruntime"]
    assert re.match(r"Measured with 0\.1 s of audio on: .*1 thread", machine)
    exported = OnnxModel(path)
    assert exported.inputs == ["audio"] and exported.outputs == ["last_hidden_state", "unit12", "first"]
    caplog.clear()
    export.main([str(folder), str(path), "--attention_mask", "--check_seconds", "0.1", "--latency_seconds", "0"])
    assert "Measured" not in caplog.text and OnnxModel(path).inputs == ["input_values", "attention_mask"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden_states", "x=a"], "'x=a' is not an index and a name"),
        (["--hidden_states", "2="], "'2=' is not an index and a name"),
        (["--hidden_states", "1=a", "1=b"], "`--hidden_states 1=a 1=b` names an index twice"),
        (["--hidden_states", "4=a"], "no hidden state 4"),
    ],
)
def test_hidden_states_that_the_command_refuses(wavlm, tmp_path, capsys, options, message):
    _, folder, _ = wavlm
    with pytest.raises(SystemExit):
        export.main([str(folder), str(tmp_path / "x.onnx"), *options])
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_chosen_hidden_states(tmp_path):
    """With pre-norm layers, the last hidden state is before the final norm. Names inside the graph are no obstacle."""
    model = tiny_prunable("wav2vec2", "pre")
    folder = saved(model, tmp_path / "secret folder" / "model")
    names = {3: "unit12", 1: "linear", 0: "add"}
    exported = short_export(folder, tmp_path / "model.onnx", hidden_states=names)
    assert exported.outputs == ["last_hidden_state", "unit12", "linear", "add"]
    graph, audio = OnnxModel(exported.path), tiny_inputs(2, 700, padded=False)["input_values"]
    with torch.no_grad():
        expected, found = model(audio, output_hidden_states=True), graph(audio)
    for layer_idx, name in names.items():
        torch.testing.assert_close(found[name], expected.hidden_states[layer_idx], atol=TOLERANCE, rtol=0)
    assert not torch.allclose(found["unit12"], found["last_hidden_state"], atol=0.1)
    assert json.loads(exported.metadata["hidden_states"]) == {"3": "unit12", "1": "linear", "0": "add"}
    assert exported.metadata == graph.metadata and exported.metadata["source"] == "model"
    # Neither the checkpoint's folder nor that of the installed packages.
    content = exported.path.read_bytes()
    assert not [name for name in ("secret folder", "site-packages", "hf_prunable/") if name.encode() in content]


def test_audio_has_the_rate_of_the_feature_extractor(wavlm, tmp_path, monkeypatch):
    _, folder, _ = wavlm
    rates = []
    monkeypatch.setattr(
        export, "measure_latency", lambda models, **options: rates.append(options["sampling_rate"]) or {}
    )
    copied = shutil.copytree(folder, tmp_path / "copied")
    short_export(copied, tmp_path / "model.onnx", latency_seconds=0.1)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(copied)
    short_export(copied, tmp_path / "model.onnx", latency_seconds=0.1)
    assert rates == [16000, 8000]
