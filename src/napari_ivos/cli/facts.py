"""``info`` and ``suggest``: facts about a stack, a project or a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari_ivos

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_ivos.session import Session

SQLITE = b"SQLite format 3\0"


def describe(what: str, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Find out what `what` is and say what can be said without reading it all.

    Returns
    -------
    dict
        `kind` is "stack", "project" or "model"; JSON-able.
    """
    path = Path(what)
    if path.suffix.lower() == ".ivos" or _begins(path, SQLITE):
        return project_facts(path)
    from napari_ivos.networks import weights

    if path.suffix.lower() == ".safetensors" or (not path.exists() and what in (*weights.SHIPPED, *weights.TRAINABLE)):
        return {"kind": "model", **weights.describe(what)}
    with napari_ivos.open_frames(what, **reading) as stack:
        facts = stack.describe()
        return {
            "kind": "stack",
            **{k: v for k, v in facts.items() if k not in ("kind", "open")},
            "format": facts["kind"],
        }


def _begins(path: Path, magic: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def project_facts(path: Path) -> dict[str, Any]:
    """What a project holds."""
    with napari_ivos.Session.open(path) as session:
        means = mean_qualities(session)
        return {
            "kind": "project",
            "path": str(path),
            "shape": list(session.shape),
            "axes": None if session.stack is None else session.stack.describe().get("axes"),
            "stack": None if session.stack is None else str(session.stack.source or session.stack.name),
            "read_only": session.read_only,
            "objects": [
                {
                    "id": o.id,
                    "name": o.name,
                    "colour": o.colour,
                    "frames": [o.lifetime.start, o.lifetime.stop],
                    "parent": o.parent,
                    "locked": o.locked,
                    "annotated_frames": list(session.annotated_frames(o.id)),
                    "mean_quality": mean,
                }
                for o, mean in zip(session.objects, means, strict=True)
            ],
            "rounds": [
                {
                    "number": r.number,
                    "annotated": {str(frame): list(ids) for frame, ids in r.annotated.items()},
                    "strokes": r.strokes,
                    "frames": r.frames,
                    "seconds": round(r.seconds, 3),
                    "models": list(r.models),
                    "time": r.time,
                }
                for r in session.rounds
            ],
            "stored_models": [{"name": m.name, "checksum": m.checksum, "bytes": m.size} for m in session.stored_models],
            "adapted_model": None if session.adapted is None else session.adapted.checksum,
            "suggested_frame": session.suggest_frame(),
        }


def mean_qualities(session: Session) -> list[float]:
    """Mean quality of each object over the frames on which it may exist, to four digits."""
    quality = session.quality
    return [
        round(float(quality[o.lifetime.start : o.lifetime.stop, k].mean()), 4) for k, o in enumerate(session.objects)
    ]


def suggestion(path: Path) -> dict[str, Any]:
    """Which frame to correct next, and how sure the masks there are."""
    with napari_ivos.Session.open(path) as session:
        frame = session.suggest_frame()
        if frame is None:
            return {"frame": None, "objects": []}
        objects = []
        for o in session.objects:
            quality, found = session.quality.seen(o.id)
            if frame in o.lifetime and found[frame] >= 0:  # where no round has come yet, 0 says nothing of a mask
                objects.append({"id": o.id, "name": o.name, "quality": round(float(quality[frame]), 4)})
        return {"frame": frame, "objects": objects}


def as_text(facts: Mapping[str, Any], indent: str = "") -> str:
    """Facts as lines for people: lists of facts one below the other, everything else on its line."""
    lines = []
    for key, value in facts.items():
        if value is None or value == [] or value == {}:
            continue
        name = f"{indent}{key.replace('_', ' ')}:"
        if key == "spacing":
            lines.append(f"{name} {', '.join(f'{axis} {step:g} {unit}' for axis, (step, unit) in value.items())}")
        elif isinstance(value, dict):
            lines += [name, as_text(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [name, *("\n".join(_item(entry, indent)) for entry in value)]
        elif isinstance(value, list):
            lines.append(f"{name} {', '.join(map(str, value))}")
        else:
            lines.append(f"{name} {value}")
    return "\n".join(lines)


def _item(entry: Mapping[str, Any], indent: str) -> list[str]:
    parts = [_said(k, v) for k, v in entry.items() if v not in (None, [], {}, False)]
    return [f"{indent}  - {', '.join(parts)}"]


def _said(key: str, value: Any) -> str:
    """One fact of an object or a round: what machines get as a range, or by frame, in words."""
    if key == "frames" and isinstance(value, list):
        first, last = value[0], value[1] - 1
        return f"frames {first} to {last}" if last > first else f"frame {first}"
    if key == "annotated" and isinstance(value, dict):
        return "annotated " + "; ".join(
            f"frame {frame} (object{'s' * (len(ids) != 1)} {_short(ids)})" for frame, ids in value.items()
        )
    if key == "models":
        value = [checksum[:12] for checksum in value]
    return f"{key.replace('_', ' ')} {_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_short(v)}" for k, v in value.items())
    return str(value)
