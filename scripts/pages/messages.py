"""Every message that the package raises on purpose, read from its sources: what it says, and what to do."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
_FACTS = (
    r"try|train|put|remove|move|cut|play|paint|quote|draw|go to|for a dask array|they must|ids|each stroke"
    r"|frames need|at (?:least|most)|only (?:files|\.safetensors)"
)
_CUT = re.compile(rf"(?<=[A-Za-z0-9…)'\"])\. (?=[A-Z(…])|[;:,] (?=(?:{_VERBS})\b)|[;:] (?=(?:{_FACTS})(?![a-z]))")
"""Where a message stops to say what is wrong, and begins to say what to do, or what would be right."""
_ADVICE = (
    (r"open for reading only", "Close it in the other program, or open a copy of it."),
    (r"can't be (?:written|made|read or written)", "See that there is room, and that it may be written."),
    (r"(?<!bytes; )(?:there are|known are|shipped:|this machine has:) …", "Take one of those that it names."),
    (r"is damaged|is cut (?:short|off)|not finite$", "Restore it from a copy, or get it again from its origin."),
    (r"is a folder, not a project|not a project:|not one of our projects", "Give the file of a project (.ivos)."),
    (r"^Choose .* first", "Do so, and press the button again."),
    (r"^The model … failed", "What was done before is kept; send the report that the message names."),
    (r"^A worker failed", "Run the same again: what is finished is not done twice."),
    (r"no stills with masks|alpha channel|images have no mask", "Correct the folder of training data."),
    (r"ImageNet weights", "Give a torchvision state dict (.pth), or a .safetensors made from one."),
    (r"can't be kept", "Open the project with a model that ships, or give the file of the weights each time."),
    (r"^Not done within", "Wait, and try again; the work goes on."),
    (r"distributed\.Client", "Give a client, or none: then workers of this machine are started."),
    (r"version does not know", "Update napari-ivos, or give another model."),
    (r"batch's workers only", "Use load_model where something is to be computed."),
    (r"all workers need the stacks under", "Mount the folder there under this path."),
    (r"frame or its mask is missing|are the masks empty|mask can't be read", "Correct that file of the training data."),
    (r"frames 0 to …|outside …:|contrast must be|reaches out of", "Correct the argument that is named."),
)
"""What to do about messages of one kind, by a part of what they say; for the others `TOPICS` has it."""
_ELSEWHERE = {
    "steps": "session",
    "merging": "session",
    "predictor": "networks",
    "regions": "session",
    "errors": "cli",
    "files": "cli",
}


@dataclass(frozen=True)
class Message:
    """One message: its part of the package, kind of error, and text with a mark for each value that is put in."""

    topic: str
    kind: str
    text: str

    @property
    def says(self) -> str:
        """What is wrong: all before the advice, which a message without another word is not cut for."""
        said = _CUT.split(self.text, maxsplit=1)[0].rstrip(" .:;")
        return said if re.search("[A-Za-z]", said) else self.text.rstrip(" .")

    @property
    def advice(self) -> str:
        """What follows, else what helps with messages of this kind or part."""
        rest = self.text[len(self.says) :].lstrip(" .:;,")
        if len(rest.split()) > 1:
            return rest[:1].upper() + rest[1:]
        known = (advice for pattern, advice in _ADVICE if re.search(pattern, self.says))
        return next(known, TOPICS[self.topic][1])


def messages() -> list[Message]:
    """All messages, in the order of parts and of the sources, each once."""
    found: dict[Message, None] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        topic = topic_of(file)
        for kind, text in _raised(ast.parse(file.read_text(encoding="utf-8"))):
            found[Message(topic, kind, text)] = None
    return sorted(found, key=lambda message: list(TOPICS).index(message.topic))


def topic_of(file: Path) -> str:
    """The part of the package that a source file belongs to."""
    name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return _ELSEWHERE.get(name, name)


def _raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for call, text in calls(tree):
        if re.search(r"[A-Za-z]{3}", text):
            yield call.func.id, text  # type: ignore[attr-defined]  # `calls` chose them by that name


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every place in a module where one of our errors is made, and what it says.

    With "…" for what is put in; "…" alone where all of it comes from elsewhere.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    named = {function: _named(function) for function in functions}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            around = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
            known = {name: text for function in around for name, text in named[function].items()}
            yield node, " ".join(_text(node.args[0], known).split())


def _named(function: ast.FunctionDef) -> dict[str, ast.expr]:
    """Texts that a function gives a name to."""
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
    texts = [node for node in assigned if isinstance(node.value, ast.JoinedStr)]
    return {target.id: node.value for node in texts for target in node.targets if isinstance(target, ast.Name)}


def _text(node: ast.AST, named: Mapping[str, ast.expr]) -> str:
    """The literal text of a message, with "…" for what is put in; of two ways to say it the longer one."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, named) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, named) + _text(node.right, named)
    if isinstance(node, ast.IfExp):
        return max(_text(node.body, named), _text(node.orelse, named), key=len)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, named) if isinstance(node.value, ast.Name | ast.IfExp) else "…"
    if isinstance(node, ast.Name) and node.id in named:
        return _text(named[node.id], {})
    return "…"


def tables() -> str:
    """Markdown: a table of messages for each part of the package."""
    parts = []
    every = messages()
    for topic, (title, _) in TOPICS.items():
        rows = [f"| {cell(m.says)} | {cell(m.advice)} |" for m in every if m.topic == topic]
        if rows:
            parts.append(
                "\n".join([f"### {title}", "", "| the message | what to do |", "|---|---|", *sorted(set(rows))])
            )
    return "\n\n".join(parts)


def cell(text: str) -> str:
    """Text that Markdown leaves as it is."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
    return text.replace("`", "'").replace("[", "\\[").replace("{", "&#123;")
