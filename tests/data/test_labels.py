"""Labels: their encoding, and the errors if there are none."""

import json

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import Wav2Vec2CTCTokenizer

from hf_prunable.data.labels import load_label_encoding
from tests.helpers.tiny_models import tiny_stock


@pytest.fixture
def checkpoint(tmp_path):
    tiny_stock("wav2vec2", head="ctc").save_pretrained(tmp_path)
    return tmp_path


def add_tokenizer(folder):
    vocabulary = {"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)


def test_transcripts_are_encoded_and_padded_out_of_the_loss(checkpoint):
    add_tokenizer(checkpoint)
    task = load_label_encoding("ctc", checkpoint, Dataset.from_dict({"text": ["AB", "A B A"]}))
    assert task.auto_class == "AutoModelForCTC" and task.label_column == "text" and task.tokenizer is not None
    assert task.encode(["AB", "A B A"]).tolist() == [[3, 4, -100, -100, -100], [3, 2, 4, 2, 3]]


def test_classes_are_those_of_the_data(checkpoint):
    clips = Dataset.from_dict({"word": ["yes", "no", "yes", "up"]})
    task = load_label_encoding("classification", checkpoint, clips, "word")
    assert task.model_options == {"label2id": {"no": 0, "up": 1, "yes": 2}, "id2label": {0: "no", 1: "up", 2: "yes"}}
    assert task.encode(["yes", "no"]).tolist() == [2, 0] and task.encode(["up"]).dtype == torch.long


def test_numbered_classes_keep_their_names(checkpoint):
    features = Features({"label": ClassLabel(names=["down", "left", "up"])})
    task = load_label_encoding("classification", checkpoint, Dataset.from_dict({"label": [2, 0]}, features=features))
    assert task.model_options["label2id"] == {"down": 0, "left": 1, "up": 2}
    assert task.encode([2, 0]).tolist() == [2, 0]


def test_a_checkpoint_that_knows_the_classes_keeps_its_numbers(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"label2id": {"no": 1, "yes": 0, "up": 2}, "id2label": {"1": "no", "0": "yes", "2": "up"}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    task = load_label_encoding("classification", checkpoint, Dataset.from_dict({"label": ["yes", "no"]}))
    assert task.model_options == {} and task.encode(["yes", "no"]).tolist() == [0, 1]


def test_missing_labels_are_named(checkpoint):
    with pytest.raises(
        ValueError, match="'text'; it has audio, speaker. Name the column with `label_column`, or take"
    ):
        load_label_encoding("ctc", checkpoint, Dataset.from_dict({"audio": ["a"], "speaker": ["s"]}))
    clips = Dataset.from_dict({"text": ["A", None, ""]}, features=Features({"text": Value("string")}))
    with pytest.raises(
        ValueError, match="2 of 3 clips have nothing in the column 'text': row 1, row 2. Leave them out"
    ):
        load_label_encoding("ctc", checkpoint, clips)
    with pytest.raises(ValueError, match="CTC needs a tokenizer, and .* has none that loads"):
        load_label_encoding("ctc", checkpoint, Dataset.from_dict({"text": ["A"]}))
    with pytest.raises(ValueError, match="`task` is 'asr'; choose from 'ctc', 'classification'"):
        load_label_encoding("asr", checkpoint, Dataset.from_dict({"text": ["A"]}))


def test_labels_of_held_out_clips_count(checkpoint):
    train, held_out = (Dataset.from_dict({"label": labels}) for labels in (["no", "yes"], ["up", "no"]))
    task = load_label_encoding("classification", checkpoint, train, held_out_clips=held_out)
    assert task.model_options["label2id"] == {"no": 0, "up": 1, "yes": 2} and task.encode(["up"]).tolist() == [1]
    features = Features({"label": Value("string")})
    held_out = Dataset.from_dict({"label": ["up", None]}, features=features)
    with pytest.raises(ValueError, match="1 of 4 clips have nothing in the column 'label': row 1"):
        load_label_encoding("classification", checkpoint, train, held_out_clips=held_out)


def test_what_counts_as_no_label(checkpoint):
    features = Features({"label": ClassLabel(names=["down", "left"])})
    unlabelled = Dataset.from_dict({"label": [0, -1]}, features=features)
    for clips in (
        unlabelled,
        Dataset.from_dict({"label": [1.0, float("nan")]}),
        Dataset.from_dict({"label": ["a", " "], "audio": ["x.wav", "y.wav"]}),
    ):
        with pytest.raises(ValueError, match=r"1 of 2 clips have nothing in the column 'label': (row 1|y\.wav)\."):
            load_label_encoding("classification", checkpoint, clips)


def test_transcripts_are_checked_against_tokenizer_and_head(checkpoint):
    add_tokenizer(checkpoint)
    with pytest.raises(ValueError, match="100 % of the characters in the column 'text' are unknown to the tokenizer"):
        load_label_encoding("ctc", checkpoint, Dataset.from_dict({"text": ["ab", "a"]}))
    with pytest.raises(ValueError, match="CTC needs text, and the column 'text' holds int"):
        load_label_encoding("ctc", checkpoint, Dataset.from_dict({"text": [12, 7]}))


@pytest.mark.parametrize("labels", ([1.5, 2.0], [[1], [2]], [{"a": 1}, {"a": 2}]))
def test_what_is_no_class_is_refused(checkpoint, labels):
    with pytest.raises(
        ValueError, match=r"names or whole numbers, and the labels hold (float|list|dict)\. .*label_col"
    ):
        load_label_encoding("classification", checkpoint, Dataset.from_dict({"label": labels}))


def test_one_class_is_none(checkpoint):
    with pytest.raises(ValueError, match="All labels are 'yes'. Give clips of two classes or more"):
        load_label_encoding("classification", checkpoint, Dataset.from_dict({"label": ["yes", "yes"]}))
