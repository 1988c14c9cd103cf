"""What was made of objects' references, found again by them: they stay the same arrays from frame to frame."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from napari_ivos.predictor import Reference

_T = TypeVar("_T")


class Remembered(Generic[_T]):
    """Things made of references, the least recently used ones forgotten first; the references are not held.

    Parameters
    ----------
    most : int
        What all of them may weigh together.
    weigh : callable
        What one weighs; 1 if not given. What weighs more than `most` is not kept.
    """

    def __init__(self, most: int, weigh: Callable[[_T], int] = lambda _: 1) -> None:
        self._most, self._weigh = most, weigh
        self._weight = 0
        self._kept: OrderedDict[Hashable, tuple[list[weakref.ref[Reference]], _T, int]] = OrderedDict()

    def get(self, references: Sequence[Reference], make: Callable[[], _T], *apart: Hashable) -> _T:
        """What `make` makes of these very arrays, or made before; things made in several ways are told `apart`."""
        key = (tuple(map(id, references)), *apart)
        kept = self._kept.get(key)
        if kept is not None:
            if all(held() is r for held, r in zip(kept[0], references, strict=True)):
                self._kept.move_to_end(key)
                return kept[1]
            self._forget(key)
        made = make()
        weight = self._weigh(made)
        if weight > self._most:
            return made
        self._kept[key] = [weakref.ref(r) for r in references], made, weight
        self._weight += weight
        while self._weight > self._most:
            self._forget(next(iter(self._kept)))
        return made

    def _forget(self, key: Hashable) -> None:
        self._weight -= self._kept.pop(key)[2]
