"""Some frames of a propagation as parcels side by side, for objects that can't meet; pure but for the parcels.

Which objects will meet is known only when their masks are made. So objects are put together by the regions in which
they are looked for first, with room to move, and afterwards it is looked up where masks of different parcels have met:
up to there every mask is what it would have been with all objects together, and the frames behind are done again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from napari_ivos.regions import Box, meeting, region_around, stacked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from napari_ivos.project import Row
    from napari_ivos.session.parcels import Parcel, Yielded

REACH = 1.25
"""Objects belong together if their regions, so much enlarged, meet: they may move while their parcels are out."""
LEAST_OBJECTS = 4
"""Fewer objects than this are not worth a parcel of their own."""


def reach(box: Box, image_shape: tuple[int, int]) -> Box:
    """Where an object may be looked for in the frames to come."""
    return region_around(box, REACH, image_shape)


def grouped(boxes: Mapping[int, Box], count: int, image_shape: tuple[int, int]) -> list[set[int]]:
    """Objects in at most `count` groups of about the same size, none of which can soon meet one of another group.

    Parameters
    ----------
    boxes : mapping of int to Box
        Where each object's mask is on the frame to start from.
    count : int
        At most so many groups; fewer where objects are few or close together.
    image_shape : tuple of int
        (H, W).
    """
    count = min(count, len(boxes) // LEAST_OBJECTS)
    if count < 2:
        return [set(boxes)]
    reaches = {i: reach(box, image_shape) for i, box in boxes.items()}
    ids, every = list(reaches), stacked(reaches.values())
    crowds: list[set[int]] = []
    left = set(ids)
    while left:
        crowd, fresh = set(), {min(left)}
        while fresh:
            crowd |= fresh
            left -= fresh
            fresh = {ids[k] for i in fresh for k in meeting(reaches[i], every).tolist()} & left
        crowds.append(crowd)
    groups: list[set[int]] = [set() for _ in range(count)]
    for crowd in sorted(crowds, key=len, reverse=True):
        min(groups, key=len).update(crowd)
    return [group for group in groups if group]


@dataclass(frozen=True, eq=False)
class Group:
    """Objects of one parcel.

    Parameters
    ----------
    objects : set of int
        Those that are carried.
    beside : mapping of int to set of int
        Frame to the other objects whose masks the parcel holds there.
    """

    objects: set[int]
    beside: Mapping[int, set[int]]

    def knows(self, object_id: int, frame: int) -> bool:
        return object_id in self.objects or object_id in self.beside.get(frame, ())


@dataclass(eq=False)
class Lot:
    """Frames that are done in parcels side by side.

    Parameters
    ----------
    direction : int
        1 or -1.
    frames : list of int
        In the order of work.
    stored : mapping of int to list of Row
        Frame to all masks that the project showed there when the parcels were made.
    groups : list of Group
        One for each parcel.
    parcels : list of Parcel
        What is sent.
    """

    direction: int
    frames: list[int]
    stored: Mapping[int, Sequence[Row]]
    groups: list[Group]
    parcels: list[Parcel]
    came: dict[int, Yielded] = field(default_factory=dict)

    def receive(self, parcel: Parcel, yielded: Yielded) -> bool:
        """Take a parcel's result; whether it was the last one."""
        self.came[self.parcels.index(parcel)] = yielded
        return len(self.came) == len(self.parcels)

    def accepted(self) -> list[int]:
        """The frames, from the first one without a gap, on which all masks are what they would be in one parcel."""
        ends = [self._end(y) for y in self.came.values() if y.short]
        frames = self.frames[: min(ends, default=len(self.frames))]
        if len(self.parcels) == 1:
            return frames
        made: dict[int, dict[int, Box]] = {}
        for yielded in self.came.values():
            for row in yielded.rows["patches"]:
                made.setdefault(row[2], {})[row[3]] = Box(*row[9:13])
        for place, (_, after) in enumerate(pairwise(frames), 1):
            if self._mixed(after - self.direction, made):
                return frames[:place]
        return frames

    def _end(self, yielded: Yielded) -> int:
        """How many of the frames a parcel has done that ended early."""
        done = {row[2] for row in yielded.rows["patches"]}
        return max((self.frames.index(f) + 1 for f in done), default=0)

    def _mixed(self, frame: int, made: Mapping[int, Mapping[int, Box]]) -> bool:
        """Whether on a frame that is read an object meets one that its parcel did not know there."""
        shown = {row.object_id: row.box for row in self.stored[frame]} | dict(made.get(frame, {}))
        for group in self.groups:
            strange = stacked(box for i, box in shown.items() if not group.knows(i, frame))
            if len(strange) and any(meeting(shown[i], strange).size for i in group.objects if i in shown):
                return True
        return False


def beside(rows: Iterable[Row], carried: Collection[int], reaches: Iterable[Box], all_: bool) -> list[Row]:
    """Of a frame's masks, those of objects that nobody carries and that are within reach; with `all_`, each of them."""
    others = [row for row in rows if row.object_id not in carried]
    if all_:
        return others
    near = stacked(reaches)
    return [row for row in others if meeting(row.box, near).size]
