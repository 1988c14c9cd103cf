"""The page of troubleshooting: every message of the package, with what to do."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
sys.path.insert(0, str(TOP / "scripts"))

from pages import messages  # noqa: E402 - from the folder of scripts


def test_every_raise_of_the_package_is_on_the_page() -> None:
    """Each error that is made with a text of its own is among the messages, and each has a row."""
    texts = {m.text for m in messages.messages()}
    made = messages.tables()
    for file in messages.PACKAGE.rglob("*.py"):
        for kind, text in messages._raised(ast.parse(file.read_text(encoding="utf-8"))):
            assert text in texts, f"{file.name}: {kind} {text}"
    for message in messages.messages():
        assert f"| {messages.cell(message.says)} | {messages.cell(message.advice)} |" in made
    assert len(texts) > 250


def test_every_message_says_what_to_do() -> None:
    """Both columns hold words, and each part of the package has a title."""
    for message in messages.messages():
        assert message.topic in messages.TOPICS, message
        assert len(message.advice.split()) >= 2, message
        assert message.says


@pytest.mark.parametrize(
    ("text", "says", "advice"),
    [
        ("The device … is not there; this machine has: ….", "is not there", "Take one of those"),
        ("… is a video, and reading videos needs PyAV. Install it: pip install av.", "needs PyAV", "Install it"),
        ("… is damaged: it is cut short.", "it is cut short", "Restore it from a copy"),
        ("The output folder … can't be written (…).", "can't be written", "See that there is room"),
        ("…: there is no room left for it (disk full). Make room.", "no room left for it", "Make room"),
        ('…: choose "step" or "round".', 'choose "step" or "round"', "Nothing was changed"),
        ("… is of a kind that nobody foresaw.", "nobody foresaw", "Nothing was changed"),
    ],
    ids=["a list", "after a capital", "damage", "a full disk", "not too early", "all advice", "else its part's"],
)
def test_advice_fits_what_a_message_says(text: str, says: str, advice: str) -> None:
    """The advice is the message's own, else what helps with its kind, else with its part of the package."""
    message = messages.Message("session", "InputError", text)
    assert says in message.says
    assert message.advice.startswith(advice)


def test_the_pages_are_there() -> None:
    """Troubleshooting is filled from the code; security says what is not defended against, too."""
    page = (TOP / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert "<!-- fill: messages -->" in page
    assert "## What is not defended against" in (TOP / "docs" / "security.md").read_text(encoding="utf-8")
