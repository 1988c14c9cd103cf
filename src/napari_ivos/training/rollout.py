"""What a session does, on a batch of clips, with gradients: scribbles, mask, neighbours, corrections, neighbours.

The regions, the planes and the stored uint8 patches come from the very functions that serve in use. Earlier masks are
carried over without gradient; references keep theirs, so that both networks are trained jointly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_ivos import motion, regions, steps
from napari_ivos.merging import Origin, Patch, sample
from napari_ivos.networks.interaction import InteractionNetwork, ReferenceTensors
from napari_ivos.networks.planes import crop, mask_plane, propagation_planes, stroke_plane
from napari_ivos.regions import Box
from napari_ivos.scribbles import Stroke, rasterise, strokes_box
from napari_ivos.training.annotator import corrections, first_strokes
from napari_ivos.training.clips import TARGET, Clip
from napari_ivos.training.losses import mask_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ivos.networks.propagation import PropagationNetwork

Rng = np.random.Generator
JITTER = 0.5
"""Share of looks whose region is moved and resized by chance, so that it cuts the object or is far too wide."""
EXACT = 0.4
"""Share of the annotated frames that are not finished (see `RolloutSettings`) whose true mask is handed on to the
neighbours all the same: a good mask must stay good from frame to frame."""
WEATHERED = 0.6
"""Share of propagations that begin with a mask as it is after some frames on which nothing moved: what the network
makes of its own mask again and again must stay what it was."""
LONGEST_STILL = 3
"""So many such frames at most."""
SPOILED = 0.25
"""Share of annotated frames whose mask is handed on with a part cut off or a piece too much, as an occluder or a
neighbour leaves it: what is hidden now must come back from what the references know."""
SPOILED_TORN = 0.5
"""The same of masks in several parts, as behind a post: what shows on its other side must be found across the gap."""
SMALLEST_PART = 0.1
"""Parts of a mask that are smaller than this share of it are crumbs."""
ONCE_MORE = 0.5
"""Chance that the corrected frames are corrected again at once, each time; what is right gets no more strokes."""
MOST_LOOKS = 4
"""So many corrections of one frame at most."""
PARTS_STROKED = (1, 2, 2, 4, 8)
"""Of so many wrong parts, each way, a correction strokes at most; one of these by chance."""
SAME_FRAME = 0.2
"""Share of second rounds that correct the first round's frame."""


@dataclass(frozen=True)
class RolloutSettings:
    """What happens in one rollout.

    Attributes
    ----------
    corrections : bool
        Whether a second round corrects the first.
    jitter : bool
        Whether regions are disturbed (training) or as in use (validation).
    finished : float
        Share of annotated frames whose mask is true in training, painted or corrected until it was right: it stays as
        it is, and it is what the reference shows.
    """

    corrections: bool = True
    jitter: bool = True
    finished: float = 0.12


@dataclass(eq=False)
class Track:
    """One clip on its way: what a session would have stored of it."""

    clip: Clip
    truth: npt.NDArray[np.bool_]  # (T, H, W)
    start: int
    patches: dict[int, Patch] = field(default_factory=dict)
    strokes: dict[int, list[Stroke]] = field(default_factory=dict)
    annotated: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        return self.truth.shape[1], self.truth.shape[2]

    def mask(self, t: int) -> npt.NDArray[np.bool_]:
        """What is stored for frame t, as a mask (H, W)."""
        whole = Box(0, 0, *self.shape)
        return sample(self.patches[t], whole, self.shape) >= regions.MASK_LEVEL

    def jaccard(self, t: int) -> float:
        """Intersection over union with the truth on frame t; 1 where both are empty."""
        found, true = self.mask(t), self.truth[t]
        union = np.count_nonzero(found | true)
        return np.count_nonzero(found & true) / union if union else 1.0


