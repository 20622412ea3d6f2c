"""Speech Commands by its own lists, from a folder, an archive and parquet."""

import io
import os
import tarfile

import datasets
import numpy as np
import pytest
from datasets import Audio, ClassLabel, Dataset, DatasetDict

from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_commands import load_speech_commands, read_speech_commands
from tests.helpers.speech_files import RATE, pack, tone, wav_bytes, write, write_speech_commands


CLIPS = ("yes/aa_nohash_0", "yes/aa_nohash_1", "yes/bb_nohash_0", "no/bb_nohash_0", "no/cc_nohash_0")
VALIDATION, TEST = ("yes/bb_nohash_0", "no/bb_nohash_0"), ("no/cc_nohash_0",)
EXPECTED = {
    "train": [("yes", "aa"), ("yes", "aa")],
    "validation": [("no", "bb"), ("yes", "bb")],
    "test": [("no", "cc")],
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def archive(tmp_path):
    write(tmp_path / "yes" / "._aa_nohash_0.wav", tone(0.1))
    return write_speech_commands(tmp_path, CLIPS, VALIDATION, TEST)


def parquet(folder, as_class_label=True, **columns):
    """The copy of `archive` that a Hub repository would hold, one file a split."""
    for split in EXPECTED:
        listed = {"validation": VALIDATION, "test": TEST}.get(split, CLIPS[:2])
        # Files of a Hub copy have lost their folder.
        audio = [{"bytes": wav_bytes(tone(0.05)), "path": f"{clip.split('/')[1]}.wav"} for clip in listed]
        labels = [clip.split("/")[0] for clip in listed]
        if split == "train":
            audio.append({"bytes": wav_bytes(tone(0.05)), "path": "noise.wav"})
            labels.append("_silence_")
        split_columns = {name: make(labels) for name, make in columns.items()}
        dataset = Dataset.from_dict({"audio": audio, "label": labels, **split_columns})
        if as_class_label:
            dataset = dataset.cast_column("label", ClassLabel(names=["yes", "no", "_silence_"]))
        folder.mkdir(exist_ok=True)
        dataset.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def rows(source, split, **options):
    dataset = load_speech_commands(source, split, **options)
    assert dataset.column_names == ["audio", "word", "speaker"]
    assert isinstance(dataset.features["audio"], Audio) and not dataset.features["audio"].decode
    assert all(len(decode_audio(row["audio"], RATE)) == 800 for row in dataset)
    return list(zip(dataset["word"], dataset["speaker"], strict=True))


@pytest.mark.parametrize(
    "form", ("wav", "flac", "tar", "tar with a folder", "flac in tar", "parquet", "parquet of names")
)
def test_every_form_follows_the_lists(tmp_path, form):
    extension = "flac" if "flac" in form else "wav"
    source = tmp_path / "tree"
    if form.startswith("parquet"):
        source = parquet(tmp_path / "copy", as_class_label=form == "parquet")
    else:
        write_speech_commands(source, CLIPS, VALIDATION, TEST, extension=extension)
    if "tar" in form:
        source = pack(source, tmp_path / "a.tar.gz", "speech_commands_v0.02" if "folder" in form else ".")
    assert {split: rows(source, split) for split in EXPECTED} == EXPECTED
    assert rows(str(source), "validation", words=["yes"]) == [("yes", "bb")]


def test_paths_are_those_of_the_files(archive):
    for row in load_speech_commands(archive, "train"):
        assert row["audio"]["path"].startswith(str(archive / row["word"] / row["speaker"]))


def test_of_wav_and_flac_of_one_name_the_wav_stays(archive):
    write(archive / "yes" / "aa_nohash_0.flac", tone(1.0))
    assert rows(archive, "train") == EXPECTED["train"]


@pytest.mark.parametrize("column", ("speaker", "speaker_id"))
def test_parquet_speakers_come_from_their_column_first(tmp_path, column):
    source = parquet(tmp_path / "copy", **{column: lambda labels: [f"{label}-speaker" for label in labels]})
    assert rows(source, "train") == [("yes", "yes-speaker")] * 2


def test_a_parquet_file_is_the_training_split(tmp_path):
    file = parquet(tmp_path / "copy") / "test-00000-of-00001.parquet"
    assert rows(file, "train") == EXPECTED["test"]
    with pytest.raises(ValueError, match="no clip in the split 'test'"):
        load_speech_commands(file, "test")


def test_parquet_of_other_columns(tmp_path):
    source = parquet(tmp_path / "copy")
    for file in source.iterdir():
        Dataset.from_parquet(str(file)).rename_column("label", "word").to_parquet(file)
    with pytest.raises(ValueError, match="copy: no column 'label'; the columns are audio, word"):
        load_speech_commands(source, "train")


def test_an_archive_is_read_once_and_again_when_it_changes(tmp_path, cache, monkeypatch):
    source = pack(write_speech_commands(tmp_path / "tree", CLIPS, VALIDATION, TEST), tmp_path / "a.tgz")
    first = read_speech_commands(source)
    assert first.cache_files and all(str(cache) in file["filename"] for file in first.cache_files)
    opened = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *args, **kwargs: opened.append(1) or real(*args, **kwargs))
    assert read_speech_commands(source)["clip"][:] == first["clip"][:] and not opened
    write_speech_commands(tmp_path / "tree", ["up/dd_nohash_0"], VALIDATION, TEST)
    monkeypatch.setattr(tarfile, "open", real)
    pack(tmp_path / "tree", source)
    assert len(read_speech_commands(source)) == len(first) + 1


