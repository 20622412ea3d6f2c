"""The settings that a result depends on: read from the Trainer's arguments, recorded and compared."""

import json
from dataclasses import dataclass

import pytest
from transformers import TrainingArguments

from hf_prunable.finetuning.classifier import FinetuningArguments
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.runtime.settings import (
    SETTINGS_FILE,
    TRAINING_SETTINGS,
    describe_changes,
    describe_differences,
    remember_settings,
    result_settings,
)


@dataclass
class Arguments(TrainingArguments):
    temperature: float = 2.0


def test_the_arguments_of_a_result_are_those_of_any_training_and_further_ones(tmp_path):
    arguments = Arguments(str(tmp_path), learning_rate=0.1, logging_steps=7, use_cpu=True)
    settings = result_settings(arguments, "temperature", "seed")
    assert list(settings) == [*TRAINING_SETTINGS, "temperature", "seed"]
    assert settings["learning_rate"] == 0.1 and settings["temperature"] == 2.0
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize("arguments_class", [PruningTrainingArguments, FinetuningArguments])
@pytest.mark.parametrize(
    "changed, differences",
    [
        ({"learning_rate": 0.25}, ["learning_rate"]),
        ({"optim": "sgd"}, ["optim"]),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, ["lr_scheduler_kwargs"]),
        ({"logging_steps": 3, "save_total_limit": 9, "dataloader_num_workers": 2}, []),
    ],
)
def test_both_kinds_of_training_compare_what_changes_a_result(tmp_path, arguments_class, changed, differences):
    before, now = (
        arguments_class(str(tmp_path), use_cpu=True, save_strategy="no", eval_strategy="no", **options).settings()
        for options in ({"load_best_model_at_end": False}, {"load_best_model_at_end": False, **changed})
    )
    texts = describe_differences(before, now)
    assert [text.split("`")[1] for text in texts] == differences


def test_differences_are_named_in_order():
    before = {"units": ("mha", "int"), "rate": 0.02, "sizes": {"a": 1}, "seed": 0}
    now = {"units": ["mha", "int"], "seed": 1, "sizes": {"a": 2}, "bf16": True, "words": None}
    assert describe_differences(before, now) == [
        "`bf16` was None and is True",
        "`rate` was 0.02 and is None",
        "`seed` was 0 and is 1",
        "`sizes` was {'a': 1} and is {'a': 2}",
    ]
    assert describe_differences(before, before) == []


def test_settings_are_remembered_and_compared(tmp_path, caplog):
    folder = tmp_path / "made" / "run"
    settings = {"target_sparsity": [0.4, 0.6], "units": ("mha", "int"), "rate": 0.02}
    remember_settings(folder, settings)
    remember_settings(folder, settings)
    assert json.loads((folder / SETTINGS_FILE).read_text())["units"] == ["mha", "int"]
    changed = {"target_sparsity": [0.4, 0.7], "units": ("mha", "int"), "seed": 3}
    with pytest.raises(ValueError, match="interrupted run of other settings") as error:
        remember_settings(folder, changed)
    for difference in ("`rate` was 0.02 and is None", "`seed` was None and is 3", "was [0.4, 0.6] and is [0.4, 0.7]"):
        assert difference in str(error.value)
    assert "`units`" not in str(error.value) and "`--override`" in str(error.value)
    remember_settings(folder, changed, override=True)
    assert "Going on with an interrupted run of other settings: `rate` was" in caplog.text
    remember_settings(folder, changed)


FACTS = {
    "model": {"parameters": 94_000_000, "weights": "sha256:a", "configuration": "sha256:b"},
    "training clips": {"clips": 24, "seconds": 1086.3, "content": "sha256:c"},
    "versions": {"torch": "2.9.0", "transformers": "5.0.0"},
}


