"""Sound under the video: taken in as clean FLAC, laid under as AAC, trimmed and faded; nothing else changes for it."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from agent import Agent
from desk import Desk, frames_of, three_stills
from mcp import Client
from media_files import Place, clip_bytes, nothing_stored, refusal
from numpy.typing import NDArray

from dreamontage.generator.soundtrack import FADE_OUT_S, RATE, Soundtrack
from dreamontage.generator.video import VideoWriter, read_back
from dreamontage.schemas.anchor import Anchor
from dreamontage.schemas.errors import InvalidInput
from dreamontage.schemas.media import Media
from dreamontage.schemas.montage import Montage
from dreamontage.server.app import build_server
from dreamontage.server.checking import check
from dreamontage.server.housekeeping import unpinned_media
from dreamontage.server.store import Studio

SECRET = b"Recorded at home"


def tone(seconds: float, form: str = "wav", codec: str = "pcm_s16le", hertz: float = 440.0) -> bytes:
    """A sine at half loudness with a telling title."""
    file = io.BytesIO()
    at = np.arange(round(seconds * RATE)) / RATE
    wave = (0.5 * np.sin(2 * np.pi * hertz * at)).astype(np.float32)[None]
    with av.open(file, "w", format=form) as container:
        container.metadata["title"] = SECRET.decode()
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def heard(path: Path) -> NDArray[np.float32]:
    """The sound of a file as mono at 48 kHz."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        frames = [*container.decode(audio=0), None]
        return np.concatenate([p.to_ndarray()[0] for frame in frames for p in resampler.resample(frame)])


@pytest.mark.parametrize(
    ("form", "codec", "within_s"),
    [("wav", "pcm_s16le", 1e-4), ("flac", "flac", 1e-4), ("ogg", "libopus", 0.05), ("mp3", "libmp3lame", 0.1),
     ("mp4", "aac", 0.1), ("adts", "aac", 0.1)],
)  # fmt: skip
def test_a_sound_file_is_kept_as_its_sound_alone(place: Place, form: str, codec: str, within_s: float) -> None:
    given = tone(2.0, form, codec)
    (place.root / "song").write_bytes(given)
    media = place.take("song")
    assert (media.kind, media.container, media.sound, media.width) == ("sound", "flac", True, 0)
    assert media.id == f"snd_{media.sha256[:16]}"
    assert media.duration_s == pytest.approx(2.0, abs=within_s)
    kept = place.studio.blob_path(media.id).read_bytes()
    assert kept.startswith(b"fLaC") and SECRET not in kept and b"Lavf" not in kept
    assert np.sqrt(np.mean(heard(place.studio.blob_path(media.id)) ** 2)) == pytest.approx(0.354, abs=0.02)
    assert place.take("song") == media, "the same bytes always get the same id"


def test_what_is_no_whole_sound_is_refused_and_nothing_kept(place: Place) -> None:
    for name, data, expected in (
        ("short.flac", tone(3.0, "flac", "flac")[:40_000], "cut short"),
        ("hollow.wav", b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "damaged sound file"),
        ("hollow.mp3", b"ID3\x04" + bytes(400), "damaged sound file"),
        ("film.ogg", b"OggS\0\2" + bytes(400), "damaged sound file"),
    ):
        (place.root / name).write_bytes(data)
        assert expected in refusal(place, name), name
    assert nothing_stored(place.studio)


