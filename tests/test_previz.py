"""The previz: exact anchors, solved cameras, travel without cuts, and never a frozen picture."""

from __future__ import annotations

import itertools
import json

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dreamontage.generator.previz import Previz, PrevizAnchor, PrevizBeat
from dreamontage.schemas.montage import Camera

Frames = NDArray[np.uint8]
FPS = 24
SIZE = (256, 144)


def painting(seed: int, width: int = 900, height: int = 640) -> Frames:
    """A large textured picture: coloured noise of several sizes with shapes on it."""
    draw = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3), np.float32) + draw.integers(70, 180, 3).astype(np.float32)
    for cells in (3, 9, 30, 90):
        noise = draw.normal(0, 1, (cells, cells * 3 // 2, 3)).astype(np.float32)
        canvas += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(26)
    for _ in range(160):
        centre = (int(draw.integers(width)), int(draw.integers(height)))
        colour = tuple(float(c) for c in draw.integers(0, 255, 3))
        cv2.circle(canvas, centre, int(draw.integers(4, 26)), colour, -1, cv2.LINE_AA)
    return np.asarray(np.clip(canvas, 0, 255), np.uint8)


def seen(
    picture: Frames, x: float, y: float, scale: float = 1.5, angle: float = 0.0, size: tuple[int, int] = SIZE
) -> Frames:
    """What a camera at (x, y) sees: `scale` picture pixels a view pixel, `angle` in radians."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, -sin, x - cos * size[0] / 2 + sin * size[1] / 2],
                       [sin, cos, y - sin * size[0] / 2 - cos * size[1] / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    soft = cv2.GaussianBlur(picture, (0, 0), 0.4 * scale)
    return np.asarray(cv2.warpAffine(soft, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def still(picture: Frames, frame: int, key: str) -> PrevizAnchor:
    return PrevizAnchor(picture[None], frame, key)


def panning_clip(picture: Frames, count: int = 17, pace: float = 3.0) -> Frames:
    """The camera pans right by `pace` view pixels a frame."""
    return np.stack([seen(picture, 320 + 1.5 * pace * i, 320) for i in range(count)])


def steps(frames: Frames) -> NDArray[np.float64]:
    """Mean absolute difference of neighbouring frames."""
    return np.asarray(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3)))


def longest_freeze(frames: Frames) -> float:
    """Seconds of the longest stretch in which no frame differs from the one before by half a grey level."""
    runs = [len(list(group)) for frozen, group in itertools.groupby(steps(frames) < 0.5) if frozen]
    return max(runs, default=0) / FPS


def sharpness(frame: Frames) -> float:
    return float(np.abs(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F)).mean())


def psnr(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def content_shift(a: Frames, b: Frames) -> tuple[float, float]:
    """How far the content went from a to b, in pixels."""
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32) for f in (a, b)]
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(grey[0], grey[1], window)
    return x, y


@pytest.fixture(scope="module")
def pictures() -> list[Frames]:
    return [painting(seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def mixed(pictures: list[Frames]) -> Previz:
    """Head, unmatched gap, clip, matched gap and tail in one shot of 161 frames."""
    one, two = pictures[0], pictures[1]
    clip = panning_clip(two)
    first, last = seen(one, 400, 300), seen(two, 470, 330)
    anchors = [still(first, 24, "one"), PrevizAnchor(clip, 64, "clip"), still(last, 112, "two")]
    beats = [PrevizBeat(0, 20, Camera(move="tilt", direction="up")), PrevizBeat(130, 150, Camera(move="orbit"))]
    return Previz(anchors, beats, 161, SIZE, FPS)


def test_anchor_frames_are_exact_for_stills_and_every_frame_of_a_clip(mixed: Previz) -> None:
    frames, confidence = mixed.window(0, 161)
    for anchor in mixed.anchors:
        assert np.array_equal(frames[anchor.frame : anchor.last + 1], anchor.frames)
        assert (confidence[anchor.frame : anchor.last + 1] == 1).all()


def test_frames_do_not_depend_on_how_the_windows_are_cut(mixed: Previz) -> None:
    whole, sure = mixed.window(0, 161)
    fresh = Previz(mixed.anchors, mixed.beats, 161, SIZE, FPS)
    for start, stop in [(130, 161), (60, 97), (0, 37), (100, 120), (25, 64)]:
        frames, confidence = fresh.window(start, stop)
        assert np.array_equal(frames, whole[start:stop])
        assert np.array_equal(confidence, sure[start:stop])


def test_a_shot_with_every_kind_of_gap_has_no_cut_and_never_freezes(mixed: Previz) -> None:
    frames, confidence = mixed.window(0, 161)
    assert longest_freeze(frames) == 0
    change = steps(frames)
    # A cut stands out from its own neighbourhood, whatever the speed of the gap is.
    for i in range(len(change)):
        around = np.median(change[max(0, i - 4) : i + 5])
        assert change[i] < 2.2 * around + 2
    assert confidence.min() >= 0
    assert confidence.max() <= 1


@pytest.mark.parametrize(("zoom", "roll"), [(1.0, 0.0), (1.35, 0.12)])
def test_the_camera_between_two_views_of_one_picture_is_recovered(
    pictures: list[Frames], zoom: float, roll: float
) -> None:
    n = 16
    truth = np.stack([
        seen(pictures[0], 380 + 140 * u, 300 + 40 * u, 1.5 * zoom**u, roll * u) for u in np.linspace(0, 1, n + 1)
    ])
    beats = [PrevizBeat(0, n, Camera(move="pan", ease="linear"))]
    shot = Previz([still(truth[0], 0, "a"), still(truth[n], n, "b")], beats, n + 1, SIZE, FPS)
    frames, confidence = shot.window(0, n + 1)
    guess = np.mean([psnr(frames[i], truth[i]) for i in range(3, n - 2)])
    fade = np.mean([psnr(truth[0] * (1 - i / n) + truth[n] * (i / n), truth[i]) for i in range(3, n - 2)])
    assert guess > fade + 6
    assert sharpness(frames[n // 2]) > 0.75 * sharpness(truth[n // 2])
    assert confidence[n // 2].mean() > 0.8


def test_what_moves_without_a_camera_is_followed_by_dense_flow(pictures: list[Frames]) -> None:
    def bent(amount: float) -> Frames:
        base = seen(pictures[1], 420, 320, 2.2)
        ys, xs = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.float32)
        away = np.exp(-(((xs - 128) / 50) ** 2 + ((ys - 72) / 36) ** 2)).astype(np.float32)
        return np.asarray(cv2.remap(base, xs - np.float32(amount) * away, ys, cv2.INTER_LINEAR), np.uint8)

    a, b, middle = bent(0), bent(10), bent(5)
    beats = [PrevizBeat(0, 8, Camera(move="hold", ease="linear"))]
    shot = Previz([still(a, 0, "a"), still(b, 8, "b")], beats, 9, SIZE, FPS)
    frames, _ = shot.window(0, 9)
    # The drift that keeps a waiting camera moving is small: compare where the bulge is, after undoing it.
    shift = content_shift(middle, frames[4])
    undo = np.array([[1, 0, -shift[0]], [0, 1, -shift[1]]])
    aligned = cv2.warpAffine(frames[4], undo, SIZE, borderMode=cv2.BORDER_REPLICATE)
    inner = (slice(30, 114), slice(60, 196))
    assert psnr(aligned[inner], middle[inner]) > psnr((a[inner] / 2 + b[inner] / 2), middle[inner]) + 2


def test_where_a_thing_moves_before_a_still_camera_the_camera_stays_and_the_thing_goes(pictures: list[Frames]) -> None:
    ground, face = seen(pictures[0], 420, 320, 2.0), seen(pictures[1], 400, 300)

    def scene(x: int) -> Frames:
        shown, mask = ground.copy(), np.zeros((SIZE[1], SIZE[0]), np.uint8)
        cv2.circle(mask, (x, 72), 40, 255, -1)
        shifted = np.roll(face, x - 128, axis=1)
        shown[mask > 0] = shifted[mask > 0]
        return shown

    n, first, last = 16, scene(122), scene(134)
    frames, _ = Previz([still(first, 0, "a"), still(last, n, "b")], [], n + 1, SIZE, FPS).window(0, n + 1)
    corner, thing = (slice(0, 24), slice(0, 256)), (slice(44, 100), slice(98, 154))
    assert cv2.absdiff(frames[n // 2][corner], ground[corner]).max() <= 4
    truth, fade = scene(128)[thing], first[thing] / 2 + last[thing] / 2
    assert psnr(frames[n // 2][thing], truth) > psnr(fade, truth) + 4
    assert longest_freeze(frames) <= 0.1


@pytest.mark.parametrize("n", [8, 32, 64, 160])
@pytest.mark.parametrize("move", [None, "tilt", "push_through", "roll"])
def test_unrelated_pictures_are_joined_by_sharp_travel_without_cut_or_freeze(
    pictures: list[Frames], n: int, move: str | None
) -> None:
    a, b = seen(pictures[0], 400, 300), seen(pictures[1], 450, 330)
    beats = [] if move is None else [PrevizBeat(0, n, Camera.model_validate({"move": move}))]
    frames, _ = Previz([still(a, 0, "a"), still(b, n, "b")], beats, n + 1, SIZE, FPS).window(0, n + 1)
    change = steps(frames)
    travelling = change[change > 0.5 * change.max()]
    assert change.max() < 2.2 * np.median(travelling)
    assert longest_freeze(frames) == 0
    # A cross-fade loses its detail half-way; a travel keeps it, however far the drift has pushed in by then.
    assert min(sharpness(frame) for frame in frames) > 0.6 * min(sharpness(a), sharpness(b))


def test_travel_goes_in_the_direction_of_the_beat(pictures: list[Frames]) -> None:
    a, b = seen(pictures[0], 400, 300), seen(pictures[1], 450, 330)
    for move, direction, axis, sign in [("pan", "left", 0, 1), ("pan", "right", 0, -1), ("tilt", "up", 1, 1)]:
        beats = [PrevizBeat(0, 32, Camera.model_validate({"move": move, "direction": direction}))]
        frames, _ = Previz([still(a, 0, "a"), still(b, 32, "b")], beats, 33, SIZE, FPS).window(0, 8)
        assert sign * content_shift(frames[5], frames[6])[axis] > 0.5


def test_pan_left_moves_the_content_right(pictures: list[Frames]) -> None:
    picture = seen(pictures[0], 400, 300)
    beats = [PrevizBeat(0, 49, Camera(move="pan", direction="left", amount=0.5))]
    after, _ = Previz([still(picture, 0, "a")], beats, 49, SIZE, FPS).window(0, 49)
    before, _ = Previz([still(picture, 48, "a")], beats, 49, SIZE, FPS).window(0, 49)
    assert content_shift(after[20], after[24])[0] > 4
    assert content_shift(before[40], before[44])[0] > 4


@pytest.mark.parametrize("at", [0, 48, 96])
@pytest.mark.parametrize("size", [SIZE, (144, 256), (192, 192)])
def test_one_picture_alone_is_never_frozen_and_stays_covered(
    pictures: list[Frames], at: int, size: tuple[int, int]
) -> None:
    picture = seen(pictures[2], 420, 320, 1.5, size=size)
    frames, confidence = Previz([still(picture, at, "a")], [], 97, size, FPS).window(0, 97)
    assert frames.shape == (97, size[1], size[0], 3)
    assert longest_freeze(frames) <= 0.3
    assert confidence.mean((1, 2)).min() > 0.9


@pytest.mark.parametrize("n", [4, 16, 40, 96, 240])
def test_the_same_picture_pinned_twice_is_never_frozen(pictures: list[Frames], n: int) -> None:
    picture = seen(pictures[2], 420, 320)
    frames, _ = Previz([still(picture, 0, "a"), still(picture, n, "a")], [], n + 1, SIZE, FPS).window(0, n + 1)
    assert longest_freeze(frames) == 0


@pytest.mark.parametrize("move", ["hold", "pan", "zoom", "dolly", "roll", "orbit", "push_through", "whip"])
def test_no_typed_move_rests(pictures: list[Frames], move: str) -> None:
    picture = seen(pictures[0], 400, 300)
    beats = [PrevizBeat(0, 60, Camera.model_validate({"move": move})), PrevizBeat(60, 97, None)]
    frames, _ = Previz([still(picture, 0, "a")], beats, 97, SIZE, FPS).window(0, 97)
    assert longest_freeze(frames) <= 0.3


def test_a_clip_extended_by_four_seconds_goes_on_at_its_own_speed_and_never_freezes(pictures: list[Frames]) -> None:
    clip = panning_clip(pictures[0])
    frames, _ = Previz([PrevizAnchor(clip, 0, "clip")], [], 17 + 96, SIZE, FPS).window(0, 17 + 96)
    assert longest_freeze(frames) <= 0.3
    own = content_shift(frames[13], frames[15])[0] / 2
    on = content_shift(frames[16], frames[18])[0] / 2
    assert own < -2
    assert on == pytest.approx(own, rel=0.35)


def test_the_camera_enters_a_clip_at_the_clips_own_speed(pictures: list[Frames]) -> None:
    clip = panning_clip(pictures[0])
    first = seen(pictures[1], 420, 320)
    frames, _ = Previz([still(first, 0, "a"), PrevizAnchor(clip, 40, "clip")], [], 57, SIZE, FPS).window(0, 57)
    own = content_shift(frames[41], frames[43])[0]
    entering = content_shift(frames[38], frames[40])[0]
    assert entering == pytest.approx(own, rel=0.35)


def test_uncovered_borders_are_filled_and_carry_no_confidence(pictures: list[Frames]) -> None:
    picture = seen(pictures[0], 400, 300)
    beats = [PrevizBeat(0, 49, Camera(move="pan", direction="right", amount=0.6))]
    frames, confidence = Previz([still(picture, 0, "a")], beats, 49, SIZE, FPS).window(40, 49)
    right, left = slice(200, 256), slice(0, 60)
    assert confidence[-1][:, right].max() < 0.05
    assert confidence[-1][:, left].min() > 0.9
    assert abs(float(frames[-1][:, right].mean()) - float(picture.mean())) < 50
    assert np.abs(np.diff(confidence[-1], axis=1)).max() < 0.35


def test_without_anchors_an_imagined_sky_drifts_without_confidence() -> None:
    frames, confidence = Previz([], [], 97, SIZE, FPS).window(0, 97)
    assert not confidence.any()
    assert longest_freeze(frames) == 0


def test_inputs_are_relative_to_the_window_and_json(pictures: list[Frames]) -> None:
    views = [seen(pictures[0], x, 300) for x in (300, 330, 420, 460)]

    def shot(late: int, new: bool = False) -> Previz:
        anchors = [still(views[i], at + late, f"k{i}") for i, at in enumerate((0, 32, 64))]
        if new:
            anchors.insert(0, still(views[3], 0, "new"))
        beats = [
            PrevizBeat(40 + late, 60 + late, Camera(move="pan")),
            PrevizBeat(70 + late, 90 + late, Camera(move="zoom")),
        ]
        return Previz(anchors, beats, 97 + late, SIZE, FPS)

    before, after, grown = shot(0), shot(24), shot(24, new=True)
    for other, windows in (
        (after, [(0, 40), (36, 70), (64, 97), (80, 97)]), (grown, [(36, 70), (64, 97), (80, 97)])
    ):
        for start, stop in windows:
            was, now = before.inputs(start, stop), other.inputs(start + 24, stop + 24)
            assert json.dumps(was, sort_keys=True) == json.dumps(now, sort_keys=True)
            assert np.array_equal(before.window(start, start + 3)[0], other.window(start + 24, start + 27)[0])
    # The first gap now begins at a still that the camera passes.
    assert before.inputs(0, 32) != grown.inputs(24, 56)


Places = tuple[int, ...]
ROW = (8, 40, 72, 104, 136, 168)


def row(pictures: list[Frames], places: Places, related: bool = True) -> Previz:
    """Stills of one picture along a pan, or of several pictures."""
    views = [seen(pictures[0 if related else i % 3], 300 + 20 * i, 300) for i in range(len(places))]
    return Previz([still(view, at, f"k{i}") for i, (view, at) in enumerate(zip(views, places, strict=True))], [], 220,
                  SIZE, FPS)  # fmt: skip


@pytest.mark.parametrize("related", [True, False])
def test_moving_one_anchor_changes_at_most_two_gaps_on_each_side(pictures: list[Frames], related: bool) -> None:
    one, other = row(pictures, ROW, related), row(pictures, (8, 40, 76, 104, 136, 168), related)
    # The third still moves: its own two gaps change, and the stills at their far ends are passed at another speed.
    for start, stop in [(0, 8), (136, 169), (169, 220)]:
        assert one.inputs(start, stop) == other.inputs(start, stop)
        assert np.array_equal(one.window(start, start + 2)[0], other.window(start, start + 2)[0])
    for start, stop in [(9, 40), (41, 72), (77, 104), (105, 136)]:
        assert one.inputs(start, stop) != other.inputs(start, stop)
    # Unrelated pictures do not pass speed on: only the gaps beside the moved still look different.
    same = [np.array_equal(one.window(at, at + 2)[0], other.window(at, at + 2)[0]) for at in (30, 60, 90, 110)]
    assert same == [not related, False, False, not related]
    moved = row(pictures, (8, 40, 72, 104, 140, 168), related)
    assert one.inputs(169, 220) == moved.inputs(169, 220)
    assert np.array_equal(one.window(180, 182)[0], moved.window(180, 182)[0])


def test_the_middle_of_a_long_gap_does_not_know_the_gaps_beside_it(pictures: list[Frames]) -> None:
    one, other = row(pictures, (0, 32, 152, 184)), row(pictures, (4, 32, 152, 188))
    assert one.inputs(70, 114) == other.inputs(70, 114)
    assert np.array_equal(one.window(70, 114)[0], other.window(70, 114)[0])
    for start, stop in [(33, 50), (60, 90), (110, 150)]:
        assert one.inputs(start, stop) != other.inputs(start, stop)


@pytest.mark.parametrize("seed", range(12))
def test_windows_of_equal_inputs_show_equal_frames(pictures: list[Frames], seed: int) -> None:
    """Two random shots of the same few stills and beats agree wherever their inputs do, and do agree somewhere."""
    draw = np.random.default_rng(seed)
    size = (96, 64)
    views = [seen(pictures[i // 3], 300 + 30 * i, 300, 2.0, size=size) for i in range(6)]
    places = np.cumsum(4 * draw.integers(2, 19, 6))
    beats = [PrevizBeat(int(places[k]), int(places[k + 2]), Camera(move="pan")) for k in draw.permutation(4)[:1]]
    changed = places.copy()
    changed[int(draw.integers(6)):] += 4 * int(draw.integers(1, 4))

    def shot(at: NDArray[np.int64]) -> Previz:
        anchors = [still(view, int(place), f"k{i}") for i, (view, place) in enumerate(zip(views, at, strict=True))]
        return Previz(anchors, beats, int(at[-1]) + 20, size, FPS)

    one, other = shot(places), shot(changed)
    agreed = 0
    for start in range(0, int(places[-1]) + 12, 8):
        for late in {0, int(changed[-1] - places[-1])}:
            if one.inputs(start, start + 8) == other.inputs(start + late, start + late + 8):
                agreed += 1
                assert np.array_equal(one.window(start, start + 8)[0], other.window(start + late, start + late + 8)[0])
    assert agreed


def test_the_camera_passes_a_still_between_two_gaps_at_one_speed(pictures: list[Frames]) -> None:
    # An even acceleration: the way grows with the square of the time, and the gaps are 24 and 16 frames long.
    ways = {0: 0.0, 24: 36.0, 40: 100.0}
    truth = {at: seen(pictures[0], 300 + 1.5 * way, 300) for at, way in ways.items()}
    shot = Previz([still(view, at, str(at)) for at, view in truth.items()], [], 41, SIZE, FPS)
    frames, _ = shot.window(0, 41)
    before, after = (content_shift(frames[a], frames[a + 2])[0] / 2 for a in (22, 24))
    assert before == pytest.approx(-0.125 * 23, abs=0.35)
    assert after == pytest.approx(-0.125 * 25, abs=0.35)
    for at in (8, 16, 32):
        assert abs(content_shift(frames[at], seen(pictures[0], 300 + 1.5 * at * at / 16, 300))[0]) < 2


def test_a_camera_that_turns_back_slows_down_and_does_not_overshoot(pictures: list[Frames]) -> None:
    first, far = seen(pictures[0], 300, 300), seen(pictures[0], 390, 300)
    anchors = [still(first, 0, "a"), still(far, 24, "b"), still(first, 40, "a")]
    frames, _ = Previz(anchors, [], 41, SIZE, FPS).window(0, 41)
    ways = [-content_shift(first, frame)[0] for frame in frames]
    assert max(ways) < 60.5
    assert longest_freeze(frames) <= 0.1


def test_equal_inputs_mean_equal_frames_and_the_shots_end_does_not_matter(pictures: list[Frames]) -> None:
    anchor = still(seen(pictures[0], 400, 300), 16, "a")
    short, long = Previz([anchor], [], 65, SIZE, FPS), Previz([anchor], [], 129, SIZE, FPS)
    assert short.inputs(0, 65) == long.inputs(0, 65)
    assert np.array_equal(short.window(50, 65)[0], long.window(50, 65)[0])
