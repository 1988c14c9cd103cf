"""What is filled into pages: each entry of `MAKERS` turns code into Markdown."""

from __future__ import annotations

import argparse
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import make_quality
from make_benchmarks import FOLDER, PARTS
from pages import messages
from pages.tutorials import TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = re.compile(r"^<!-- fill: ([\w-]+) -->(?:\n\S.*)*$", re.MULTILINE)
"""A mark, and the paragraph right below it that stands there for those who read the sources."""


def filled(markdown: str) -> str:
    """Markdown with every marked place filled.

    Raises
    ------
    KeyError
        A mark that nothing is known for.
    """

    def put(mark: re.Match[str]) -> str:
        if mark[1] not in MAKERS:
            raise KeyError(f"nothing is known to fill {mark[1]}; there are {', '.join(MAKERS)}.")
        return MAKERS[mark[1]]()

    return MARK.sub(put, markdown)


def command_line() -> str:
    """Every command, its help as the program prints it."""
    parts = []
    for name, parser in _parsers():
        usage = parser.format_help().rstrip()
        parts.append(f"## {name}\n\n```text\n{usage}\n```")
    return "\n\n".join(parts)


def _parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The program's parser and those of its commands, by what is typed."""
    from unittest import mock

    from napari_ivos.cli import arguments

    kept: list[argparse.ArgumentParser] = []
    real = argparse.ArgumentParser.parse_args

    def keep(self: argparse.ArgumentParser, *_: Any) -> Any:
        kept.append(self)
        return real(self, ["suggest", "project"])

    with (
        mock.patch.dict("os.environ", {"COLUMNS": "100"}),
        mock.patch.object(argparse.ArgumentParser, "parse_args", keep),
    ):
        arguments.parse(["benchmark"])  # a name of a command whose arguments are loaded only for it
        yield "napari-ivos", kept[0]
        for action in kept[0]._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, parser in action.choices.items():
                    yield f"napari-ivos {name}", parser


def exit_codes() -> str:
    """Exit codes of the program."""
    from napari_ivos.cli import INTERRUPTED, program

    return (
        f"| code | means |\n|---|---|\n| {program.DONE} | done |\n| {program.FAILED} | something can't be used or "
        f"done; one line on stderr says what |\n| 2 | wrong usage |\n| {INTERRUPTED} | stopped with Ctrl-C; "
        "what is done is kept |"
    )


def endings() -> str:
    """Endings of the files that are read, by kind."""
    from napari_ivos.frames import images, tiff, video

    kinds = {
        "TIFF": (tiff.SUFFIXES, "OME, ImageJ and plain; pages are read one by one"),
        "OME-Zarr": ((".zarr",), "versions 0.1 to 0.5, and plain arrays; the full resolution"),
        "images": (images.SUFFIXES, "one a frame, a folder in the order of their numbers; or a single one"),
        "video": (video.SUFFIXES, "needs the extra `video`; each frame by its exact number"),
        "numpy": ((".npy",), "read where it lies, not loaded"),
    }
    rows = [f"| {kind} | {' '.join(f'`{e}`' for e in known)} | {words} |" for kind, (known, words) in kinds.items()]
    return "\n".join(["| kind | endings | |", "|---|---|---|", *rows])


def export_formats() -> str:
    """Names, endings and contents of the exports."""
    from napari_ivos.export import FORMATS

    rows = []
    for known in FORMATS.values():
        endings = ", ".join(f"`{ending}`" for ending in known.suffixes) or "a folder"
        rows.append(f"| `{known.name}` | {endings} | {known.words} |")
    return "\n".join(["| format | ending | holds |", "|---|---|---|", *rows])


def project_schema() -> str:
    """The project file's tables, as SQLite makes them from the program's own statements."""
    import sqlite3

    from napari_ivos.project import schema

    with sqlite3.connect(":memory:") as connection:
        schema.migrate(connection, 0)
        rows = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, rowid"
        ).fetchall()
        tables = [_table(connection, name) for kind, name, _, _ in rows if kind == "table"]
    connection.close()
    indexes = "\n".join(f"{sql};" for kind, _, _, sql in rows if kind == "index")
    about = (schema.__doc__ or "").split("\n\n", 1)[1]
    head = f"Schema version {schema.version()} (`PRAGMA user_version`), application id `{schema.APPLICATION_ID:#x}`."
    return "\n\n".join([head, about, *tables, f"Indexes:\n\n```sql\n{indexes}\n```"])


def _table(connection: Any, name: str) -> str:
    rows = [
        f"| `{column}` | {kind} | {'yes' if key else ''} | {'' if needed else 'yes'} |"
        for _, column, kind, needed, _, key in connection.execute(f"PRAGMA table_info({name})")
    ]
    return "\n".join([f"### `{name}`", "", "| column | type | key | may be empty |", "|---|---|---|---|", *rows])


