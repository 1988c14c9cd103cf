"""Every message that the package raises on purpose, read from its sources: what it says, and what to do."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parent.parent.parent / "src" / "napari_ivos"
ERRORS = frozenset(
    {
        *("IvosError", "InputError", "FrameReadError", "WeightsError", "ProjectError", "ReadOnlyProject"),
        *("SessionBusy", "OutOfMemory"),
    }
)
TOPICS: dict[str, tuple[str, str]] = {
    "frames": ("Opening and reading frames", "Check the file where it was made; copy it again, or give what is named."),
    "scribbles": ("Scribbles and masks", "Correct the file or the arguments that are named, and run it again."),
    "project": ("Project files", "Open a copy of the project; what was finished before is kept."),
    "session": ("Sessions", "Nothing was changed: correct what is named, and call it again."),
    "networks": ("Models", "Install the package again, or give the file of a model of this package."),
    "export": ("Exports", "Choose another name or format; nothing was written over."),
    "cli": ("The command line", "See `napari-ivos COMMAND --help`."),
    "batch": ("Batches", "Correct that entry of the manifest, and run it again: finished stacks are not done twice."),
    "plugin": ("The window", "Choose another layer or file; the session goes on."),
    "adapting": ("Adapting a model", "Annotate more frames, or go on with the model as it is."),
    "training": ("Training", "Correct the settings file; a run goes on from its last checkpoint."),
    "benchmark": ("Benchmarks", "Check the folder of data and the arguments."),
    "diagnostics": ("Diagnostics", "Choose another place for the file."),
    "untrusted": ("Memory", "Ask for a smaller region or fewer frames."),
}
"""Parts of the package by the first name below it: their title, and what to do where a message doesn't say it."""
_VERBS = "give|open|name|choose|check|restore|close|delete|drop|take|save|convert|use|install|wait|copy|unlock|expected"
_CUT = re.compile(rf"(?<=[a-z0-9…)'\"])\. (?=[A-Z(])|[;:,] (?=(?:{_VERBS})\b)")
"""Where a message stops to say what is wrong, and begins to say what to do."""
_ELSEWHERE = {"steps": "session", "merging": "session", "predictor": "networks", "regions": "session", "errors": "cli"}


@dataclass(frozen=True)
class Message:
    """One message: its part of the package, kind of error, and text with a mark for each value that is put in."""

    topic: str
    kind: str
    text: str

    @property
    def says(self) -> str:
        """Its first sentence."""
        return _CUT.split(self.text, maxsplit=1)[0].rstrip(" .:;")

    @property
    def advice(self) -> str:
        """What follows, else what helps with messages of this part."""
        rest = self.text[len(_CUT.split(self.text, maxsplit=1)[0]) :].lstrip(" .:;")
        return rest[:1].upper() + rest[1:] if len(rest.split()) > 1 else TOPICS[self.topic][1]


def messages() -> list[Message]:
    """All messages, in the order of parts and of the sources, each once."""
    found: dict[Message, None] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        topic = _ELSEWHERE.get(name, name)
        for kind, text in _raised(ast.parse(file.read_text(encoding="utf-8"))):
            found[Message(topic, kind, text)] = None
    return sorted(found, key=lambda message: list(TOPICS).index(message.topic))


def _raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            text = " ".join(_text(node.args[0]).split())
            if re.search(r"[A-Za-z]{3}", text.replace("…", "")):
                yield node.func.id, text


def _text(node: ast.AST) -> str:
    """The literal text of a message, with "…" for what is put in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return _text(node.body)
    return "…"


def tables() -> str:
    """Markdown: a table of messages for each part of the package."""
    parts = []
    every = messages()
    for topic, (title, _) in TOPICS.items():
        rows = [f"| {_cell(m.says)} | {_cell(m.advice)} |" for m in every if m.topic == topic]
        if rows:
            parts.append(
                "\n".join([f"### {title}", "", "| the message | what to do |", "|---|---|", *sorted(set(rows))])
            )
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    """Text that Markdown leaves as it is."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
    return text.replace("`", "'").replace("[", "\\[").replace("{", "&#123;")
