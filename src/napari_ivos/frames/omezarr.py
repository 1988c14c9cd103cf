"""Folders in zarr: plain arrays, OME-Zarr pyramids (0.1 to 0.5; level 0 is read), and collections of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_ivos.errors import InputError
from napari_ivos.frames.axes import letters_of_names, spacing_of
from napari_ivos.frames.codecs import check_codecs
from napari_ivos.frames.sources import ArraySource, zarr_source

if TYPE_CHECKING:
    from pathlib import Path

MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
"""Files of which a zarr folder has at least one."""
LABELS = "labels"
"""Where OME-Zarr has labels, beside the frames that they are of."""


def is_zarr(path: Path) -> bool:
    """Whether a path holds zarr, by its own files or its name."""
    return path.suffix == ".zarr" or any((path / mark).is_file() for mark in MARKS)


def zarr_folder_source(path: Path, series: int | None = None) -> ArraySource:
    """Source behind a zarr folder; only its metadata is read.

    Parameters
    ----------
    path : Path
        An existing folder.
    series : int, optional
        Which image of a collection; None: the first, with a note where there are more.

    Raises
    ------
    InputError
        No zarr, a damaged one, a group without an image, a plate, or no such series.
    """
    import zarr

    try:
        node = zarr.open(path, mode="r")
    except Exception as error:
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:6]) if path.is_dir() else "a file"
        raise InputError(
            f"{path} can't be read as zarr ({type(error).__name__}: {error}). Found there: {found or 'nothing'}. Give "
            "the folder that holds zarr.json, .zarray or .zgroup; if it was copied, copy it again with its hidden "
            "files."
        ) from error
    try:
        if isinstance(node, zarr.Group):
            return group_source(node, path.name, series, path)
        check_codecs(node, path.name)
        source = zarr_source(node, path.name, path)
        _adopt_parent(source, path)
    except InputError:
        raise
    except Exception as error:  # metadata that are JSON, but not what they should be
        raise InputError(
            f"The metadata of {path} can't be used ({type(error).__name__}: {error}): they are damaged. Copy the "
            "folder again from its origin."
        ) from error
    return source


def group_source(group: Any, name: str, series: int | None = None, path: Path | None = None) -> ArraySource:
    """Source behind an open zarr group.

    Parameters
    ----------
    group : zarr.Group
    name : str
        How messages call it.
    series : int, optional
        Which image of a collection.
    path : Path, optional
        The folder that it is in.

    Raises
    ------
    InputError
        As for `zarr_folder_source`.
    """
    images = _multiscales(group)
    if not images:
        return _collection_source(group, name, series, path)
    number = series or 0
    if not 0 <= number < len(images):
        raise InputError(f"{name} holds {len(images)} images, 0 to {len(images) - 1}; there is no series {series}.")
    image = images[number]
    try:
        array = group[image["datasets"][0]["path"]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} says that it is OME-Zarr, but its first resolution is missing ({error!r}): it was not written or "
            "not copied whole. Copy it again from its origin."
        ) from error
    if path is not None:
        check_codecs(array, name)
    source = zarr_source(array, name, path)
    source.kind = "OME-Zarr"
    source.axes = _axes(image, len(source.shape)) or source.axes
    spacing = _spacing(image, source.axes) if source.axes else {}
    if spacing:
        source.details["spacing"] = spacing
    source.details["level"] = str(image["datasets"][0]["path"])
    names = [str(channel.get("label", i)) for i, channel in enumerate(_ome(group).get("omero", {}).get("channels", []))]
    if names:
        source.details["channel_names"] = names
    if len(images) > 1:
        _tell_series(source, len(images), series)
    return source


def _collection_source(group: Any, name: str, series: int | None, path: Path | None) -> ArraySource:
    """Source of a group without an image of its own: numbered images in it, or one array."""
    ome = _ome(group)
    if "plate" in ome or "well" in ome:
        wells = [str(entry.get("path")) for entry in ome.get("plate", ome.get("well", {})).get("wells", [])][:4]
        raise InputError(
            f"{name} is a plate of many wells; open one image in it, for example "
            f"{name}/{wells[0] if wells else 'A/1'}/0."
        )
    numbered = sorted((name for name in group.group_keys() if name.isdecimal()), key=int)
    images = [name for name in numbered if _multiscales(group[name])]
    if images:
        if not 0 <= (series or 0) < len(images):
            raise InputError(f"{name} holds {len(images)} images, 0 to {len(images) - 1}; there is no series {series}.")
        source = group_source(group[images[series or 0]], name, None, path)
        if len(images) > 1:
            _tell_series(source, len(images), series)
        return source
    arrays = sorted(group.array_keys())
    if len(arrays) == 1:
        inside = arrays[0]
        if path is not None:
            check_codecs(group[inside], f"{name}/{inside}")
        source = zarr_source(group[inside], f"{name}/{inside}", None if path is None else path / inside)
        source.notes.append(f"the group's only array, {inside}, is read.")
        return source
    listed = ", ".join(f"{name}/{inside} {group[inside].shape}" for inside in arrays[:6]) or "there is none"
    raise InputError(f"{name} is a zarr group without OME metadata. Open one of its arrays: {listed}.")


def _tell_series(source: ArraySource, count: int, series: int | None) -> None:
    source.details["series"] = series or 0
    if series is None:
        source.notes.append(f'{count} images in the folder; the first is used. Choose with index={{"series": ...}}.')


def _ome(group: Any) -> dict[str, Any]:
    """OME metadata of a group: under "ome" since 0.5, at the top before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def _multiscales(group: Any) -> list[dict[str, Any]]:
    images = _ome(group).get("multiscales", [])
    return [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []


def _axes(image: dict[str, Any], ndim: int) -> str | None:
    """Letters of an image's axes; before 0.3 there were always five."""
    axes = image.get("axes")
    if axes is None:
        return "TCZYX" if ndim == 5 else None
    names = [axis.get("name", "") if isinstance(axis, dict) else axis for axis in axes]
    return letters_of_names(names) if len(names) == ndim else None


def _spacing(image: dict[str, Any], letters: str) -> dict[str, tuple[float, str]]:
    """Steps along an image's axes, from the scale of its first resolution and the one of all, and the axes' units."""
    steps, told = [1.0] * len(letters), False
    for holder in (image["datasets"][0], image):
        transformations = holder.get("coordinateTransformations")
        for one in transformations if isinstance(transformations, list) else ():
            scale = one.get("scale") if isinstance(one, dict) else None
            if isinstance(scale, list) and len(scale) == len(steps) and all(isinstance(x, (int, float)) for x in scale):
                steps, told = [a * b for a, b in zip(steps, scale, strict=True)], True
    axes = image.get("axes") or ()
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in axes] or [None] * len(letters)
    if not told or len(units) != len(steps):
        return {}
    return spacing_of({x: (step, unit) for x, step, unit in zip(letters, steps, units, strict=True) if x in "TZYX"})


def _adopt_parent(source: ArraySource, path: Path) -> None:
    """Axes for an array that is one resolution of an OME-Zarr image around it."""
    import zarr

    if source.axes is not None or not any((path.resolve().parent / mark).is_file() for mark in MARKS):
        return
    parent = zarr.open(path.resolve().parent, mode="r")
    if not isinstance(parent, zarr.Group):
        return
    for image in _multiscales(parent):
        if any(str(level.get("path")) == path.resolve().name for level in image.get("datasets", [])):
            source.axes = _axes(image, len(source.shape))