def shortcuts() -> str:
    """Keys of the window."""
    from napari_ivos.plugin.sections import KEYS

    titles = {c["id"].removeprefix("napari-ivos."): c["title"] for c in _manifest()["commands"]}
    rows = [f"| ++{key.lower().replace('-', '+')}++ | {titles[name]} |" for name, key in KEYS.items()]
    return "\n".join(["| key | does |", "|---|---|", *rows])


def commands() -> str:
    """What the command palette offers: all but the samples, which napari has in its *File* menu."""
    offered = [c for c in _manifest()["commands"] if ".sample_" not in c["id"]]
    rows = [f"| {c['title']} | `{c['id']}` |" for c in offered]
    return "\n".join(["| in the palette | id |", "|---|---|", *rows])


def settings() -> str:
    """Preferences of the plugin."""
    rows = []
    for group in _manifest()["configurations"].values():
        for name, entry in group["properties"].items():
            default = f"`{entry['default']}`" if entry["default"] else "empty"
            choices = f" One of {', '.join(f'`{c}`' for c in entry['enum'])}." if "enum" in entry else ""
            rows.append(
                f"| {group['title']} | {entry['title']} (`{name}`) | {default} | {entry['description']}{choices} |"
            )
    return "\n".join(["| group | setting | default | meaning |", "|---|---|---|---|", *rows])


def _manifest() -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((TOP / "napari.yaml").read_text(encoding="utf-8"))["contributions"]
    return found


def figures() -> str:
    """The measured figures, as README has them."""
    return between("README.md", "<!-- figures: begin -->", "<!-- figures: end -->")


def measured() -> str:
    """What `scripts/make_benchmarks.py` kept, in its order."""
    kept = [FOLDER / f"{name}.md" for name in PARTS]
    return "\n\n".join(path.read_text(encoding="utf-8").strip() for path in kept if path.exists())


def quality(name: str) -> str:
    """A part of `scripts/make_quality.py`, the command and the day with it, without its heading and its picture.

    From which folder a page shows that, the page knows.
    """
    kept = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return re.sub(r"^!\[.*\n\n", "", kept.split("\n", 1)[1].strip(), flags=re.MULTILINE)


def bytes_read() -> str:
    """The table of `scripts/make_benchmarks.py bytes`."""
    kept = (FOLDER / "bytes.md").read_text(encoding="utf-8")
    return "\n".join(line for line in kept.splitlines() if line.startswith("|"))


def model_card() -> str:
    """The shipped model's card without its title, its headings one level down."""
    text = (TOP / "src/napari_ivos/networks/models/compact.md").read_text(encoding="utf-8").split("\n", 1)[1]
    return re.sub(r"^#", "##", text, flags=re.MULTILINE)


def changelog() -> str:
    """What changed, without the page's title."""
    return (TOP / "CHANGELOG.md").read_text(encoding="utf-8").split("\n", 1)[1]


def contributing() -> str:
    """How to contribute, without the page's title."""
    return (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n", 1)[1]


def between(name: str, first: str, last: str) -> str:
    """The part of a file of the repository between two marks."""
    return (TOP / name).read_text(encoding="utf-8").split(first, 1)[1].split(last, 1)[0].strip()


def contracts() -> str:
    """The import contracts, as the checker reads them."""
    import tomllib

    found = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    rows = [f"| {c['name']} | {c['type']} | {_concerned(c)} |" for c in found]
    return "\n".join(["| rule | kind | concerns |", "|---|---|---|", *rows])


def _concerned(contract: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in contract.get("layers", contract.get("forbidden_modules", []))).replace(
        "|", "\\|"
    )


def modules() -> str:
    """Every module and folder of the package with the first sentence of its docstring."""
    import ast

    source = TOP / "src" / "napari_ivos"
    rows = []
    for path in sorted(source.iterdir()):
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix != ".py" or not file.exists() or path.name == "__init__.py":
            continue
        said = (
            (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
        )
        rows.append(f"| `{path.name}{'/' if path.is_dir() else ''}` | {said} |")
    return "\n".join(["| module | what lives there |", "|---|---|", *rows])


def example(name: str) -> str:
    """A program of the examples, without its first docstring."""
    text = (TOP / "examples" / name).read_text(encoding="utf-8")
    code = text.split('"""', 2)[2].strip()
    return f"```python\n{code}\n```"


MAKERS: dict[str, Callable[[], str]] = {
    "bytes": bytes_read,
    "changelog": changelog,
    "cluster-slurm": lambda: example("cluster_slurm.py"),
    "cluster-ssh": lambda: example("cluster_ssh.py"),
    "command-line": command_line,
    "commands": commands,
    "contracts": contracts,
    "contributing": contributing,
    "endings": endings,
    "exit-codes": exit_codes,
    "export-formats": export_formats,
    "figures": figures,
    "measured": measured,
    "messages": partial(messages.tables, "errors"),
    "model-card": model_card,
    "modules": modules,
    "notes": partial(messages.tables, "notes"),
    "project-schema": project_schema,
    "settings": settings,
    "shortcuts": shortcuts,
    **{f"quality-{name}": partial(quality, name) for name in make_quality.parts(TOP)},
}
"""By the name that a page's mark has."""
