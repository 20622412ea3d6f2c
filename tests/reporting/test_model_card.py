"""The cards of both kinds of run: held as a whole against a pattern, and what must not be in them."""

import ast
import re
from html import escape

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from hf_prunable.pruning.gate_sparsity import GateSparsity
from hf_prunable.reporting.finetuning_report import (
    FULL,
    TRUNCATED,
    FinetuningInputs,
    FinetuningReport,
    FinetuningResults,
    LayerSelection,
    Variant,
    paired_difference,
)
from hf_prunable.reporting.footprint import Footprint, WeightFiles
from hf_prunable.reporting.measurement import Latency
from hf_prunable.reporting.model_card_address import address_card
from hf_prunable.reporting.model_card_parts import license_fields, save_card
from hf_prunable.reporting.provenance import Provenance
from hf_prunable.reporting.pruning_report import HeldOutLoss
from hf_prunable.reporting.public_text import hub_id
from hf_prunable.truncation.layer_choice import LayerChoice
from tests.helpers.fresh_processes import ragged
from tests.helpers.model_cards import pruning_card, truncation_card
from tests.reporting.test_finetuning_report import REFERENCES, result
from tests.reporting.test_pruning_report import make_report, with_changes


PRUNING_CARD = r"""---
base_model: microsoft/wavlm-base
datasets:
- org/speech
library_name: transformers
pipeline_tag: feature-extraction
tags:
- hf_prunable
- pruned
- structured-pruning
- wavlm
base_model_relation: finetune
model-index:
- name: wavlm-pruned-28pct
  results:
  - task:
      type: feature-extraction
    dataset:
      name: org/speech
      type: org/speech
    metrics:
    - type: loss
      value: 0\.2
      name: Distillation loss behind the learned projections, held-out clips
    - type: cosine_similarity
      value: 0\.95336\d
      name: Mean cosine similarity of hidden states to the teacher's, held-out clips
---

# wavlm-pruned-28pct

\[microsoft/wavlm-base\]\(https://huggingface\.co/microsoft/wavlm-base\) with 72\.0 % of its encoder parameters removed by structured pruning with hf_prunable\. It is 8\.52x as fast on clips of 10 s, and the mean cosine similarity of its hidden states to those of the teacher, without a projection, is 0\.9534 on held-out audio\. The pruning decisions were learned by distillation, without labels\. Training compared hidden states behind linear maps that are not part of the model\. A head or k-means units of the teacher do not fit the model's own hidden states: train them anew\.

## At a glance

\| Base\u00a0model \| \[microsoft/wavlm-base\]\(https://huggingface\.co/microsoft/wavlm-base\) \|
\| --- \| --- \|
\| Method \| \[learned gates\]\(https://github\.com/[^/]+/hf_prunable/tree/main/docs/concepts/gates_and_constraint\.md\), 1,500 steps with gates, 500 steps after compaction \|
\| Audio \| \[org/speech\]\(https://huggingface\.co/datasets/org/speech\) \|
\| Input \| one channel of audio at 16,000 Hz, scaled to zero mean and unit variance by the feature extractor \|
\| Output \| 4 hidden states of 24 dimensions, 50 frames per second \|
\| Loads with \| transformers with hf_prunable \|
\| Made with \| \[hf_prunable\]\(https://github\.com/[^/]+/hf_prunable\) \|

\|  \| Parameters \| File \| Memory \| Latency \| Speed \| Cosine similarity \|
\| --- \|( ---: \|){6}
\| \[microsoft/wavlm-base\]\([^)]+\) \| 94,381,936 \| 188\.8\u00a0MB, float16 \| 500\.0\u00a0MB \| 812\.4\u00a0ms \| 1\.00x \|  \|
\| \*\*this\u00a0model\*\* \| 26,424,235 \| 105\.7\u00a0MB, float32 \|  \| 95\.4\u00a0ms \| 8\.52x \| 0\.9534 \|

Parameters are those of the encoder\. Latency and peak memory: one clip of 10 s, on Some CPU, 2 threads, torch 2\.13\.0\. Cosine similarity: mean over all hidden states, to those of the teacher, held-out audio; the lowest is 0\.9000, of hidden state 3, and \[each one\]\(#results\) is below\.

## Intended use

- Speech features: [^\n]+
- Fine-tuning for [^\n]+
- Places where \[microsoft/wavlm-base\]\([^)]+\) does the work, but is too large or too slow\. [^\n]+

Not for:

- Transcription or classification as it is: the model has no head\. Fine-tune it first\.
- Another sampling rate than 16,000 Hz, or several channels: [^\n]+
- Languages, voices and noise that neither \[microsoft/wavlm-base\]\([^)]+\) nor \[org/speech\]\([^)]+\) covers: [^\n]+
- Live audio frame by frame: [^\n]+

## Usage

### Load

```bash
pip install soundfile "hf_prunable @ git\+https://github\.com/[^/]+/hf_prunable"
```

```python
import hf_prunable  # registers the pruned models with the Auto classes
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModel

feature_extractor = AutoFeatureExtractor\.from_pretrained\("org/wavlm-pruned-28pct"\)
model = AutoModel\.from_pretrained\("org/wavlm-pruned-28pct"\)

waveform, sampling_rate = soundfile\.read\("clip\.wav"\)  # [^\n]*
inputs = feature_extractor\(waveform, sampling_rate=sampling_rate, return_tensors="pt"\)
with torch\.inference_mode\(\):
    outputs = model\(\*\*inputs\)
print\(outputs\.last_hidden_state\.shape\)
```

The widths of this model vary between layers, which the model classes of transformers do not support\. Install hf_prunable first, from its repository as above or as a release: `pip install hf_prunable`\. The import can be omitted with `trust_remote_code=True`\.

### Fine-tune

```python
import hf_prunable  # [^`]*```

The same model works with `transformers\.Trainer` and peft\.

### Run in ONNX

Export once:

```bash
pip install "hf_prunable\[export\] @ git\+https://github\.com/[^/]+/hf_prunable"
hf-prunable export org/wavlm-pruned-28pct model\.onnx
```

The file runs with numpy, soundfile and onnxruntime alone:

```python
import numpy as np
[^`]*```

## What was removed

67,957,701 of 94,381,936 encoder parameters\. Attention heads remain in 1 of 3 layers \(2 in total\), feed-forward units in 1 \(7 in total\)\. The convolutions have 5, 16, 20 channels\. All widths are listed under `pruned_shape` in `config\.json`\.

!\[Widths of every layer after pruning\]\(shape\.png\)

## Results

\|  \| dense \| pruned \| pruned / dense \|
\| --- \| ---: \| ---: \| ---: \|
(\| [^\n]+ \|\n){14}
Sparsity is [^\n]+ Measured on: Some CPU, 2 threads, torch 2\.13\.0\.

!\[Cosine similarity and relative error of each hidden state to the teacher's\]\(fidelity\.png\)

!\[Sparsity and loss over the optimizer steps\]\(sparsity_curve\.png\)

<details>
<summary>Cosine similarity and relative error of each hidden state to the teacher's, 12,345 frames of held-out audio</summary>

\| Hidden state \| Cosine \| Relative error \|
\| --- \| ---: \| ---: \|
(\| [^\n]+ \|\n){4}
</details>

## Reproduce

```bash
python run_prune\.py --target_sparsity 0\.72
```

- Gates on mha, qk, vo, ffn, int; 1,500 steps with gates, 500 steps after compaction; seed 42\.
- Teacher: \[microsoft/wavlm-base\]\(https://huggingface\.co/microsoft/wavlm-base\)\.
- Audio: \[org/speech\]\(https://huggingface\.co/datasets/org/speech\); clips left out: 2 empty\.
- Versions: torch 2\.13\.0\.
- hf_prunable source: commit 3f2a with local changes\.
- Training log and all measurements: \[pruning_report\.json\]\(pruning_report\.json\)\.

## Limitations

- All figures are from one run with one seed\. Latency was measured on the machine named above with one clip of 10 s; [^\n]+
- The model was trained to reproduce the hidden states of its teacher\. This run measured no accuracy on a task: [^\n]+
- The limits and biases of \[microsoft/wavlm-base\]\([^)]+\) apply to this model too; [^\n]+

## Citation

```bibtex
@inproceedings\{wang2023taskagnostic,
[^@`]*2306\.01385[^@`]*
```

Paper: \[arXiv 2306\.01385\]\(https://arxiv\.org/abs/2306\.01385\)\.
"""

