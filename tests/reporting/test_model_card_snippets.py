"""The code of cards, run as a reader would: in a fresh process, beside the model, on clips of their own."""

import os
import re
import subprocess
import sys

import pytest
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

from hf_prunable import truncate
from hf_prunable.cli.export import main as export
from hf_prunable.reporting.model_card_overview import SavedModel
from hf_prunable.reporting.model_card_snippets import usage
from tests.helpers.fresh_processes import ragged
from tests.helpers.model_cards import SAVED_MODEL
from tests.helpers.processes import with_root
from tests.helpers.speech_files import tone, write
from tests.helpers.tiny_models import tiny_prunable


# Without these, the ONNX snippet must run.
NOT_FOR_ONNX = "import sys\nsys.modules.update(dict.fromkeys(['torch', 'transformers', 'hf_prunable']))\n"


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=with_root(dict(os.environ)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path):
    for name in ("clip", "yes", "no"):
        write(tmp_path / f"{name}.wav", tone(0.5))
    return tmp_path


def snippets(model, folder, auto_class, normalizes=True):
    model.save_pretrained(folder / "my-model")
    Wav2Vec2FeatureExtractor(do_normalize=normalizes).save_pretrained(folder / "my-model")
    return usage("my-model", SavedModel.of(model, folder / "my-model", auto_class))


def test_the_code_of_a_pruned_encoder(folder):
    code = snippets(ragged("wavlm"), folder, "AutoModel")
    export([str(folder / "my-model"), str(folder / "model.onnx"), "--latency_seconds", "0"])
    loaded = run(code["snippet"] + "\nprint(outputs.last_hidden_state.abs().mean().item())", folder)
    onnx = run(NOT_FOR_ONNX + code["onnx"] + "\nprint(abs(outputs[0]).mean())", folder)
    (shape, mean), (onnx_shape, onnx_mean) = loaded.splitlines(), onnx.splitlines()
    assert shape == f"torch.Size([{onnx_shape.strip('()')}])"
    assert float(onnx_mean) == pytest.approx(float(mean), rel=1e-4)
    run(code["fine_tuning"], folder)
    assert (folder / "fine-tuned" / "model.safetensors").is_file()
    assert "--" not in code["export"] and code["export"].endswith("\nhf-prunable export my-model model.onnx")


@pytest.mark.slow
def test_the_code_of_a_truncated_classifier(folder):
    model = truncate(tiny_prunable("wavlm", head="classification", num_labels=3), 2)
    code = snippets(model, folder, "AutoModelForAudioClassification", normalizes=False)
    assert "hf_prunable" not in code["snippet"] + code["fine_tuning"] + code["onnx"] + code["install"]
    export([str(folder / "my-model"), str(folder / "model.onnx"), "--latency_seconds", "0"])
    label = run(code["snippet"], folder)
    number = int(run(NOT_FOR_ONNX + code["onnx"], folder))
    assert model.config.id2label[number] == label
    assert "waveform.mean()" not in code["onnx"]
    # The classes of the snippet are others in number than those of the head.
    assert model.config.num_labels != 2
    run(code["fine_tuning"], folder)
    assert re.search(r'"id2label": \{\s+"0": "no",\s+"1": "yes"', (folder / "fine-tuned" / "config.json").read_text())


def test_the_code_of_a_transcriber(folder):
    vocabulary = {symbol: number for number, symbol in enumerate(["<pad>", "<unk>", "|", *"ACINPRST"])}
    model = tiny_prunable("hubert", head="ctc", vocab_size=len(vocabulary))
    code = snippets(model, folder, "AutoModelForCTC")
    (folder / "vocab.json").write_text(str(vocabulary).replace("'", '"'))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder / "my-model")
    run(code["fine_tuning"], folder)
    assert (folder / "fine-tuned" / "model.safetensors").is_file()


def test_a_head_without_a_snippet_to_fine_tune():
    values = SAVED_MODEL.__dict__ | {"auto_class": "AutoModelForAudioXVector"}
    code = usage("org/model", SavedModel(**values))
    assert code["fine_tuning"] == "" and 'AutoModelForAudioXVector.from_pretrained("org/model")' in code["snippet"]
