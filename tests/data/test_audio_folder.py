"""Folders of audio: what is read, what is counted, and tables that do not fit."""

import os

import pytest

from hf_prunable.data import audio_folder
from hf_prunable.data.audio import AUDIO_EXTENSIONS, decode_audio
from hf_prunable.data.speech_dataset import load_speech_dataset
from tests.helpers.speech_files import RATE, tone, write


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(audio_folder.logger, "warning", lines.append)
    return lines


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b/c.wav"):
        write(tmp_path / name, tone(0.1))
    return tmp_path


def names_of(dataset, folder):
    return [os.path.relpath(clip["path"], folder) for clip in dataset["audio"]]


def test_what_soundfile_reads_is_read_and_the_rest_counted(folder, warnings):
    for name in ("d.aiff", "e.au", "f.w64", "g.CAF"):
        write(folder / name, tone(0.1))
    write(folder / "h.sph", tone(0.1), format="NIST")
    for name in ("x.m4a", "b/y.M4A", "b/notes.txt", "LICENSE", ".hidden.m4a", "b/metadata.csv"):
        (folder / name).write_bytes(b"x")
    (folder / "metadata.csv").write_text("file_name,text\na.wav,x\n")
    dataset = load_speech_dataset(folder)
    assert names_of(dataset, folder) == ["a.wav", "b/c.wav", "d.aiff", "e.au", "f.w64", "g.CAF", "h.sph"]
    assert all(len(decode_audio(clip, RATE)) == RATE // 10 for clip in dataset["audio"])
    (line,) = warnings
    assert line.endswith("7 audio files are used. Not used: 1 .csv, 2 .m4a, 1 .txt, 1 without an ending.")


def test_nothing_but_other_formats(tmp_path):
    (tmp_path / "x.m4a").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no audio in it; .*\.wav, .*There are other files: 1 \.m4a"):
        load_speech_dataset(tmp_path)


def test_names_that_are_not_utf8_are_left_out_by_name(folder, warnings):
    os.link(folder / "a.wav", os.fsencode(folder) + b"/\xff.wav")
    assert names_of(load_speech_dataset(folder), folder) == ["a.wav", "b/c.wav"]
    assert r"1 with a name that is not UTF-8 (\udcff.wav)" in warnings[0]
    os.unlink(os.fsencode(folder) + b"/\xff.wav")
    os.rename(folder / "b", os.fsencode(folder) + b"/\xe9")
    assert names_of(load_speech_dataset(folder), folder) == ["a.wav"]
    assert "1 with a name that is not UTF-8 (c.wav)" in warnings[1]


def test_folders_that_cannot_be_read_are_named(folder, warnings, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names_of(load_speech_dataset(folder), folder) == ["a.wav"]
    assert f"Not used: the folder {folder / 'b'} (Permission denied)." in warnings[0]


@pytest.mark.parametrize("name", ["./a.wav", "b/../a.wav", ".//a.wav", "{folder}/a.wav"])
def test_file_names_may_be_written_in_another_way(folder, name):
    (folder / "metadata.csv").write_text(f"file_name,text\n{name.format(folder=folder)},eins\n")
    assert load_speech_dataset(folder)["text"][:] == ["eins", None]


def test_only_an_empty_cell_is_a_missing_value(folder):
    (folder / "metadata.csv").write_text("file_name,text,files\na.wav,null,1\nb/c.wav,,2\n")
    dataset = load_speech_dataset(folder)
    assert dataset["text"][:] == ["null", None] and dataset["files"][:] == [1, 2]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("csv", "file_name,audio\na.wav,x\n", "a column is named 'audio', as the column of the clips is. Rename it"),
        ("csv", "file_name,text\na.wav,x\n./a.wav,y\n", "more than one row for a.wav. Leave one"),
        (
            "jsonl",
            '{"file_name": "a.wav", "text": 1}\n{"file_name": "a.wav", "text": "b"}\n',
            "more than one row for a.wav",
        ),
        (
            "jsonl",
            '{"file_name": "a.wav", "text": "b"}\n{"file_name": "b/c.wav", "text": 1}\n',
            "the column 'text' holds int, str. Give values of one type",
        ),
        ("csv", "file_name,text\n", "cannot be read as a table with rows"),
        ("csv", "", r"cannot be read as a table with rows \(No columns"),
        ("jsonl", "", "cannot be read as a table with rows"),
        ("jsonl", '{"file_name": "a.wav", "text":\n', r"cannot be read as a table with rows \(JSON"),
        ("csv", "file_name,text\na.wav,\xe9\n", "cannot be read as a table with rows .*utf-8"),
        (
            "csv",
            "file_name,text\n1,x\n007,y\n",
            "there is no audio file 007, 1 beside it. The endings that are read: .wav",
        ),
        ("csv", "file_name,text\n,x\n", "row 1 has nothing in the column 'file_name'"),
        ("jsonl", '{"file_name": null, "text": "x"}\n', "row 1 has nothing in the column 'file_name'"),
        ("csv", "file_name;text\na.wav;x\n", "no column 'file_name'; the columns are file_name;text"),
    ],
)
def test_tables_that_do_not_fit(folder, name, text, message):
    (folder / f"metadata.{name}").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"metadata\.{name}: {message}"):
        load_speech_dataset(folder)


def test_endings_are_in_lower_case():
    assert all(ending == ending.lower() and ending.startswith(".") for ending in AUDIO_EXTENSIONS)
