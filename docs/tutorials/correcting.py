# %% [markdown]
# # Correcting well
#
# The first propagation is rarely the last. This page shows what each kind of correction does, on the simulated toy,
# whose true masks are known: J below is the overlap with them, over all frames. The calls are those that the window
# makes; what to press is said beside them. On the command line a correction is
# [two commands](../reference/command_line.md#correcting).

# %% [folded] Set-up: the clip, its true masks, and who draws
import numpy as np
import tifffile
from PIL import Image

import napari_ivos as ivos
from napari_ivos.export import Content, picture
from napari_ivos.scribbles import read_davis

truth = tifffile.imread("sample_data/toy_masks.tif") == 1
session = ivos.Session("sample_data/toy.tif", ivos.load_model(), project="toy_correcting.ivos")


def overlap():
    """J over all frames."""
    ours = np.asarray(session.labels) == 1
    return (ours & truth).sum() / (ours | truth).sum()


def middle_line(mask):
    """A stroke through a part of a mask: its rows' middles, as a hand would draw it."""
    rows = np.flatnonzero(mask.any(axis=1))
    rows = rows[len(rows) // 5 : -len(rows) // 5 or None : 3]
    return [(row, int(np.median(np.flatnonzero(mask[row])))) for row in rows]


def largest(mask):
    """The largest connected part of a mask."""
    from skimage.measure import label

    parts = label(mask)
    return parts == np.bincount(parts[mask]).argmax() if mask.any() else mask


def draw(frame):
    """Strokes that correct a frame: on the largest part that is missing, and on the largest that is too much."""
    ours = session.labels[frame] == 1
    missing, excess = largest(truth[frame] & ~ours), largest(ours & ~truth[frame])
    parts = [(object_id, part) for object_id, part in ((1, missing), (0, excess)) if part.sum() > 30]
    return ivos.Scribbles(frame, [ivos.Stroke(object_id, middle_line(part)) for object_id, part in parts])


def show(name, *frames):
    """Frames with their masks, side by side."""
    content = Content.of(session)
    Image.fromarray(np.hstack([picture(content, frame) for frame in frames])).save(f"{name}.png")


# %%
first = read_davis("sample_data/toy_scribbles.json", session.shape)[0]  # one stroke on the duck, one beside it
session.interact(first)
for _ in session.propagate():
    pass
worst = session.suggest_frame()
print(f"after round 1, from frame {first.frame}: J {overlap():.3f}; least certain: frame {worst}")
show("correcting_1", worst, 47)

# %% [markdown]
# ![The least certain frame, and the last one](correcting_1.png)
#
# ## 1. Go where it is worst, not where you are
#
# ++j++ goes to the frame with the least certain mask. A correction spreads until the next frame that you annotated, so
# the frame that is furthest off helps the most. Draw only **what is wrong**: a line on what is missing, a background
# line (++k++) on what is too much.

# %%
session.interact(draw(worst))
for _ in session.propagate():
    pass
print(f"after round 2: J {overlap():.3f}; annotated frames: {session.annotated_frames()}")

# %% [markdown]
#
# Is the frame that is suggested right as it is? ++h++, or `session.accept(frame)`, says so: it is not suggested again
# until a round changes it, and a model that is adapted to the stack learns from it.
#
# Between two annotated frames both rounds are averaged: near the new one the new masks count, near the old one the old.
# Frames that you annotated are yours: **no later round changes them**, unless you draw there again.
#
# ## 2. Look through it once yourself
#
# How sure the program is, is a hint. Of the last frames it is quite sure, and has taken the ball for a part of the duck
# all the same. So play the stack once, and where a mask is wrong without a warning, draw there: here a background line
# on the ball.

# %%
session.interact(draw(47))
for _ in session.propagate():
    pass
print(f"after round 3: J {overlap():.3f}; annotated frames: {session.annotated_frames()}")
show("correcting_2", worst, 47)

# %% [markdown]
# ![The same frames after both corrections](correcting_2.png)
#
# ## 3. Paint where strokes don't help
#
# For a mask that has to be exact, paint it: **Paint mask** gives you napari's brush in the result layer, its eraser and
# fill are beside it. When you let go, the frame is annotated with just these pixels. In a script that is `annotate`; a
# mask from another program (Cellpose, StarDist, ilastik) comes in the same way.

# %%
frame = session.suggest_frame()
session.annotate(frame, truth[frame].astype(np.uint16))
for _ in session.propagate():
    pass
exact = bool(((session.labels[frame] == 1) == truth[frame]).all())
print(f"after round 4: J {overlap():.3f}; frame {frame} is exact: {exact}")

# %% [markdown]
# ## 4. Say when an object is gone
#
# A mask on a frame where the object is not costs more strokes than one click: go to the first frame without it and
# press **Gone**; in a script that is `session.end_object(1, frame)`. Before the frames that you drew on, that button
# says that it begins later; on a frame where it is gone, that it is **There** after all. For a cell that divides,
# **Divide** ends the mother and starts two daughters, and the lineage goes into the exports.
#
# ## 5. Lock what is done
#
# A locked object can't be changed any more, by no stroke and no propagation: lock the good ones before you work on
# their neighbours.

# %%
session.lock(1)
before = np.asarray(session.labels).copy()
session.interact(ivos.Scribbles(10, [ivos.Stroke(2, [(200, 40), (205, 60)])]))
for _ in session.propagate():
    pass
print(f"object 1 unchanged: {bool(((np.asarray(session.labels) == 1) == (before == 1)).all())}")

# %% [markdown]
# ## 6. Undo is free
#
# ++u++ takes back a stroke, an edit or a propagation; *Undo round* a whole round. It costs the same for ten frames and
# for ten thousand, and redo brings everything back. So try things.

# %%
session.undo(to="round")
print([(step.kind, step.state.name.lower()) for step in session.log][-4:])
session.unlock(1)
print(f"J {overlap():.3f}, rounds: {[r.number for r in session.rounds]}")
session.close()

# %% [markdown]
# ## 7. When the same mistake comes again and again
#
# *Review > Adapt the model to this stack* trains the model on the frames that you drew on, painted or said are right,
# for two minutes at most. Where two or more are annotated, one is kept back: if masks carried there get no better, the
# model stays as it was, as it did for three of four stacks [on which it was tried](../developers/training.md). Weights
# that help are kept in the project. Undo the last propagation and propagate again to see what
# it gives; *Model as it was* drops it. In Python it is `ivos.adapt(session)`, on the command line
# `napari-ivos adapt PROJECT`.

# %% [markdown]
# ## When it still doesn't work
#
# - **The stroke covers only a part that looks unlike the rest.** Draw across all parts: head, body, wheels.
# - **Two look-alikes touch.** Make both of them objects: they compete for the pixels between them.
# - **The contrast is set wrongly**, so that the object is black on black. `session.contrast = (low, high)`, or
#   `--contrast` on the command line.
# - **The object moves further than its own size between two frames.** Annotate more frames; the method follows, it
#   doesn't search.