TRUNCATION_CARD = r"""---
base_model: microsoft/wavlm-base
library_name: transformers
metrics:
- accuracy
- f1
pipeline_tag: audio-classification
tags:
- hf_prunable
- pruned
- structured-pruning
- wavlm
base_model_relation: finetune
model-index:
- name: wavlm-words
  results:
  - task:
      type: audio-classification
      name: Word classification
    dataset:
      name: speech_commands\.tar\.gz
      type: audiofolder
      split: test
    metrics:
    - type: accuracy
      value: 0\.7
      name: Accuracy
    - type: f1
      value: 0\.7
      name: Macro F1
---

# wavlm-words

\[microsoft/wavlm-base\]\([^)]+\) with its first 4 transformer layers, fine-tuned with hf_prunable to classify 2 words\.

## At a glance

\| Base\u00a0model \| \[microsoft/wavlm-base\]\([^)]+\) \|
\| --- \| --- \|
\| Method \| \[truncation\]\(https://github\.com/[^/]+/hf_prunable/tree/main/docs/tutorials/truncate_for_a_task\.md\) to layer 4 of 12, then fine-tuning \|
\| Audio \| `speech_commands\.tar\.gz` \|
\| Input \| one channel of audio at 16,000 Hz, [^\n]+ \|
\| Output \| scores of the classes, once per clip \|
\| Loads with \| transformers \|
\| Made with \| \[hf_prunable\]\(https://github\.com/[^/]+/hf_prunable\) \|

\|  \| Layers \| Parameters \| Latency \| Accuracy \| Macro F1 \| File \| Memory \|
\| --- \|( ---: \|){7}
\| full \| 12 \| 1,000 \| 8\.0\u00a0ms \| 0\.8900 \| 0\.8900 \|  \|  \|
\| \*\*this\u00a0model\*\* \| 4 \| 250 \| 8\.0\u00a0ms \| 0\.8000 \| 0\.8000 \| 1\.0\u00a0MB, float32 \| 20\.0\u00a0MB \|

Parameters are those of the encoder\. Accuracy and F1: 100 test clips, means of 2 seeds\. Latency and peak memory: one clip of 1 s, on a machine\.

## Intended use

- Clips of about 1 s, each with one of these classes: `no`, `yes`\.
- A start for [^\n]+

Not for:

- Audio that is none of these 2 words: each clip gets one of them all the same\.
- Longer or much shorter clips: it was trained and tested on clips of 1 s\.
- Another sampling rate [^\n]+
- Languages, [^\n]+
- Live audio [^\n]+

## Usage

### Load

```bash
pip install soundfile torch transformers
```

```python
import soundfile
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

feature_extractor = AutoFeatureExtractor\.from_pretrained\("wavlm-words"\)
model = AutoModelForAudioClassification\.from_pretrained\("wavlm-words"\)

waveform, sampling_rate = soundfile\.read\("clip\.wav"\)  # [^\n]*
inputs = feature_extractor\(waveform, sampling_rate=sampling_rate, return_tensors="pt"\)
with torch\.inference_mode\(\):
    outputs = model\(\*\*inputs\)
print\(model\.config\.id2label\[outputs\.logits\.argmax\(\)\.item\(\)\]\)
```

This is a standard transformers checkpoint; no other library is needed to load it\.

### Fine-tune

```python
import soundfile
[^`]*```

The same model works with `transformers\.Trainer` and peft\.

### Run in ONNX

Export once:

```bash
pip install "hf_prunable\[export\] @ git\+https://github\.com/[^/]+/hf_prunable"
hf-prunable export wavlm-words model\.onnx
```

The file runs with numpy, soundfile and onnxruntime alone:

```python
import numpy as np
[^`]*```

## What was removed

All transformer layers after layer 4 of 12\. The number of layers was chosen by convexity for the labels 'word': layer 4 \(0\.7000\) is the first layer within one standard error \(0\.0100\) of the best one, layer 5 \(0\.7050\)\.

!\[Graph convexity of the layers\]\(layer_profile\.png\)

## Results

\|  \| full \| truncated \| truncated / full \|
\| --- \| ---: \| ---: \| ---: \|
(\| [^\n]+ \|\n){8}
Peak memory is [^\n]+

The most frequent class alone has a test accuracy of 0\.5000, and chance is 0\.5000 \(2 classes\)\.

Accuracy of the full minus the truncated model, paired by clip over 2 seeds: [^\n]+

Means over the seeds 1, 2\. The saved model is that of seed 1, with a test accuracy of 0\.7000\.

Measured on: a machine\.

!\[Confusion matrix of the test clips\]\(confusion\.png\)

## Reproduce

```bash
python run_finetune_speech_commands\.py
```

- Clips: 84,843 train, 9,981 validation, 100 test; 2 epochs; seeds 1, 2\.
- Audio: `speech_commands\.tar\.gz`\.
- Versions: torch 2\.13\.0\.
- hf_prunable source: commit 3f2a\.
- All measurements: \[report\.json\]\(report\.json\)\.

## Limitations

- Latency was measured on the machine named above; [^\n]+
- The limits and biases of [^\n]+

## Citation

```bibtex
@misc\{dorszewski2024convexity,
[^@`]*2408\.11858[^@`]*
```

Paper: \[arXiv 2408\.11858\]\(https://arxiv\.org/abs/2408\.11858\)\.
"""

