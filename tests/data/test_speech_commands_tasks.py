"""The word and the speaker task of Speech Commands."""

import datasets
import pytest
import torch
from datasets import ClassLabel
from transformers import AutoModelForAudioClassification, Trainer, TrainingArguments, Wav2Vec2FeatureExtractor

from hf_prunable import truncate
from hf_prunable.data import speech_dataset
from hf_prunable.data.batches import LabelledClips, LabelledCollator
from hf_prunable.data.labels import load_label_encoding
from hf_prunable.data.speech_commands_tasks import CLIP_SECONDS, SpeakerSplit, load_speech_commands_task
from hf_prunable.finetuning.metrics import ClassificationMetric
from tests.helpers.speech_files import RATE, disturb_random_state, pack, tone, wav_bytes, write, write_speech_commands
from tests.helpers.tiny_models import tiny_stock


# Clips on the training list. The last speaker has 60 clips in all, 20 of them on the lists.
SPEAKERS = {"aa": 49, "bb": 50, "cc": 73, "dd": 40}
LISTED = {"validation": 10, "test": 10}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(speech_dataset.logger, "warning", lines.append)
    return lines


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    def clips(speaker, takes):
        return [f"{('no', 'up', 'yes')[take % 3]}/{speaker}_nohash_{take}" for take in takes]

    train = [clip for speaker, count in SPEAKERS.items() for clip in clips(speaker, range(count))]
    validation, test = clips("dd", range(40, 50)), clips("dd", range(50, 60))
    root = tmp_path_factory.mktemp("tree")
    return write_speech_commands(root, train + validation + test, validation, test)


def load(source, task, **options):
    return load_speech_commands_task(source, task, sampling_rate=RATE, **options)


def names(split):
    return [
        f"{word}/{audio['path'].rsplit('/', 1)[-1]}" for word, audio in zip(split["word"], split["audio"], strict=True)
    ]


def test_words_have_the_lists_splits(tree, warnings):
    splits, skipped = load(tree, "word")
    assert {name: len(split) for name, split in splits.items()} == {"train": sum(SPEAKERS.values()), **LISTED}
    for split in splits.values():
        assert split.column_names == ["audio", "word", "speaker", "label", "seconds"]
        assert split.features["label"] == ClassLabel(names=["no", "up", "yes"]) and not split.features["audio"].decode
        assert split.features["label"].int2str(split["label"][:]) == split["word"][:]
        assert set(split["seconds"]) == {0.05} and names(split) == sorted(names(split))
    assert skipped.count == 0 and skipped.num_clips == sum(SPEAKERS.values()) + 20 and not warnings
    splits, _ = load(tree, "word", words=["up", "yes"])
    assert splits["test"].features["label"].names == ["up", "yes"] and set(splits["test"]["word"]) == {"up", "yes"}


def test_speakers_are_those_with_enough_clips_on_the_training_list(tree):
    splits, _ = load(tree, "speaker")
    names_of_all = [name for split in splits.values() for name in names(split)]
    assert len(names_of_all) == len(set(names_of_all)) == 50 + 73
    sizes = {name: [split["speaker"][:].count(speaker) for speaker in ("bb", "cc")] for name, split in splits.items()}
    # A tenth for testing, and a tenth of the other nine for validation.
    assert sizes == {"train": [41, 59], "validation": [4, 7], "test": [5, 7]}
    for split in splits.values():
        assert split.features["label"].names == ["bb", "cc"]
        assert split.features["label"].int2str(split["label"][:]) == split["speaker"][:]
        assert names(split) == sorted(names(split))


@pytest.mark.parametrize(
    ("threshold", "speakers"),
    [(3, ["aa", "bb", "cc", "dd"]), (41, ["aa", "bb", "cc"]), (49, ["aa", "bb", "cc"]), (50, ["bb", "cc"])],
)
def test_threshold(tree, threshold, speakers):
    splits, _ = load(tree, "speaker", speaker_split=SpeakerSplit(threshold))
    assert all(split.features["label"].names == speakers == sorted(set(split["speaker"])) for split in splits.values())


