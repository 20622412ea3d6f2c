"""Repositories of the Hub as the server of `hub_server` keeps them: one branch, "main", and all content in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fnmatch import fnmatch


# Some of the Hub's own.
LARGE_FILES = ("*.safetensors", "*.bin", "*.png", "*.pt", "*.pth", "*.npz")
GIT_ATTRIBUTES = "\n".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text" for pattern in LARGE_FILES).encode()


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repository:
    name: str
    private: bool
    commits: list[Commit] = field(default_factory=list)

    def __post_init__(self):
        self.commit("initial commit", {".gitattributes": GIT_ATTRIBUTES})

    def commit(self, title, files):
        """Files are all that there are from now on."""
        oid = hashlib.sha1(f"{self.name} {len(self.commits)} {title}".encode()).hexdigest()
        self.commits.append(Commit(oid, title, files))
        return oid

    @property
    def head(self):
        return self.commits[-1]

    @property
    def files(self):
        return {name: content for name, content in self.head.files.items() if name != ".gitattributes"}

    def at(self, revision):
        if revision == "main":
            return self.head
        return next((commit for commit in self.commits if commit.oid == revision), None)


def is_large(path):
    return any(fnmatch(path, pattern) for pattern in LARGE_FILES)


def blob_id(path, content):
    if is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
