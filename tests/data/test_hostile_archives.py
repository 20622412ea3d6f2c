"""Damaged archives in the layout of Speech Commands: no reading fills the memory or hangs, and each error is a clear one.

Each reading is a process of its own with a limit of memory and time.
"""

import gzip
import tarfile

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_prunable.data.speech_commands import read_speech_commands
from tests.helpers.hostile_archives import header, old_sparse, pax, regular, speech_commands
from tests.helpers.limited_process import limited


FILES = speech_commands("speech_commands_v0.02/")
# Numbers that take bytes out of the first members, or between them.
POSITIONS = st.integers(0, 2**32 - 1)
NAMES = st.sampled_from(
    (*FILES, "testing_list.txt", "yes/zz_nohash_0.wav", "../x", "yes/\udcff_nohash_0.wav", "yes/noname.wav", "a" * 90)
)
SIZES = st.sampled_from((-512, -1, 0, 1, 511, 512, 2**16, 2**22, 2**22 + 1, 2**28, 2**33, 2**62, 2**80))
KINDS = st.sampled_from(
    (
        *(tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
        *(tarfile.CONTTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"Z"),
    )
)
RECORDS = st.dictionaries(
    st.sampled_from(
        (
            *("size", "path", "mtime", "hdrcharset", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.map"),
            *("GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name"),
        )
    ),
    st.sampled_from((0, 1, -1, 2**40, 2**80, "x", "0,1", "BINARY", "yes/zz_nohash_0.wav", "nan")),
    min_size=1,
    max_size=3,
)
BLOCKS = st.one_of(
    st.builds(header, NAMES, SIZES, KINDS),
    st.builds(lambda records: pax(**records), RECORDS),
    st.builds(old_sparse, NAMES.filter(str.isascii), st.integers(0, 8**11 - 1)),
    # Zeros, which hardly take space in the archive.
    st.builds(lambda number: bytes(2**number), st.integers(9, 25)),
    st.binary(max_size=600),
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    yield
    patch.undo()


def num_clips(source):
    return len(read_speech_commands(source))


def check_archive(tmp_path_factory, blocks, flips, packed_flips):
    content = bytearray(regular(FILES))
    for position, block in blocks:
        # Where a header may begin.
        place = position % (len(content) // tarfile.BLOCKSIZE + 1) * tarfile.BLOCKSIZE
        content[place:place] = block
    for position, value in flips:
        content[position % len(content)] ^= value
    packed = bytearray(gzip.compress(bytes(content) + bytes(2 * tarfile.BLOCKSIZE), compresslevel=1))
    for position, value in packed_flips:
        packed[position % len(packed)] ^= value
    source = tmp_path_factory.mktemp("archive") / "a.tar.gz"
    source.write_bytes(packed)
    outcome = limited(num_clips, source)
    source.unlink()
    assert outcome.get("error", "ArchiveError") in ("ArchiveError", "ValueError", "FileNotFoundError"), outcome
    assert "error" not in outcome or str(source) in outcome["message"]


CHANGE = st.tuples(POSITIONS, st.integers(1, 255))
ARCHIVES = {
    "blocks": st.lists(st.tuples(POSITIONS, BLOCKS), max_size=3),
    "flips": st.lists(CHANGE, max_size=2),
    "packed_flips": st.lists(CHANGE, max_size=1),
}


@given(**ARCHIVES)
def test_changed_archives(tmp_path_factory, blocks, flips, packed_flips):
    check_archive(tmp_path_factory, blocks, flips, packed_flips)


@pytest.mark.slow
@settings(max_examples=100)
@given(**ARCHIVES)
def test_a_hundred_changed_archives(tmp_path_factory, blocks, flips, packed_flips):
    check_archive(tmp_path_factory, blocks, flips, packed_flips)