KNOWN = {
    "steps": {"with gates": 1500, "after compaction": 500},
    "teacher_name": "microsoft/wavlm-base",
    "dataset_name": "org/speech",
    "commit": "3f2a with local changes",
    "footprint": {
        "dense": Footprint(WeightFiles(188_784_000, "float16"), 500_000_000, 10.0),
        "pruned": Footprint(WeightFiles(105_700_000, "float32"), None, 10.0),
    },
}


def make_finetuning_report(tmp_path, **changes):
    archive = tmp_path / "speech_commands.tar.gz"
    archive.touch()
    latency = Latency(0.008, 0.008, 0.008, 0.008, 1.0, 1.0)
    footprint = Footprint(WeightFiles(1_000_000, "float32"), 20_000_000, 1.0)
    variants = {
        FULL: Variant(12, 1000, latency, [result(10, num_layers=12), result(12, 2, num_layers=12)]),
        TRUNCATED: Variant(4, 250, latency, [result(30), result(10, 2)], footprint),
    }
    parts = (
        FinetuningInputs(
            command="python run_finetune_speech_commands.py",
            model_name="microsoft/wavlm-base",
            family="wavlm",
            sampling_rate=16000,
            dataset_name=str(archive),
            task="word",
            class_names=["no", "yes"],
            num_clips={"train": 84843, "validation": 9981, "test": 100},
            num_layers=12,
        ),
        Provenance({"torch": "2.13.0"}, "3f2a", "a machine"),
        LayerSelection(LayerChoice(4, "convexity", "word", 5, 0.7, 0.705, 0.01)),
        FinetuningResults(
            references=REFERENCES,
            variants=variants,
            difference=paired_difference(variants[FULL].results, variants[TRUNCATED].results, REFERENCES),
        ),
    )
    return FinetuningReport(*with_changes(parts, changes))


