"""Addresses of this project, from the metadata of the installed package."""

from __future__ import annotations

from importlib.metadata import metadata


PACKAGE = "hf_prunable"


def project_url(label: str = "Source") -> str:
    """Returns an address of the project; `setup.cfg` has the one line that they come from.

    Args:
        label: Label of the address in `project_urls`, such as "Source" or "Documentation".

    Raises:
        ValueError: If the installed package has no address of this label.
    """
    lines = metadata(PACKAGE).get_all("Project-URL") or []
    urls = dict(line.split(", ", 1) for line in lines)
    if label not in urls:
        raise ValueError(
            f"The installed {PACKAGE} names no {label!r} address, but {sorted(urls)}. Install it again from its repository."
        )
    return urls[label]


def install_requirement(extra: str = "") -> str:
    """Returns what `pip install` takes to install the package from its repository, for a shell.

    Args:
        extra: Name of an extra, such as "export"; "" for none.
    """
    return f'"{PACKAGE}{f"[{extra}]" if extra else ""} @ git+{project_url()}"'
