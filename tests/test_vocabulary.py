"""Words that name a camera move steer the previz; words about the scene do not."""

from __future__ import annotations

import pytest

from dreamontage.generator.models.vocabulary import spoken_camera
from dreamontage.generator.windows import previz_beats
from dreamontage.schemas.montage import Beat, Camera, Montage


@pytest.mark.parametrize(
    ("prompt", "move", "direction"),
    [
        ("slow pan left", "pan", "left"),
        ("the camera pans right over the lake", "pan", "right"),
        ("tilt up to the sky", "tilt", "up"),
        ("Push in on the door", "dolly", "in"),
        ("pull back from the house", "dolly", "out"),
        ("zooming out", "zoom", "out"),
        ("whip pan left", "whip", "left"),
        ("roll clockwise", "roll", "cw"),
        ("push through the window", "push_through", None),
    ],
)
def test_a_move_named_with_its_direction_is_understood(prompt: str, move: str, direction: str | None) -> None:
    camera = spoken_camera(prompt)
    assert camera is not None
    assert (camera.move, camera.direction) == (move, direction)


@pytest.mark.parametrize("prompt", ["", "waves roll in", "a track by the sea", "hands hold a flower", "walk left"])
def test_words_about_the_scene_move_no_camera(prompt: str) -> None:
    assert spoken_camera(prompt) is None


def test_a_typed_move_counts_before_the_words() -> None:
    typed = Camera(move="tilt", direction="up")
    beats = [
        Beat(start_s=0, end_s=1, prompt="pan left", camera=typed),
        Beat(start_s=1, end_s=2, prompt="pan left"),
        Beat(start_s=2, end_s=3, prompt="a lake"),
    ]
    told = previz_beats(Montage(id="m_1", duration_s=3, beats=beats))
    assert [beat.camera for beat in told] == [typed, Camera(move="pan", direction="left"), None]
