"""Pushing finished folders to the Hub: checked before the work, one commit after it, and never a run's state.

    python -m hf_prunable.hub FOLDER ORG/NAME --private

pushes a folder that a run has left, such as one whose own push has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, logging

from .modeling.configuration import SHIM_FILE
from .reporting.model_card_parts import CARD_FILE, EVAL_RESULTS_FOLDER, address_card
from .runtime.command_parser import CommandParser
from .runtime.console import console_output
from .runtime.messages import first_names
from .runtime.user_errors import user_errors


# The name is `__main__` when this module is run.
logger = logging.get_logger("hf_prunable.hub")

PROGRAM = "hf-prunable push"

# What a published folder is made of. Whatever else lies there, such as a Trainer's pickled arguments and states, stays.
PUBLISHED_SUFFIXES = (".json", ".safetensors", ".png", ".txt", ".model", ".jinja")
PUBLISHED_FILES = (CARD_FILE, SHIM_FILE, "LICENSE")
STATE_FILES = ("trainer_state.json", "settings.json")
# The Hub makes the first of them itself, and a new repository may come with the others.
ALLOWED_BEFORE = (".gitattributes", CARD_FILE, "LICENSE")
# What huggingface_hub raises: for answers and connections that fail, without a token or offline, for an upload that
# broke off, and for names and cards that the Hub refuses.
PUSH_FAILURES = (HTTPError, OSError, RuntimeError, ValueError)


class PushError(RuntimeError):
    """A folder that cannot be, or was not, pushed."""


@dataclass
class HubPush:
    """Where the parts of a run's output go on the Hub.

    Attributes:
        repo_ids: By the part's folder inside the output, "" for the output itself; empty where none was named.
        is_enabled: Whether they are pushed.
        token: To push with; `None` takes the one that the user is logged in with.
        private: Whether new repositories are private; `None` leaves it to the namespace's default.
    """

    repo_ids: dict[str, str]
    is_enabled: bool = False
    token: str | None = None
    private: bool | None = None

    @classmethod
    def take_from(cls, args: TrainingArguments, parts: Sequence[str] = ("",)) -> HubPush:
        """Takes pushing out of the hands of the Trainer, which would push weights and state while it trains.

        Args:
            args: With `push_to_hub` and the `hub_` options; `push_to_hub` is off afterwards.
            parts: Folders inside the output. Each has a repository of its own, whose name ends with the part's.

        Raises:
            ValueError: If a branch is asked for.
        """
        if args.hub_revision is not None:
            raise ValueError(
                f"`hub_revision` is {args.hub_revision!r}, but models go to the main branch. Leave it out."
            )
        model_id = args.hub_model_id
        if model_id is None and args.push_to_hub:
            model_id = Path(args.output_dir).resolve().name
        repo_ids = {} if model_id is None else {part: f"{model_id}-{part}" if part else model_id for part in parts}
        push = cls(repo_ids, args.push_to_hub, args.hub_token, args.hub_private_repo)
        args.push_to_hub = False
        return push

    def check(self) -> None:
        """Finds out what a push would fail at, before the work that it comes after; completes names with the user's.

        Raises:
            PushError: If the Hub is out of reach, there is no token or one that may not write there, a name is none, or a
                repository holds a model already.
        """
        if not self.is_enabled:
            return
        try:
            for repo_id in self.repo_ids.values():
                validate_repo_id(repo_id)
            api = HfApi(token=self.token)
            user = api.whoami()
            self.repo_ids = {
                part: repo_id if "/" in repo_id else f"{user['name']}/{repo_id}"
                for part, repo_id in self.repo_ids.items()
            }
            _check_rights(user, self.repo_ids.values())
            for repo_id in self.repo_ids.values():
                self._check_is_free(api, repo_id)
        except PUSH_FAILURES as error:
            raise PushError(
                f"A push to {', '.join(self.repo_ids.values())} would fail: {error}\nLog in with `hf auth login` or set "
                "HF_TOKEN, and check `hub_model_id`; or leave `push_to_hub` out, and push the finished folder later with "
                "`python -m hf_prunable.hub`."
            ) from error

    def push(self, output_dir: Path) -> None:
        """Pushes the parts of a finished output; one that fails does not keep the others from it.

        Args:
            output_dir: Which is complete and stays as it is.

        Raises:
            PushError: If a part was not pushed; with the command that does it later.
        """
        if not self.is_enabled:
            return
        failures = []
        for part, repo_id in self.repo_ids.items():
            folder = output_dir / part
            try:
                commit = push_folder(folder, repo_id, token=self.token, private=self.private)
                logger.info(f"Pushed {folder} to {commit.repo_url}.")
            except PushError as error:
                private = " --private" if self.private else ""
                failures.append(
                    f"{error}\nPush it later with\n  python -m hf_prunable.hub {folder} {repo_id}{private}"
                )
        if failures:
            raise PushError("\n".join([*failures, f"All that was made is safe in {output_dir}."]))

    @staticmethod
    def _check_is_free(api: HfApi, repo_id: str) -> None:
        try:
            found = {sibling.rfilename for sibling in api.model_info(repo_id).siblings or ()}
        except RepositoryNotFoundError:
            return
        others = sorted(found.difference(ALLOWED_BEFORE))
        if others:
            raise PushError(
                f"the repository {repo_id} holds {first_names(others)}. Give the name of a new or an empty one with "
                "`hub_model_id`."
            )


def push_folder(
    folder: str | Path, repo_id: str, *, token: str | None = None, private: bool | None = None
) -> CommitInfo:
    """Pushes a finished model as one commit, which happens as a whole or not at all.

    The card's snippet is first made to load the model from there. Files of a run's state are left out.

    Args:
        folder: Of the model.
        repo_id: Of a repository, which is made where there is none. What it holds must be among what is pushed.
        token: To push with; `None` takes the one that the user is logged in with.
        private: Whether a new repository is private; `None` leaves it to the namespace's default.

    Raises:
        PushError: If the folder holds no whole model, or the Hub does not take it.
    """
    folder = Path(folder)
    files = published_files(folder)
    try:
        validate_repo_id(repo_id)
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        info = api.model_info(repo_id)
        others = sorted({sibling.rfilename for sibling in info.siblings or ()}.difference(ALLOWED_BEFORE, files))
        if others:
            raise PushError(
                f"it holds {first_names(others)}, which would stay beside the model. Give the name of a new or an empty "
                "repository, or delete these files."
            )
        if private and not info.private:
            raise PushError(
                "it is public, and was asked to be private. Change that in its settings, or give a new name."
            )
        address_card(folder, repo_id)
        return api.create_commit(
            repo_id,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files],
            commit_message="Upload model with hf_prunable",
            # Refused if somebody else was faster.
            parent_commit=info.sha,
        )
    except PUSH_FAILURES as error:
        raise PushError(f"{folder} was not pushed to {repo_id}: {error}") from error


def published_files(folder: Path) -> list[str]:
    """Names of the files of a model's folder that are for others to see, in alphabetic order.

    Args:
        folder: With a whole model in it.

    Raises:
        PushError: If there is none.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise PushError(
            f"{folder} holds no model: there is no {CONFIG_NAME}. Give the folder that a run has finished."
        )
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    published = {name for name in files if _is_published(name)}
    weights = [name for name in sorted(published) if name.endswith(".safetensors")]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    missing = sorted(shards.difference(weights))
    if missing or not weights:
        what = first_names(missing) or "weights as safetensors"
        raise PushError(f"{folder} holds no whole model: {what} missing. Save it with `save_pretrained`.")
    for name in weights:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except SafetensorError as error:
            raise PushError(f"{folder / name} is damaged: {error}. Save the model again.") from error
    left = sorted(files - published)
    if left:
        logger.warning(f"Not pushed from {folder}: {first_names(left)}.")
    return sorted(published)


