"""Archives that would fill the memory, replace what is official, or are of another kind."""

import lzma
import os
import tarfile
import zipfile

import datasets
import pytest

from hf_prunable.data.speech_commands import load_speech_commands, read_speech_commands
from hf_prunable.data.speech_commands_archive import MAX_FILE_BYTES
from tests.helpers.hostile_archives import (
    header,
    old_sparse,
    padded,
    pax,
    plain_tar,
    regular,
    speech_commands,
    write_archive,
)
from tests.helpers.limited_process import limited
from tests.helpers.speech_files import write_speech_commands


GIB = 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def splits(source):
    table = read_speech_commands(source)
    found = zip(table["clip"], table["split"], table["audio"], strict=True)
    return {clip: (split, len(audio["bytes"])) for clip, split, audio in found if split is not None}


EXPECTED = {
    "yes/aa_nohash_0": ("train", 1644),
    "no/bb_nohash_0": ("train", 1644),
    "yes/bb_nohash_0": ("validation", 1644),
    "no/cc_nohash_0": ("test", 1644),
}

# What is put before the files of the archive, and what the message says. Numbers are bytes of 0.
HOSTILE = {
    "one clip of 3 GiB": ((header("yes/zz_nohash_0.wav", 3 * GIB), GIB), "expands to more than"),
    "one clip of 64 MiB": ((header("yes/zz_nohash_0.wav", 2**26), 2**26), "has 67,108,864 bytes, and clips and lists"),
    "a list of 64 MiB": ((header("testing_list.txt", 2**26), 2**26), "'testing_list.txt' has 67,108,864 bytes"),
    "another file of 3 GiB": ((header("notes.bin", 3 * GIB), GIB), "expands to more than"),
    "a size that nothing has": ((header("notes.bin", 2**80),), "expands to more than"),
    "a negative size": ((header("notes.bin", -512),), "claims -512 bytes"),
    "a negative size in an extended header": ((pax(size=-512), header("notes.bin", 0)), "negative size"),
    "a size in an extended header": ((pax(size=2**70), header("notes.bin", 0)), "expands to more than"),
    "a long name of 128 MiB": (
        (header("long", 2**27, tarfile.GNUTYPE_LONGNAME), 2**27, header("x", 0)),
        "a header claims 134,217,728 bytes, and 0 to 65,536 are read",
    ),
    "an extended header of 128 MiB": (
        (header("pax", 2**27, tarfile.XHDTYPE), 2**27, header("x", 0)),
        "a header claims 134,217,728 bytes",
    ),
    "a global header of 128 MiB": (
        (header("pax", 2**27, tarfile.XGLTYPE), 2**27),
        "a header claims 134,217,728 bytes",
    ),
    "a sparse file in one header": ((old_sparse("yes/zz_nohash_0.wav", 6 * GIB),), "it has a sparse file"),
    "a sparse file of form 0.0": (
        (pax(**{"GNU.sparse.size": 6 * GIB, "GNU.sparse.numblocks": 0}), header("yes/zz_nohash_0.wav", 0)),
        "it has a sparse file",
    ),
    "a sparse file of form 0.1": (
        (pax(**{"GNU.sparse.map": "0,0", "GNU.sparse.size": 6 * GIB}), header("yes/zz_nohash_0.wav", 0)),
        "it has a sparse file",
    ),
    "a sparse file of form 1.0": (
        (
            pax(**{"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 6 * GIB}),
            header("yes/zz_nohash_0.wav", 2**26),
            padded(b"99999999999\n" + b"1\n" * 2**25),
        ),
        "it has a sparse file",
    ),
    "headers without end that extend each other": ((20_000 * pax(mtime=1),), "is damaged or was cut short"),
    "numbers that are none": ((pax(**{"GNU.sparse.realsize": "x"}), header("x", 0)), "is damaged or was cut short"),
    "a name that is not UTF-8": (
        (header("yes/\udcff_nohash_0.wav", 0),),
        r"file name 'yes/\udcff_nohash_0.wav' is not",
    ),
    "a folder that is not UTF-8": ((header("\udcff/yes/z_nohash_0.wav", 0),), "is not UTF-8. Rename the file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_archives_that_are_refused(tmp_path, kind):
    parts, message = HOSTILE[kind]
    source = write_archive(tmp_path / "a.tar.gz", *parts, regular(speech_commands()))
    outcome = limited(splits, source, memory=GIB)
    assert outcome["error"] == "ArchiveError" and message in outcome["message"] and str(source) in outcome["message"]


def test_zeros_behind_the_end(tmp_path):
    source = write_archive(tmp_path / "a.tar.gz", regular(speech_commands()), GIB)
    outcome = limited(splits, source, memory=GIB)
    assert outcome["error"] == "ArchiveError" and "expands to more than" in outcome["message"]


def test_headers_without_number_take_no_memory(tmp_path):
    """Half a million, of 512 bytes each, are in a file of half a megabyte."""
    source = write_archive(tmp_path / "a.tar.gz", header("x", 0) * 500_000, regular(speech_commands()))
    outcome = limited(splits, source, memory=2**29, seconds=300)
    assert {clip: tuple(found) for clip, found in outcome["result"].items()} == EXPECTED


@pytest.mark.parametrize("top", ("", "./", "speech_commands_v0.02/", "/absolute/", "../up/"))
@pytest.mark.parametrize("elsewhere", ("", "other/", "yes/", "speech_commands_v0.02/deep/"))
@pytest.mark.parametrize("comes_first", (False, True))
def test_a_list_elsewhere_replaces_nothing(tmp_path, top, elsewhere, comes_first):
    if os.path.normpath(top) == os.path.normpath(elsewhere):
        elsewhere = "more/"
    other = regular({f"{elsewhere}testing_list.txt": b"yes/aa_nohash_0.wav\n", f"{elsewhere}validation_list.txt": b""})
    official = regular(speech_commands(top))
    source = write_archive(tmp_path / "a.tar.gz", *((other, official) if comes_first else (official, other)))
    assert splits(source) == EXPECTED


def test_a_clip_elsewhere_replaces_nothing(tmp_path):
    other = regular({"other/yes/aa_nohash_0.wav": b"other", "other/yes/new_nohash_0.wav": b"new"})
    assert splits(write_archive(tmp_path / "a.tar.gz", regular(speech_commands()), other)) == EXPECTED


@pytest.mark.parametrize("parts", ((), (regular({"yes\\\\aa_nohash_0.wav": b""}),)))
def test_an_archive_without_clips(tmp_path, parts):
    with pytest.raises(
        ValueError, match="a.tar.gz: the archive is not read: it has neither folders of words with clips"
    ):
        read_speech_commands(write_archive(tmp_path / "a.tar.gz", *parts))


def test_a_mark_before_the_first_line_of_a_list(tmp_path):
    files = speech_commands() | {"testing_list.txt": b"\xef\xbb\xbfno/cc_nohash_0.wav\r\n"}
    assert splits(write_archive(tmp_path / "a.tar.gz", regular(files))) == EXPECTED


def test_a_file_that_comes_twice_is_the_later_one(tmp_path):
    later = regular({"./yes/aa_nohash_0.wav": b"later", "testing_list.txt": b"yes/bb_nohash_0.wav\n"})
    found = splits(write_archive(tmp_path / "a.tar.gz", regular(speech_commands()), later))
    assert found["yes/aa_nohash_0"] == ("train", 5) and found["no/cc_nohash_0"][0] == "train"
    assert found["yes/bb_nohash_0"][0] == "test"


def test_two_whole_trees(tmp_path):
    source = write_archive(tmp_path / "a.tar.gz", regular(speech_commands()), regular(speech_commands("b/")))
    with pytest.raises(
        ValueError, match=r"a.tar.gz: \., b all hold folders of words with both lists. Give the official"
    ):
        read_speech_commands(source)


@pytest.mark.parametrize("name", ("validation_list.txt", "testing_list.txt"))
def test_lists_that_are_not_utf_8(tmp_path, name):
    files = speech_commands() | {name: b"no/cc\xff_nohash_0.wav\n"}
    source = write_archive(tmp_path / "a.tar.gz", regular(files))
    folder = write_speech_commands(tmp_path / "tree", ("yes/aa_nohash_0",))
    (folder / name).write_bytes(files[name])
    for place in (source, folder):
        with pytest.raises(
            ValueError, match=rf"{place.name}: {name} is not UTF-8 text \(.*0xff.*\). Fetch or extract"
        ):
            load_speech_commands(place, "train")


def test_folders_have_the_limits_of_archives(tmp_path):
    folder = write_speech_commands(tmp_path / "tree", ("yes/aa_nohash_0",))
    with open(folder / "testing_list.txt", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match="testing_list.txt' has 4,194,305 bytes, and clips and lists"):
        load_speech_commands(folder, "train")
    (folder / "testing_list.txt").write_text("")
    os.rename(folder / "yes" / "aa_nohash_0.wav", os.fsencode(folder / "yes") + b"/a\xff_nohash_0.wav")
    with pytest.raises(ValueError, match=r"yes/a\\udcff_nohash_0.wav' is not UTF-8. Rename the file"):
        load_speech_commands(folder, "train")


@pytest.mark.parametrize("name", ("a.zip", "a.tar", "a.tar.xz", "a.tar.bz2", "a.7z", "a.tar.gz", "a.tgz"))
@pytest.mark.parametrize(
    ("kind", "message"),
    (
        ("zip", "a zip archive"),
        ("tar", "a tar archive without compression"),
        ("xz", "compressed with xz"),
    ),
)
def test_archives_of_another_kind(tmp_path, name, kind, message):
    source = tmp_path / name
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as file:
            file.writestr("yes/aa_nohash_0.wav", b"")
    else:
        content = plain_tar(speech_commands())
        source.write_bytes(lzma.compress(content) if kind == "xz" else content)
    with pytest.raises(
        ValueError, match=rf"{name} is {message}. Of archives, only .tar.gz and .tgz .* extract it, and"
    ):
        load_speech_commands(source, "train")


def test_a_file_that_only_has_the_name_of_an_archive(tmp_path):
    source = tmp_path / "a.zip"
    source.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a.zip is no .tar.gz archive. Of archives, only"):
        load_speech_commands(source, "train")
