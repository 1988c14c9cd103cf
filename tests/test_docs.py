"""The documentation: what is filled in from the code, the tutorials' form, and links; `mkdocs build` runs the rest."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from mkdocs.config import load_config

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "scripts"))

import check_links  # noqa: E402 - from the folder of scripts
import docs_hook  # noqa: E402
from pages import cells, fill  # noqa: E402

DOCS = TOP / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
MARKS = {mark for page in DOCS.rglob("*.md") for mark in fill.MARK.findall(page.read_text(encoding="utf-8"))}


def test_marks_and_makers_are_the_same():
    """Every marked place is known, and nothing is made that no page shows."""
    assert set(fill.MAKERS) == MARKS


@pytest.mark.parametrize("name", sorted(fill.MAKERS))
def test_makers_give_markdown(name):
    """Each maker gives text whose tables have rows of equal width."""
    made = fill.MAKERS[name]()
    assert len(made) > 40
    for table in re.findall(r"(?:^\|.*\|\n?)+", made, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in table.splitlines()}
        assert len(widths) == 1, table[:300]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_places_that_are_filled_say_so_in_the_sources(page):
    """Who reads a page's source sees at each marked place what to look at instead, which is there."""
    text = page.read_text(encoding="utf-8")
    marks = list(fill.MARK.finditer(text))
    assert len(marks) == text.count("<!-- fill")
    for mark in marks:
        said = " ".join(mark[0].split("\n")[1:])
        assert said.startswith("*Filled in when the pages are built; until then see ")
        assert said.endswith(".*")
        links = re.findall(r"\]\(([^)#]+)", said)
        assert links or "`napari-ivos " in said
        assert [link for link in links if not (page.parent / link).exists()] == []
    assert "Filled in when" not in fill.filled(text)


def test_an_unknown_mark_is_named():
    """A mark that nothing is known for fails the build by its name."""
    with pytest.raises(KeyError, match="no-such-thing"):
        fill.filled("<!-- fill: no-such-thing -->")


def test_the_command_line_page_has_every_command():
    """The reference holds each command of the program, with the arguments that it loads late."""
    made = fill.command_line()
    for command in ("segment", "demo", "batch", "adapt", "doctor", "export", "info", "suggest", "train", "benchmark"):
        assert f"## napari-ivos {command}\n" in made
    assert "--rounds" in made
    assert str(TOP) not in made


