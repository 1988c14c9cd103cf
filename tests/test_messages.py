"""The page of troubleshooting: every message of the package, with what it means and what to do."""

from __future__ import annotations

import ast
import re
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ivos import Session, errors, load_model, open_frames

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "scripts"))

from pages import fill, messages  # noqa: E402 - from the folder of scripts

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [
    (topic, kind, row)
    for topic in messages.TOPICS
    for kind in ("errors", "notes")
    for row in messages.rows(topic, kind)
]
UNSEEN = {"AssertionError", "AttributeError", "BatchInterrupted"}
"""What is raised with words for those who mend the program, or with words that were told before."""
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in messages.PACKAGE.rglob("*.py")}


def test_the_errors_are_all_of_ours():
    """No class of the error tree is left out of the page, and none is called by another name."""

    def tree(kind: type[Exception]) -> set[str]:
        below = [k for k in kind.__subclasses__() if k.__module__ == errors.__name__]
        return {kind.__name__}.union(*map(tree, below))

    assert tree(errors.IvosError) == messages.ERRORS
    for file in TREES:
        source = file.read_text(encoding="utf-8")
        assert not re.search(rf"\berrors\.({'|'.join(messages.ERRORS)})\(", source), file
        assert not re.search(rf"import\b.*\b({'|'.join(messages.ERRORS)}) as \w", source), file