def saved(card, folder):
    save_card(card, folder)
    return (folder / "README.md").read_text()


def test_the_whole_card_of_a_pruning_run(tmp_path):
    card = pruning_card(make_report(**KNOWN), "wavlm-pruned-28pct", source="org/wavlm-pruned-28pct")
    text = saved(card, tmp_path)
    assert re.fullmatch(PRUNING_CARD, text), text


def test_the_whole_card_of_a_truncation_run(tmp_path):
    text = saved(truncation_card(make_finetuning_report(tmp_path), "wavlm-words"), tmp_path)
    assert re.fullmatch(TRUNCATION_CARD, text, re.DOTALL), text


@pytest.mark.parametrize(
    "changes, present, absent",
    [
        ({}, "ratios differ", "accuracy may be lower"),
        ({"has_own_labels": True}, "did not check whether speakers or recordings", "No group of the column"),
        (
            {"has_own_labels": True, "group_column": "speaker_id"},
            "No group of the column `speaker_id` is in two of the splits.",
            "accuracy may be lower",
        ),
    ],
)
def test_what_a_card_says_on_groups_of_test_clips(tmp_path, changes, present, absent):
    limits = truncation_card(make_finetuning_report(tmp_path, **changes), "m").text.partition("## Limitations")[2]
    assert present in limits and absent not in limits


