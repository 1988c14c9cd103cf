"""The model card that goes with exported weights: what they are, how they came to be, from whose data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ivos.training.clips import ClipSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ivos.networks.blocks import Architecture
    from napari_ivos.training.settings import TrainingSettings

SOURCES = "SOURCES.md"
"""The table of sources that lies in the folder of training data, or in the one above."""
_SHARE_ALIKE = re.compile(r"\bSA\b|share.?alike", re.IGNORECASE)
_PATHS = ("data", "output", "imagenet", "start_from")


@dataclass(frozen=True)
class Source:
    """Where a part of the data comes from, and under which terms."""

    name: str
    origin: str
    licence: str

    @property
    def share_alike(self) -> bool:
        """Whether its licence asks for the same licence again."""
        return bool(_SHARE_ALIKE.search(self.licence))


def read_sources(data: str | Path) -> dict[str, Source]:
    """The sources that the data's own table names, ``| source | from | licence |`` in `SOURCES.md`; may be empty."""
    for folder in (Path(data), Path(data).parent):
        path = folder / SOURCES
        if path.is_file():
            rows = [line.strip().strip("|").split("|") for line in path.read_text(encoding="utf-8").splitlines()]
            cells = [[cell.strip() for cell in row] for row in rows if len(row) == 3]
            return {
                c[0].rstrip("/"): Source(c[0].rstrip("/"), c[1], c[2]) for c in cells if not set(c[0]) <= set("-: ")
            }
    return {}


def sources_of(settings: TrainingSettings) -> list[Source]:
    """The sources that a run draws from, with what the data's table says of each, in the order of their names.

    A real clip belongs to the source whose name it begins with. What the table does not name says so.
    """
    table = read_sources(settings.data)
    names: set[str] = set()
    for stage in settings.plan:
        source = ClipSource(settings.data, stage.clips)
        names |= set(source.stills)
        names |= {path.parent.name for path in source.cutouts}
        names |= {_longest(path.name, table) for path in source.stacks} if stage.clips.real > 0 else set()
    if settings.imagenet:
        names.add("imagenet")
    return [table.get(name, Source(name, "not stated", "not stated")) for name in sorted(names)]


def _longest(name: str, table: Mapping[str, Source]) -> str:
    return max((known for known in table if name.startswith(known)), key=len, default=name)


def model_card(
    settings: TrainingSettings,
    architecture: Architecture,
    facts: Mapping[str, str],
    scores: Mapping[str, float],
) -> str:
    """The card as Markdown.

    Parameters
    ----------
    settings : TrainingSettings
        The recipe; its paths appear without their folders.
    architecture : Architecture
        As exported.
    facts : mapping of str to str
        Rows of the first table: parameters, steps, hours, device ...
    scores : mapping of str to float
        Mean J on held-out clips, by stage; may be empty.
    """
    sources = sources_of(settings)
    lines = [f"# Model card: {settings.architecture}", "", *_table({"": ""} | dict(facts)), "", "## Architecture", ""]
    lines += [", ".join(f"{key} {value}" for key, value in architecture.to_dict().items()) + ".", "", "## Figures", ""]
    if scores:
        lines += ["Mean J on held-out clips: " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()) + "."]
    else:
        lines += ["Not validated yet."]
    lines += ["", "What they are worth on real stacks, `napari-ivos benchmark` measures.", "", "## Recipe", ""]
    lines += ["```toml", recipe(settings), "```", "", "## Data and attribution", ""]
    lines += [
        "Licences are as the table of the data declares them.",
        "",
        "| source | from | licence |",
        "|---|---|---|",
    ]
    for s in sources:
        name = f"**{s.name}**" if s.share_alike else s.name
        lines.append(f"| {name} | {s.origin} | {f'**{s.licence}**' if s.share_alike else s.licence} |")
    alike = [s.name for s in sources if s.share_alike]
    lines += ["", f"Share-alike: {', '.join(alike)}." if alike else "No source is share-alike."]
    if settings.start_from:
        lines += [f"Started from `{Path(settings.start_from).name}`: the data that its card names apply as well."]
    return "\n".join(lines) + "\n"


def _table(rows: Mapping[str, str]) -> list[str]:
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return [lines[0], "|---|---|", *lines[1:]]


def recipe(settings: TrainingSettings) -> str:
    """The settings as TOML, paths cut to their last part."""
    values = settings.to_dict()
    tables = {key: values.pop(key) for key in ("overrides", "clips")}
    stages = values.pop("stages")
    for key in _PATHS:
        values[key] = Path(values[key]).name if values[key] else ""
    lines = _assignments(values)
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_assignments(table)] if table else []
    for stage in stages:
        lines += ["", "[[stages]]", *_assignments({k: v for k, v in stage.items() if k != "clips"}), "[stages.clips]"]
        lines += _assignments(stage["clips"])
    return "\n".join(lines)


def _assignments(values: Mapping[str, Any]) -> list[str]:
    # JSON's strings, numbers, booleans and lists are TOML's as well
    return [
        f"{k} = {json.dumps(list(v) if isinstance(v, tuple) else v, ensure_ascii=False)}" for k, v in values.items()
    ]