def test_speaker_splits_are_a_function_of_the_seed_whatever_the_source(tree, tmp_path):
    def split_names(source, **options):
        splits, _ = load(source, "speaker", **options)
        return {name: names(split) for name, split in splits.items()}

    first = split_names(tree)
    disturb_random_state()
    assert split_names(tree, speaker_split=SpeakerSplit(seed=42)) == first
    assert split_names(pack(tree, tmp_path / "a.tar.gz")) == first
    other = split_names(tree, speaker_split=SpeakerSplit(seed=43))
    assert other["test"] != first["test"] and len(other["test"]) == len(first["test"])


def test_every_split_has_a_clip_of_every_speaker(tmp_path):
    clips = [
        f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in ("aa", "bb") for take in (0, 1)
    ]
    splits, _ = load(write_speech_commands(tmp_path, clips[:-1]), "speaker", speaker_split=SpeakerSplit(3))
    assert {name: sorted(split["speaker"]) for name, split in splits.items()} == {
        "train": ["aa", "aa", "bb"],
        "validation": ["aa", "bb"],
        "test": ["aa", "bb"],
    }


@pytest.mark.parametrize("task", ("word", "speaker"))
def test_clips_that_cannot_be_decoded_are_left_out_and_counted(tmp_path, warnings, task):
    clips = [
        f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in ("aa", "bb") for take in range(4)
    ]
    root = write_speech_commands(tmp_path, clips, clips[3::8], clips[7::8], extension="flac")
    (root / "no" / "aa_nohash_0.flac").write_text("this is no audio")
    # A sound header and half a body.
    whole = (root / "yes" / "aa_nohash_0.flac").read_bytes()
    (root / "yes" / "aa_nohash_0.flac").write_bytes(whole[: len(whole) * 3 // 4])
    write(root / "yes" / "aa_nohash_1.wav", tone(0.02))
    splits, skipped = load(root, task, speaker_split=SpeakerSplit(3))
    used = {name for split in splits.values() for name in names(split)}
    assert not used & {"no/aa_nohash_0.flac", "yes/aa_nohash_0.flac", "yes/aa_nohash_1.wav"}
    assert {cause: len(found) for cause, found in skipped.names.items()} == {
        "unreadable": 2,
        "shorter than 0.025 s": 1,
    }
    assert len(warnings) == 1 and "3 of 16 clips cannot be used" in warnings[0]


@pytest.mark.parametrize("sampling_rate, shortest", [(16000, 0.025), (8000, 0.05)])
def test_the_shortest_clip_has_as_many_samples_at_every_rate(tmp_path, sampling_rate, shortest):
    clips = [f"{word}/aa_nohash_{take}" for word in ("no", "yes") for take in range(4)]
    root = write_speech_commands(tmp_path, clips, clips[2::4], clips[3::4], seconds=0.1)
    for take, seconds in enumerate((shortest - 0.001, shortest)):
        write(root / "yes" / f"aa_nohash_{take}.wav", tone(seconds))
    splits, skipped = load_speech_commands_task(root, "word", sampling_rate=sampling_rate)
    assert names(splits["train"]) == ["no/aa_nohash_0.wav", "no/aa_nohash_1.wav", "yes/aa_nohash_1.wav"]
    assert splits["train"]["seconds"][-1] * sampling_rate == 400
    assert list(skipped.names) == [f"shorter than {shortest} s"]


def test_parquet_without_speakers_knows_words_only(tmp_path):
    for split in ("train", "validation", "test"):
        audio = [{"bytes": wav_bytes(tone(0.05)), "path": None}] * 2
        datasets.Dataset.from_dict({"audio": audio, "label": ["no", "yes"]}).to_parquet(tmp_path / f"{split}.parquet")
    splits, _ = load(tmp_path, "word")
    assert all(split["word"][:] == ["no", "yes"] and split["label"][:] == [0, 1] for split in splits.values())
    with pytest.raises(ValueError, match="the speaker of no/ is not known. Give a copy with a column 'speaker'"):
        load(tmp_path, "speaker")
    with pytest.raises(ValueError, match="no usable clip in 'validation' and 'test'. Words need all three splits"):
        load(tmp_path / "train.parquet", "word")


def test_a_copy_that_is_split_by_speakers_stays_so(tmp_path):
    counts = {"train": 4, "validation": 1, "test": 2}
    for split, count in counts.items():
        speakers = ["bb", "aa", "cc"] * count
        # The last speaker has too few clips.
        speakers = [name for place, name in enumerate(speakers) if name != "cc" or place < 6]
        audio = [
            {"bytes": wav_bytes(tone(0.05)), "path": f"{name}_{split}_{place}.wav"}
            for place, name in enumerate(speakers)
        ]
        columns = {"audio": audio, "label": ["segment"] * len(speakers), "speaker": speakers}
        datasets.Dataset.from_dict(columns).to_parquet(tmp_path / f"{split}.parquet")
    splits, _ = load(tmp_path, "speaker", speaker_split=SpeakerSplit(3))
    for split, count in counts.items():
        assert splits[split]["speaker"][:] == ["aa"] * count + ["bb"] * count
        assert all(f"_{split}_" in name for name in names(splits[split]))


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("emotion", {}, "task is 'emotion'; it must be 'word' or 'speaker'"),
        ("word", {"words": ["no"]}, r"one word \(no\) makes no classification. Give two or more `words`"),
        (
            "speaker",
            {"speaker_split": SpeakerSplit(51)},
            "1 of 4 speakers have 51 or more usable clips.*two are needed. The most clips are 73 of cc, 50 of bb, 49 of aa",
        ),
    ],
)
def test_what_makes_no_task(tree, task, options, message):
    with pytest.raises(ValueError, match=message):
        load(tree, task, **options)


