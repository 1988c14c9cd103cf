# %% [markdown]
# # A z-stack
#
# A 3-D stack is a movie along z: planes take the place of frames, and an object's mask is carried from plane to plane.
# That works where neighbouring planes look alike. The program sees one plane at a time, not the volume.
#
# This tutorial makes a small stack by itself, so that the truth is known: 32 planes of 128 x 160 px with three blurred,
# noisy ellipsoids, planes 0.5 µm apart, pixels of 0.2 µm.

# %% [folded] The simulated stack
import numpy as np
import tifffile

rng = np.random.default_rng(5)
SHAPE = (32, 128, 160)
SPACING = (0.5, 0.2, 0.2)  # micrometres between planes, rows, columns
z, y, x = np.indices(SHAPE)
bodies = [((15, 45, 45), (11, 24, 20), 900), ((18, 70, 112), (10, 20, 26), 700), ((9, 96, 60), (8, 17, 22), 800)]
truth = np.zeros(SHAPE, np.uint8)
light = np.full(SHAPE, 120.0)
for number, (middle, radii, brightness) in enumerate(bodies, start=1):
    distance = sum(((axis - m) / r) ** 2 for axis, m, r in zip((z, y, x), middle, radii, strict=True))
    truth[(distance < 1) & (truth == 0)] = number
    light += brightness / (1 + np.exp((np.sqrt(distance) - 1) * 45))
texture = rng.normal(1, 0.12, SHAPE)
stack = rng.poisson(light * texture).astype(np.uint16)
tifffile.imwrite(
    "nuclei.ome.tif",
    stack,
    metadata={
        "axes": "ZYX",
        "PhysicalSizeX": SPACING[2],
        "PhysicalSizeY": SPACING[1],
        "PhysicalSizeZ": SPACING[0],
    },
)

# %% [markdown]
# ## Open it
#
# The file says that its axes are Z, Y and X, so the planes become the frames. Where a file doesn't say, they are
# taken as times; tell it: `open_frames("nuclei.tif", axes="ZYX")`, or in the window *z* under *Advanced*, *Frames
# along*. Of a stack with several channels or time points, choose with `channels=` and `index=`:
# `open_frames("movie.tif", axes="TZCYX", frame_axis="Z", index={"T": 3}, channels=[0])`.

# %%
import napari_ivos as ivos

frames = ivos.open_frames("nuclei.ome.tif")
print(frames)
session = ivos.Session(frames, ivos.load_model(), project="nuclei.ivos")

# %% [markdown]
# ## One stroke for each body
#
# Choose a plane that cuts an object near its middle: there it looks most like itself, and both directions are short.
# Points are (row, col). Objects may be annotated on different planes.

# %%
session.interact(ivos.Scribbles(15, [ivos.Stroke(1, [(34, 36), (46, 46), (56, 52)])]))
session.interact(ivos.Scribbles(18, [ivos.Stroke(2, [(66, 98), (70, 112), (75, 126)])]))
session.interact(ivos.Scribbles(9, [ivos.Stroke(3, [(92, 48), (97, 61), (100, 72)])]))
for _ in session.propagate():
    pass
session.export("z_stack_round_1.png", "contact-sheet", count=12)

# %% [markdown]
# ![Twelve planes after the first round](z_stack_round_1.png)
#
# ## Where the bodies end
#
# In a stack, objects begin and end. The program takes an object to have ended behind a mask that it doubts. That is not
# always in time: a mask that is carried on past the end of its body is the usual fault, above all in dense tissue. On
# which planes did each body get pixels, and on which is it really?

# %%
labels = np.asarray(session.labels)
for number in (1, 2, 3):
    found = np.flatnonzero((labels == number).any(axis=(1, 2)))
    real = np.flatnonzero((truth == number).any(axis=(1, 2)))
    print(f"body {number}: planes {found[0]} to {found[-1]}, really {real[0]} to {real[-1]}")

# %% [markdown]
# Here all ends are right. Where one is wrong, say it: first plane, and the one after the last. No mask goes beyond
# them, whatever is propagated later.

# %%
for number in (1, 2, 3):
    real = np.flatnonzero((truth == number).any(axis=(1, 2)))
    session.set_lifetime(number, start=int(real[0]), stop=int(real[-1]) + 1)

# %% [markdown]
# In napari, go to the first section above the object, and to the last one below it, and press **Gone** on each.
#
# ## Volumes
#
# The labels are an array, (Z, Y, X). A voxel's volume times their number is the volume of a body. Of a file that gives
# the size of its voxels, the table (`session.export("nuclei.csv")`) does that: it is the sum of `volume_um3` over the
# lines of a body.

# %%
labels = np.asarray(session.labels)
voxel = SPACING[0] * SPACING[1] * SPACING[2]
for number in (1, 2, 3):
    ours, true = labels == number, truth == number
    overlap = (ours & true).sum() / (ours | true).sum()
    print(f"body {number}: {ours.sum() * voxel:.0f} µm³ (true {true.sum() * voxel:.0f}), J {overlap:.2f}")
session.export("nuclei_labels.ome.tif")
session.close()

# %% [markdown]
# `nuclei_labels.ome.tif` opens in napari, Fiji and QuPath; with `"nuclei_labels.zarr"` it is an OME-Zarr.
