"""Texts that are published with a model: without folders, users and credentials, and escaped for Markdown."""

from __future__ import annotations

import getpass
import os
import posixpath
import re
import shlex
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..runtime.invocation import started_command
from ..runtime.messages import printable


# Stands in the place of what is not published.
HIDDEN = "..."
# Options whose values are credentials, such as `hub_token` of `transformers.TrainingArguments`; argparse also accepts its
# abbreviations.
SECRET_OPTION = re.compile(r"--(hub[-_]t\w*|[\w-]*(token(?!s)|secret|passw|api[-_]?key)[\w-]*)", re.IGNORECASE)
# Options whose values are folders and never ids on the Hub.
FOLDER_OPTION = re.compile(r"--[\w-]*[-_]dir")
# Access tokens of the Hub, of GitHub, GitLab, OpenAI, AWS, Google and Slack, and web tokens.
ACCESS_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{16,}|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{16,}|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}|xox[a-z]-[\w-]{16,}"
    r"|eyJ[\w-]{10,}\.[\w-]+)"
)
# Credentials of an address, and of a host as scp names it.
CREDENTIALS = re.compile(r"[^\s/:@]*:[^\s/@]+@\S+|[^\s/:@]+@[^\s/:@]+:")
# Names of folders that hold the users' home folders.
HOMES = ("home", "homes", "users")
MARKDOWN_SIGNS = re.compile(r"([\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_]))")


def hub_id(name: str) -> str | None:
    """Returns a name that can only be an id on the Hub, and `None` for the name of a local file or folder."""
    if os.path.exists(os.path.expanduser(name)):
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def published_name(value: str, is_folder: bool = False) -> str:
    """Returns a value as it is published: an id on the Hub as it is, of a path or an address its last component.

    Credentials, names of users' home folders and the name of this user become "...". What is neither path, address nor
    credential is unchanged, except that control characters become spaces, and bytes that are not UTF-8 escapes.

    Args:
        value: Name, path, address or other value of an option.
        is_folder: Whether a value that could be an id on the Hub is a folder.
    """
    return printable(_without_secrets(re.sub(r"[\x00-\x1f\x7f]+", " ", value), is_folder))


def _without_secrets(value: str, is_folder: bool) -> str:
    if ACCESS_TOKEN.search(value):
        return HIDDEN
    is_path = re.search(r"[/\\]", value) is not None or value.startswith("~") or value in (".", "..")
    if not is_path:
        return HIDDEN if CREDENTIALS.search(value) else value
    if not is_folder and hub_id(value) is not None:
        return value
    path = (unquote(urlsplit(value).path) if "://" in value else value).replace("\\", "/")
    # Parameters of an address can be credentials.
    path = posixpath.normpath(re.split(r"[?#;](?=[^/]*=)", path)[0])
    parent, _, name = path.rpartition("/")
    is_home = parent.rpartition("/")[2].lower() in HOMES or _is_own_home(path)
    if is_home or name in ("", ".", "..", _user_name()) or name.startswith("~") or CREDENTIALS.search(name):
        return HIDDEN
    return name


def command_line(arguments: Sequence[str]) -> str:
    """Formats the command that repeats a run, with the options of a recipe file written out, as one line.

    The command is published with the model, see `published_name`; credentials are replaced by "...".

    Args:
        arguments: Script followed by its options, or by a recipe file (.yaml or .json) and options, as in `sys.argv`.
    """
    program, options = started_command(arguments)
    shown: list[str] = []
    name = ""
    for option in options:
        if not option.startswith("--"):
            shown.append(_published_value(name, option))
            continue
        name, equals, value = option.partition("=")
        shown.append(f"{name}={_published_value(name, value)}" if equals else name)
    return shlex.join([*program, *shown])


def escape_markdown(text: str) -> str:
    """Returns a text that Markdown shows as it is, on one line.

    Args:
        text: Plain text.
    """
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))


def code_span(text: str) -> str:
    """Returns a text as a code span of Markdown, on one line.

    Args:
        text: Plain text.
    """
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # A backtick at an end needs a space, which is not shown.
    return f"{fence} {text} {fence}" if text.startswith("`") or text.endswith("`") else f"{fence}{text}{fence}"


def _published_value(option: str, value: str) -> str:
    if SECRET_OPTION.fullmatch(option):
        return HIDDEN
    return published_name(value, is_folder=FOLDER_OPTION.fullmatch(option) is not None)


def _is_own_home(path: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(os.path.expanduser("~"))


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A process of a user without a name, as in a container.
        return ""
