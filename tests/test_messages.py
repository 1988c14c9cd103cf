"""The page of troubleshooting: every message of the package, with what to do."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

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


def test_the_pages_are_there() -> None:
    """Troubleshooting is filled from the code; security says what is not defended against, too."""
    page = (TOP / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert "<!-- fill: messages -->" in page
    assert "## What is not defended against" in (TOP / "docs" / "security.md").read_text(encoding="utf-8")
