"""Output folders and files that are either complete or absent."""

import os

import pytest
import torch
from safetensors.torch import save_file

from hf_prunable.runtime.files import (
    DIGEST,
    DamagedFileError,
    check_output_directory,
    is_whole,
    read_tensors,
    remove,
    save_tensors_atomically,
    staged_directory,
    write_text_atomically,
)


@pytest.mark.parametrize("exists", [False, True])
def test_the_folder_appears_when_the_block_ends(tmp_path, exists):
    target = tmp_path / "made" / "model"
    if exists:
        target.mkdir(parents=True)
    with staged_directory(target) as staging:
        assert staging.parent == target.parent and staging != target
        (staging / "part").mkdir()
        (staging / "part" / "weights").write_text("w")
        assert list(target.iterdir()) == [] if exists else not target.exists()
    assert (target / "part" / "weights").read_text() == "w"
    assert os.listdir(target.parent) == ["model"]


def test_the_folder_has_the_rights_of_any_other(tmp_path):
    with staged_directory(tmp_path / "model"):
        pass
    (tmp_path / "other").mkdir()
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("exists", [False, True])
def test_a_crash_leaves_nothing(tmp_path, exists, error):
    target = tmp_path / "model"
    if exists:
        target.mkdir()
    with pytest.raises(error), staged_directory(target) as staging:
        (staging / "half").write_text("written")
        raise error
    assert os.listdir(tmp_path) == (["model"] if exists else [])
    assert not exists or os.listdir(target) == []


def test_finished_work_survives_a_name_taken_meanwhile(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(OSError, match="is complete, but stays in .*staging") as caught:
        with staged_directory(target) as staging:
            (staging / "weights").write_text("ours")
            target.mkdir()
            (target / "weights").write_text("theirs")
    assert (target / "weights").read_text() == "theirs"
    assert (staging / "weights").read_text() == "ours" and str(staging) in str(caught.value)


def test_links_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with staged_directory(tmp_path / "link") as staging:
        (staging / "weights").write_text("w")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "weights").read_text() == "w"


def test_taken_and_impossible_places_are_refused_early(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("k")
    (tmp_path / "file").write_text("f")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    cases = [
        (tmp_path / "full", "'.*full' is not empty.*new or an empty folder"),
        (tmp_path / "file", "'.*file' is a file"),
        (tmp_path / "file" / "model", "cannot be made: '.*file' is no folder"),
        (".", r"'\.' is the current folder"),
    ]
    for path, message in cases:
        with pytest.raises(ValueError, match=message):
            check_output_directory(path)
        with pytest.raises(ValueError, match=message), staged_directory(path):
            pytest.fail("the block ran")
    assert sorted(os.listdir(tmp_path)) == ["file", "full", "here"] and os.listdir(tmp_path / "full") == ["kept"]
    check_output_directory(tmp_path / "new" / "deep")
    check_output_directory("relative")
    assert not (tmp_path / "new").exists()


def test_text_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "card.md"
    write_text_atomically(path, "größer\nold\n")
    write_text_atomically(path, "ä\n")
    assert path.read_bytes() == b"\xc3\xa4\n"
    assert os.listdir(tmp_path) == ["card.md"]


def test_a_failed_write_keeps_the_old_text(tmp_path):
    path = tmp_path / "card.md"
    write_text_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, "new \ud800")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["card.md"]


TENSORS = {
    "a": torch.arange(50.0),
    "b": torch.ones(3, 2, dtype=torch.bfloat16),
    "c": torch.tensor(7),
    "d": torch.zeros(0),
}


def write_tensors(path):
    save_tensors_atomically(path, TENSORS, {"history": "[]"})


def test_tensors_come_back(tmp_path):
    write_tensors(tmp_path / "file")
    tensors, texts = read_tensors(tmp_path / "file")
    assert tensors.keys() == TENSORS.keys() and texts.keys() == {"history", DIGEST}
    assert all(
        torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )
    assert is_whole(tmp_path / "file") and not is_whole(tmp_path / "none")


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "flipped bit": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "other name": lambda content: content.replace(b'"a"', b'"x"', 1),
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"no tensors",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_not_read(tmp_path, caplog, damage):
    path = tmp_path / "file"
    write_tensors(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DamagedFileError, match="file is damaged: "):
        read_tensors(path)
    assert not is_whole(path) and "It is made again." in caplog.text


def test_a_file_of_an_earlier_version_has_no_digest(tmp_path):
    save_file(TENSORS, tmp_path / "file")
    assert is_whole(tmp_path / "file") and read_tensors(tmp_path / "file")[1] == {}


def test_what_a_link_leads_to_is_not_removed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    for name in ("link", "folder", "none"):
        remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["disk"] and os.listdir(tmp_path / "disk") == ["kept"]


def test_a_name_that_is_not_utf_8_is_refused_early(tmp_path):
    with pytest.raises(ValueError, match=r"out\\udcff' has a name that is not UTF-8.*Give another name"):
        check_output_directory(tmp_path / "out\udcff")


def test_a_folder_in_the_place_of_tensors_is_named(tmp_path):
    (tmp_path / "stage.safetensors").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        is_whole(tmp_path / "stage.safetensors")
    assert caught.value.filename == str(tmp_path / "stage.safetensors")