def test_one_epoch_is_in_the_singular(tmp_path):
    report = make_finetuning_report(tmp_path)
    for trained in report.results.saved_variant.results:
        trained.epochs = 1.0
    assert "; 1 epoch; seeds 1, 2." in truncation_card(report, "m").text


def test_what_is_not_known_is_not_there(tmp_path):
    text = saved(pruning_card(make_report(held_out_loss=HeldOutLoss(-1.0, float("nan"))), "m"), tmp_path)
    data = ModelCard(text).data
    assert data.eval_results is None and data.datasets is None and data.license is None
    for absent in ("model-index", "Teacher:", "Audio:", "commit", "None", "nan", "[More Information Needed]"):
        assert absent not in text, absent
    bare = make_finetuning_report(
        tmp_path,
        choice=None,
        difference=None,
        dataset_name=None,
        versions={},
        commit=None,
    )
    text = saved(truncation_card(bare, "m"), tmp_path)
    for absent in ("model-index", "chosen", "paired by clip", "Audio:", "Versions:", "commit", "None"):
        assert absent not in text, absent
    assert "All transformer layers after layer 4 of 12.\n" in text


def test_every_figure_of_the_table_is_the_report_s(tmp_path):
    text = saved(pruning_card(make_report(**KNOWN), "m"), tmp_path)
    measured = text.split("## Results")[1].split("## Reproduce")[0]
    figures = ("94,381,936", "26,424,235", "812 ms (790 to 861)", "8.52x", "0.4124", "0.2000", "72.00 %")
    for figure in (*figures, "0.9534", "0.1234", "| 2 | 0.9413 | 0.3391 |"):
        assert figure in measured


def test_the_summary_holds_what_was_measured(tmp_path):
    def summary(**changes):
        text = saved(pruning_card(make_report(**changes), "m"), tmp_path)
        return text.split("\n# m\n")[1].split("## Usage")[0]

    speed, fidelity = (
        "t is 8.52x as fast on clips of 10 s",
        "he mean cosine similarity of its hidden states to those of the",
    )
    assert (
        f"I{speed}, and t{fidelity} dense model, without a projection, is 0.9534 on held-out audio. The" in summary()
    )
    assert f"hf_prunable. T{fidelity} dense" in summary(latency={})
    assert f"hf_prunable. I{speed}. The pruning" in summary(fidelity=None)
    assert "with hf_prunable. The pruning decisions" in summary(latency={}, fidelity=None)


def test_a_run_without_a_log_entry_has_no_curve(tmp_path):
    assert "sparsity_curve.png" not in saved(pruning_card(make_report(history=[]), "m"), tmp_path)


def test_without_fidelity_there_is_no_section_for_it(tmp_path):
    text = saved(pruning_card(make_report(fidelity=None), "m"), tmp_path)
    assert "](sparsity_curve.png)\n\n## Reproduce" in text
    assert "fidelity.png" not in text and "<details>" not in text


@pytest.mark.parametrize(
    ("objective", "learned", "limit"),
    [
        ("task", "learned from labels.", "The held-out loss is from clips of the same data set"),
        ("both", "learned from labels and by distillation.", "The held-out loss is from clips of the same data set"),
    ],
)
def test_other_objectives_and_heads(tmp_path, objective, learned, limit):
    report = make_report(objective=objective, dataset_name=str(tmp_path / "clips"))
    text = saved(pruning_card(report, "m", auto_class="AutoModelForCTC"), tmp_path)
    assert learned in text and limit in text and "hidden states of its teacher" not in text
    data = ModelCard(text).data
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert (data.eval_results[0].dataset_name, data.eval_results[0].dataset_type) == ("clips", "audiofolder")
    assert "AutoModelForCTC.from_pretrained(" in text and "outputs.logits.shape" in text


