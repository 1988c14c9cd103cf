"""What people are told, read from the package's sources, and what `explained/` says of it: the meaning, what to do."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind = Literal["errors", "notes"]

PACKAGE = Path(__file__).parent.parent.parent / "src" / "napari_ivos"
EXPLAINED = Path(__file__).parent / "explained"
"""A file for each part of the package: its title, and rows of errors and notes with their words, meaning and advice."""
TOPICS = (
    *("frames", "scribbles", "project", "session", "networks", "plugin", "cli", "export", "batch", "adapting"),
    *("training", "benchmark"),
)
"""Parts of the package by the first name below it, in the page's order."""
ERRORS = frozenset(
    {
        *("IvosError", "InputError", "FrameReadError", "WeightsError", "ProjectError", "ReadOnlyProject"),
        *("SessionBusy", "OutOfMemory"),
    }
)
CAUSES = frozenset({"ValueError", "TypeError", "IndexError", "RuntimeError", "ImportError", "ConnectionError"})
"""Errors of Python's own that are raised here: mostly the cause that a message of ours has in brackets."""
_ELSEWHERE = {
    **dict.fromkeys(("steps", "merging", "regions", "motion"), "session"),
    **dict.fromkeys(("errors", "files", "diagnostics", "wording", "__init__"), "cli"),
    "predictor": "networks",
    "untrusted": "frames",
}
_CALLS: dict[str, Kind] = {
    **dict.fromkeys(ERRORS | CAUSES | {"failed"}, "errors"),
    **dict.fromkeys(("note", "_note", "notice", "_notice", "refuse", "Interrupted"), "notes"),
}
"""Functions and classes whose first argument is told."""
_GATHERED: dict[str, Kind] = {
    **dict.fromkeys(("note", "notes", "_notes", "refused", "stopping"), "notes"),
    "problems": "errors",
}
"""Names under which texts gather until they are told."""
_TELLERS: dict[str, Kind] = {
    **dict.fromkeys(("_hint", "chunk_hint", "measure", "open_session", "keep", "drawable"), "notes"),
    **dict.fromkeys(("_clashes", "_overwritten"), "errors"),
}
"""Functions whose results are told."""
_GREY = "state.py"
"""Where every sentence says why a button is grey."""
_PUT_IN = "…"
_AT_MOST = 64
"""Ways in which one message may come out that are told apart: each choice of words in it doubles them."""


@dataclass(frozen=True)
class Said:
    """One thing that people are told: by which part of the package, in which words, and where in the sources.

    The words have "…" for what is put in.
    """

    topic: str
    kind: Kind
    text: str
    place: str


@dataclass(frozen=True)
class Row:
    """What is said of messages that mean the same: how each begins, with "…" for what is put in; meaning and advice."""

    topics: tuple[str, ...]
    says: tuple[str, ...]
    means: str
    do: str

    def fit(self, text: str) -> tuple[int, str]:
        """The one of its beginnings that says the most of a message, after how much; (0, "") where none fits."""
        return max(((len(say.replace(_PUT_IN, "")), say) for say in self.says if begins(say, text)), default=(0, ""))


def begins(say: str, text: str) -> bool:
    """Whether a message, as the sources or as people have it, begins so, up to the end of a clause.

    >>> begins("… is empty (0 bytes)", "cells.tif is empty (0 bytes): it was probably not copied whole.")
    True
    """
    return _pattern(say).match(" ".join(text.split())) is not None


@cache
def _pattern(say: str) -> re.Pattern[str]:
    return re.compile(".*?".join(map(re.escape, say.split(_PUT_IN))) + r"(?=$|[.,;:!?](?: |$)| \()")


def topic_of(file: Path) -> str:
    """The part of the package that a source file belongs to."""
    name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return _ELSEWHERE.get(name, name)