def test_architecture_names_what_is_there():
    """Each file and folder of the page exists, and its drawing and the house of CONTRIBUTING have every module."""
    page = (DOCS / "developers" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]+(?:/|\.py))`", page))
    places = [TOP, TOP / "src" / "napari_ivos", *(TOP / "src" / "napari_ivos").iterdir()]
    assert len(named) > 50
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []
    settings = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    drawing = (DOCS / "images" / "house.svg").read_text(encoding="utf-8")
    house = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The house", 1)[1].split("## Code", 1)[0]
    for module in re.findall(r"\w+", " ".join(layers)):
        assert f">{module}</text>" in drawing
        assert re.search(rf"\b{module}\b", house)


def test_the_schema_page_is_the_code_s():
    """The reference of the project file has every table that a new project has."""
    from napari_ivos.project import schema

    made = fill.project_schema()
    tables = [name for kind, name, _, _ in schema.expected(schema.version()) if kind == "table"]
    assert len(tables) >= 9
    for table in tables:
        assert f"### `{table}`" in made


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_can_be_read(path):
    """Each tutorial begins with a title, has code and words, and is named in navigation and list."""
    found = cells.read(path)
    assert found[0].kind == "text"
    assert found[0].body.startswith("# ")
    assert {cell.kind for cell in found} >= {"text", "code"}
    page = f"{path.stem}.md"
    assert f"tutorials/{page}" in (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"({page})" in (DOCS / "tutorials" / "index.md").read_text(encoding="utf-8")


def test_cells_print_into_their_own_places(tmp_path):
    """Code runs in one namespace, and what it prints stays with its cell."""
    script = tmp_path / "one.py"
    script.write_text(
        "# %% [markdown]\n# # Title\n#\n# Words\n\n# %%\nx = 2\nprint(x)\n\n# %% [folded] More\nprint(x * 2)\n"
    )
    assert [(cell.kind, cell.title) for cell in cells.read(script)] == [("text", ""), ("code", ""), ("folded", "More")]
    assert cells.read(script)[0].body == "# Title\n\nWords"
    assert cells.run(script) == ["", "2\n", "4\n"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("# %% [nonsense]\n", "unknown kind of cell"), ("# %% [markdown]\nwords\n", "text cells are comments")],
)
def test_mistakes_in_tutorials_are_named_with_their_line(text, said, tmp_path):
    """A cell of an unknown kind, or text that isn't in comments, names the file and the line."""
    script = tmp_path / "one.py"
    script.write_text(text)
    with pytest.raises(ValueError, match=said):
        cells.read(script)


def test_every_picture_is_shown():
    """No picture in the folder of the documentation is there for nothing: each is on a page or in README."""
    pages = "".join(page.read_text(encoding="utf-8") for page in [TOP / "README.md", *DOCS.rglob("*.md")])
    pictures = [path for path in DOCS.rglob("*") if path.suffix in {".webp", ".svg", ".png"}]
    assert len(pictures) > 15
    assert [path.name for path in pictures if f"{path.parent.name}/{path.name})" not in pages] == []


def test_pages_of_the_navigation_are_there():
    """Every page of the navigation is a file or a tutorial."""
    whole = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w/]+\.md", whole[whole.index("\nnav:") :])
    made = {f"tutorials/{path.stem}.md" for path in TUTORIALS}
    assert [page for page in named if page not in made and not (DOCS / page).exists()] == []
    assert yaml.safe_load(whole[whole.index("\nnav:") :])["nav"]


def test_broken_links_are_found(tmp_path):
    """The link check finds a missing page and a missing place, and leaves addresses elsewhere alone."""
    (tmp_path / "index.html").write_text('<a href="other/">a</a><a href="https://example.org">b</a><h1 id="top">c</h1>')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<a href="../#top">a</a><a href="../#no">b</a><img src="x.png">')
    found, away = check_links.broken(tmp_path)
    assert away == 1
    assert sorted(line.split(": ")[1] for line in found) == ["../#no", "x.png"]


def test_links_from_the_root_are_within_the_site(tmp_path):
    """Where the site will not be the root of its server, absolute links are read from where its pages say they are."""
    head = '<link rel="canonical" href="https://someone.github.io/napari-ivos/">'
    (tmp_path / "index.html").write_text(head)
    (tmp_path / "404.html").write_text('<a href="/napari-ivos/">a</a><a href="/napari-ivos/no/">b</a>')
    found, away = check_links.broken(tmp_path)
    assert [line.split(": ")[1] for line in found] == ["/napari-ivos/no/"]
    assert away == 1


@pytest.mark.parametrize(
    ("environment", "repository", "site"),
    [
        (
            {"GITHUB_REPOSITORY": "Someone/napari-ivos"},
            "https://github.com/Someone/napari-ivos",
            "https://someone.github.io/napari-ivos/",
        ),
        (
            {"GITHUB_REPOSITORY": "a/b", "GITHUB_SERVER_URL": "https://git.example.org"},
            "https://git.example.org/a/b",
            None,
        ),
        ({}, None, None),
    ],
    ids=["on GitHub", "on another server", "nowhere"],
)
def test_addresses_of_the_pages_come_from_the_workflow(environment, repository, site, monkeypatch):
    """The pages name repository and site where the workflow knows them, as the package page does; else nothing."""
    for name in ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = docs_hook.on_config(load_config(str(TOP / "mkdocs.yml")))
    assert (config.repo_url, config.site_url or None) == (repository, site)
    assert config.repo_name == (repository.rsplit("/", 1)[1] if repository else None)
    assert config.edit_uri is None


def test_pages_ask_no_other_server():
    """The link to the repository stays in the pages, without the mark by which a script asks for its stars."""
    link = '<a href="https://github.com/a/b" class="md-source" data-md-component="source">'
    bare = '<a href="https://github.com/a/b" class="md-source">'
    assert docs_hook.on_post_page(link, None, None) == bare
    assert docs_hook.on_post_template(link, "404.html", None) == bare
