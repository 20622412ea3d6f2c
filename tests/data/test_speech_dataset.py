"""Speech data: loading from every source, sorting out what cannot be used, setting clips aside."""

import re
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Audio, Dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from hf_prunable.data import speech_dataset
from hf_prunable.data.audio import audio_dataset, decode_audio
from hf_prunable.data.speech_dataset import load_speech_dataset, measure_clips, scan_speech_dataset, split_held_out
from tests.helpers.speech_files import RATE, disturb_random_state, tone, wav_bytes, write, write_truncated_flac


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(speech_dataset.logger, "warning", lines.append)
    return lines


def paths_of(dataset):
    return [row["audio"]["path"] for row in dataset]


def test_folder_is_read_in_order_of_relative_paths(tmp_path):
    folder = tmp_path / "speech"
    names = ["b/2.flac", "b/10.WAV", "a/deep/er/x.ogg", "z.wav", "a.mp3"]
    for name in [*names, ".hidden.wav", ".cache/y.wav", "a/._x.wav"]:
        write(folder / name, tone(0.1))
    (folder / "notes.txt").write_text("not audio")
    write(tmp_path / "elsewhere" / "1.wav", tone(0.1))
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "b" / "loop").symlink_to(folder)
    dataset = load_speech_dataset(folder)
    assert isinstance(dataset.features["audio"], Audio) and not dataset.features["audio"].decode
    assert paths_of(dataset) == [str(folder / name) for name in sorted([*names, "link/1.wav"])]
    assert paths_of(load_speech_dataset(str(folder))) == paths_of(dataset)


def test_folder_split_is_a_sub_folder(tmp_path):
    write(tmp_path / "train" / "a.wav", tone(0.1))
    write(tmp_path / "test" / "b.wav", tone(0.1))
    assert paths_of(load_speech_dataset(tmp_path)) == [str(tmp_path / "train" / "a.wav")]
    assert paths_of(load_speech_dataset(tmp_path, split="test")) == [str(tmp_path / "test" / "b.wav")]
    with pytest.raises(ValueError, match="no sub-folder 'validation'"):
        load_speech_dataset(tmp_path, split="validation")


@pytest.mark.parametrize(
    "name, text",
    [
        ("metadata.csv", "file_name,text,label\nb/two.wav,zwei,1\none.wav,eins,0\n"),
        (
            "metadata.jsonl",
            '{"file_name": "one.wav", "text": "eins", "label": 0}\n{"file_name": "b/two.wav", "text": "zwei", "label": 1}\n',
        ),
    ],
)
def test_folder_with_metadata(tmp_path, name, text):
    for file in ("one.wav", "b/two.wav", "c.wav"):
        write(tmp_path / file, tone(0.1))
    (tmp_path / name).write_text(text)
    dataset = load_speech_dataset(tmp_path)
    names = [Path(clip["path"]).name for clip in dataset["audio"]]
    assert names == ["two.wav", "c.wav", "one.wav"]
    assert dataset["text"][:] == ["zwei", None, "eins"] and dataset["label"][:] == [1, None, 0]
    (tmp_path / name).write_text(text.replace("one.wav", "three.wav"))
    with pytest.raises(ValueError, match=rf"{name}: there is no audio file three.wav"):
        load_speech_dataset(tmp_path)
    (tmp_path / name).write_text(text.replace("file_name", "file"))
    with pytest.raises(ValueError, match=rf"{name}: no column 'file_name'; the columns are file, text, label"):
        load_speech_dataset(tmp_path)


@pytest.mark.parametrize("written_by_datasets", [True, False])
def test_parquet_file_and_folder(tmp_path, monkeypatch, written_by_datasets):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    clips = [{"bytes": wav_bytes(tone(seconds)), "path": f"{seconds}.wav"} for seconds in (0.1, 0.2)]
    table = pyarrow.table({"speech": clips, "speaker": [3, 4]})
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    if written_by_datasets:
        Dataset(table).cast_column("speech", Audio(sampling_rate=RATE)).to_parquet(path)
    else:
        pyarrow.parquet.write_table(table, path)
    for source in (path, path.parent):
        dataset = load_speech_dataset(source)
        assert dataset.column_names == ["audio", "speaker"]
        assert isinstance(dataset.features["audio"], Audio) and not dataset.features["audio"].decode
        assert [len(decode_audio(row["audio"], RATE)) for row in dataset] == [1600, 3200]
    assert len(load_speech_dataset(path, split="train[:1]")) == 1
    with pytest.raises(ValueError, match='Unknown split "test"'):
        load_speech_dataset(path.parent, split="test")