@cache
def said() -> tuple[Said, ...]:
    """All that people are told, each text once a part of the package."""
    found: dict[tuple[str, Kind, str], Said] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        source, topic = Source(file), topic_of(file)
        for kind, node in source.told():
            for text in source.texts(node):
                if re.search("[A-Za-z]{3}", text):
                    place = f"{file.relative_to(PACKAGE).as_posix()}:{node.lineno}"
                    found.setdefault((topic, kind, text), Said(topic, kind, text, place))
    return tuple(found.values())


@cache
def literals(topic: str) -> frozenset[str]:
    """All texts in the sources of a part of the package, told or not."""
    found: set[str] = set()
    for file in (file for file in PACKAGE.rglob("*.py") if topic_of(file) == topic):
        source = Source(file)
        for node in ast.walk(source.tree):
            if _is_text(node):
                found.update(source.texts(node))
    return frozenset(found)


@cache
def rows(topic: str, kind: Kind) -> tuple[Row, ...]:
    """What is said of a part's messages, in the order of the page."""
    given = _read(topic).get(kind, ())
    return tuple(Row((topic, *row.get("also", ())), tuple(row["says"]), row["means"], row["do"]) for row in given)


def rows_of(one: Said) -> list[Row]:
    """The rows that say the most of a message: one, unless it was forgotten or is explained twice."""
    fits = [(row.fit(one.text), row) for t in TOPICS for row in rows(t, one.kind) if one.topic in row.topics]
    most = max((fit for fit, _ in fits), default=(0, ""))
    return [row for fit, row in fits if most[0] and fit == most]


def tables(kind: Kind) -> str:
    """Markdown: a table of messages for each part of the package."""
    parts = []
    for topic in TOPICS:
        lines = [f"| {'<br>'.join(map(cell, row.says))} | {row.means} | {row.do} |" for row in rows(topic, kind)]
        if lines:
            head = ("| the message | what it means | what to do |", "|---|---|---|")
            title = f"### {_read(topic)['title']} {{ #{kind}-{topic} }}"
            parts.append("\n".join([title, "", *head, *lines]))
    return "\n\n".join(parts)


