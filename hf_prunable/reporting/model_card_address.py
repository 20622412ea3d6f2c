"""The card of a folder that is pushed to a repository: its title, metadata and snippets name the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.utils import yaml_dump

from ..runtime.files import write_text_atomically
from .model_card_parts import CARD_FILE
from .model_card_snippets import SOURCE, export_command
from .public_text import escape_markdown


FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def repository_name(repo_id: str) -> str:
    """Returns the name of a repository without its owner.

    Args:
        repo_id: Id of the repository on the Hub.
    """
    return repo_id.rpartition("/")[2]


def address_card(folder: Path, repo_id: str) -> None:
    """Makes a folder's card, if there is a card, name the repository: in title, `model-index`, snippets and commands.

    A title that is not the name of the model stays as it is.

    Args:
        folder: Folder of the model.
        repo_id: Id of the repository on the Hub.

    Raises:
        ValueError: If the front matter of the card is not YAML.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    front_matter = FRONT_MATTER.match(text)
    head, body = ("", text) if front_matter is None else (front_matter[0], text[front_matter.end() :])
    head, names = _address_metadata(head, repository_name(repo_id))
    body = _address_body(body, repo_id, names)
    if head + body != text:
        write_text_atomically(path, head + body)


def _address_metadata(head: str, name: str) -> tuple[str, set[str]]:
    """Returns the front matter with a model's new name in `model-index`, and its names until now."""
    try:
        metadata: Any = yaml.safe_load(head.removesuffix("---\n"))
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter of {CARD_FILE} is not YAML; mend it, or delete it: {error}") from error
    index = metadata.get("model-index") if isinstance(metadata, dict) else None
    if not isinstance(index, list) or len(index) != 1 or not isinstance(index[0], dict):
        return head, set()
    old_name = index[0].get("name")
    if old_name == name:
        return head, {name}
    index[0]["name"] = name
    return f"---\n{yaml_dump(metadata, sort_keys=False)}---\n", {str(old_name)}


def _address_body(body: str, repo_id: str, names: set[str]) -> str:
    """Returns the text of a card for a repository; `names` are names of the model until now."""
    source = SOURCE.search(body)
    if source is not None:
        old_source = json.loads(source[0])
        names = names | {repository_name(old_source)}
        body = SOURCE.sub(lambda _: json.dumps(repo_id), body)
        body = body.replace(export_command(old_source), export_command(repo_id))
    title = TITLE.search(body)
    if title is not None and title[1] in {escape_markdown(name) for name in names}:
        body = f"{body[: title.start()]}# {escape_markdown(repository_name(repo_id))}{body[title.end() :]}"
    return body