def test_gates_that_ended_far_from_their_target_are_a_limit(tmp_path):
    warning = "The target is a sparsity of 0.7200, but the expected sparsity of the gates is 0.4600."
    far, near = (GateSparsity(0.72, 0.46, 0.45, True, text) for text in (warning, None))
    card = saved(pruning_card(make_report(gate_sparsity=far), "name"), tmp_path)
    assert f"\n- {warning}\n" in card
    without = [str(pruning_card(make_report(gate_sparsity=gates), "name")) for gates in (near, None)]
    assert without[0] == without[1] and "0.46" not in without[0]


def test_a_full_model_is_not_called_pruned(tmp_path):
    report = make_finetuning_report(tmp_path, choice=None, difference=None, task="speaker")
    del report.results.variants[TRUNCATED]
    text = saved(truncation_card(report, "m"), tmp_path)
    data = ModelCard(text).data
    assert "pruned" not in data.tags and "structured-pruning" not in data.tags
    assert "Nothing: all 12 layers are kept." in text
    assert "with all its transformer layers, fine-tuned with hf_prunable to classify 2 speakers." in text
    # Speakers are tested on a part of the training list.
    assert data.eval_results[0].dataset_split is None
    # A model that was pruned before still is, and needs the library.
    text = saved(truncation_card(report, "m", is_stock=False), tmp_path)
    assert (
        "pruned" in ModelCard(text).data.tags
        and "import hf_prunable" in text
        and "standard transformers checkpoint" not in text
    )


@pytest.mark.parametrize(
    ("criterion", "sentence"),
    [
        (LayerChoice(4, "explicit"), "All transformer layers after layer 4 of 12.\n"),
        (LayerChoice(4, "cka", score=0.93), "The number of layers was chosen by cka.\n"),
    ],
)
def test_other_choices_of_the_layer(tmp_path, criterion, sentence):
    report = make_finetuning_report(tmp_path, choice=criterion)
    assert sentence in saved(truncation_card(report, "m"), tmp_path)


def test_the_license_is_the_base_model_s(tmp_path):
    front_matter = {"license": "other", "license_name": "mine", "license_link": "https://example.org", "tags": ["x"]}
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(front_matter)}---\n# Base\n")
    del front_matter["tags"]
    assert license_fields(str(tmp_path)) == front_matter
    for card in (
        pruning_card(make_report(model_name=str(tmp_path)), "m"),
        truncation_card(make_finetuning_report(tmp_path, model_name=str(tmp_path)), "m"),
    ):
        data = card.data.to_dict()
        assert {name: data[name] for name in front_matter} == front_matter
        # Where a local folder lies is nobody's business.
        assert "base_model" not in data and "base_model_relation" not in data and str(tmp_path) not in str(card)
        assert f"`{tmp_path.name}` with " in str(card)


@pytest.mark.parametrize(
    "front_matter, fields",
    [
        (
            {"license": "other", "license_link": "/home/ada/model/LICENSE"},
            {"license": "other", "license_link": "LICENSE"},
        ),
        ({"license": ["mit"], "license_name": 3, "license_link": {"a": "b"}}, {}),
    ],
)
def test_odd_licenses(tmp_path, front_matter, fields):
    (tmp_path / "README.md").write_text(f"---\n{yaml.safe_dump(front_matter)}---\n")
    assert license_fields(str(tmp_path)) == fields


@pytest.mark.parametrize("text", [None, "# No front matter\n", "---\ntags: [x]\n---\n", "---\nlicense: [\n---\n"])
def test_without_a_license_in_a_readable_card_none_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert license_fields(str(tmp_path)) == {}
    assert "license" not in pruning_card(make_report(model_name=str(tmp_path)), "m").data.to_dict()


def test_names_of_the_hub_and_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_id("org/model") == "org/model" and hub_id("model") == "model"
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert [hub_id(name) for name in ("org/model", "org", "/srv/model", "a/b/c", "./m", "x--y")] == [None] * 6


