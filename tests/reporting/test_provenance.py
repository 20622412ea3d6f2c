"""Which software made a result, as reports and cards say it."""

import re

from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.reporting.provenance import Provenance, library_versions, source_commit


def test_versions_and_commit():
    assert {"hf_prunable", "torch", "transformers"} <= library_versions().keys()
    commit = source_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}( with local changes)?", commit)
    assert Provenance.of_this_process("cpu") == Provenance(library_versions(), commit, describe_machine("cpu"))


def test_another_checkout_around_an_installed_library_says_nothing(tmp_path, monkeypatch):
    package = tmp_path / "environment" / "hf_prunable"
    package.mkdir(parents=True)
    monkeypatch.setattr("hf_prunable.reporting.provenance.PACKAGE_FOLDER", package)
    answers = {"rev-parse --show-toplevel": str(tmp_path), "rev-parse HEAD": "3f2a", "status": ""}

    def git(folder, *arguments):
        return next(answer for start, answer in answers.items() if " ".join(arguments).startswith(start))

    monkeypatch.setattr("hf_prunable.reporting.provenance._git", git)
    assert source_commit() is None
    answers["rev-parse --show-toplevel"] = str(package.parent)
    assert source_commit() == "3f2a"
    answers["status"] = " M hf_prunable/gates.py"
    assert source_commit() == "3f2a with local changes"
