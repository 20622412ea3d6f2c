"""The archive of Speech Commands, read as a stream and within limits: nothing is extracted to a file."""

from __future__ import annotations

import gzip
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging


LIST_FILES = {"validation": "validation_list.txt", "test": "testing_list.txt"}
ARCHIVE_EXTENSIONS = (".tar.gz", ".tgz")
OTHER_EXTENSIONS = (".zip", ".tar", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".7z")
# Text between the speaker and the index of the recording in a file name.
SPEAKER_MARK = "_nohash_"
# Path of a clip in the folder of its word, at any depth. Background noise is in a folder that begins with "_".
CLIP = re.compile(r"(?:.*/)?([^/._][^/]*)/([^/.][^/]*)\.(?:wav|flac)$", re.IGNORECASE)
# Two minutes of 16-bit samples at 16 kHz. Clips have one second, and the lists of the archive 300 KB.
MAX_FILE_BYTES = 2**22
# Headers that tarfile reads at once, such as those of long names.
MAX_HEADER_BYTES = 2**16
HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
# The official archive expands to less than twice its size, and has 105,835 clips.
MAX_EXPANSION = 32
SMALL_BYTES = 2**28
MAX_MEMBERS = 2**20
# Bytes that are read at once behind the last member.
BUFFER = 2**20
# First bytes of other archives. The mark of a plain tar is at `TAR_MARK`.
OTHER_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
}
TAR_MARK = slice(257, 262)


class ArchiveError(ValueError):
    """An archive that is not read, because it is damaged or goes beyond the limits."""