def test_a_card_is_addressed_anew(tmp_path):
    text = saved(pruning_card(make_report(**KNOWN), "old_name"), tmp_path)
    address_card(tmp_path, "org/new_one")
    addressed = (tmp_path / "README.md").read_text()
    expected = text.replace('from_pretrained("old_name"', 'from_pretrained("org/new_one"')
    expected = expected.replace("- name: old_name\n", "- name: new_one\n").replace("# old_name\n", "# new_one\n")
    expected = expected.replace("hf-prunable export old_name model.onnx", "hf-prunable export org/new_one model.onnx")
    assert addressed == expected and "old_name" not in addressed
    # The card of a repository is addressed like that of a folder.
    address_card(tmp_path, "other/third")
    assert (tmp_path / "README.md").read_text() == expected.replace("org/new_one", "other/third").replace(
        "new_one", "third"
    )
    (tmp_path / "README.md").unlink()
    address_card(tmp_path, "org/other")
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("text", ["# Mine\n", "---\ntags: [x]\n---\n# Mine\n\nNo snippet\n", "---\n- x\n---\n"])
def test_a_card_of_one_s_own_stays_as_it_is(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    address_card(tmp_path, "org/other")
    assert (tmp_path / "README.md").read_text() == text


def test_a_title_of_one_s_own_stays(tmp_path):
    text = saved(pruning_card(make_report(**KNOWN), "old"), tmp_path)
    (tmp_path / "README.md").write_text(text.replace("\n# old\n", "\n# A better title\n"))
    address_card(tmp_path, "org/new")
    addressed = (tmp_path / "README.md").read_text()
    assert "\n# A better title\n" in addressed and "- name: new\n" in addressed


def test_a_front_matter_that_is_not_yaml_is_named(tmp_path):
    (tmp_path / "README.md").write_text("---\ntags: [\n---\n# Mine\n")
    with pytest.raises(ValueError, match=r"the front matter of README\.md is not YAML; mend it"):
        address_card(tmp_path, "org/other")


def test_a_real_shape_is_counted(tmp_path):
    model = ragged("wavlm")
    text = saved(pruning_card(make_report(shape=model.config.shape.to_dict()), "m"), tmp_path)
    heads = [len(layer.heads) for layer in model.config.shape.layers]
    assert f"remain in {np.count_nonzero(heads)} of 3 layers ({sum(heads)} in total)" in text


NAMES = [
    "a*b_c_*",
    "<script>alert(1)</script>",
    "[x](https://example.org)",
    "# title | `code`",
    "$x$ ~y~ &amp;",
    "_a_",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(tmp_path, name):
    folder = tmp_path / name.replace("/", ".")
    folder.mkdir()
    name = folder.name
    changes = {"model_name": str(folder), "teacher_name": str(folder), "dataset_name": str(folder)}
    card = pruning_card(make_report(**changes), name)
    # It comes with rich, which huggingface_hub needs.
    html = pytest.importorskip("markdown_it").MarkdownIt().render(card.text)
    assert f"<h1>{escape(name)}</h1>" in html
    assert f"Audio: <code>{escape(name)}</code>" in html and f"Teacher: <code>{escape(name)}</code>" in html
    assert "<script" not in html and 'href="https://example.org"' not in html
    save_card(card, tmp_path)
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.model_name == name and loaded.data.eval_results[0].dataset_name == name
    snippet = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]
    sources = [node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)]
    assert sources.count(name) == 2
    address_card(tmp_path, "org/other")
    addressed = (tmp_path / "README.md").read_text()
    assert addressed.count('from_pretrained("org/other"') == 4 and "\n# other\n" in addressed
    assert "hf-prunable export org/other model.onnx" in addressed
    assert ModelCard.load(tmp_path / "README.md").data.model_name == "other"


def test_front_matter_stays_one_block(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "README.md").write_text('---\nlicense: other\nlicense_name: "x\\n---\\n# Not a heading: {{ x }}"\n---\n')
    card = pruning_card(make_report(model_name=str(folder)), 'a"b\n---\nc: d')
    save_card(card, tmp_path)
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.license_name == "x\n---\n# Not a heading: {{ x }}"
    assert loaded.text.lstrip().startswith('# a"b --- c: d\n')