def test_whatever_is_raised_with_words_is_read():
    """All classes that are raised with words are read, but for a few whose words nobody sees."""
    raised = {
        node.exc.func.id
        for node in chain.from_iterable(map(ast.walk, TREES.values()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
        if node.exc.args and node.exc.func.id[0].isupper()  # else it is a function that makes the error, and is read
    }
    assert raised <= messages.ERRORS | messages.CAUSES | UNSEEN | {"Interrupted"}
    assert raised >= messages.CAUSES


def test_whatever_warns_is_read():
    """Nothing warns but a module's own log, and each of its warnings and errors is read."""
    warns = re.compile(r"(?:warn|warning|error|exception|show_(?:info|warning|error))")
    calls = [
        (f"{file.relative_to(messages.PACKAGE).as_posix()}:{node.args[0].lineno}", ast.unparse(node.func))
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.args and warns.fullmatch(messages._last_name(node.func))
    ]
    assert len(calls) > 8
    assert [call for _, call in calls if call.rpartition(".")[0].lower().strip("_") != "log"] == []
    assert {place for place, _ in calls} <= {one.place for one in messages.said()}


def _long_enough(say: str, text: str) -> bool:
    """Whether a beginning has words by which it is found, or is all that the message has."""
    return len(re.findall(r"[A-Za-z][A-Za-z']+|\d+", say)) > 3 or say.strip(" .…") == text.strip(" .…")


@pytest.mark.parametrize("topic", messages.TOPICS)
def test_everything_that_is_told_has_one_row(topic):
    """Each error and each note that a part of the package tells is explained, and once."""
    told = [one for one in messages.said() if one.topic == topic]
    assert told
    for one in told:
        found = messages.rows_of(one)
        assert len(found) == 1, f"{one.place}: {one.text!r} has {[row.says for row in found] or 'no row'} in explained/"
        say = found[0].fit(one.text)[1]
        assert _long_enough(say, one.text), f"{one.place}: {one.text!r} has only {say!r}, which would fit others, too"


def test_no_part_of_the_package_is_left_out():
    """Several hundred messages are told, all by parts that the page has."""
    told = messages.said()
    print(f"{len(told)} messages, {sum(one.kind == 'errors' for one in told)} of them errors, in {len(ROWS)} rows")
    assert len(told) > 500
    assert {one.topic for one in told} == set(messages.TOPICS)
    assert {file.stem for file in messages.EXPLAINED.iterdir()} == set(messages.TOPICS)


@pytest.mark.parametrize(("topic", "kind", "row"), ROWS, ids=[f"{t}-{k}-{r.says[0][:40]}" for t, k, r in ROWS])
def test_rows_say_what_the_sources_say(topic, kind, row):
    """No beginning on the page is out of date or too short to be found, and meaning and advice are sentences."""
    told = [one.text for one in messages.said() if one.topic in row.topics and one.kind == kind]
    texts = [*told, *(text for part in row.topics for text in messages.literals(part))]
    for say in row.says:
        found = [text for text in texts if messages.begins(say, text)]
        assert any(row.fit(text)[1] == say for text in found), f"{say!r} is in no source"
        assert any(_long_enough(say, text) for text in found), f"{say!r} is too short to be looked up"
    for sentence in (row.means, row.do):
        assert re.match(r"[A-Z0-9`*(]", sentence)
        assert re.search(r"[.!]\)?$", sentence)
        assert len(sentence.split()) > 1 or sentence == "Nothing."
        assert "|" not in sentence
    assert row.means != row.do


def _frames() -> np.ndarray:
    return np.zeros((3, 16, 16), np.uint8)


def _damaged(folder: Path) -> None:
    (folder / "a.ivos").write_bytes(b"no project at all" * 99)
    Session.open(folder / "a.ivos")


def _red(folder: Path) -> None:
    with Session(_frames()) as session:
        session.add_object(colour="red")


def _no_model(folder: Path) -> None:
    with Session(_frames()) as session:
        list(session.propagate())


@pytest.mark.parametrize(
    ("topic", "raise_", "do"),
    [
        ("frames", lambda folder: open_frames(folder / "none.tif"), "Check the spelling"),
        ("frames", lambda _: open_frames(np.zeros((4, 2, 16, 16))), "Say so with one letter"),
        ("frames", lambda _: open_frames(_frames(), axes="YX"), "Give one letter for each axis"),
        ("frames", lambda _: open_frames(_frames(), contrast=(3, 2)), "Give two numbers, the lower one first"),
        ("project", _damaged, "restore it from a copy"),
        ("project", lambda folder: Session.open(folder / "none.ivos"), "Check the spelling"),
        ("session", _red, "#ff0000"),
        ("session", _no_model, "Give one: `Session(stack, load_model())`"),
        ("networks", lambda _: load_model("none"), "Give a name that the message lists"),
        ("networks", lambda _: load_model(device="none"), "Give `cpu`"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.islower() else "",
)
def test_real_messages_are_found(topic: str, raise_: Callable[[Path], object], do: str, tmp_path: Path) -> None:
    """An error as people get it has its row, with the advice that belongs to it."""
    with pytest.raises(errors.IvosError) as caught:
        raise_(tmp_path)
    found = messages.rows_of(messages.Said(topic, "errors", str(caught.value), ""))
    assert [do in row.do for row in found] == [True], (str(caught.value), found)


SOURCE = '''
NOBODY = "nobody"


def one(name, found):
    """A docstring. It is told to nobody."""
    kind = "whole numbers" if found else f"numbers of {name}"
    raise InputError(f"{name} holds {kind}; {'zero' if found else 'one'} is expected.")


def _refuse(name, found):
    raise ProjectError(f"{name} is damaged: {found}.")


def two(self, notes):
    _refuse(self, "it is cut short")
    _refuse(self, f"it begins with {self}")
    notes.append("a" + f" note of {_place()}")
    notes += [f"a list of {name}" for name in self]
    _log.warning("%s has %.1f GB, says %d", self, 1, NOBODY)
    self.notice(f"{NOBODY} is here", "info")
    raise ValueError("it has " + str(found))


def _place():
    return "this place"
'''


def test_every_way_of_saying_it_is_read(tmp_path):
    """Words are found where they are chosen, named, handed to a function or returned by one; what is put in is "…"."""
    file = tmp_path / "one.py"
    file.write_text(SOURCE)
    source = messages.Source(file)
    told = [(kind, text) for kind, node in source.told() for text in source.texts(node)]
    assert sorted(text for kind, text in told if kind == "errors") == [
        "it has …",
        "… holds numbers of …; one is expected.",
        "… holds numbers of …; zero is expected.",
        "… holds whole numbers; one is expected.",
        "… holds whole numbers; zero is expected.",
        "… is damaged: it begins with ….",
        "… is damaged: it is cut short.",
    ]
    assert sorted(text for kind, text in told if kind == "notes") == [
        "a list of …",
        "a note of this place",
        "nobody is here",
        "… has … GB, says …",
    ]


@pytest.mark.parametrize(
    ("say", "text", "fits"),
    [
        ("… is empty (0 bytes)", "a.tif is empty (0 bytes): it was probably not copied whole.", True),
        ("… is empty", "a.tif is empty (0 bytes): it was probably not copied whole.", True),
        ("… is emp", "a.tif is empty (0 bytes)", False),
        ("is empty", "a.tif is empty", False),
        ("Object … (…) is locked", "Object 3 (cell (left)) is locked: unlock it first.", True),
        ("… can't be used: …", "m.csv can't be used:\n  line 2: x", True),
    ],
)
def test_a_message_begins_as_its_row_says(say, text, fits):
    """A row's words fit a message from its beginning to the end of a clause, with anything where "…" stands."""
    assert messages.begins(say, text) is fits


def test_the_page_has_all_rows():
    """Troubleshooting is filled with both tables, in three columns, each beginning in them; security is there, too."""
    page = fill.filled((TOP / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))
    assert page.count("| the message | what it means | what to do |") == len({(topic, kind) for topic, kind, _ in ROWS})
    for _, _, row in ROWS:
        assert f"| {'<br>'.join(map(messages.cell, row.says))} | {row.means} | {row.do} |\n" in page + "\n"
    assert "## What is not defended against" in (TOP / "docs" / "security.md").read_text(encoding="utf-8")
