"""Facts about clips: the same for the same clips wherever they lie, others when anything that is read has changed."""

import json

import numpy as np
import pytest
from datasets import Audio, ClassLabel, Dataset
from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer

from hf_prunable.data.audio import audio_dataset
from hf_prunable.data.clip_identity import NUM_PARTS, PART_BYTES, WHOLE_BYTES, identify_clips, identify_tokenizer


SHORT, LONG = 1000, 2 * WHOLE_BYTES


def files(folder, **changed):
    """Clips of the names a (short) and b (long), with the bytes at some positions changed."""
    folder.mkdir(exist_ok=True)
    for name, size in (("a", SHORT), ("b", LONG)):
        content = bytearray(np.random.default_rng(ord(name)).bytes(size))
        for position in changed.get(name, ()):
            content[position] ^= 1
        (folder / name).write_bytes(content)
    return identify_clips(audio_dataset([folder / "a", folder / "b"], seconds=[0.5, 2.25]))


def test_facts_that_can_be_told(tmp_path):
    facts = files(tmp_path / "one")
    assert (facts["clips"], facts["seconds"]) == (2, 2.8)
    assert set(facts) == {"clips", "seconds", "names", "lengths", "content"}


def test_a_copy_elsewhere_is_the_same(tmp_path):
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize(
    "changed",
    [{"a": [position]} for position in (0, SHORT // 2, SHORT - 1)]
    + [{"b": [position]} for position in (0, PART_BYTES - 1, LONG - PART_BYTES, LONG - 1)]
    + [{"b": [(LONG - PART_BYTES) // (NUM_PARTS - 1) * 3 + 7]}],
)
def test_a_changed_byte_is_seen(tmp_path, changed):
    before, now = files(tmp_path / "one"), files(tmp_path / "two", **changed)
    assert {fact for fact in before if before[fact] != now[fact]} == {"content"}


def test_what_is_not_seen_is_what_the_docstring_says(tmp_path):
    # Between the first and the second part of a long file.
    assert files(tmp_path / "one") == files(tmp_path / "two", b=[PART_BYTES + 100])


def test_names_lengths_order_and_labels(tmp_path):
    before = files(tmp_path / "one")
    paths = [tmp_path / "one" / name for name in "ab"]
    other_lengths = identify_clips(audio_dataset(paths, seconds=[0.5, 2.2]))
    assert {fact for fact in before if before[fact] != other_lengths[fact]} == {"seconds", "lengths"}
    turned = identify_clips(audio_dataset(paths[::-1], seconds=[2.25, 0.5]))
    assert {fact for fact in before if before[fact] != turned[fact]} == {"names", "lengths", "content"}
    labels = [
        identify_clips(audio_dataset(paths, seconds=[1, 2], text=text), "text") for text in (["x", "y"], ["x", "z"])
    ]
    assert {fact for fact in labels[0] if labels[0][fact] != labels[1][fact]} == {"labels"}


def test_bytes_in_a_table_are_seen_like_files(tmp_path):
    facts = files(tmp_path / "one")
    rows = [{"bytes": (tmp_path / "one" / name).read_bytes(), "path": name} for name in "ab"]
    table = Dataset.from_dict({"audio": rows, "seconds": [0.5, 2.25]}).cast_column("audio", Audio(decode=False))
    assert identify_clips(table) == facts


def test_names_of_classes_are_labels(tmp_path):
    files(tmp_path / "one")
    paths = [tmp_path / "one" / name for name in "ab"]
    clips = audio_dataset(paths, seconds=[1, 2], label=[0, 1])
    facts = [
        identify_clips(clips.cast_column("label", ClassLabel(names=names)), "label")
        for names in (["bed", "cat"], ["bee", "cat"], ["bed", "cat", "dog"])
    ]
    assert len({fact["labels"] for fact in facts}) == 3


@pytest.mark.parametrize(
    "letters, options, changed",
    [
        ("ab", {}, set()),
        ("ba", {}, {"vocabulary"}),
        ("abc", {}, {"tokens", "vocabulary"}),
        ("ab", {"do_lower_case": True}, {"settings"}),
    ],
)
def test_tokenizers(tmp_path, letters, options, changed):
    facts = []
    for folder, symbols, settings in (("one", "ab", {}), ("two", letters, options)):
        (tmp_path / folder).mkdir()
        vocabulary = {symbol: number for number, symbol in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *symbols])}
        (tmp_path / folder / "vocab.json").write_text(json.dumps(vocabulary))
        tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / folder / "vocab.json"), **settings)
        tokenizer.save_pretrained(tmp_path / folder)
        facts.append(identify_tokenizer(AutoTokenizer.from_pretrained(tmp_path / folder)))
    assert {name for name in facts[0] if facts[0][name] != facts[1][name]} == changed