def test_an_archive_writes_nothing_where_its_names_point(tmp_path):
    root = write_speech_commands(tmp_path / "in" / "tree", CLIPS, VALIDATION, TEST)
    with tarfile.open(tmp_path / "in" / "a.tar.gz", "w:gz") as file:
        file.add(root, ".")
        for name in ("../evil_nohash_0.wav", f"{tmp_path}/evil/ee_nohash_0.wav", "../../up/ff_nohash_0.wav"):
            member = tarfile.TarInfo(name)
            content = wav_bytes(tone(0.05))
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo("yes/gg_nohash_0.wav")
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    table = read_speech_commands(tmp_path / "in" / "a.tar.gz")
    assert sorted(tmp_path.rglob("*")) == before and not os.path.exists(tmp_path.parent / "up")
    assert not any("gg" in clip or ".." in clip for clip in table["clip"])


def damaged(kind, content):
    content = bytearray(content)
    if kind == "cut in the middle":
        return content[: len(content) // 2]
    if kind == "cut before its checksum":
        return content[:-8]
    if kind == "changed":
        content[len(content) // 2] ^= 0xFF
        return content
    return b"this is no archive"


@pytest.mark.parametrize("kind", ("cut in the middle", "cut before its checksum", "changed", "no archive"))
def test_a_damaged_archive_is_named(tmp_path, kind):
    source = pack(write_speech_commands(tmp_path / "tree", CLIPS, VALIDATION, TEST), tmp_path / "a.tar.gz")
    source.write_bytes(damaged(kind, source.read_bytes()))
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"a\.tar\.gz: the archive is damaged or was cut short \(.+\)\. Fetch it again"
        ):
            read_speech_commands(source)


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("name", ("validation_list.txt", "testing_list.txt"))
def test_missing_lists(tmp_path, archive, packed, name):
    (archive / name).unlink()
    source = pack(archive, tmp_path / "a.tar.gz") if packed else archive
    with pytest.raises(FileNotFoundError, match=f"there is no {name} in it. Give the official archive or the folder"):
        load_speech_commands(source, "train")


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("split", EXPECTED)
def test_listed_clips_that_are_missing(tmp_path, archive, packed, split):
    with open(archive / "testing_list.txt", "a") as file:
        file.write("no/dd_nohash_0.wav\ntree/dd_nohash_0.wav\n")
    source = pack(archive, tmp_path / "a.tar.gz") if packed else archive
    with pytest.raises(FileNotFoundError, match=r"2 of 3 clips in testing_list\.txt.*no/dd_nohash_0\.wav, tree/dd"):
        load_speech_commands(source, split)


@pytest.mark.parametrize("packed", (False, True))
def test_a_file_that_does_not_tell_its_speaker(tmp_path, archive, packed):
    write(archive / "yes" / "noname.wav", tone(0.1))
    source = pack(archive, tmp_path / "a.tar.gz") if packed else archive
    with pytest.raises(ValueError, match="yes/noname: the file name does not contain the speaker"):
        load_speech_commands(source, "train")


def test_arguments_that_make_no_sense(archive):
    with pytest.raises(ValueError, match="split is 'dev'; it must be 'train', 'validation' or 'test'"):
        load_speech_commands(archive, "dev")
    for name in ("nowhere", "nowhere.tar.gz"):
        with pytest.raises(FileNotFoundError, match=f"{name}: there is no such file"):
            load_speech_commands(archive / name, "train")
    with pytest.raises(ValueError, match="no clips of maybe; there are no, yes"):
        load_speech_commands(archive, "train", words=["yes", "maybe"])
    with pytest.raises(ValueError, match="give a list of words"):
        load_speech_commands(archive, "train", words="yes")
    with pytest.raises(ValueError, match="no clip in the split 'test' for these words"):
        load_speech_commands(archive, "test", words=["yes"])


def test_the_recorded_clips(shared_data):
    table = read_speech_commands(shared_data / "speech_commands")
    noise = [word == "_background_noise_" for word in table["word"]]
    assert len(table) == 2547 + 6 and sum(noise) == 6 and len(set(table["word"])) == 35 + 1
    assert len(set(table["speaker"]) - {None}) == 744
    assert [split is None for split in table["split"]] == noise
    counts = {split: int(np.sum([one == split for one in table["split"]])) for split in EXPECTED}
    lists = {
        name: (shared_data / "speech_commands" / file).read_text().split()
        for name, file in (("validation", "validation_list.txt"), ("test", "testing_list.txt"))
    }
    assert counts["validation"] == len(lists["validation"]) and counts["test"] == len(lists["test"])
    assert sum(counts.values()) == 2547


def test_a_dataset_dict_saved_as_parquet_is_a_copy(tmp_path, archive):
    """What `push_to_hub` writes, and what is read back, are the same clips."""
    splits = {split: load_speech_commands(archive, split).rename_column("word", "label") for split in EXPECTED}
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for split, dataset in DatasetDict(splits).items():
        dataset.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    assert {split: rows(folder.parent, split) for split in EXPECTED} == EXPECTED
