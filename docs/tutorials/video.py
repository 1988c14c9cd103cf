# %% [markdown]
# # A video
#
# Video files need the extra `video`: `pip install "napari-ivos[video]"`. The frames are read one by one, each by its
# exact number, however long the file is.
#
# The sample is a simulated clip, a toy duck that turns and passes behind a pillar. It ships as a TIFF; the first cell
# writes it as an mp4, so that this page opens what you would: a video. (In napari, `File > Open` asks by which reader
# the file is to be opened: choose *napari-ivos*.)

# %% [folded] The sample as an mp4
import av
import tifffile

with av.open("toy.mp4", "w") as made:
    stream = made.add_stream("libx264", rate=15, options={"crf": "12"})
    stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
    for image in tifffile.imread("sample_data/toy.tif"):
        made.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    made.mux(stream.encode())

# %% [markdown]
# ## Scribble on one frame
#
# One stroke on the duck, and one on the background beside it (object 0), as in napari with ++k++. Background strokes
# help most where object and surroundings look alike.

# %%
import napari_ivos as ivos
from napari_ivos.scribbles import read_davis

session = ivos.Session("toy.mp4", ivos.load_model(), project="toy_video.ivos")
first = read_davis("sample_data/toy_scribbles.json", session.shape)[0]
for stroke in first.strokes:
    print(f"frame {first.frame}, object {stroke.object_id}: a stroke of {len(stroke.points)} points")
session.interact(first)
session.recolour(1, "#2962ff")  # the duck is orange: blue shows better on it
for _ in session.propagate():
    pass
session.export("video_round_1.png", "contact-sheet", count=12)

# %% [markdown]
# ![Twelve frames after one round](video_round_1.png)
#
# ## Behind the pillar
#
# How sure is it? `session.quality` holds a number for each frame and object, and `suggest_frame` names the frame to
# look at: here the occlusion shows.

# %%
import numpy as np

quality = np.asarray(session.quality)[:, 0]
worst = session.suggest_frame()
print(f"median quality {np.median(quality):.2f}; least certain: frame {worst} with {quality[worst]:.2f}")

# %% [folded] The plot
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(8, 2.4), layout="constrained")
axes.plot(quality, color="#00796b")
axes.axvline(first.frame, color="#888", linestyle=":", label="scribbles")
axes.plot(worst, quality[worst], "o", color="#d32f2f", label="suggested")
axes.set(xlabel="frame", ylabel="quality", ylim=(0, 1.02), xlim=(0, len(quality) - 1))
axes.legend(loc="lower right")
figure.savefig("video_quality.png", dpi=110)

# %% [markdown]
# ![Quality over the frames](video_quality.png)
#
# When an object vanishes wholly, it is looked for in its last place for some frames. If it comes back later or
# elsewhere, scribble on it where it comes back, and propagate: that frame is a new start.
#
# ## Correct it
#
# On the last frames the mask has taken in the green ball. A background stroke on the ball, on one of these frames, and
# another round:

# %%
session.interact(ivos.Scribbles(46, [ivos.Stroke(0, [(66, 228), (72, 244), (84, 250)])]))
for _ in session.propagate():
    pass
session.export("video_round_2.png", "contact-sheet", count=12)

# %% [markdown]
# ![The same frames after the second round](video_round_2.png)
#
# More on this in [Correcting well](correcting.md).
#
# ## Take the masks with you
#
# An overlay video for the talk, PNGs in the layout of DAVIS for other programs, COCO for training a detector:

# %%
session.export("toy_overlay.mp4")
session.export("toy_davis", "davis")
session.export("toy_coco.json")
truth = tifffile.imread("sample_data/toy_masks.tif") == 1
ours = np.asarray(session.labels) == 1
print(f"J {(ours & truth).sum() / (ours | truth).sum():.2f} against the known masks of this simulated clip")
session.close()
