"""Every block of code in the README and in docs/ runs, or says why it does not.

A block is left out by a comment before it, `<!-- skip: next "the reason" -->`. What stands behind the names in the blocks,
and how training is cut short, is in tests/helpers/documentation.py.
"""

import re
import shutil

import datasets
import pytest
from sybil.example import SybilFailure

from tests.helpers.documentation import PAGES, RUN, SHOWN, make_scratch, run_blocks, run_in_shell
from tests.helpers.processes import ROOT, with_root


EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
SKIP = re.compile(r"^<!--.*skip.*$", re.MULTILINE)
SKIP_WITH_REASON = re.compile(r'<!-- skip: next "[^"]{10,}" -->\n```(bash|python)\n')
FENCE = re.compile(r"^```(.*)\n(?:.*\n)*?```$", re.MULTILINE)
DEMO = ROOT / "docs" / "tutorials" / "prune_your_first_model.md"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_scratch(tmp_path_factory.mktemp("template") / "scratch")


@pytest.fixture
def scratch(template, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = shutil.copytree(template, tmp_path / "scratch", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@EVERY_PAGE
def test_blocks_run(page, scratch):
    run_blocks(page, scratch, with_root())


@pytest.mark.slow
@EVERY_PAGE
def test_blocks_run_in_processes_of_their_own(page, scratch):
    run_blocks(page, scratch, with_root(), in_process=False)


@EVERY_PAGE
def test_no_block_is_left_out_without_a_reason(page):
    text = page.read_text(encoding="utf-8")
    assert {fence[1] for fence in FENCE.finditer(text)} <= {*RUN, *SHOWN}
    assert len(SKIP.findall(text)) == len(SKIP_WITH_REASON.findall(text))


@pytest.mark.parametrize(
    ("block", "error"),
    [("```bash\nfalse\ntrue\n```\n", SybilFailure), ("```python\n1 / 0\n```\n", ZeroDivisionError)],
)
def test_a_block_that_fails_is_found(block, error, tmp_path):
    (tmp_path / "page.md").write_text(block)
    with pytest.raises(error):
        run_blocks(tmp_path / "page.md", tmp_path, with_root())


def test_a_block_that_is_left_out_gives_its_reason(tmp_path):
    (tmp_path / "page.md").write_text('<!-- skip: next "needs a GPU" -->\n```bash\nfalse\n```\n\n```bash\ntrue\n```\n')
    assert run_blocks(tmp_path / "page.md", tmp_path, with_root()) == ["needs a GPU"]


@pytest.mark.slow
def test_the_demo_as_it_is_written(tmp_path, monkeypatch):
    folder = make_scratch(tmp_path / "scratch", short=False)
    monkeypatch.chdir(folder)
    assert run_in_shell("hf-prunable demo", folder, with_root()) is None
    text = DEMO.read_text(encoding="utf-8")
    for name in re.findall(r"`(outputs/[\w./-]+)`", text):
        assert (folder / name).exists(), name
