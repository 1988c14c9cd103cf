"""Strokes: what they accept, clipping, rasterising, painted scribbles and DAVIS JSON."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_ivos.errors import InputError
from napari_ivos.regions import Box
from napari_ivos.scribbles import (
    _RING,
    BACKGROUND,
    FARTHEST,
    Scribbles,
    Stroke,
    _thin,
    clip_line,
    covered_pixels,
    densify,
    middle_lines,
    rasterise,
    read_davis,
    strokes_box,
    write_davis,
)

SHAPE = (40, 60)
coordinate = st.floats(-50, 110, allow_nan=False, width=32)
lines = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=6).map(lambda p: np.array(p, float))

# ---------------------------------------------------------------------------------------------------- what is accepted


@pytest.mark.parametrize("points", [[(1, 2), (3, 4)], np.array([[1, 2], [3, 4]], np.uint8), ((1.0, 2.0), (3.0, 4.0))])
def test_points_are_any_array_like(points):
    """Lists, tuples and arrays of any number type become float64 (N, 2)."""
    stroke = Stroke(object_id=np.uint16(3), points=points)
    assert stroke.points.dtype == np.float64
    assert stroke.points.tolist() == [[1, 2], [3, 4]]
    assert type(stroke.object_id) is int


def test_a_stroke_owns_its_points():
    """Changing the array handed in doesn't change the stroke, and its own points can't be written."""
    points = np.zeros((2, 2))
    stroke = Stroke(1, points)
    points += 5
    assert not stroke.points.any()
    with pytest.raises(ValueError, match="read-only"):
        stroke.points[0] = 1


def test_strokes_are_equal_by_value():
    """Same object and points: equal, with equal hashes; another object: not."""
    a, b, c = Stroke(1, [(1, 2)]), Stroke(1, [(1.0, 2.0)]), Stroke(2, [(1, 2)])
    assert a == b
    assert hash(a) == hash(b)
    assert a != c
    assert a != "a stroke"
    assert Scribbles(3, [a]) == Scribbles(3, (b,))


@pytest.mark.parametrize(
    ("object_id", "points", "words"),
    [
        (1, [], "without points"),
        (1, np.zeros((0, 2)), "without points"),
        (1, np.zeros((4, 3)), r"\(4, 3\).*\(N, 2\)"),
        (1, [(1, 2), (3,)], "can't be read as numbers"),
        (1, [("a", "b")], "can't be read as numbers"),
        (1, [(1, 2), (np.nan, 3), (4, np.inf)], "2 of 3 points that are not finite"),
        (1, [(0, 0), (5e300, -1e300), (0, 1e12)], r"5e\+300 px; up to 1,000,000,000 are taken"),
        (-1, [(1, 2)], "-1"),
        (65536, [(1, 2)], "65536.*65535"),
        (1.5, [(1, 2)], "1.5"),
        ("cell", [(1, 2)], "'cell'"),
        (float("nan"), [(1, 2)], "nan"),
    ],
)
def test_bad_strokes_are_refused_with_what_was_found(object_id, points, words):
    """What can't be a stroke is an InputError that names the fault."""
    with pytest.raises(InputError, match=words):
        Stroke(object_id, points)


@pytest.mark.parametrize("frame", [-1, 0.5, None, "first", float("nan"), float("inf")])
def test_frames_are_whole_numbers(frame):
    """A frame that is not a whole number from 0 is refused by name."""
    with pytest.raises(InputError, match="whole number"):
        Scribbles(frame, [Stroke(1, [(1, 1)])])


def test_scribbles_hold_strokes_only():
    """Something else among the strokes is refused with its type."""
    with pytest.raises(InputError, match="tuple"):
        Scribbles(0, [(1, [(1, 2)])])


def test_scribbles_name_their_objects():
    """Object ids are ascending, each once, without the background."""
    drawn = Scribbles(np.int64(2), [Stroke(i, [(1, 1)]) for i in (5, 0, 2, 5)])
    assert drawn.object_ids == (2, 5)
    assert drawn.frame == 2
    assert type(drawn.frame) is int


# ---------------------------------------------------------------------------------------------------- clipping