@pytest.mark.parametrize(
    "thing, changes, text",
    [
        ("model", {"weights": "sha256:x"}, "model: other weights"),
        ("model", {"configuration": "sha256:x", "weights": "sha256:y"}, "model: other configuration, other weights"),
        (
            "training clips",
            {"clips": 23, "seconds": 1080.0, "content": "sha256:x"},
            "training clips: 24 clips before, 23 now, 1,086.3 seconds before, 1,080.0 now",
        ),
        ("training clips", {"content": "sha256:x"}, "training clips: other content"),
        ("training clips", {"labels": "sha256:x"}, "training clips: other labels"),
        ("versions", {"torch": "2.10.0"}, "versions: torch 2.9.0 before, 2.10.0 now"),
        ("versions", {"numpy": "2.3"}, "versions: numpy None before, 2.3 now"),
        ("teacher", {"weights": "sha256:x"}, "teacher: none before, some now"),
    ],
)
def test_what_is_read_is_compared_by_content_and_told_in_words(tmp_path, thing, changes, text):
    now = {**FACTS, thing: FACTS.get(thing, {}) | changes}
    assert describe_changes(FACTS, now) == [text] and describe_changes(now, now) == []
    remember_settings(tmp_path / "run", {"seed": 0}, identity=FACTS)
    remember_settings(tmp_path / "run", {"seed": 0}, identity=FACTS)
    with pytest.raises(ValueError, match="that read something else") as error:
        remember_settings(tmp_path / "run", {"seed": 0}, identity=now)
    assert text in str(error.value) and "sha256" not in str(error.value)
    remember_settings(tmp_path / "run", {"seed": 0}, override=True, identity=now)
    remember_settings(tmp_path / "run", {"seed": 0}, identity=now)


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "whose settings.json is empty or damaged"),
        ('{"seed": ', "whose settings.json is empty or damaged"),
        ("[]", "whose settings.json holds no settings"),
        ('{"seed": 0, "clips": "4e89"}', "of an earlier version of hf_prunable"),
        ('{"seed": 0, "identity": 3}', "of an earlier version of hf_prunable"),
        (None, "without settings.json, but with stage_1"),
    ],
)
def test_a_folder_whose_run_is_not_known_is_not_continued(tmp_path, content, message):
    (tmp_path / "stage_1").mkdir()
    if content is not None:
        (tmp_path / SETTINGS_FILE).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        remember_settings(tmp_path, {"seed": 0}, identity=FACTS)
    assert "`--override`" in str(error.value) and "delete the folder" in str(error.value)
    remember_settings(tmp_path, {"seed": 0}, override=True, identity=FACTS)
    remember_settings(tmp_path, {"seed": 0}, identity=FACTS)


def test_a_folder_that_was_only_locked_is_a_new_one(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / ".settings.json.partial-1-ab").touch()
    remember_settings(tmp_path, {"seed": 0}, identity=FACTS)
    assert (tmp_path / SETTINGS_FILE).is_file()


@pytest.mark.parametrize(
    "identity, difference",
    [
        ({"model": 3}, "model: none before, some now"),
        ({"model": []}, "model: none before, some now"),
        ({"model": {"weights": "sha256:a"}}, "model: parameters None before, 5 now"),
        ({"model": {"parameters": [1], "weights": "sha256:a"}}, r"model: parameters \[1\] before, 5 now"),
    ],
)
def test_facts_that_are_damaged_are_differences(tmp_path, identity, difference):
    (tmp_path / SETTINGS_FILE).write_text(json.dumps({"identity": identity}))
    with pytest.raises(ValueError, match=f"that read something else: {difference}"):
        remember_settings(tmp_path, {}, identity={"model": {"parameters": 5, "weights": "sha256:a"}})


def test_a_nested_file_of_settings_is_damaged(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is empty or damaged"):
        remember_settings(tmp_path, {"seed": 1})


@pytest.mark.parametrize(
    "option, value", [("data_seed", 7), ("label_smoothing_factor", 0.1), ("dataloader_drop_last", True)]
)
def test_seldom_given_arguments_of_fine_tuning_are_compared(tmp_path, option, value):
    now = FinetuningArguments(str(tmp_path), use_cpu=True, **{option: value}).settings()
    before = FinetuningArguments(str(tmp_path), use_cpu=True).settings()
    assert describe_differences(before, now) == [f"`{option}` was None and is {value}"]
    # A file of an earlier version does not have them.
    del before[option]
    assert describe_differences(before, FinetuningArguments(str(tmp_path), use_cpu=True).settings()) == []
