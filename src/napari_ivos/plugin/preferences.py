"""The plugin's preferences: napari's own settings from 0.9 on, defaults before that."""

from __future__ import annotations

from typing import Any


def get(group: str, name: str, default: Any) -> Any:
    """One preference; the default where napari has none for plugins."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return default
    try:
        value = getattr(getattr(get_plugin_settings("napari-ivos"), group), name)
    except (KeyError, AttributeError, ValueError):  # the manifest is not registered, as in some tests
        return default
    return default if value in (None, "") else value


def apply(stack: Any) -> None:
    """Put the preferences into the stack section's widgets."""
    stack.device.value = get("compute", "device", "automatic")
    folder, model = get("projects", "folder", None), get("compute", "model", None)
    if folder:
        stack.folder.value = folder
    if model:
        stack.model.value = model