def cell(text: str) -> str:
    """Text that Markdown leaves as it is."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
    return text.replace("`", "'").replace("[", "\\[").replace("{", "&#123;").replace("#", "&#35;")


@cache
def _read(topic: str) -> dict[str, Any]:
    return tomllib.loads((EXPLAINED / f"{topic}.toml").read_text(encoding="utf-8"))


class Source:
    """A source file: what it tells people, and every way in which that comes out."""

    def __init__(self, file: Path) -> None:
        self.name = file.name
        self.tree = ast.parse(file.read_text(encoding="utf-8"))
        self.nodes = list(ast.walk(self.tree))
        self.functions = [node for node in self.nodes if isinstance(node, ast.FunctionDef)]

    def told(self) -> Iterator[tuple[Kind, ast.expr]]:
        """The expressions whose texts people are told."""
        for node in self.nodes:
            if isinstance(node, ast.Call):
                kind = self._kind_of_call(node)
                if kind is not None:
                    yield kind, node.args[0]
            elif isinstance(node, ast.Assign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                kinds = {_GATHERED[name] for name in map(_last_name, targets) if name in _GATHERED}
                yield from ((kind, text) for kind in kinds for text in _within(node.value))
            elif isinstance(node, ast.Return) and node.value is not None:
                kinds = {_TELLERS[f.name] for f in self._around(node) if f.name in _TELLERS}
                yield from ((kind, text) for kind in kinds for text in _within(node.value))
        if self.name == _GREY:
            yield from (("notes", text) for text in self._sentences())

    def _kind_of_call(self, call: ast.Call) -> Kind | None:
        if not call.args:
            return None
        name, owner = _last_name(call.func), _last_name(getattr(call.func, "value", call))
        if owner.lower().lstrip("_") == "log":
            return "notes" if name in ("warning", "error", "exception") else None
        return _GATHERED.get(owner) if name == "append" else _CALLS.get(name)

    def _sentences(self) -> Iterator[ast.expr]:
        """All sentences in functions, docstrings left out."""
        for function in self.functions:
            body = function.body[1 if ast.get_docstring(function) else 0 :]
            nodes = [node for statement in body for node in ast.walk(statement)]
            parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
            texts = [n for n in nodes if isinstance(n, ast.JoinedStr | ast.Constant) and id(n) not in parts]
            yield from (text for text in texts if any(way.endswith(".") for way in self.texts(text)))

    def texts(self, node: ast.AST) -> list[str]:
        """Every way in which a text comes out, with "…" for what is put in."""
        return list(dict.fromkeys(" ".join(text.split()) for text in self._texts(node, frozenset())))

    def _texts(self, node: ast.AST, seen: frozenset[int]) -> list[str]:
        """`texts`; `seen`: the nodes that led here, for names may stand for each other."""
        if id(node) in seen:
            return [_PUT_IN]
        seen |= {id(node)}
        if isinstance(node, ast.Constant):
            return [re.sub(r"%[\d.]*[a-z]", _PUT_IN, str(node.value))]
        if isinstance(node, ast.JoinedStr):
            return self._joined(node.values, seen)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._joined((node.left, node.right), seen)
        if isinstance(node, ast.FormattedValue):
            return self._texts(node.value, seen)
        ways: list[ast.expr] = []
        if isinstance(node, ast.IfExp):
            ways = [node.body, node.orelse]
        elif isinstance(node, ast.Name):
            ways = self._named(node)
        elif isinstance(node, ast.Call):
            ways = self._returned(_last_name(node.func))
        return [text for way in ways for text in self._texts(way, seen)] or [_PUT_IN]

    def _joined(self, parts: Iterable[ast.AST], seen: frozenset[int]) -> list[str]:
        ways = itertools.product(*(self._texts(part, seen) for part in parts))
        return ["".join(way) for way in itertools.islice(ways, _AT_MOST)]

    def _around(self, node: ast.stmt | ast.expr) -> list[ast.FunctionDef]:
        """The functions that a node is in, the innermost first."""
        around = [f for f in self.functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
        return sorted(around, key=lambda function: -function.lineno)

    def _named(self, name: ast.Name) -> list[ast.expr]:
        """The texts that a name stands for: what it is assigned, or called with; none where not all is text."""
        for scope in [*self._around(name), self.tree]:
            nodes = scope.body if isinstance(scope, ast.Module) else list(ast.walk(scope))
            given = [n.value for n in nodes if isinstance(n, ast.Assign) and name.id in map(_last_name, n.targets)]
            if given:
                before = [v for v in given if v.lineno <= name.lineno and getattr(v, "value", None) != ""]
                return before if all(map(_is_text, given)) else []
            if isinstance(scope, ast.FunctionDef) and name.id in [a.arg for a in scope.args.args]:
                return self._handed(scope, name.id)
        return []

    def _handed(self, function: ast.FunctionDef, name: str) -> list[ast.expr]:
        """What a private function is called with, where all of it is text."""
        arguments = [a.arg for a in function.args.args if a.arg not in ("self", "cls")]
        calls = [n for n in self.nodes if isinstance(n, ast.Call) and _last_name(n.func) == function.name]
        given = [call.args[arguments.index(name)] for call in calls if len(call.args) > arguments.index(name)]
        return given if function.name.startswith("_") and all(map(_is_text, given)) else []

    def _returned(self, name: str) -> list[ast.expr]:
        """What a function of this file returns, where all of it is text."""
        bodies = [node for function in self.functions if function.name == name for node in ast.walk(function)]
        values = [node.value for node in bodies if isinstance(node, ast.Return) and node.value is not None]
        return values if all(map(_is_text, values)) else []


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _within(node: ast.expr) -> list[ast.expr]:
    """The texts that an expression may be, or has in its list."""
    inside: list[ast.expr] = []
    if isinstance(node, ast.List | ast.Tuple):
        inside = node.elts
    elif isinstance(node, ast.IfExp):
        inside = [node.body, node.orelse]
    elif isinstance(node, ast.ListComp):
        inside = [node.elt]
    return [node] if _is_text(node) else [text for part in inside for text in _within(part)]


def _last_name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
