"""Simulated volumes: what their slices show, and where their objects end."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the extra 'train' is not installed")

from napari_ivos.training import volumes
from napari_ivos.training.volumes import KINDS, draw_slices

SIDE, COUNT = 96, 5


def draw(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Slices of one kind: grey (T, S, S) float and labels."""
    monkeypatch.setattr(volumes, "KINDS", {kind: KINDS[kind]})
    frames, labels, name = draw_slices(np.random.default_rng(seed), SIDE, COUNT)
    assert name == kind
    return frames[..., 0].astype(float), labels


def runs(there: np.ndarray) -> int:
    """How many times something begins: (T,) bool."""
    return int(np.count_nonzero(there[1:] & ~there[:-1]) + there[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_is_a_function_of_its_seed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same slices, grey in three channels, with the same objects; another seed gives others."""
    monkeypatch.setattr(volumes, "KINDS", {kind: KINDS[kind]})
    frames, labels, _ = draw_slices(np.random.default_rng(3), SIDE, COUNT)
    again, labels_again, _ = draw_slices(np.random.default_rng(3), SIDE, COUNT)
    other = draw_slices(np.random.default_rng(4), SIDE, COUNT)[0]
    assert frames.shape == (COUNT, SIDE, SIDE, 3)
    assert frames.dtype == np.uint8
    assert labels.shape == (COUNT, SIDE, SIDE)
    assert np.array_equal(frames, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(frames, other)
    assert (frames[..., 0] == frames[..., 2]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_objects_end_between_slices_and_hardly_any_comes_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the objects of a first slice some are gone on the last, and an object lies on neighbouring slices."""
    gone, objects, broken = 0, 0, 0
    for seed in range(12):
        labels = draw(kind, seed, monkeypatch)[1]
        first, last = (set(np.unique(labels[t])) - {0} for t in (0, -1))
        gone += len(first - last)
        objects += len(first)
        broken += sum(runs((labels == k).any((1, 2))) > 1 for k in first)
    assert 0.1 < gone / objects < 0.9
    assert broken / objects < 0.05


def test_in_a_packed_tissue_the_next_object_takes_the_place_of_one_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a cell of a tissue was and is no more, mostly other cells are; around nuclei there is mostly nothing."""

    def taken(kind: str) -> float:
        shares = []
        for seed in range(12):
            labels = draw(kind, seed, monkeypatch)[1]
            ended = set(np.unique(labels[0])) - set(np.unique(labels[-1])) - {0}
            shares += [(labels[-1][labels[0] == k] > 0).mean() for k in ended]
        return float(np.mean(shares))

    assert taken("cytoplasm") > 0.7
    assert taken("nuclei") < 0.6


@pytest.mark.parametrize(("kind", "walls_are_bright"), [("membranes", True), ("cytoplasm", False), ("neurites", False)])
def test_walls_stand_between_objects(kind: str, walls_are_bright: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels beside another object are brighter than others where membranes are stained, darker where all else is."""
    differences = []
    for seed in range(8):
        frames, labels = draw(kind, seed, monkeypatch)
        beside = np.zeros(labels.shape, bool)
        beside[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        beside[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
        inside = labels > 0
        differences.append(frames[beside & inside].mean() - frames[~beside & inside].mean())
    assert (np.mean(differences) > 0) == walls_are_bright
    assert abs(np.mean(differences)) > 10


def test_a_nucleus_fades_out_below_its_last_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a nucleus has just ended it is brighter than the ground far from all nuclei, and darker than a nucleus."""
    import cv2

    traces, grounds, bodies = [], [], []
    for seed in range(12):
        frames, labels = draw("nuclei", seed, monkeypatch)
        for t in range(COUNT - 1):
            free = cv2.dilate((labels[t + 1] > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
            ended = ~np.isin(labels[t], labels[t + 1]) & (labels[t] > 0) & free
            never = free & ~(labels > 0).any(0)
            traces.extend(frames[t + 1][ended])
            grounds.extend(frames[t + 1][never])
            bodies.extend(frames[t + 1][labels[t + 1] > 0])
    assert np.mean(grounds) + 2 < np.mean(traces) < np.mean(bodies)


def test_no_object_is_a_crumb(monkeypatch: pytest.MonkeyPatch) -> None:
    """What bears a label on a slice has at least `LEAST_AREA` pixels there."""
    for kind in KINDS:
        labels = draw(kind, 5, monkeypatch)[1]
        for slice_ in labels:
            areas = np.bincount(slice_.ravel())[1:]
            assert areas[areas > 0].min(initial=10**6) >= volumes.LEAST_AREA
