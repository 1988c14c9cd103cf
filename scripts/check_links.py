"""Check links without a network: ``python scripts/check_links.py SITE``.

Every relative link and picture of the built site has to lead to a file of it, and every anchor to a place in its
page; the same for the relative links of the Markdown files at the top of the repository. Addresses elsewhere are only
counted.
"""

from __future__ import annotations

import argparse
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOP = Path(__file__).parent.parent
MARKDOWN = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Reader(HTMLParser):
    """Links, pictures and anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.home = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what leads somewhere and what can be led to, and where the page says that it will be."""
        if ("rel", "canonical") in attrs:
            self.home = dict(attrs).get("href") or ""
        for name, value in attrs:
            if value and name == "id":
                self.anchors.add(value)
            if value and name in ("href", "src") and tag != "base":
                self.links.append(value)


def read(page: Path) -> Reader:
    """A page's links and anchors."""
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def broken(site: Path) -> tuple[list[str], int]:
    """Links that lead nowhere, as sentences; and how many lead elsewhere."""
    pages = {page: read(page) for page in site.rglob("*.html")}
    base = urlsplit(pages[site / "index.html"].home).path or "/"
    found, away = [], 0
    for page, reader in pages.items():
        for link in reader.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                away += 1
                continue
            target = page if not parts.path else _target(site, page, unquote(parts.path), base)
            where = f"{page.relative_to(site)}: {link}"
            if not target.exists():
                found.append(f"{where}: there is no {target}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{where}: no such place in {target.relative_to(site)}")
    return found, away


def _target(site: Path, page: Path, path: str, base: str) -> Path:
    """The file that a path leads to; those from the root, as on the page of what is not found, begin with `base`."""
    place = site / path.removeprefix(base).lstrip("/") if path.startswith("/") else page.parent / path
    place = Path(str(place.resolve()))
    return place / "index.html" if place.is_dir() else place


def broken_at_the_top() -> list[str]:
    """Relative links of README and its like that lead to no file."""
    found = []
    for file in sorted(TOP.glob("*.md")):
        for link in MARKDOWN.findall(file.read_text(encoding="utf-8")):
            path = urlsplit(link).path
            if path and not urlsplit(link).scheme and not (TOP / unquote(path)).exists():
                found.append(f"{file.name}: {link}: there is no such file")
    return found


def main() -> int:
    """Check; 1 if a link is broken."""
    parser = argparse.ArgumentParser(description="Check links without a network.")
    parser.add_argument("site", type=Path, help="the built documentation")
    site: Path = parser.parse_args().site.resolve()
    if not (site / "index.html").exists():
        parser.error(f"{site} holds no index.html: run mkdocs build first")
    found, away = broken(site)
    found += broken_at_the_top()
    for line in found:
        print(line, file=sys.stderr)
    print(f"{len(found)} broken links; {away} lead to other sites")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