def test_the_sound_is_trimmed_and_faded_to_the_video_and_changes_no_segment(desk: Desk, tmp_path: Path) -> None:
    montage = three_stills(desk, (0.0, 2.0, 4.0)).model_copy(update={"duration_s": 4.0})
    silent = desk.render(montage)
    song = tmp_path / "song.flac"
    song.write_bytes(tone(30.0, "flac", "flac"))
    desk.media["snd_1"] = Media(
        id="snd_1", sha256="5" * 64, kind="sound", container="flac", width=0, height=0, duration_s=30, frames=0,
        bytes=1, sound=True,
    )  # fmt: skip
    desk.blobs["snd_1"] = song
    loud = desk.render(montage.model_copy(update={"audio": "snd_1"}), base=silent)

    assert all(segment.reused for segment in loud.report.segments)
    assert [s.fingerprint for s in loud.segments] == [s.fingerprint for s in silent.segments]
    assert np.array_equal(frames_of(loud), frames_of(silent))
    wave = heard(Path(loud.path))
    seconds = loud.report.duration_s
    assert len(wave) / RATE == pytest.approx(seconds, abs=0.03)

    def loudness(start: float, stop: float) -> float:
        return float(np.sqrt(np.mean(wave[round(start * RATE) : round(stop * RATE)] ** 2)))

    fade = min(FADE_OUT_S, seconds / 4)
    assert loudness(1, 2) == pytest.approx(0.354, abs=0.02)
    assert loudness(seconds - fade / 2 - 0.1, seconds - fade / 2 + 0.1) == pytest.approx(0.177, abs=0.02)
    assert loudness(seconds - 0.03, seconds) < 0.02
    with av.open(loud.path) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]
        assert container.streams.audio[0].start_time in (0, None)
    assert b"Lav" not in Path(loud.path).read_bytes()


def test_the_same_pictures_and_sound_give_the_same_bytes_and_a_short_sound_just_ends(tmp_path: Path) -> None:
    (tmp_path / "song.flac").write_bytes(tone(0.4, "flac", "flac"))
    for name in ("a.mp4", "b.mp4"):
        track = Soundtrack(tmp_path / "song.flac", "flac", 1.0)
        with VideoWriter(tmp_path / name, (64, 48), 8, soundtrack=track) as writer:
            for _ in range(8):
                writer.write(np.zeros((1, 48, 64, 3), np.uint8))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert read_back(tmp_path / "a.mp4").frames == 8
    assert len(heard(tmp_path / "a.mp4")) / RATE == pytest.approx(0.4, abs=0.05)


def test_a_sound_cannot_be_pinned(place: Place) -> None:
    from dreamontage.generator.models.catalogue import card
    from dreamontage.generator.planner import plan_montage

    (place.root / "song.wav").write_bytes(tone(1.0))
    song = place.take("song.wav")
    montage = Montage(id="m_1", duration_s=2, anchors=[Anchor(id="a1", media_id=song.id, second=0)])
    with pytest.raises(InvalidInput, match=r"is a sound, which cannot be pinned.*update_montage"):
        plan_montage(montage, {song.id: song}, card("nano"))


@pytest.mark.anyio
async def test_agents_lay_sound_under_a_montage_take_it_away_and_undo_it(studio: Studio, pictures: list[Path]) -> None:
    folder = pictures[0].parent
    (folder / "song.wav").write_bytes(tone(1.0))
    (folder / "talk.mp4").write_bytes(clip_bytes(sound=True))
    async with Client(build_server(studio, roots=[folder])) as client:
        agent = Agent(client)
        made = await agent.call("plan_montage", anchors=[str(pictures[0]), str(pictures[1])], duration_s=4)
        montage = {"montage_id": made["montage_id"]}
        laid = await agent.call("update_montage", **montage, audio="song.wav")
        assert "song.wav" in laid["warnings"][0]
        song = (await agent.call("get_montage", **montage))["montage"]["audio"]
        assert song.startswith("snd_")
        with studio.db.write() as connection:
            connection.execute("UPDATE media SET added_at = 0")
        assert song not in unpinned_media(studio) and not list(check(studio))
        await agent.call("update_montage", **montage, audio="talk.mp4")
        await agent.call("undo_changes", **montage)
        assert (await agent.call("get_montage", **montage))["montage"]["audio"] == song
        await agent.call("update_montage", **montage, audio="")
        assert studio.get_montage(made["montage_id"]).audio is None
        assert studio.replay(made["montage_id"]) == studio.get_montage(made["montage_id"])
        assert "has no sound" in await agent.refused("update_montage", **montage, audio=str(pictures[0]))
        assert "cannot be pinned" in await agent.refused("add_anchors", **montage, anchors=["song.wav"])
        lines = (await agent.call("add_media", sources=["song.wav"]))["media"]
        assert lines == [{"id": song, "kind": "sound", "name": "song.wav", "duration_s": 1.0}]
