"""What the package page shows: README with absolute links, and the project's addresses.

The repository's address is not written down in the sources. A release is built where it is known: in the repository's
own continuous integration (``GITHUB_REPOSITORY``), or in a clone whose remote `origin` is on GitHub. Elsewhere README
stays as it is. What a source archive was built with stays in it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<words>[^\]]*)\]\((?P<target>(?!https?:|#|mailto:)[^)\s]+)\)")
PAGE = re.compile(r"docs/(?P<page>[\w/-]+)\.md")
REMOTE = re.compile(r"^(?:https://github\.com/|git@github\.com:)(?P<name>[\w.-]+/[\w.-]+?)(?:\.git)?/?$")


def repository(root: Path, environment: dict[str, str]) -> str | None:
    """Address of the repository, where it is known."""
    name = environment.get("GITHUB_REPOSITORY")
    if name:
        return f"{environment.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    if not (root / ".git").exists():
        return None
    try:
        asked = ["git", "remote", "get-url", "origin"]
        said = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git
        return None
    found = REMOTE.match(said)
    return f"https://github.com/{found['name']}" if found else None


def reference(environment: dict[str, str]) -> str:
    """The tag that is built, or the default branch."""
    return environment.get("GITHUB_REF_NAME", "main") if environment.get("GITHUB_REF_TYPE") == "tag" else "main"


def site(home: str) -> str | None:
    """Address of the documentation that the workflow *docs* publishes; None where the repository is not on GitHub."""
    host, owner, name = home.rsplit("/", 2)
    return f"https://{owner.lower()}.github.io/{name}/" if host == "https://github.com" else None


def absolute(text: str, home: str, ref: str) -> str:
    """Markdown whose links to the repository's own files are absolute.

    Pictures lead to the files, pages of the documentation to the built ones, all else to the repository's pages.
    """
    pages = site(home)

    def put(link: re.Match[str]) -> str:
        page = PAGE.fullmatch(link["target"])
        if page and pages and not link["picture"]:
            place = page["page"].removesuffix("index")
            return f"[{link['words']}]({pages}{place}{'/' if place else ''})"
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['words']}]({home}/{kind}/{ref}/{link['target']})"

    return LINK.sub(put, text)


class PageHook(MetadataHookInterface):
    """Fills the dynamic fields `readme` and `urls`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Put README, and the addresses where they are known, into the metadata."""
        if "readme" in metadata:  # from the source archive, which holds what it was built with
            return
        root, environment = Path(self.root), dict(os.environ)
        text = (root / "README.md").read_text(encoding="utf-8")
        home = repository(root, environment)
        if home is not None:
            text = absolute(text, home, reference(environment))
            metadata["urls"] = {
                "Homepage": home,
                "Documentation": site(home) or f"{home}/blob/{reference(environment)}/docs/index.md",
                "Source Code": home,
                "Bug Tracker": f"{home}/issues",
                "User Support": "https://forum.image.sc/tag/napari",
                "Changelog": f"{home}/blob/{reference(environment)}/CHANGELOG.md",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
