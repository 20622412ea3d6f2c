"""Which files of a folder are pushed, and what they may not hold."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_prunable.reporting.published_files import PushError, published_files


TOKEN = "hf_" + "aB3" * 11
GOOD = {
    "README.md",
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "pruning_report.json",
    "shape.png",
    "vocab.json",
    ".eval_results/org_speech.yaml",
}
SECRETS = (
    ".env",
    ".netrc",
    ".git-credentials",
    "token.txt",
    "notes.txt",
    "credentials.json",
    "service_account.json",
    "trainer_state.json",
    "settings.json",
    "training_args.bin",
    "optimizer.pt",
    "optimizer.safetensors",
    "other_model.safetensors",
    "photo.png",
    "id_rsa",
    "private.model",
    "checkpoint-5/config.json",
    ".eval_results/.hidden.yaml",
    ".eval_results/notes.txt",
    ".git/config",
)


@pytest.fixture
def folder(tmp_path):
    """A finished model among files that are nobody else's."""
    folder = tmp_path / "model"
    for name in (*GOOD, *SECRETS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_only_known_names_are_pushed(folder, caplog):
    assert set(published_files(folder)) == GOOD
    assert "Not pushed from" in caplog.text


def test_links_and_special_files_are_not_pushed(folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    (folder / "tokenizer_config.json").symlink_to("nowhere")
    os.mkfifo(folder / "merges.txt")
    (folder / "added_tokens.json").mkdir()
    assert set(published_files(folder)) == GOOD
    elsewhere = tmp_path / "results"
    elsewhere.mkdir()
    (elsewhere / "x.yaml").write_text("secret")
    for path in (folder / ".eval_results").iterdir():
        path.unlink()
    (folder / ".eval_results").rmdir()
    (folder / ".eval_results").symlink_to(elsewhere)
    assert set(published_files(folder)) == GOOD - {".eval_results/org_speech.yaml"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_of_links_is_none(folder, tmp_path, name):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(PushError, match="contains no (complete )?model"):
        published_files(folder)


@pytest.mark.parametrize(
    "content, message",
    [
        (f'{{"_name_or_path": "{Path.home()}/models/x"}}', "the path of a home folder"),
        (f"cloned to {Path.home()}", "the path of a home folder"),
        (f'{{"token": "{TOKEN}"}}', "an access token"),
        ('{"url": "https://ada:secret@host/x"}', "an address with credentials"),
        ('{"url": "https://secret@host/x"}', "an address with credentials"),
        ('{"url": "https://:secret@host/x"}', "an address with credentials"),
        ('{"from": "/home/ada/x"}', "the path of a home folder, /home/ada"),
        (r'{"from": "\/home\/ada\/x"}', "the path of a home folder"),
        (r'{"from": "C:\\Users\\ada"}', "the path of a home folder"),
        ("file:///Users/ada/x", "the path of a home folder, /Users/ada"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "README.md", "pruning_report.json", "LICENSE"])
def test_a_file_with_a_secret_stops_the_push(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(PushError, match=f"{name} holds {message}.*Take it out"):
        published_files(folder)


def test_the_header_of_weights_counts(folder):
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors", {"from": f"{Path.home()}/x"})
    with pytest.raises(PushError, match="model.safetensors holds the path of a home folder"):
        published_files(folder)


def test_texts_that_only_look_like_it_are_pushed(folder):
    (folder / "README.md").write_text(
        "https://huggingface.co/org/model hf_prunable sk-learn ada@example.org user:x /homes https://host/home/page "
        "https://host/@ada ssh://git@github.com/x hf_prunable_wavlm_base_28pct wav2vec2-sk-with-a-long-name"
    )
    assert "README.md" in published_files(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": []}', '{"weight_map": null}'])
def test_a_damaged_index_is_named(folder, content):
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(PushError, match="model.safetensors.index.json is damaged: .*Save the model again"):
        published_files(folder)


def test_shards_elsewhere_are_missing(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret", "b": 1}}')
    with pytest.raises(PushError, match="no complete model: ../secret, 1 missing"):
        published_files(folder)


def test_a_damaged_configuration_is_named(folder):
    (folder / "config.json").write_text('{"hidden_size": ')
    with pytest.raises(PushError, match="config.json is damaged"):
        published_files(folder)