def test_parquet_columns_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [1]}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"text\.parquet: no column holds audio; the columns are text, label"):
        load_speech_dataset(tmp_path / "text.parquet")
    clip = [{"bytes": wav_bytes(tone(0.1)), "path": "a.wav"}]
    pyarrow.parquet.write_table(pyarrow.table({"near": clip, "far": clip}), tmp_path / "two.parquet")
    with pytest.raises(ValueError, match=r"several columns hold audio \(near, far\)"):
        load_speech_dataset(tmp_path / "two.parquet")


def test_paths_that_do_not_fit(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no audio.*\.wav, \.flac, \.ogg, .*\.mp3, .*\.aiff, .*\.parquet"):
        load_speech_dataset(tmp_path / "empty")
    write(tmp_path / "one.wav", tone(0.1))
    with pytest.raises(ValueError, match="give the folder"):
        load_speech_dataset(tmp_path / "one.wav")


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./clips", "../clips", "~/no/clips", "a/b/c", "x.parquet", "a/x.wav"]
)
def test_missing_local_path_never_asks_the_hub(monkeypatch, name):
    monkeypatch.setattr(speech_dataset, "load_dataset", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(FileNotFoundError, match=f"{re.escape(name)}: there is no such file or folder"):
        load_speech_dataset(name)


def test_hub_data_set(monkeypatch):
    calls = []

    def load_dataset(*arguments, **options):
        calls.append((arguments, options))
        return Dataset.from_dict({"file": ["a.wav"]}).cast_column("file", Audio())

    monkeypatch.setattr(speech_dataset, "load_dataset", load_dataset)
    dataset = load_speech_dataset("owner/speech", split="test[:5]", config_name="clean")
    assert calls == [(("owner/speech", "clean"), {"split": "test[:5]", "streaming": False})]
    assert paths_of(dataset) == ["a.wav"]


def test_hub_errors_say_what_to_do(monkeypatch):
    def fail_with(error, cause=None):
        def load_dataset(*_, **__):
            raise error from cause

        monkeypatch.setattr(speech_dataset, "load_dataset", load_dataset)

    for error in (DatasetNotFoundError("doesn't exist"), ConnectionError("Couldn't reach it")):
        fail_with(error)
        with pytest.raises(FileNotFoundError, match=f"'data/clips' is neither a file nor a folder here.*{error}"):
            load_speech_dataset("data/clips")
    fail_with(DatasetGenerationError("failed"), ImportError("please install 'torchcodec'"))
    with pytest.raises(ValueError, match="hf download owner/speech --repo-type dataset"):
        load_speech_dataset("owner/speech")
    fail_with(DatasetGenerationError("failed"), KeyError("column"))
    with pytest.raises(DatasetGenerationError, match="failed"):
        load_speech_dataset("owner/speech")


def test_scan_keeps_the_usable_and_says_once_what_it_skips(tmp_path, warnings):
    good = [write(tmp_path / "good.wav", tone(1.0)), write(tmp_path / "low_rate.wav", tone(1.5, rate=8000), 8000)]
    with_nan = tone(1.0)
    with_nan[-1] = np.nan
    write(tmp_path / "nan.wav", with_nan, subtype="FLOAT")
    write(tmp_path / "float.wav", tone(2.0), subtype="FLOAT")
    write(tmp_path / "empty.wav", np.zeros(0))
    (tmp_path / "text.wav").write_text("this is no audio")
    for number in range(7):
        write(tmp_path / f"short{number}.wav", tone(0.9))
    dataset, skipped = scan_speech_dataset(load_speech_dataset(tmp_path), sampling_rate=RATE, min_seconds=1.0)
    assert paths_of(dataset) == [str(tmp_path / "float.wav"), *(item["path"] for item in good)]
    assert dataset["seconds"][:] == [2.0, 1.0, 1.5]
    assert skipped.num_clips == 13 and skipped.count == 10
    assert {cause: len(names) for cause, names in skipped.names.items()} == {
        "empty": 1,
        "with NaN or infinite samples": 1,
        "shorter than 1 s": 7,
        "unreadable": 1,
    }
    assert len(warnings) == 1 and "\n" not in warnings[0]
    assert "10 of 13 clips cannot be used" in warnings[0]
    assert f"1 unreadable ({tmp_path / 'text.wav'})" in warnings[0]
    assert re.search(r"7 shorter than 1 s \(.*short0\.wav, .*short4\.wav and 2 more\)", warnings[0])
    assert "short5" not in warnings[0]


def test_scan_of_sound_clips_says_nothing_and_keeps_columns(tmp_path, warnings):
    files = [write(tmp_path / f"{number}.wav", tone(1.0))["path"] for number in range(3)]
    dataset = audio_dataset(files, word=["a", "b", "c"], seconds=[9.0, 9.0, 9.0])
    usable, skipped = scan_speech_dataset(dataset, sampling_rate=RATE, min_seconds=1.0)
    assert usable["word"][:] == ["a", "b", "c"] and usable["seconds"][:] == [1.0, 1.0, 1.0]
    assert skipped.count == 0 and skipped.names == {} and warnings == []


def test_scan_names_rows_without_a_path(warnings):
    clips = [{"bytes": wav_bytes(tone(1.0)), "path": None}, {"bytes": b"no", "path": None}, None]
    dataset = Dataset(pyarrow.table({"audio": clips})).cast_column("audio", Audio())
    usable, skipped = scan_speech_dataset(dataset, sampling_rate=RATE, min_seconds=0.5)
    assert len(usable) == 1
    assert skipped.names == {"unreadable": ["row 1", "row 2"]}


def test_scan_with_nothing_left_says_what_was_found(tmp_path):
    write(tmp_path / "short.wav", tone(0.2))
    (tmp_path / "text.wav").write_text("this is no audio")
    with pytest.raises(ValueError, match=r"No clip is left: 2 of 2.*1 shorter than 3 s.*1 unreadable.*3 s or longer"):
        scan_speech_dataset(load_speech_dataset(tmp_path), sampling_rate=RATE, min_seconds=3.0)
    with pytest.raises(ValueError, match="no column 'audio'; the columns are word"):
        scan_speech_dataset(Dataset.from_dict({"word": ["a"]}), sampling_rate=RATE, min_seconds=1.0)


def test_held_out_clips_are_fixed_by_the_seed():
    dataset = Dataset.from_dict({"id": list(range(50))})
    train, held_out = split_held_out(dataset, fraction=0.1, seed=3)
    assert len(held_out) == 5 and sorted(train["id"][:] + held_out["id"][:]) == list(range(50))
    assert train["id"][:] == sorted(train["id"][:])
    assert held_out["id"][:] == sorted(held_out["id"][:])
    disturb_random_state()
    assert split_held_out(dataset, count=5, seed=3)[1]["id"][:] == held_out["id"][:]
    assert split_held_out(dataset, count=5, seed=4)[1]["id"][:] != held_out["id"][:]
    assert len(split_held_out(dataset, fraction=0.001)[1]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either fraction or count"),
        ({"fraction": 0.1, "count": 1}, "either fraction or count"),
        ({"fraction": 1.0}, "fraction is 1.0"),
        ({"count": 0}, "count is 0"),
        ({"count": 3}, "3 of 3 clips cannot be held out"),
        ({"fraction": 0.9}, "3 of 3 clips cannot be held out"),
    ],
)
def test_held_out_of_too_few(options, message):
    with pytest.raises(ValueError, match=message):
        split_held_out(Dataset.from_dict({"id": [0, 1, 2]}), **options)


def test_a_damaged_body_is_found_by_decoding(tmp_path):
    write(tmp_path / "a.flac", tone(0.5))
    write_truncated_flac(tmp_path / "b.flac")
    dataset = load_speech_dataset(tmp_path)
    options = {"sampling_rate": RATE, "min_seconds": 0.1}
    assert measure_clips(dataset, **options)[:2] == ([0.5, 1.0], [0, 1])
    seconds, usable, skipped = measure_clips(dataset, decode=True, **options)
    assert (seconds, usable) == ([0.5, 0.0], [0])
    assert skipped.names == {"unreadable": [str(tmp_path / "b.flac")]}