def _is_published(name: str) -> bool:
    parent, _, file = name.rpartition("/")
    if parent:
        return parent == EVAL_RESULTS_FOLDER and file.endswith(".yaml")
    return file in PUBLISHED_FILES or (file.endswith(PUBLISHED_SUFFIXES) and file not in STATE_FILES)


def _check_rights(user: dict, repo_ids: Iterable[str]) -> None:
    """Holds the namespaces of repositories against what a token's owner may write to."""
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PushError(f"the token of {user['name']} may only read.")
    namespaces = [user["name"], *(organization["name"] for organization in user.get("orgs", ()))]
    for namespace in sorted({repo_id.split("/")[0] for repo_id in repo_ids}.difference(namespaces)):
        raise PushError(f"{user['name']} is no member of {namespace!r}, but may write to {', '.join(namespaces)}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Pushes the folder of a finished model.

    Args:
        arguments: Arguments of the command; `None` for those of this process.
    """
    parser = CommandParser(
        prog=PROGRAM, description="Pushes the folder of a finished model to the Hub, as one commit."
    )
    parser.add_argument("folder", type=Path, help="folder of the finished model")
    parser.add_argument("repo_id", help="repository on the Hub: ORGANISATION/NAME or USER/NAME")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    options = parser.read(arguments)
    with console_output(), user_errors(PROGRAM, PushError):
        commit = push_folder(options.folder, options.repo_id, private=options.private)
        logger.info(f"Pushed {options.folder} to {commit.repo_url}.")


if __name__ == "__main__":
    main()
