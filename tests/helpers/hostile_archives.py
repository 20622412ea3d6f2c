"""Archives in the layout of Speech Commands with members that nobody should read."""

import gzip
import io
import tarfile

from tests.helpers.speech_files import tone, wav_bytes


CLIPS = ("yes/aa_nohash_0", "yes/bb_nohash_0", "no/bb_nohash_0", "no/cc_nohash_0")
LISTS = {"validation_list.txt": b"yes/bb_nohash_0.wav\n", "testing_list.txt": b"no/cc_nohash_0.wav\n"}
ZEROS = bytes(2**20)


def header(name, size, kind=tarfile.REGTYPE):
    """One header of a tar archive; a size above 8 GiB is stored as GNU tar stores it."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def padded(content):
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def pax(**records):
    """An extended header with records."""
    content = b""
    for name, value in records.items():
        record = f" {name}={value}\n".encode()
        length = len(record)
        while len(str(length)) + len(record) != length:
            length = len(str(length)) + len(record)
        content += str(length).encode() + record
    return header("pax", len(content), tarfile.XHDTYPE) + padded(content)


def regular(files):
    """The members of a tar archive, without its end.

    Args:
        files: Contents by name.
    """
    return b"".join(header(name, len(content)) + padded(content) for name, content in files.items())


def speech_commands(top=""):
    """The files of an archive of four clips and two lists, by name."""
    clips = {f"{clip}.wav": wav_bytes(tone(0.05)) for clip in CLIPS}
    return {f"{top}{name}": content for name, content in (clips | LISTS).items()}


def write_archive(path, *parts):
    """Writes a .tar.gz of bytes, and of numbers, which stand for as many bytes of 0."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in (*parts, 2 * tarfile.BLOCKSIZE):
            if isinstance(part, bytes):
                file.write(part)
            else:
                for start in range(0, part, len(ZEROS)):
                    file.write(ZEROS[: part - start])
    return path


def old_sparse(name, real_size):
    """A sparse file in GNU tar's old form, whose one header claims any size."""
    block = bytearray(header(name, 0, tarfile.GNUTYPE_SPARSE))
    block[483:495] = b"%011o\0" % real_size
    checksum = sum(block[:148]) + 8 * 32 + sum(block[156:])
    block[148:156] = b"%06o\0 " % checksum
    return bytes(block)


def plain_tar(files):
    """A whole tar archive without compression."""
    buffer = io.BytesIO()
    buffer.write(regular(files) + bytes(2 * tarfile.BLOCKSIZE))
    return buffer.getvalue()
