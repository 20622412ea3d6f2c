"""What cards say that a model is for, and not for; and the facts at a glance."""

from dataclasses import replace

import pytest
from huggingface_hub import ModelCardData

from hf_prunable.reporting.model_card_overview import facts_table, overview_table
from hf_prunable.reporting.model_card_uses import misuses_of_classifier, uses_of_classifier, uses_of_pruned
from tests.helpers.model_cards import SAVED_MODEL
from tests.reporting.test_model_card import make_finetuning_report
from tests.reporting.test_pruning_report import make_report


@pytest.mark.parametrize(
    ("auto_class", "use", "output"),
    [
        (
            "AutoModelForCTC",
            "Transcription of speech like that of its training labels",
            "scores of the tokenizer's symbols",
        ),
        ("AutoModelForAudioClassification", "Classification of clips into the classes", "scores of the classes, once"),
        (
            "AutoModelForAudioXVector",
            "The task that its AutoModelForAudioXVector head",
            "that of AutoModelForAudioXVector",
        ),
    ],
)
def test_heads(auto_class, use, output):
    model = replace(SAVED_MODEL, auto_class=auto_class)
    assert uses_of_pruned(make_report().inputs, model)[0].startswith(use)
    assert model.output_text.startswith(output)


@pytest.mark.parametrize(
    ("changes", "misuse"),
    [
        ({"task": "keyword"}, "Music and other sounds"),
        ({"task": "speaker"}, "Speakers who are not among the classes"),
        # A column of one's own that has the name of a task.
        ({"task": "speaker", "has_own_labels": True}, "Audio that is none of these 2 classes"),
    ],
)
def test_tasks(tmp_path, changes, misuse):
    inputs = make_finetuning_report(tmp_path, **changes).inputs
    assert misuses_of_classifier(inputs, SAVED_MODEL)[0].startswith(misuse)


def test_many_classes_are_not_all_listed(tmp_path):
    inputs = make_finetuning_report(tmp_path, class_names=[f"class {number}" for number in range(42)]).inputs
    listed = uses_of_classifier(inputs)[0]
    assert "`class 39` and 2 more, which `config.json` lists." in listed and "class 40" not in listed


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({"license": "mit"}, "| License | mit |"),
        (
            {"license": "other", "license_name": "my_own", "license_link": "https://example.org/x"},
            "[my_own](https://example.org/x)",
        ),
        ({"license": "other", "license_name": "mine", "license_link": "LICENSE"}, "| License | mine |"),
    ],
)
def test_the_license_is_at_a_glance(fields, row):
    report = make_report()
    table = facts_table(report.inputs, report.provenance, SAVED_MODEL, "a method", ModelCardData(**fields))
    assert row in table and "Audio" not in table


def test_columns_that_nothing_was_measured_for_are_left_out():
    table = overview_table({"a": {"File": "1.0 MB", "Memory": ""}, "b": {"Accuracy": "0.9"}})
    assert table.splitlines()[0] == "|  | File | Accuracy |"
    assert table.splitlines()[2:] == ["| a | 1.0\u00a0MB |  |", "| b |  | 0.9 |"]
