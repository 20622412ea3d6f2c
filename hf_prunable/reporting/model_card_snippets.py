"""Commands and code of a model card: install, load, fine-tune, and run as ONNX."""

from __future__ import annotations

import json
import re
import shlex

from ..runtime.auto_classes import AUDIO_CLASSIFICATION, BASE_MODEL, CTC
from ..runtime.project import PACKAGE, install_requirement
from .model_card_overview import SavedModel


IMPORT = "import hf_prunable  # registers the pruned models with the Auto classes\n"
LOAD = """\
import soundfile
import torch
from transformers import AutoFeatureExtractor, {auto_class}

feature_extractor = AutoFeatureExtractor.from_pretrained({source})
model = {auto_class}.from_pretrained({source})

waveform, sampling_rate = soundfile.read("clip.wav")  # one channel, at the rate of the feature extractor
inputs = feature_extractor(waveform, sampling_rate=sampling_rate, return_tensors="pt")
with torch.inference_mode():
    outputs = model(**inputs)
{last_line}"""
LAST_LINES = {
    BASE_MODEL: "print(outputs.last_hidden_state.shape)",
    AUDIO_CLASSIFICATION: "print(model.config.id2label[outputs.logits.argmax().item()])",
}
FINE_TUNE_CLASSIFIER = """\
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

clips = {{"yes.wav": "yes", "no.wav": "no"}}  # file and class of each clip
id2label = dict(enumerate(sorted(set(clips.values()))))
label2id = {{label: class_id for class_id, label in id2label.items()}}
options = {options}
feature_extractor = AutoFeatureExtractor.from_pretrained({source})
model = AutoModelForAudioClassification.from_pretrained({source}, **options)

waveforms = [soundfile.read(path)[0] for path in clips]
batch = feature_extractor(waveforms, sampling_rate={sampling_rate}, padding=True, return_tensors="pt")
batch["labels"] = torch.tensor([label2id[label] for label in clips.values()])
{training}"""
FINE_TUNE_CTC = """\
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

clips = {{"clip.wav": "A TRANSCRIPT"}}  # file and text of each clip, in the symbols of the tokenizer
feature_extractor = AutoFeatureExtractor.from_pretrained({source})
tokenizer = AutoTokenizer.from_pretrained({source})
model = AutoModelForCTC.from_pretrained({source})

waveforms = [soundfile.read(path)[0] for path in clips]
batch = feature_extractor(waveforms, sampling_rate={sampling_rate}, padding=True, return_tensors="pt")
tokens = tokenizer(list(clips.values()), padding=True, return_tensors="pt")
batch["labels"] = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
{training}"""
TRAINING = """\
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
model.train()
for step in range(10):
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained("fine-tuned")
feature_extractor.save_pretrained("fine-tuned")"""
ONNX = """\
import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession("model.onnx")
waveform, sampling_rate = soundfile.read("clip.wav", dtype="float32")  # one channel at {sampling_rate} Hz
{normalization}outputs = session.run({outputs}, {{"input_values": waveform[np.newaxis]}})
{last_line}"""
# That of Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm.
NORMALIZATION = "waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)\n"
# The repository or folder that the snippets load from.
SOURCE = re.compile(r'(?<=from_pretrained\()"(?:[^"\\]|\\.)+"(?=[,)])')


def usage(source: str, model: SavedModel) -> dict[str, str]:
    """Makes the commands and snippets of a card.

    Args:
        source: Hub id or folder that the snippets load from.
        model: Saved model.

    Returns:
        Template variables `install`, `loading`, `snippet`, `fine_tuning`, `export`, `onnx_install` and `onnx`;
        `fine_tuning` is "" for a head without a snippet.
    """
    quoted = json.dumps(source, ensure_ascii=False)
    load = LOAD.format(
        auto_class=model.auto_class,
        source=quoted,
        last_line=LAST_LINES.get(model.auto_class, "print(outputs.logits.shape)"),
    )
    fine_tuning = _fine_tuning(quoted, model)
    before = "" if model.is_stock else IMPORT
    return {
        "install": f"pip install soundfile {'torch transformers' if model.is_stock else install_requirement()}",
        "loading": _loading(model.is_stock),
        "snippet": before + load,
        "fine_tuning": fine_tuning and before + fine_tuning,
        "export": f"pip install {install_requirement('export')}\n{export_command(source)}",
        "onnx": _onnx(model),
    }


def export_command(source: str) -> str:
    """Returns the command that exports a model to `model.onnx`.

    Args:
        source: Hub id or folder of the model.
    """
    return f"hf-prunable export {shlex.quote(source)} model.onnx"


def _loading(is_stock: bool) -> str:
    if is_stock:
        return "This is a standard transformers checkpoint; no other library is needed to load it."
    return (
        "The widths of this model vary between layers, which the model classes of transformers do not support. Install "
        f"{PACKAGE} first, from its repository as above or as a release: `pip install {PACKAGE}`. The import can be omitted "
        "with `trust_remote_code=True`."
    )


def _fine_tuning(quoted: str, model: SavedModel) -> str:
    template = {BASE_MODEL: FINE_TUNE_CLASSIFIER, AUDIO_CLASSIFICATION: FINE_TUNE_CLASSIFIER, CTC: FINE_TUNE_CTC}
    if model.auto_class not in template:
        return ""
    options = '{"id2label": id2label, "label2id": label2id}'
    if model.auto_class == AUDIO_CLASSIFICATION:
        # The saved head may have another number of classes.
        options = options.replace("}", ', "ignore_mismatched_sizes": True}')
    return template[model.auto_class].format(
        source=quoted, options=options, sampling_rate=model.sampling_rate, training=TRAINING
    )


def _onnx(model: SavedModel) -> str:
    outputs, last_line = '["logits"]', "print(outputs[0].shape)"
    if model.auto_class == BASE_MODEL:
        outputs = '["last_hidden_state"]'
    if model.auto_class == AUDIO_CLASSIFICATION:
        last_line = 'print(outputs[0].argmax())  # number of the class, a key of "id2label" in config.json'
    return ONNX.format(
        sampling_rate=model.sampling_rate,
        normalization=NORMALIZATION if model.normalizes else "",
        outputs=outputs,
        last_line=last_line,
    )