def test_too_few_clips_for_three_splits_are_refused():
    with pytest.raises(ValueError, match="min_clips_per_speaker is 2; it must be 3 or more"):
        SpeakerSplit(2)


@pytest.mark.parametrize("task", ("word", "speaker"))
def test_a_truncated_model_is_fine_tuned_by_trainer(tree, tmp_path, task):
    folder = tmp_path / "model"
    truncate(tiny_stock("hubert"), 2).save_pretrained(folder)
    splits, _ = load(tree, task)
    labels = load_label_encoding("classification", folder, splits["train"])
    truncated = AutoModelForAudioClassification.from_pretrained(folder, **labels.model_options)
    assert truncated.config.label2id == {
        name: number for number, name in enumerate(splits["train"].features["label"].names)
    }
    truncated.freeze_base_model()
    before = {name: tensor.clone() for name, tensor in truncated.named_parameters()}
    metric = ClassificationMetric(keep_in_memory=True)
    trainer = Trainer(
        truncated,
        TrainingArguments(
            str(tmp_path / "out"),
            max_steps=2,
            per_device_train_batch_size=8,
            remove_unused_columns=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            learning_rate=1e-2,
        ),  # fmt: skip
        data_collator=LabelledCollator(Wav2Vec2FeatureExtractor(), labels.encode, seconds=CLIP_SECONDS),
        train_dataset=LabelledClips(splits["train"], sampling_rate=RATE),
        eval_dataset=LabelledClips(splits["test"], sampling_rate=RATE),
        compute_metrics=lambda prediction: metric.compute(
            predictions=prediction.predictions.argmax(-1), references=prediction.label_ids
        ),
    )
    trainer.train()
    changed = {name for name, tensor in truncated.named_parameters() if not torch.equal(tensor, before[name])}
    assert changed == {f"{part}.{kind}" for part in ("projector", "classifier") for kind in ("weight", "bias")}
    result = trainer.evaluate()
    count = len(splits["test"])
    assert result["eval_accuracy"] * count == pytest.approx(round(result["eval_accuracy"] * count))
    assert 0 <= result["eval_accuracy_lower"] <= result["eval_accuracy"] <= result["eval_accuracy_upper"] <= 1
