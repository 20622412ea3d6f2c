"""The keyword task: ten words, other words and silence, in the splits of the lists."""

import shutil
from collections import Counter

import datasets
import numpy as np
import pytest

from hf_prunable.data.audio import decode_audio
from hf_prunable.data.keyword_task import CLASSES, KEYWORDS, load_keyword_task
from tests.helpers.speech_files import RATE, pack, write, write_speech_commands


SPLITS = {"train": range(6), "validation": range(6, 8), "test": range(8, 10)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    def clips(takes):
        return [f"{word}/a_nohash_{take}" for word in (*KEYWORDS, "bed", "tree") for take in takes]

    root = tmp_path_factory.mktemp("tree")
    write_speech_commands(root, clips(range(10)), clips(SPLITS["validation"]), clips(SPLITS["test"]))
    # Each second has its own value.
    write(root / "_background_noise_" / "pink_noise.wav", np.repeat(np.arange(10) / 20 + 0.1, RATE))
    return root


def load(source, **options):
    return load_keyword_task(source, sampling_rate=RATE, **options)


def test_classes_and_sizes(tree):
    task = load(tree)
    assert task.name == "keyword" and task.class_names == CLASSES and len(CLASSES) == 12 and task.clip_seconds == 1
    for split, takes in SPLITS.items():
        assert Counter(task.splits[split]["keyword"][:]) == dict.fromkeys(CLASSES, len(takes))
    unknown = [clip["audio"]["path"] for clip in task.splits["train"] if clip["keyword"] == "_unknown_"]
    assert all("/bed/" in path or "/tree/" in path for path in unknown)


def test_each_split_has_its_own_noise(tree):
    task = load(tree)
    for split, (first, last) in {"train": (0, 6), "validation": (6, 8), "test": (8, 10)}.items():
        crops = [decode_audio(clip["audio"], RATE) for clip in task.splits[split] if clip["keyword"] == "_silence_"]
        assert all(len(crop) == RATE for crop in crops)
        for crop in crops:
            # The ratio of two neighbouring seconds does not depend on the volume.
            levels = np.unique(np.round(crop / crop.max(), 3))
            possible = [
                round((a / 20 + 0.1) / (b / 20 + 0.1), 3) for a in range(first, last) for b in range(first, last)
            ]
            assert all(np.abs(np.array(possible) - level).min() < 0.01 for level in levels)


def test_the_archive_and_the_seed(tree, tmp_path):
    folder, archive = load(tree), load(pack(tree, tmp_path / "sc.tar.gz"))
    again, other = load(tree), load(tree, seed=1)
    for split in SPLITS:
        expected = folder.splits[split]
        assert archive.splits[split]["label"][:] == again.splits[split]["label"][:] == expected["label"][:]
        silence = len(expected) - 1
        for task in (archive, again):
            clips = [(one["audio"], two["audio"]) for one, two in zip(task.splits[split], expected, strict=True)]
            assert all(np.array_equal(decode_audio(one, RATE), decode_audio(two, RATE)) for one, two in clips)
        assert other.splits[split][silence]["audio"]["bytes"] != expected[silence]["audio"]["bytes"]


def test_what_is_missing(tree, tmp_path):
    copy = shutil.copytree(tree, tmp_path / "copy")
    write(copy / "_background_noise_" / "pink_noise.wav", np.zeros(4 * RATE))
    with pytest.raises(
        ValueError,
        match="recordings of noise in _background_noise_, and there is none that is long enough: one of 5 s",
    ):
        load(copy)
    for name in ("bed", "tree"):
        shutil.rmtree(copy / name)
    for file in ("validation_list.txt", "testing_list.txt"):
        lines = (copy / file).read_text().splitlines()
        (copy / file).write_text("\n".join(line for line in lines if line.split("/")[0] in KEYWORDS))
    with pytest.raises(ValueError, match="0 usable clips of other words, and the class '_unknown_' needs 6"):
        load(copy)
