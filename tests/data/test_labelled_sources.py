"""Labelled clips from folders of classes, tables, parquet: the same clips, labels and splits from each."""

import csv
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_prunable.data.audio import decode_audio
from hf_prunable.data.labelled_sources import LabelColumns, read_labelled_clips
from tests.helpers.speech_files import RATE, tone, wav_bytes, write


CLIPS = {"cat/1.wav": "cat", "cat/2.wav": "cat", "dog/3.wav": "dog", "dog/deep/4.wav": "dog"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path):
    """Class folders; each clip has its own frequency."""
    for number, name in enumerate(CLIPS):
        write(tmp_path / "clips" / name, tone(0.05, frequency=200.0 * (number + 1)))
    return tmp_path / "clips"


def rows(paths=CLIPS):
    return [
        {"file_name": name, "kind": label, "speaker": f"0{number}", "split": split}
        for number, ((name, label), split) in enumerate(
            zip(paths.items(), ["train", "train", "dev", "test"], strict=True)
        )
    ]


def write_table(path, table):
    if path.suffix in (".csv", ".tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, table[0], delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(table)
    elif path.suffix == ".json":
        path.write_text(json.dumps(table))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        pq.write_table(pa.Table.from_pylist(table), path)
    return path


def samples(clips):
    return [decode_audio(clip["audio"], RATE) for clip in clips]


def test_class_folders(folder):
    clips = read_labelled_clips(folder)
    assert clips["label"][:] == ["cat", "cat", "dog", "dog"] and set(clips["split"][:]) == {"train"}
    assert clips.column_names == ["audio", "label", "split"]
    assert all(np.abs(decoded).max() > 0.4 for decoded in samples(clips))


def test_class_folders_in_split_folders(tmp_path):
    for split in ("train", "dev", "test"):
        for label in ("train", "test"):
            write(tmp_path / split / label / f"{split}.wav", tone(0.05))
    clips = read_labelled_clips(tmp_path)
    # Classes may have the names of splits, below folders of splits.
    assert sorted(zip(clips["split"][:], clips["label"][:], strict=True)) == sorted(
        (split, label) for split in ("train", "validation", "test") for label in ("train", "test")
    )
    (tmp_path / "valid").mkdir()
    with pytest.raises(ValueError, match="there is no audio in valid. Leave the folder of a split out"):
        read_labelled_clips(tmp_path)
    write(tmp_path / "valid/train/a.wav", tone(0.05))
    with pytest.raises(ValueError, match="dev, test, train, valid hold the split 'validation' twice. Leave one"):
        read_labelled_clips(tmp_path)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_tables_of_paths(folder, ending):
    table = write_table(folder / f"table{ending}", rows())
    clips = read_labelled_clips(table, LabelColumns("kind", others=("speaker",)))
    assert clips["kind"][:] == ["cat", "cat", "dog", "dog"] and clips["speaker"][:] == ["00", "01", "02", "03"]
    assert clips["split"][:] == ["train", "train", "validation", "test"]
    for decoded, expected in zip(samples(clips), samples(read_labelled_clips(folder)), strict=True):
        np.testing.assert_array_equal(decoded, expected)


def test_the_folder_of_a_table(folder, tmp_path):
    only = tmp_path / "tables"
    only.mkdir()
    absolute = rows({str(folder / name): label for name, label in CLIPS.items()})
    write_table(only / "all.csv", absolute)
    assert read_labelled_clips(only, LabelColumns("kind"))["split"][:] == ["train", "train", "validation", "test"]
    (only / "all.csv").unlink()
    without_split = [{name: value for name, value in row.items() if name != "split"} for row in absolute]
    for split, part in (("train", without_split[:2]), ("valid", without_split[2:3]), ("test", without_split[3:])):
        write_table(only / f"{split}.csv", part)
    clips = read_labelled_clips(only, LabelColumns("kind"))
    assert sorted(clips["split"][:]) == ["test", "train", "train", "validation"]
    write_table(only / "more.csv", without_split)
    with pytest.raises(ValueError, match=r"more.csv is not named after a split. Give one table, or name them train"):
        read_labelled_clips(only, LabelColumns("kind"))


def test_parquet_with_audio(tmp_path):
    table = [{"sound": {"bytes": wav_bytes(tone(0.05)), "path": "a.wav"}, "label": 7, "is_loud": True}] * 3
    path = write_table(tmp_path / "clips.parquet", table)
    clips = read_labelled_clips(path, LabelColumns(others=("is_loud",)))
    assert clips["label"][:] == ["7"] * 3 and clips["is_loud"][:] == ["True"] * 3
    assert len(samples(clips)[0]) == round(0.05 * RATE)
    assert read_labelled_clips(path, LabelColumns(audio="sound"))["label"][:] == ["7"] * 3
    with pytest.raises(ValueError, match=r"the column 'label' holds Value\('int64'\), and no audio; sound does"):
        read_labelled_clips(path, LabelColumns(audio="label"))


def test_parquet_with_large_strings(folder):
    """Text as pandas and polars write it."""
    table = pa.Table.from_pylist(rows())
    table = table.cast(pa.schema([(name, pa.large_string()) for name in table.column_names]))
    pq.write_table(table, folder / "table.parquet")
    for columns in (LabelColumns("kind"), LabelColumns("kind", audio="file_name")):
        clips = read_labelled_clips(folder / "table.parquet", columns)
        assert clips["kind"][:] == ["cat", "cat", "dog", "dog"] and len(samples(clips)) == 4


def test_audio_in_a_table_comes_before_paths(tmp_path):
    """Parquet from the Hub has paths of the machine that it was made on beside the audio."""
    high, low = ({"bytes": wav_bytes(tone(0.05, frequency=value)), "path": None} for value in (880.0, 220.0))
    table = [{"path": "/data/a.wav", "sound": high, "audio": low, "label": "a"}] * 2
    path = write_table(tmp_path / "clips.parquet", table)
    np.testing.assert_array_equal(samples(read_labelled_clips(path))[0], samples([{"audio": low}])[0])
    chosen = read_labelled_clips(path, LabelColumns(audio="sound"))
    np.testing.assert_array_equal(samples(chosen)[0], samples([{"audio": high}])[0])


def test_names_of_classes_and_unlabelled_clips(tmp_path):
    path = tmp_path / "clips.parquet"
    features = datasets.Features(
        {"audio": datasets.Audio(decode=False), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    table = {"audio": [{"bytes": wav_bytes(tone(0.05)), "path": "a.wav"}] * 3, "label": [1, 0, -1]}
    datasets.Dataset.from_dict(table).cast(features).to_parquet(path)
    assert read_labelled_clips(path)["label"][:] == ["dog", "cat", None]


def test_columns_of_an_audio_folder(folder):
    write_table(folder / "metadata.csv", [{"file_name": row["file_name"], "kind": row["kind"]} for row in rows()])
    assert read_labelled_clips(folder, LabelColumns("kind"))["kind"][:] == ["cat", "cat", "dog", "dog"]
    # Without a column "label", the folders are the labels.
    assert read_labelled_clips(folder)["label"][:] == ["cat", "cat", "dog", "dog"]


@pytest.mark.parametrize(
    "changes, columns, message",
    [
        ({}, LabelColumns("genre"), r"there is no column 'genre'; the columns are kind, speaker, split"),
        ({}, None, r"the columns are kind, speaker, split. Name that of the classes by `label_column`"),
        ({}, LabelColumns("kind", audio="sound"), r"there is no column 'sound'; the columns are file_name, kind"),
        (
            {"file_name": "cat/9.wav"},
            LabelColumns("kind"),
            r"4 of 4 files in the column 'file_name' are not there: .*9.wav",
        ),
        (
            {"file_name": "cat/./1.wav"},
            LabelColumns("kind"),
            "more than one row for cat/1.wav. Leave one for each file",
        ),
        ({"file_name": ""}, LabelColumns("kind"), "4 of 4 rows have nothing in the column 'file_name'"),
        ({"split": "holdout"}, LabelColumns("kind"), "the column 'split' holds holdout; possible are train, training"),
        ({"split": "test"}, LabelColumns("kind"), "there are clips for test, and none for training"),
    ],
)
def test_tables_that_do_not_fit(folder, changes, columns, message):
    table = write_table(folder / "table.csv", [row | changes for row in rows()])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_labelled_clips(table, columns)


def test_values_that_are_no_labels(folder):
    table = write_table(folder / "table.jsonl", [row | {"kind": 0.5} for row in rows()])
    with pytest.raises(
        ValueError, match=r"the column 'kind' holds Value\('float64'\), and labels are text or integers"
    ):
        read_labelled_clips(table, LabelColumns("kind"))
    with pytest.raises(ValueError, match="The column split cannot hold labels. Rename it."):
        LabelColumns("split")
    with pytest.raises(ValueError, match="The column 'label' can only be that of the classes"):
        LabelColumns("kind", others=("label",))


@pytest.mark.parametrize(
    "content", ["", "file_name,kind\n", "file_name,kind\ncat/1.wav\n", "file_name\ncat/1.wav,cat\n"]
)
def test_tables_without_rows_or_cells(folder, content):
    (folder / "table.csv").write_text(content)
    with pytest.raises(ValueError, match="the table has no rows|do not have as many cells as the first line"):
        read_labelled_clips(folder / "table.csv", LabelColumns("kind"))


def test_tables_without_audio(folder):
    table = write_table(folder / "table.csv", [{"recording": row["file_name"], "kind": row["kind"]} for row in rows()])
    with pytest.raises(
        ValueError, match="columns are recording, kind. Name that of the audio, or of paths, by `audio_col"
    ):
        read_labelled_clips(table, LabelColumns("kind"))
    assert len(read_labelled_clips(table, LabelColumns("kind", audio="recording"))) == 4
    table.write_text(table.read_text().replace(",", ";"))
    with pytest.raises(ValueError, match="there is one column, 'recording;kind'. Separate cells by ','"):
        read_labelled_clips(table, LabelColumns("kind"))


def test_a_folder_without_class_folders(folder):
    with pytest.raises(ValueError, match="no other than the audio. Name .* one folder of audio files per class"):
        read_labelled_clips(folder / "cat")


def test_other_files(folder):
    (folder / "table.xlsx").write_bytes(b"PK")
    with pytest.raises(
        ValueError, match="give a folder, or a table with the ending .csv, .tsv, .json, .jsonl, .parquet"
    ):
        read_labelled_clips(folder / "table.xlsx")
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        read_labelled_clips(folder / "table.csv")