@dataclass(eq=False)
class Outcome:
    """Losses and scores of a rollout, by stage: wide, close, propagated, corrected, again."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        return torch.stack(list(self.losses.values())).sum()


class Rollout:
    """Runs batches of clips through both networks.

    Parameters
    ----------
    interaction, propagation : nn.Module
        The networks.
    size : int
        Side of the regions at the networks' resolution.
    device : torch.device
        Where they are.
    amp : torch.dtype or None
        Autocast to this type.
    threads : int
        Threads that find motion.
    """

    def __init__(
        self,
        interaction: InteractionNetwork,
        propagation: PropagationNetwork,
        size: int,
        device: torch.device,
        amp: torch.dtype | None = None,
        threads: int = 1,
    ) -> None:
        self.interaction, self.propagation = interaction, propagation
        self.size, self.device, self.amp, self.threads = size, device, amp, threads
        self.even = device.type == "cuda"  # batches of one size: cuDNN plans each size anew

    def run(self, clips: Sequence[Clip], rng: Rng, settings: RolloutSettings) -> Outcome:
        """One rollout of all clips; each stage is one batch through one network."""
        self.outcome, self.rng, self.settings = Outcome(), rng, settings
        self.tracks = tracks = [self._begin(c) for c in clips]
        frames = torch.from_numpy(np.stack([t.clip.frames for t in tracks])).permute(0, 1, 4, 2, 3)  # (B, T, 3, H, W)
        self.frames = frames.to(self.device)
        self.truths = torch.from_numpy(np.stack([t.truth for t in tracks])[:, :, None]).to(self.device)
        first = self._first_round(tracks)
        self._carry(tracks, [t.start for t in tracks], [first], "propagated")
        if settings.corrections:
            self._second_round(tracks, first)
        return self.outcome

    def _begin(self, clip: Clip) -> Track:
        truth = clip.labels == TARGET
        areas = truth.sum((1, 2)) * clip.known
        there = np.flatnonzero(areas >= max(16, 0.3 * areas.max()))
        return Track(clip, truth, int(self.rng.choice(there)))

    # --- looks --------------------------------------------------------------------------------------------------

    def _first_round(self, tracks: Sequence[Track]) -> ReferenceTensors:
        """Wide look at the strokes, then a close one; a few tracks start from a painted mask."""
        painted = [self._finished(track, track.start) for track in tracks]
        looks: list[Box] = []
        for track in tracks:
            t = track.start
            track.strokes[t] = first_strokes(track.clip.labels[t], TARGET, self.rng)
            track.annotated.append(t)
            drawn = strokes_box([s for s in track.strokes[t] if s.object_id == 1], track.shape)
            around = drawn or regions.mask_box(track.truth[t]) or Box(0, 0, 1, 1)
            looks.append(self._disturb(regions.region_around(around, regions.WIDE, track.shape), track.shape))
        at = [t.start for t in tracks]
        p, _ = self._interact(tracks, at, looks, [None] * len(tracks), "wide")
        previous: list[Patch | None] = []
        for k, track in enumerate(tracks):
            if painted[k]:
                exact = Patch.from_mask(track.truth[track.start])
                track.strokes[track.start] = []
                region = regions.region_around(exact.box, regions.CLOSE, track.shape)
                previous.append(exact)
            else:
                previous.append(Patch.from_probability(looks[k], p[k], Origin.SCRIBBLED))
                region = self._close_region(track, looks[k], p[k])
            looks[k] = self._disturb(region, track.shape)
        p, reference = self._interact(tracks, at, looks, previous, "close")
        for k, track in enumerate(tracks):
            track.patches[track.start] = Patch.from_probability(looks[k], p[k], Origin.SCRIBBLED)
            self._score("close", track, track.start)
            if painted[k]:
                track.patches[track.start] = Patch.from_mask(track.truth[track.start])
            else:
                self._make_exact(track, track.start)
        return reference

    def _finished(self, track: Track, t: int) -> bool:
        """Whether the user leaves a true mask on this frame."""
        chosen = self.rng.random() < self.settings.finished
        return chosen and self.settings.jitter and bool(track.clip.known[t]) and bool(track.truth[t].any())

    def _make_exact(self, track: Track, t: int) -> None:
        """Put the truth in the place of an annotated frame's mask, in a share of the clips of training."""
        if self.settings.jitter and self.rng.random() < EXACT and track.clip.known[t] and track.truth[t].any():
            track.patches[t] = Patch.from_mask(track.truth[t])

    def _close_region(self, track: Track, region: Box, p: npt.NDArray[np.float32]) -> Box:
        drawn = strokes_box([s for s in track.strokes[track.start] if s.object_id == 1], track.shape)
        return steps.close_region(region, p, drawn, track.shape)

    def _interact(
        self,
        tracks: Sequence[Track],
        at: Sequence[int],
        looks: Sequence[Box],
        previous: Sequence[Patch | None],
        stage: str,
    ) -> tuple[npt.NDArray[np.float32], ReferenceTensors]:
        shape = (self.size, self.size)
        own, others, known = [], [], []
        for track, t, region, patch in zip(tracks, at, looks, previous, strict=True):
            strokes = track.strokes[t]
            own.append(rasterise([s for s in strokes if s.object_id == 1], region, shape))
            others.append(rasterise([s for s in strokes if s.object_id != 1], region, shape))
            known.append(None if patch is None else sample(patch, region, shape))
        planes = torch.cat([mask_plane(known, self.size), stroke_plane(own), stroke_plane(others)], 1)
        image, target = self._cut(at, looks)
        with self._autocast():
            logits, reference = self.interaction(image, _fast(planes.to(self.device)))
        self._lose(stage, logits, target, tracks, at)
        return self._probability(logits), reference

    def _carry(
        self,
        tracks: Sequence[Track],
        starts: Sequence[int],
        references: Sequence[ReferenceTensors],
        stage: str,
    ) -> None:
        """Propagate from `starts` outward to every frame that is not annotated."""
        if self.settings.jitter and self.rng.random() < WEATHERED:
            self._weather(tracks, starts, references)
        if self.settings.jitter:
            self._spoil(tracks, starts)
        queues = [self._route(track, start) for track, start in zip(tracks, starts, strict=True)]
        while any(queues):
            rows = [k for k, q in enumerate(queues) if q]
            hops = [queues[k].pop(0) for k in rows]
            self._hop([tracks[k] for k in rows], rows, hops, references, stage)

    @staticmethod
    def _route(track: Track, start: int) -> list[tuple[int, int]]:
        """(neighbour, frame) pairs from `start` outward, stopping at annotated frames."""
        route = []
        for step in (1, -1):
            t = start + step
            while 0 <= t < len(track.truth) and t not in track.annotated:
                route.append((t - step, t))
                t += step
        return route

    @torch.no_grad()
    def _weather(self, tracks: Sequence[Track], starts: Sequence[int], references: Sequence[ReferenceTensors]) -> None:
        """Replace annotated frames' masks by what propagation over a few frames like them would have left."""
        for _ in range(int(self.rng.integers(1, LONGEST_STILL + 1))):
            looks, near = [], []
            for track, t in zip(tracks, starts, strict=True):
                region = steps.propagation_region({1: track.patches[t]}, None, 1, track.shape)
                looks.append(region)
                near.append(sample(track.patches[t], region, (self.size, self.size)))
            unmoved = [None] * len(tracks)
            logits, _ = self._propagate(starts, looks, near, unmoved, range(len(tracks)), references)
            for track, t, region, p in zip(tracks, starts, looks, self._probability(logits), strict=True):
                track.patches[t] = Patch.from_probability(region, p, Origin.PROPAGATED)

    def _spoil(self, tracks: Sequence[Track], starts: Sequence[int]) -> None:
        """Take a part of some annotated frames' masks away, or add a piece that is not the object's."""
        for track, t in zip(tracks, starts, strict=True):
            mask = track.mask(t)
            torn = len(_parts(mask)) > 1
            if self.rng.random() < (SPOILED_TORN if torn else SPOILED):
                spoilt = spoil(mask, track.clip.labels[t], self.rng)
                if spoilt.any():
                    track.patches[t] = Patch.from_mask(spoilt)

    def _propagate(
        self,
        at: Sequence[int],
        looks: Sequence[Box],
        near: Sequence[npt.NDArray[np.float32]],
        changes: Sequence[npt.NDArray[np.float32] | None],
        rows: Sequence[int],
        references: Sequence[ReferenceTensors],
    ) -> tuple[Sequence[Tensor], Tensor]:
        """Logits of frames `at` of the clips `rows`, and the truth there."""
        follows = self.propagation.architecture.motion
        unknown = [None] * len(rows)  # masks of earlier rounds are not shown, as in use
        planes = propagation_planes(near, unknown, changes if follows else None, self.size).to(self.device)
        image, target = self._cut(at, looks, rows)
        filled = [*range(len(rows)), *[0] * (len(self.tracks) - len(rows) if self.even else 0)]
        own = [rows[k] for k in filled]
        picked = [ReferenceTensors(r.coarse[own], r.key[own], r.value[own]) for r in references]
        valid = torch.ones(len(own), len(picked), dtype=torch.bool, device=self.device)
        with self._autocast():
            memory = self.propagation.memorise(picked, valid)
            logits = self.propagation(_fast(image[filled]), _fast(planes[filled]), memory)
        return [x[: len(rows)] for x in logits], target

    def _hop(
        self,
        tracks: Sequence[Track],
        rows: Sequence[int],
        hops: Sequence[tuple[int, int]],
        references: Sequence[ReferenceTensors],
        stage: str,
    ) -> None:
        looks = []
        for track, (source, _) in zip(tracks, hops, strict=True):
            region = steps.propagation_region({1: track.patches[source]}, None, 1, track.shape)
            looks.append(self._disturb(region, track.shape))
        at = [t for _, t in hops]
        near, changes = self._all_moved(tracks, hops, looks)
        logits, target = self._propagate(at, looks, near, changes, rows, references)
        self._lose(stage, logits, target, tracks, at)
        p = self._probability(logits)
        for k, track in enumerate(tracks):
            track.patches[at[k]] = Patch.from_probability(looks[k], p[k], Origin.PROPAGATED)
            self._score(stage, track, at[k])

    def _all_moved(
        self, tracks: Sequence[Track], hops: Sequence[tuple[int, int]], looks: Sequence[Box]
    ) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32] | None]]:
        """`_moved` of all clips, by several threads where there may be."""
        sources, frames = zip(*hops, strict=True)
        if self.threads == 1:
            moved = list(map(self._moved, tracks, sources, frames, looks))
        else:
            moved = list(motion.pool(self.threads).map(self._moved, tracks, sources, frames, looks))
        return [mask for mask, _ in moved], [change for _, change in moved]

    def _moved(
        self, track: Track, source: int, t: int, region: Box
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """The mask of frame `source` as it is handed on to frame t, over a region, and the change on the way."""
        mask = sample(track.patches[source], region, (self.size, self.size))
        if not self.propagation.architecture.motion:
            return mask, None
        near, here = (track.clip.frames[k][region.slices].astype(np.float32) / 255 for k in (source, t))
        return motion.move_along(mask, near, here)

    def _second_round(self, tracks: Sequence[Track], first: ReferenceTensors) -> None:
        """Correct each clip's worst frame (or its first one again), some more than once, and carry it on."""
        at = [self._worst(track) for track in tracks]
        finished = [self._finished(track, t) for track, t in zip(tracks, at, strict=True)]
        second = self._correct(tracks, at, finished)
        looks = 1
        while self.settings.jitter and looks < MOST_LOOKS and self.rng.random() < ONCE_MORE:
            second = self._correct(tracks, at, finished)
            looks += 1
        for track, t, right in zip(tracks, at, finished, strict=True):
            if right:
                track.patches[t] = Patch.from_mask(track.truth[t])
            else:
                self._make_exact(track, t)
        learns = second.key.requires_grad or any(p.requires_grad for p in self.propagation.parameters())
        if learns or not self.settings.jitter:  # training skips what nothing would learn from
            self._carry(tracks, at, [first, second], "again")

    def _correct(self, tracks: Sequence[Track], at: Sequence[int], finished: Sequence[bool]) -> ReferenceTensors:
        """Stroke what is wrong on these frames and look at all of them again; a finished one is shown as it is."""
        looks: list[Box] = []
        before: list[Patch | None] = []
        for track, t, right in zip(tracks, at, finished, strict=True):
            most = int(self.rng.choice(PARTS_STROKED))
            wrong = corrections(track.truth[t], track.mask(t), self.rng, most)
            track.strokes[t] = track.strokes.get(t, []) + wrong
            if t not in track.annotated:
                track.annotated.append(t)
            drawn = strokes_box([s for s in track.strokes[t] if s.object_id == 1], track.shape)
            extent = track.patches[t].extent
            around = extent if drawn is None else drawn if extent is None else extent.union(drawn)
            region = (
                track.patches[t].box if around is None else regions.region_around(around, regions.CLOSE, track.shape)
            )
            looks.append(self._disturb(region, track.shape))
            before.append(Patch.from_mask(track.truth[t]) if right else track.patches[t])
        p, reference = self._interact(tracks, at, looks, before, "corrected")
        for k, (track, t) in enumerate(zip(tracks, at, strict=True)):
            track.patches[t] = Patch.from_probability(looks[k], p[k], Origin.SCRIBBLED)
            if not finished[k]:
                self._score("corrected", track, t)
        return reference

    def _worst(self, track: Track) -> int:
        free = [t for t in range(len(track.truth)) if t not in track.annotated and track.clip.known[t]]
        if not free or self.rng.random() < SAME_FRAME:
            return track.start
        return min(free, key=track.jaccard)

    # --- small things -----------------------------------------------------------------------------------------------

    def _disturb(self, region: Box, shape: tuple[int, int]) -> Box:
        """Move and resize a region by chance in half of the looks of training."""
        if not self.settings.jitter or self.rng.random() > JITTER:
            return region
        scale = np.exp(self.rng.normal(0, 0.25, 2) + self.rng.normal(0.05, 0.2))
        h, w = region.height * scale[0], region.width * scale[1]
        dy, dx = self.rng.normal(0, 0.1, 2) * (region.height, region.width)
        cy, cx = (region.y0 + region.y1) / 2 + dy, (region.x0 + region.x1) / 2 + dx
        moved = Box(int(cy - h / 2), int(cx - w / 2), int(cy + h / 2) + 1, int(cx + w / 2) + 1).clip(shape)
        return region if moved.empty or min(moved.shape) < 8 else moved

    def _cut(self, at: Sequence[int], looks: Sequence[Box], rows: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Pixels and truth of one region a clip: (B, 3, S, S) and (B, 1, S, S) float32 in 0..1."""
        picked = torch.tensor(list(range(len(at))) if rows is None else list(rows), device=self.device)
        frames = torch.tensor(list(at), device=self.device)
        image = crop(self.frames[picked, frames].float() / 255, looks, self.size)
        target = crop(self.truths[picked, frames].float(), looks, self.size)
        return _fast(image), target

    def _lose(
        self, stage: str, logits: Sequence[Tensor], target: Tensor, tracks: Sequence[Track], at: Sequence[int]
    ) -> None:
        known = torch.tensor([float(track.clip.known[t]) for track, t in zip(tracks, at, strict=True)])
        loss = mask_loss(logits, target, known.to(self.device))
        self.outcome.losses[stage] = self.outcome.losses.get(stage, torch.zeros((), device=self.device)) + loss

    def _probability(self, logits: Sequence[Tensor]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            p = torch.sigmoid(F.interpolate(logits[0].float(), self.size, mode="bilinear", align_corners=False))
        return p[:, 0].cpu().numpy()

    def _score(self, stage: str, track: Track, t: int) -> None:
        if track.clip.known[t]:
            self.outcome.scores.setdefault(stage, []).append(track.jaccard(t))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.amp or torch.bfloat16, enabled=self.amp is not None)


def _parts(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Connected parts of a mask (H, W), without crumbs."""
    import cv2

    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    least = SMALLEST_PART * areas[1:].sum()
    return [labels == k for k in range(1, count) if areas[k] >= least]


def spoil(mask: npt.NDArray[np.bool_], labels: npt.NDArray[np.uint8], rng: Rng) -> npt.NDArray[np.bool_]:
    """A mask (H, W) with a fault of the kind that propagation leaves behind an occluder or beside a neighbour.

    Of a mask in several parts mostly one is left. Else either all that lies on one side of a line is gone, 15 to 85 %
    of it, or a piece is there that should not be: a part of another object (`labels`, (H, W), 2 and up), or of what
    lies around.
    """
    parts = _parts(mask)
    if len(parts) > 1 and rng.random() < 0.8:
        return parts[int(rng.integers(len(parts)))]
    points = np.argwhere(mask)
    if len(points) < 16:
        return mask
    angle = rng.uniform(0, 2 * np.pi)
    normal = np.array([np.sin(angle), np.cos(angle)])
    rows, columns = np.indices(mask.shape)
    along = rows * normal[0] + columns * normal[1]
    if rng.random() < 0.7:
        return np.asarray(mask & (along < np.quantile(points @ normal, rng.uniform(0.15, 0.85))))
    foreign = labels > TARGET
    centre = points[rng.integers(len(points))]
    extent = float(np.ptp(points, axis=0).max()) + 1
    if not foreign.any() or rng.random() < 0.4:
        foreign = np.ones_like(mask)
        centre = centre + normal * extent * 0.3
    near = np.hypot(rows - centre[0], columns - centre[1]) < extent * rng.uniform(0.2, 0.7)
    return np.asarray(mask | (foreign & near))


def _fast(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def channels_last(*networks: nn.Module) -> None:
    """Lay the weights out for the CPU's (and the tensor cores') faster convolutions."""
    for network in networks:
        network.to(memory_format=torch.channels_last)
