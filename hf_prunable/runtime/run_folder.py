"""The folder of a run's result, and the working folder beside it that one process at a time holds."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from pathlib import Path

from transformers.utils import logging

from .files import check_output_directory, move_into_place, remove


try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)

WORKING_SUFFIX = ".partial"
LOCK_FILE = "lock"
RESULT = "result"
# Folder of the curves that trackers write as files, with a folder for each stage.
RUNS = "runs"
# Errors of a lock that another process holds.
TAKEN = (errno.EACCES, errno.EAGAIN)
# Attempts to lock a working folder that runs which end at this moment delete.
ATTEMPTS = 20

# Descriptors of the locks that a process holds, by process and file: a forked process inherits this, but no lock. A process
# that closes any descriptor of a file loses its lock on it, so there is one for each.
_held: dict[tuple[int, Path], int] = {}


class RunFolder:
    """Folder of a result, and its working folder `OUTPUT_DIR.partial`.

    Links in the path are followed once, here: the working folder lies beside the folder that a link leads to, on the same
    file system, so that the result can be renamed at the end.

    The lock is one of the kernel on the file `lock` in the working folder (`fcntl.lockf`), which ends with the process that
    holds it, however that ends; the file itself may stay and means nothing. It keeps out other processes, not other
    threads or calls of the same one. On network file systems it holds between machines where the server supports locks, as
    NFS 4 does, and ends when the server has noticed that a machine is gone; without that support a warning says that there
    is no lock.

    Args:
        output_dir: Folder of the result.

    Attributes:
        output_dir: Folder of the result, as an absolute path without links.
        working_dir: Folder that keeps the files of the run until it is complete.
    """

    def __init__(self, output_dir: str | os.PathLike):
        self.output_dir = Path(os.path.realpath(output_dir))
        self.working_dir = self.output_dir.parent / f"{self.output_dir.name}{WORKING_SUFFIX}"
        self._is_finished = False

    def check(self) -> None:
        """Checks that the result can be put in its place at the end; nothing is written.

        Raises:
            ValueError: If output or working folder cannot be used.
        """
        check_output_directory(self.output_dir)
        folder = self.working_dir
        if folder.is_symlink() or os.path.ismount(folder) or (folder.exists() and not folder.is_dir()):
            raise ValueError(
                f"The working folder {str(folder)!r} is a file, a link or a mount point, from which a result cannot be "
                "renamed. Move it away, or give another `output_dir`."
            )

    def hold(self) -> None:
        """Creates the working folder and keeps other processes out of it until this one ends or has finished.

        Raises:
            ValueError: If another process holds it, or has put a result in the place of the output meanwhile.
        """
        self.check()
        for _ in range(ATTEMPTS):
            self.working_dir.mkdir(parents=True, exist_ok=True)
            if self._lock():
                break
        else:
            raise ValueError(f"{str(self.working_dir)!r} is deleted again and again by another process.")
        try:
            check_output_directory(self.output_dir)
        except ValueError:
            self._leave()
            raise

    def new_result(self, part: str = "") -> Path:
        """Returns an empty folder for a result; what an interrupted run has left there is deleted.

        Args:
            part: Name of a folder inside the result; "" for the result itself.
        """
        folder = self.working_dir / RESULT / part
        remove(folder)
        folder.mkdir(parents=True)
        return folder

    def finish(self) -> None:
        """Gives the result its final name, with the curves of trackers in it, and removes the working folder.

        Raises:
            OSError: If the result cannot be renamed; it stays in the working folder.
        """
        if (runs := self.working_dir / RUNS).is_dir():
            runs.rename(self.working_dir / RESULT / RUNS)
        move_into_place(self.working_dir / RESULT, self.output_dir)
        self._is_finished = True
        shutil.rmtree(self.working_dir, ignore_errors=True)
        self._release()

    def what_is_kept(self) -> str:
        """Returns a sentence for a run that is stopped now: what stays, and how to go on."""
        if self._is_finished:
            return f"The finished output is in {self.output_dir}."
        if self.working_dir.is_dir():
            return f"What was finished is kept in {self.working_dir}, and the same command goes on from there."
        return "Nothing was written; the same command begins again."

    def _lock(self) -> bool:
        """Takes the lock; returns whether its file is still in its place.

        Raises:
            ValueError: If another process holds it, or something else is in its place.
        """
        path = self.working_dir / LOCK_FILE
        key = os.getpid(), path
        if key in _held:
            if _is_same_file(_held[key], path):
                return True
            os.close(_held.pop(key))
        try:
            # What a link leads to is not this run's.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ValueError(
                f"{str(path)!r} cannot be used as a lock: {error.strerror}. Delete it, or give another `output_dir`."
            ) from error
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has none")
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise ValueError(
                    f"{str(self.output_dir)!r} is being made by {holder}. Wait for its end, stop it, or give another "
                    "`output_dir`."
                ) from error
            logger.warning(
                f"{self.working_dir} cannot be locked ({error}). See to it that no second run has the same `output_dir`."
            )
        if not _is_same_file(descriptor, path):
            os.close(descriptor)
            return False
        _held[key] = descriptor
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{holder}\n".encode(), 0)
        return True

    def _leave(self) -> None:
        """Ends the lock, and deletes a working folder that holds nothing else."""
        if os.listdir(self.working_dir) == [LOCK_FILE]:
            shutil.rmtree(self.working_dir, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        descriptor = _held.pop((os.getpid(), self.working_dir / LOCK_FILE), None)
        if descriptor is not None:
            os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
