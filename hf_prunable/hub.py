"""Pushing finished models to the Hub: checks before a run, one commit after it, without the state of training.

    hf-prunable push FOLDER ORG/NAME --private

pushes the output folder of a run, such as one whose own push failed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers import TrainingArguments
from transformers.utils import logging

from .reporting.model_card_address import address_card
from .reporting.model_card_parts import CARD_FILE
from .reporting.published_files import PushError, published_files
from .runtime.command_parser import CommandParser
from .runtime.console import console_output
from .runtime.messages import first_names
from .runtime.user_errors import user_errors


# The name is `__main__` when this module is run.
logger = logging.get_logger("hf_prunable.hub")

PROGRAM = "hf-prunable push"

# The Hub creates the first file itself; a new repository can be created with the others.
ALLOWED_BEFORE = (".gitattributes", CARD_FILE, "LICENSE")
# Errors of huggingface_hub: failed responses and connections, no token or offline mode, interrupted uploads, and names
# or cards that the Hub rejects.
PUSH_FAILURES = (HTTPError, OSError, RuntimeError, ValueError)


@dataclass
class HubPush:
    """Repositories on the Hub for the output of a run.

    Attributes:
        repo_ids: Repository id of each folder inside the output, "" for the output itself; empty if none was named.
        is_enabled: Whether the output is pushed.
        token: Access token; `None` uses that of the logged-in user.
        private: Whether new repositories are private; `None` uses the default of the namespace.
    """

    repo_ids: dict[str, str]
    is_enabled: bool = False
    token: str | None = None
    private: bool | None = None

    @classmethod
    def take_from(cls, args: TrainingArguments, parts: Sequence[str] = ("",)) -> HubPush:
        """Reads the push options of the Trainer and disables its own push, which would upload weights while it trains.

        Args:
            args: Arguments of the Trainer; `push_to_hub` is set to `False`.
            parts: Folders inside the output, each with its own repository, whose name ends with that of the folder.

        Raises:
            ValueError: If `hub_revision` is set.
        """
        if args.hub_revision is not None:
            raise ValueError(
                f"`hub_revision` is {args.hub_revision!r}, but models are pushed to the main branch. Leave it out."
            )
        model_id = args.hub_model_id
        if model_id is None and args.push_to_hub:
            # `TrainingArguments.__post_init__` sets it.
            assert args.output_dir is not None
            model_id = Path(args.output_dir).resolve().name
        repo_ids = {} if model_id is None else {part: f"{model_id}-{part}" if part else model_id for part in parts}
        push = cls(repo_ids, args.push_to_hub, args.hub_token, args.hub_private_repo)
        args.push_to_hub = False
        return push

    def check(self) -> None:
        """Checks before a run whether its output can be pushed; completes names with the user's namespace.

        Raises:
            PushError: If the Hub cannot be reached, there is no token or it cannot write there, a name is invalid, or a
                repository contains a model.
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
                "HF_TOKEN, and check `hub_model_id`; or leave out `push_to_hub`, and push the finished folder later with "
                "`hf-prunable push`."
            ) from error

    def push(self, output_dir: Path) -> None:
        """Pushes all parts of an output; a failure of one does not stop the others.

        Args:
            output_dir: Complete output folder of a run.

        Raises:
            PushError: If a part was not pushed; the message has the command that pushes it later.
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
                cause = str(error).rstrip(". \n")
                failures.append(f"{cause}.\nRepeat this push with `{self._command(folder, repo_id)}`.")
        if failures:
            if self.token:
                failures.append("Log in with `hf auth login` or set HF_TOKEN before.")
            raise PushError("\n".join([*failures, f"The finished output is kept in {output_dir}."]))

    def _command(self, folder: Path, repo_id: str) -> str:
        """Returns the command that pushes one folder."""
        return shlex.join(["hf-prunable", "push", str(folder), repo_id, *(["--private"] if self.private else [])])

    @staticmethod
    def _check_is_free(api: HfApi, repo_id: str) -> None:
        try:
            found = {sibling.rfilename for sibling in api.model_info(repo_id).siblings or ()}
        except RepositoryNotFoundError:
            return
        others = sorted(found.difference(ALLOWED_BEFORE))
        if others:
            raise PushError(
                f"the repository {repo_id} contains {first_names(others)}. Give the name of a new or an empty one with "
                "`hub_model_id`."
            )


def push_folder(
    folder: str | Path, repo_id: str, *, token: str | None = None, private: bool | None = None
) -> CommitInfo:
    """Pushes a model folder in a single commit, so that a failed push leaves the repository unchanged.

    Title, metadata and snippets of the card are changed to name the repository. Only regular files of known names are
    pushed, see `published_files`.

    Args:
        folder: Folder of the model.
        repo_id: Id of the repository, which is created if it does not exist. An existing one may only contain files that
            are replaced.
        token: Access token; `None` uses that of the logged-in user.
        private: Whether a new repository is private; `None` uses the default of the namespace.

    Returns:
        The commit.

    Raises:
        PushError: If the folder contains no complete model, or the Hub rejects it.
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
                f"it contains {first_names(others)}, which would stay beside the model. Give the name of a new or an "
                "empty repository, or delete these files."
            )
        if private and not info.private:
            raise PushError("it is public, but a private one was requested. Change its settings, or give a new name.")
        address_card(folder, repo_id)
        return api.create_commit(
            repo_id,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files],
            commit_message="Upload model with hf_prunable",
            # The Hub rejects the commit if the repository has changed in the meantime.
            parent_commit=info.sha,
        )
    except PUSH_FAILURES as error:
        raise PushError(f"{folder} was not pushed to {repo_id}: {error}") from error


def _check_rights(user: dict, repo_ids: Iterable[str]) -> None:
    """Raises `PushError` if the owner of a token cannot write to the namespaces of repositories."""
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PushError(f"the token of {user['name']} is read-only.")
    namespaces = [user["name"], *(organization["name"] for organization in user.get("orgs", ()))]
    for namespace in sorted({repo_id.split("/")[0] for repo_id in repo_ids}.difference(namespaces)):
        raise PushError(
            f"{user['name']} is not a member of {namespace!r} and can only write to {', '.join(namespaces)}."
        )


def make_parser() -> CommandParser:
    """Returns the parser of the command's options."""
    parser = CommandParser(
        prog=PROGRAM, description="Pushes the folder of a finished model to the Hub, as one commit."
    )
    parser.add_argument("folder", type=Path, help="folder of the finished model")
    parser.add_argument("repo_id", help="repository on the Hub: ORGANISATION/NAME or USER/NAME")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Pushes the folder of a finished model.

    Args:
        arguments: Arguments of the command; `None` for those of this process.
    """
    options = make_parser().read(arguments)
    with console_output(), user_errors(PROGRAM, PushError):
        commit = push_folder(options.folder, options.repo_id, private=options.private)
        logger.info(f"Pushed {options.folder} to {commit.repo_url}.")


if __name__ == "__main__":
    main()