def on_line(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance of each of (N, 2) points to a polyline."""
    starts, steps = line[:-1], np.diff(line, axis=0)
    squares = np.maximum((steps**2).sum(1), 1e-30)
    along = np.clip(((points[:, None] - starts) * steps).sum(-1) / squares, 0, 1)
    return np.linalg.norm(points[:, None] - (starts + along[..., None] * steps), axis=-1).min(1)


@settings(max_examples=200, deadline=None)
@given(lines)
def test_clipping_keeps_what_is_inside(points):
    """The pieces lie on the line and inside the image, and every point of the line inside lies on a piece."""
    pieces = clip_line(points, Box(0, 0, *SHAPE))
    low, high = np.array([-0.5, -0.5]), np.array(SHAPE) - 0.5
    for piece in pieces:
        assert (piece >= low - 1e-9).all()
        assert (piece <= high + 1e-9).all()
        if len(points) > 1:
            assert on_line(piece, points).max() < 1e-6
    dense = densify(points, 0.5)
    inside = dense[((dense > low + 1e-6) & (dense < high - 1e-6)).all(1)]
    if len(inside) and len(points) > 1:
        distance = np.min([on_line(inside, piece) for piece in pieces], axis=0)
        assert distance.max() < 1e-6


@pytest.mark.parametrize("far", [1e5, -1e9, FARTHEST])
def test_lines_from_far_away_cover_no_more_than_the_frame(far):
    """However far outside a line begins, its pieces are within the frame, to a thousandth of a pixel, and few."""
    stroke = Stroke(1, [(far, far / 3), (SHAPE[0] / 2, SHAPE[1] / 2), (far, -far)])
    points = np.concatenate(stroke.pieces(SHAPE))
    assert (points > -0.501).all()
    assert (points < np.array(SHAPE) - 0.499).all()
    assert 0 < len(covered_pixels([stroke], SHAPE)) < 4 * sum(SHAPE)


def test_a_line_that_leaves_and_comes_back_is_two_pieces():
    """Parts outside the image are cut out, not drawn along the border."""
    pieces = clip_line(np.array([(10.0, 10.0), (10.0, 80.0), (20.0, 80.0), (20.0, 10.0)]), Box(0, 0, *SHAPE))
    assert [p.tolist() for p in pieces] == [[[10, 10], [10, 59.5]], [[20, 59.5], [20, 10]]]


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((0, 0), True),
        ((-0.5, -0.5), True),
        ((39.4, 59.4), True),
        ((39.5, 3), False),
        ((3, 60), False),
        ((-1, 3), False),
    ],
)
def test_a_dot_is_inside_or_not(point, inside):
    """One point is a dot: inside the image if its pixel is, else there is nothing."""
    dot = Stroke(1, point)
    assert len(dot.points) == 1
    assert bool(dot.pieces(SHAPE)) == inside
    box = dot.box(SHAPE)
    if inside:
        y, x = (int(np.floor(v + 0.5)) for v in point)
        assert box == Box(y, x, y + 1, x + 1)
    else:
        assert box is None


@settings(max_examples=200, deadline=None)
@given(lines)
@example(np.array([(-19.75, 0.0), (52.5, 0.0)]))  # clipped to a border that rounds outwards
@example(np.array([(39.5, 3.0), (39.5, 9.0)]))
def test_the_box_is_never_empty_and_inside(points):
    """A stroke with a part inside has a box of at least one pixel, inside the image; covered pixels lie in it."""
    stroke = Stroke(1, points)
    box = stroke.box(SHAPE)
    pixels = covered_pixels([stroke], SHAPE)
    if box is None:
        assert not stroke.pieces(SHAPE)
        assert len(pixels) == 0
        return
    assert not box.empty
    assert box.clip(SHAPE) == box
    assert (pixels >= (box.y0, box.x0)).all()
    assert (pixels < (box.y1, box.x1)).all()
    assert len(np.unique(pixels, axis=0)) == len(pixels)


def test_strokes_share_a_box():
    """The box of several strokes holds each of them and skips those outside."""
    strokes = [Stroke(1, [(5, 5), (9, 7)]), Stroke(1, [(20, 30)]), Stroke(2, [(500, 500)])]
    assert strokes_box(strokes, SHAPE) == Box(5, 5, 21, 31)
    assert strokes_box(strokes[2:], SHAPE) is None
    assert strokes_box([], SHAPE) is None


def test_covered_pixels_of_a_diagonal():
    """A diagonal covers its pixels, one each step."""
    assert covered_pixels([Stroke(1, [(2, 2), (5, 5)])], SHAPE).tolist() == [[2, 2], [3, 3], [4, 4], [5, 5]]
    assert covered_pixels([], SHAPE).shape == (0, 2)


@given(lines, st.floats(0.1, 10))
def test_densified_lines_have_no_gaps(points, spacing):
    """Neighbours are at most the spacing apart, all on the line, with its own points kept."""
    dense = densify(points, spacing)
    if len(points) == 1:
        assert np.array_equal(dense, points)
        return
    assert np.linalg.norm(np.diff(dense, axis=0), axis=1).max(initial=0) <= spacing + 1e-9
    assert on_line(dense, points).max() < 1e-6
    for point in points:
        assert np.linalg.norm(dense - point, axis=1).min() < 1e-9


# ---------------------------------------------------------------------------------------------------- rasterising


@pytest.mark.parametrize("side", [32, 64, 128, 640, 5000])
def test_strokes_are_equally_wide_at_every_scale(side):
    """A line through the middle of a region is 3 network pixels wide, however large the region is."""
    region = Box(1000, 1000, 1000 + side, 1000 + side)
    middle = 1000 + side / 2
    plane = rasterise([Stroke(1, [(middle, 900), (middle, 9000)])], region, (64, 64))
    assert plane.dtype == np.float32
    assert set(np.unique(plane)) == {0, 1}
    assert (plane.sum(axis=0) == 3).all()


def test_strokes_are_equally_wide_in_a_distorted_region():
    """In a region twice as wide as high, both an upright and a level line are 3 network pixels wide."""
    region = Box(0, 0, 50, 100)
    assert (rasterise([Stroke(1, [(25, -9), (25, 200)])], region, (64, 64)).sum(axis=0) == 3).all()
    assert (rasterise([Stroke(1, [(-9, 50), (200, 50)])], region, (64, 64)).sum(axis=1) == 3).all()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_rasterised_pixels_lie_where_they_were_drawn(scale):
    """The centre of a frame's pixel lands in the middle of that pixel's cells in the plane."""
    region = Box(10, 20, 42, 52)
    plane = rasterise([Stroke(1, [(14, 30)])], region, (32 * scale, 32 * scale))
    rows, columns = np.nonzero(plane)
    assert abs(rows.mean() - ((14 - 10 + 0.5) * scale - 0.5)) <= 0.5
    assert abs(columns.mean() - ((30 - 20 + 0.5) * scale - 0.5)) <= 0.5


@given(lines, st.sampled_from([(32, 32), (17, 50), (128, 64)]))
@settings(max_examples=150, deadline=None)
def test_rasterised_is_within_half_a_width(points, shape):
    """Every drawn pixel is near the line, and every pixel on the line is drawn, in network pixels."""
    region = Box(-5, 3, 40, 71)
    plane = rasterise([Stroke(1, points)], region, shape)
    scale = np.array(shape) / region.shape
    line = (points + 0.5 - (region.y0, region.x0)) * scale - 0.5
    line = np.concatenate([line, line]) if len(line) == 1 else line
    centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2)
    distance = on_line(centres.astype(float), line).reshape(shape)
    assert not plane[distance > 1.5 + 0.8].any()  # a pixel is drawn from the nearest pixel of the line, up to 0.71 away
    assert plane[distance < 0.5].all()


def test_only_the_region_is_drawn():
    """Strokes outside the region leave it empty; no stroke gives an empty plane."""
    region = Box(10, 10, 20, 20)
    assert not rasterise([Stroke(1, [(30, 30), (39, 50)])], region, (32, 32)).any()
    assert not rasterise([], region, (32, 32)).any()


# ---------------------------------------------------------------------------------------------------- painted scribbles


def parts_of(mask: np.ndarray) -> int:
    """Number of 8-connected parts, by flooding."""
    left = {(int(a), int(b)) for a, b in np.argwhere(mask)}
    count = 0
    while left:
        count, todo = count + 1, [left.pop()]
        while todo:
            y, x = todo.pop()
            near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            todo += near
    return count


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.05, 0.95))
def test_middle_lines_stay_in_the_paint_and_miss_no_part(seed, density):
    """Middle lines run through painted pixels only, step by step, and each painted part has at least one."""
    mask = np.random.default_rng(seed).random((12, 15)) < density
    found = middle_lines(mask)
    drawn = np.zeros_like(mask)
    for line in found:
        assert np.abs(np.diff(line, axis=0)).max(initial=0) <= 1
        drawn[tuple(line.astype(int).T)] = True
    assert not (drawn & ~mask).any()
    assert parts_of(drawn) == parts_of(mask)
    assert sum(map(len, found)) == drawn.sum()


@pytest.mark.parametrize("density", [0.3, 0.6, 0.9, 1.1])
def test_a_filled_object_is_thinned_from_its_border(density):
    """Thinning takes what whole-frame passes take, and looks at no more than the border of what is left."""
    mask = np.random.default_rng(0).random((41, 53)) < density
    expected = np.pad(mask, 1)
    before = None
    while before is None or (before != expected).any():
        before = expected.copy()
        for side in (2, 6, 0, 4):
            x = [np.roll(expected, (-dy, -dx), (0, 1)) for dy, dx in _RING]
            pieces = np.sum([~x[k] & (x[k + 1] | x[(k + 2) % 8]) for k in (0, 2, 4, 6)], axis=0)
            expected &= ~(expected & ~x[side] & (pieces == 1) & (np.sum(x, axis=0) > 1))
    assert np.array_equal(_thin(mask), expected[1:-1, 1:-1])
    filled = np.ones((300, 300), bool)
    tracemalloc.start()
    try:
        _thin(filled)
        assert tracemalloc.get_traced_memory()[1] < 8 * filled.size  # a copy for each neighbour makes it 19
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("width", [1, 2, 3, 8, 15])
def test_the_brush_does_not_matter(width):
    """A line painted with any brush becomes one stroke along its middle."""
    image = np.zeros((60, 80), np.uint8)
    top = 30 - width // 2
    image[top : top + width, 10:70] = 7
    [stroke] = Scribbles.from_labels(4, image).strokes
    assert stroke.object_id == 7
    assert np.abs(stroke.points[:, 0] - (top + (width - 1) / 2)).max() <= 1
    assert np.ptp(stroke.points[:, 1]) >= 60 - 2 * width


def test_painted_background_is_a_background_stroke():
    """The value named as background becomes object 0, all others keep their number."""
    image = np.zeros((20, 20), np.int32)
    image[3, 2:9], image[12, 2:9] = 1, 2
    drawn = Scribbles.from_labels(0, image, background=1)
    assert [s.object_id for s in drawn.strokes] == [BACKGROUND, 2]
    assert drawn.strokes[1].points[:, 0].tolist() == [12] * 7


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((4, 4), np.uint8), "no painted pixel.*16"),
        (np.ones((4, 4)), "2-D float64"),
        (np.ones((2, 4, 4), int), "3-D"),
        (np.full((4, 4), 70000), "70000"),
        (np.full((4, 4), -2), "-2"),
    ],
)
def test_bad_painted_scribbles_are_refused(labels, words):
    """Not a 2-D image of whole numbers, nothing painted, or ids out of range: an error with what was found."""
    with pytest.raises(InputError, match=words):
        Scribbles.from_labels(3, labels)


# ---------------------------------------------------------------------------------------------------- DAVIS JSON


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.lists(st.tuples(st.integers(0, 9), lines), min_size=1, max_size=3)),
        max_size=4,
        min_size=1,
        unique_by=lambda t: t[0],
    )
)
def test_davis_json_goes_there_and_back(frames):
    """Written and read again, also through text, strokes that are somewhere in the frame keep it, object and points."""
    inside = (SHAPE[0] / 2, SHAPE[1] / 2)
    given_ = [Scribbles(f, [Stroke(i, [inside, *line]) for i, line in strokes]) for f, strokes in sorted(frames)]
    data = json.loads(json.dumps(write_davis(given_, (7, *SHAPE), "clip")))
    assert data["sequence"] == "clip"
    assert data["annotated_frame"] == given_[0].frame
    assert len(data["scribbles"]) == 7
    back = read_davis(data, (7, *SHAPE))
    assert [s.frame for s in back] == [s.frame for s in given_]
    for one, two in zip(given_, back, strict=True):
        assert [s.object_id for s in one.strokes] == [s.object_id for s in two.strokes]
        for a, b in zip(one.strokes, two.strokes, strict=True):
            assert np.allclose(a.points, b.points, atol=1e-9)


def test_davis_points_are_x_y_shares(tmp_path):
    """In the file a point is (x, y) with 1 at the last pixel; in a stroke it is (row, col) in pixels."""
    path = tmp_path / "scribbles.json"
    path.write_text(json.dumps({"scribbles": [[], [{"path": [[1, 0], [0.5, 1]], "object_id": 2}]]}))
    [drawn] = read_davis(path, (3, 41, 61))
    assert drawn.frame == 1
    assert drawn.strokes[0].points.tolist() == [[0, 60], [40, 30]]


def test_the_page_of_files_says_how_pixels_become_shares():
    """What the reference divides rows and columns by is what is written, and what comes back as those pixels."""
    page = (Path(__file__).parent.parent / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    height, width, pixel = 41, 61, {"row": 17.0, "col": 45.0}
    shares = []
    for name in ("x", "y"):
        dividend, divisor = re.findall(rf"\*{name}\* is `(\w+) / \((\w+) - 1\)`", page)[0]
        shares.append(pixel[dividend] / ({"height": height, "width": width}[divisor] - 1))
    drawn = Scribbles(0, [Stroke(1, [(pixel["row"], pixel["col"])])])
    assert write_davis([drawn], (1, height, width))["scribbles"][0][0]["path"] == [shares]
    data = {"scribbles": [[{"path": [shares], "object_id": 1}]]}
    assert read_davis(data, (1, height, width)) == [drawn]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[1, 2]", "no list 'scribbles'"),
        ('{"scribbles": 5}', "no list 'scribbles'"),
        ('{"scribbles": []}', "no stroke on any of 0 frames"),
        ('{"scribbles": [[], []]}', "no stroke on any of 2 frames"),
        ('{"scribbles": [[{"path": [[0, 0]]}]]}', "frame 0, stroke 0: it has no 'object_id'; every"),
        ('{"scribbles": [[{}]]}', "frame 0, stroke 0: it has no 'path' and no 'object_id'; every"),
        ('{"scribbles": [[{"path": [[0, 0, 1]], "object_id": 1}]]}', r"frame 0, stroke 0: its 'path'.*\(1, 3\)"),
        ('{"scribbles": [[{"path": [[0, 0, 1], [0, 0, 1]], "object_id": 1}]]}', r"its 'path'.*\(2, 3\)"),
        (
            '{"scribbles": [[{"path": {"x": 1}, "object_id": 1}]]}',
            "frame 0, stroke 0: its 'path' is no list of numbers",
        ),
        ('{"scribbles": [[{"path": [], "object_id": 1}]]}', "frame 0, stroke 0.*without points"),
        ('{"scribbles": [[{"path": [[0, 0]], "object_id": "1"}]]}', "frame 0, stroke 0: .*names object '1'"),
        ('{"scribbles": [[7]]}', "frame 0, stroke 0: it is 7; expected an object"),
        ('{"scribbles": [5]}', "the entry of frame 0 is 5; expected the list"),
        ('{"scribbles": ["ab"]}', "the entry of frame 0 is 'ab'; expected the list"),
        (
            '{"scribbles": [[], [{"path": [[0, 0]], "object_id": 1}, {"path": [[27, 72], [31, 80]], "object_id": 1}]]}',
            "frame 1, stroke 1: .*x from 27 to 31 and y from 72 to 80; x and y must be from 0 to 1",
        ),
        ('{"scribbles": [[],[],[],[{"path": [[0, 0]], "object_id": 1}]]}', r"frame 3.*3 frames"),
    ],
)
def test_bad_davis_files_are_refused(tmp_path, content, words):
    """What is not scribbles for this stack is an InputError that names the file and what was found."""
    path = tmp_path / "strokes.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as caught:
        read_davis(path, (3, *SHAPE))
    assert "strokes.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    """A file that isn't there is an InputError with its path."""
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_davis(tmp_path / "nowhere.json", (3, *SHAPE))


def test_writing_beyond_the_stack_is_refused():
    """Scribbles on a frame that the stack doesn't have are not written."""
    with pytest.raises(InputError, match=r"frame 9.*3 frames"):
        write_davis([Scribbles(9, [Stroke(1, [(1, 1)])])], (3, *SHAPE))