class _Member(tarfile.TarInfo):
    """A header that takes no more memory than its limit, of a member that takes no more than its data."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in HEADER_TYPES and member.size > MAX_HEADER_BYTES):
            raise ArchiveError(f"a header claims {member.size:,} bytes, and 0 to {MAX_HEADER_BYTES:,} are read.")
        if member.type == tarfile.GNUTYPE_SPARSE:
            member._refuse_sparse()
        return member

    def _refuse_sparse(self, *args: Any) -> None:
        raise ArchiveError("it has a sparse file, which claims more data than there is.")

    # The three forms of sparse files in extended headers. Their maps may be longer than any header.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _BoundedGzip(gzip.GzipFile):
    """A compressed file that may not expand beyond a multiple of its size."""

    def __init__(self, path: str | Path):
        super().__init__(path, "rb")
        self.max_bytes = SMALL_BYTES + MAX_EXPANSION * Path(path).stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.check(self.tell())
        return content

    def check(self, num_bytes: int) -> None:
        if num_bytes > self.max_bytes:
            raise ArchiveError(f"it expands to more than {self.max_bytes:,} bytes.")


def archive_rows(path: str, size: int, modified: int) -> Iterator[dict]:
    """Yields one row for each clip and list of an archive.

    Args:
        path: Path of the archive.
        size: Size of the archive in bytes. It is not used here, but makes the cache of datasets read a changed archive
            again.
        modified: Time of its last modification in ns, not used likewise.

    Yields:
        The columns `audio`, `word`, `speaker`, `clip` ("word/name" without extension, or the name of a list) and
        `folder`, which holds the folder of the word, or the list.

    Raises:
        ValueError: If the archive is damaged, goes beyond a limit, has sparse files or names that are not UTF-8, or a
            file name does not contain the speaker.
    """
    with (
        _named_errors(path),
        _BoundedGzip(path) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member, encoding="utf-8") as archive,
    ):
        is_empty = True
        for member in logging.tqdm(_members(archive, stream), desc="Reading the archive", unit=" files"):
            name = posixpath.normpath(member.name)
            match = CLIP.match(name)
            if not member.isfile() or not (match or posixpath.basename(name) in LIST_FILES.values()):
                continue
            check_size(member.size, name)
            check_name(name)
            clip = "/".join(match.groups()) if match else posixpath.basename(name)
            is_empty = False
            content = archive.extractfile(member)
            assert content is not None
            yield {
                "audio": {"bytes": content.read(), "path": f"{path}/{member.name}"},
                "word": word_of(clip) if match else None,
                "speaker": speaker_of(clip) if match else None,
                "clip": clip,
                "folder": posixpath.dirname(posixpath.dirname(name) if match else name),
            }
        if is_empty:
            raise ArchiveError(f"it has neither folders of words with clips nor {' and '.join(LIST_FILES.values())}.")
        # The checksum at the end shows whether the archive is complete.
        while stream.read(BUFFER):
            pass


def _members(archive: tarfile.TarFile, stream: _BoundedGzip) -> Iterator[tarfile.TarInfo]:
    for num_members in range(MAX_MEMBERS + 1):
        member = archive.next()
        if member is None:
            return
        # Each header would stay in memory. typeshed does not know the list.
        vars(archive)["members"].clear()
        if member.size < 0 or num_members == MAX_MEMBERS:
            raise ArchiveError(f"it has more than {MAX_MEMBERS:,} files, or one of negative size.")
        # Before the next one is looked for behind it.
        stream.check(member.offset_data + member.size)
        yield member


@contextmanager
def _named_errors(path: str) -> Iterator[None]:
    """Names the archive in errors, and calls it damaged where the libraries that read it have the word."""
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{path}: the archive is not read: {error}") from error
    # RecursionError of thousands of headers that each extend the next one.
    except (
        *(EOFError, tarfile.TarError, gzip.BadGzipFile, zlib.error),
        *(ValueError, IndexError, RecursionError),
    ) as error:
        raise ArchiveError(f"{path}: the archive is damaged or was cut short ({error}). Fetch it again.") from error


def check_is_read(path: Path) -> None:
    """Checks that a file is not an archive of another kind than those that are read.

    Args:
        path: Path of an existing file.

    Raises:
        ValueError: If the file has the name or the first bytes of another kind of archive.
    """
    if not path.name.lower().endswith((*ARCHIVE_EXTENSIONS, *OTHER_EXTENSIONS)):
        return
    with path.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    kinds = [kind for mark, kind in OTHER_ARCHIVES.items() if start.startswith(mark)]
    if start[TAR_MARK] == b"ustar":
        kinds.append("a tar archive without compression")
    if not kinds and path.name.lower().endswith(OTHER_EXTENSIONS):
        kinds.append("no .tar.gz archive")
    if kinds:
        raise ValueError(
            f"{path} is {kinds[0]}. Of archives, only {' and '.join(ARCHIVE_EXTENSIONS)} (tar with gzip) are read: extract "
            "it, and give the folder."
        )


def check_name(name: str) -> None:
    """Checks that a file name is UTF-8, as the columns of a data set are.

    Args:
        name: Name as Python decodes it, with surrogates for bytes that are not UTF-8.

    Raises:
        ValueError: If it is not.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ArchiveError(f"the file name {ascii(name)} is not UTF-8. Rename the file.") from error


def check_size(num_bytes: int, name: str) -> None:
    """Checks the size of a file before it is read.

    Args:
        num_bytes: Size of the file in bytes.
        name: Name of the file.

    Raises:
        ValueError: If the file is larger than any clip or list.
    """
    if num_bytes > MAX_FILE_BYTES:
        raise ArchiveError(
            f"{ascii(name)} has {num_bytes:,} bytes, and clips and lists of up to {MAX_FILE_BYTES:,} are read."
        )


def list_text(content: bytes, name: str, source: Path) -> str:
    """Decodes one of the two lists.

    Args:
        content: Content of the file.
        name: Name of the list.
        source: Source of the clips, for messages.

    Raises:
        ValueError: If the list is not UTF-8.
    """
    try:
        # Some editors put a mark before the first line.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source}: {name} is not UTF-8 text ({error}). Fetch or extract the archive again in full."
        ) from error


def word_of(clip: str) -> str:
    """Returns the word of a clip, "word/name"."""
    return clip.split("/")[0]


def speaker_of(clip: str) -> str:
    """Returns the speaker of a clip, "word/name".

    Raises:
        ValueError: If the name does not contain the speaker.
    """
    speaker, mark, _ = clip.split("/")[-1].partition(SPEAKER_MARK)
    if not mark:
        raise ArchiveError(
            f"{clip}: the file name does not contain the speaker; it should be SPEAKER{SPEAKER_MARK}INDEX.wav."
        )
    return speaker
