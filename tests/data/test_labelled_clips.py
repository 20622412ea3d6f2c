"""A classification task from labelled clips: classes, splits, length, and what is left out."""

from collections import Counter

import datasets
import pytest

from hf_prunable.data import labelled_clips
from hf_prunable.data.labelled_clips import LabelledClipsSettings, load_labelled_clips
from hf_prunable.data.labelled_sources import LabelColumns
from tests.helpers.speech_files import RATE, tone, write


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(labelled_clips.logger, "warning", lines.append)
    return lines


@pytest.fixture
def folder(tmp_path):
    """Two classes of 12 clips by four speakers, and a class of two clips."""
    lines = ["file_name,speaker"]
    for label, count in {"cat": 12, "dog": 12, "owl": 2}.items():
        for number in range(count):
            write(tmp_path / label / f"{number}.wav", tone(0.05 + 0.01 * number))
            lines.append(f"{label}/{number}.wav,{'abcd'[number % 4]}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def load(source, label=None, others=(), **settings):
    return load_labelled_clips(
        source, LabelColumns(label, others=others), LabelledClipsSettings(**settings), sampling_rate=RATE
    )


def test_drawn_splits(folder, warnings):
    task = load(folder)
    assert task.name == "label" and task.class_names == ["cat", "dog"]
    assert {split: Counter(clips["label"][:]) for split, clips in task.splits.items()} == {
        "train": {0: 10, 1: 10},
        "validation": {0: 1, 1: 1},
        "test": {0: 1, 1: 1},
    }
    assert task.splits["test"].column_names == ["audio", "label", "seconds"]
    assert task.skipped.counts == {"of a class with too few clips": 2}
    assert "Classes left out, with too few clips or groups for three splits: owl (2)" in warnings[0]
    assert task.clip_seconds == max(task.splits["train"]["seconds"])
    assert load(folder, clip_seconds=0.04).clip_seconds == 0.04


def test_groups_and_further_labels(folder, warnings):
    task = load(folder, others=("speaker",), group_column="speaker")
    speakers = [set(clips["speaker"][:]) for clips in task.splits.values()]
    assert sum(map(len, speakers)) == len(set().union(*speakers)) == 4
    assert task.other_labels == ("speaker",)
    # A group column alone is no label to score layers by.
    assert load(folder, group_column="speaker").other_labels == ()


def test_long_clips_are_cut(folder, warnings, monkeypatch):
    monkeypatch.setattr(labelled_clips, "MAX_SECONDS", 0.1)
    assert load(folder).clip_seconds == 0.1
    assert any("training clips are cut to 0.1 s. `clip_seconds` sets the length" in line for line in warnings)


def test_what_is_refused(folder, warnings):
    with pytest.raises(ValueError, match=r"there is no column 'size'; the columns are speaker, label"):
        load(folder, "size")
    with pytest.raises(ValueError, match="`min_clips_per_class` is 2; it must be 3 or more, one for each split"):
        load(folder, min_clips_per_class=2)
    with pytest.raises(ValueError, match="`clip_seconds` is 0; it must be above 0"):
        load(folder, clip_seconds=0)
    with pytest.raises(ValueError, match="`clip_seconds` is 0.01; it must be 0.025 or more, the shortest clip"):
        load(folder, clip_seconds=0.01)
    write(folder / "alone.wav", tone(0.05))
    with pytest.raises(
        ValueError, match=r"1 of 27 clips have nothing in the column 'label': .*alone.wav. Leave them out"
    ):
        load(folder)


def test_one_class(folder, warnings):
    for number in range(10):
        (folder / "dog" / f"{number}.wav").unlink()
    (folder / "metadata.csv").unlink()
    with pytest.raises(ValueError, match=r"one class \(cat\) makes no classification. Give clips of two or more"):
        load(folder)


def test_no_class_with_enough_clips(folder, warnings):
    message = r"no class has enough clips or groups for three splits: cat \(12\), dog \(12\), owl \(2\). Each needs 13"
    with pytest.raises(ValueError, match=message):
        load(folder, min_clips_per_class=13)


def test_given_splits(tmp_path, warnings):
    def table(*rows):
        lines = [f"{name}.wav,{label},{speaker},{split}" for name, label, speaker, split in rows]
        for name, *_ in rows:
            write(tmp_path / f"{name}.wav", tone(0.05))
        (tmp_path / "t.csv").write_text("\n".join(["path,kind,who,split", *lines]) + "\n")
        return tmp_path / "t.csv"

    whole = [("a", "x", "1", "train"), ("b", "y", "1", "train"), ("c", "x", "2", "dev"), ("d", "x", "3", "test")]
    task = load(table(*whole), "kind", group_column="who")
    assert {split: len(clips) for split, clips in task.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert "1 of 2 classes have no clip in the split 'validation': y" in warnings[0]
    with pytest.raises(ValueError, match="the split 'test' has classes without a training clip: z. Leave them out"):
        load(table(*whole, ("e", "z", "4", "test")), "kind")
    with pytest.raises(ValueError, match="1 of 3 groups are in more than one split: 1"):
        load(table(*whole, ("e", "x", "1", "test")), "kind", group_column="who")
