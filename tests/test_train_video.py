"""Frames of small clips that are made here, and of files that are none."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_data import colour_of, nearest_number, video

from train import video as module
from train.config import VideosConfig
from train.sequences import Skip
from train.video import frames, nearest

av = pytest.importorskip("av")

SHORT = video([1, 40])
NUMBERS = (1, 40, 80, 120, 160, 200, 30, 77)


def seen(data: bytes, config: VideosConfig, rng: random.Random | None = None) -> list[int]:
    return [nearest_number(frame.transpose(2, 0, 1)) for frame in frames(data, config, rng)]


def clip(fmt: str, codec: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=fmt) as container:
        stream: Any = container.add_stream(codec, rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in (1, 1, 1, 1, 40, 40, 40, 40, 80, 80, 80, 80):
            pixels = np.empty((48, 64, 3), np.uint8)
            pixels[:] = colour_of(number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize(
    ("config", "wanted"),
    (
        (VideosConfig(frames=3), [1, 40, 80]),
        (VideosConfig(frames=8), [*NUMBERS]),
        (VideosConfig(frames=4, fps=0.5), [1, 80, 160, 30]),
        (VideosConfig(frames=6, fps=2.0), [1, 1, 40, 40, 80, 80]),
        (VideosConfig(frames=11), [*NUMBERS, 77, 77, 77]),
        (VideosConfig(frames=1), [1]),
    ),
)
def test_frames_from_the_start(config: VideosConfig, wanted: list[int]) -> None:
    assert seen(video(NUMBERS), config) == wanted


def test_the_window_is_anywhere_where_it_fits() -> None:
    data = video(NUMBERS)
    found = {tuple(seen(data, VideosConfig(frames=3), random.Random(seed))) for seed in range(30)}
    windows = {NUMBERS[first : first + 3] for first in range(6)}
    assert found <= windows and len(found) >= 4
    again = [seen(data, VideosConfig(frames=3), random.Random(5)) for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize(("fmt", "codec"), (("webm", "libvpx"), ("matroska", "mpeg4"), ("avi", "mpeg4")))
def test_containers(fmt: str, codec: str) -> None:
    assert seen(clip(fmt, codec), VideosConfig(frames=3)) == [1, 40, 80]


def test_large_frames_leave_the_decoder_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SIDE", 32)
    assert [frame.shape for frame in frames(video([3]), VideosConfig(frames=1), None)] == [(24, 32, 3)]
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 47)
    with pytest.raises(Skip, match="video_too_large"):
        frames(video([3]), VideosConfig(), None)


def test_decoding_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAMES", 6)
    assert seen(video(NUMBERS), VideosConfig(frames=4)) == [1, 40, 40, 40]


@pytest.mark.parametrize("cut", (0, 1, 30, 500))
def test_what_is_no_video_is_skipped(cut: int) -> None:
    whole = video([1])
    for data in (whole[:cut], bytes(cut), b"x" * cut):
        with pytest.raises(Skip, match="bad_video"):
            frames(data, VideosConfig(), None)


@pytest.mark.parametrize(
    "text",
    ("ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{}\n#EXT-X-ENDLIST\n"),
    ids=("concat", "playlist"),
)
def test_a_list_of_files_is_not_followed(text: str, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(video([1]))
    with pytest.raises(Skip, match="bad_video"):
        frames(text.format(tmp_path / "secret.mp4").encode(), VideosConfig(), None)


def test_the_nearest_frame_wins() -> None:
    class Frame:
        def __init__(self, time: float | None) -> None:
            self.time = time

    decoded = [Frame(time) for time in (0.0, 0.4, None, 1.1, 1.9, 2.3)]
    assert [frame.time for frame in nearest(iter(decoded), [0.0, 0.7, 0.8, 2.0, 9.0, 10.0])] == [
        0.0,
        0.4,
        1.1,
        1.9,
        2.3,
    ]


@settings(max_examples=40)
@given(at=st.integers(0, 1500), value=st.binary(min_size=1, max_size=40))
def test_damage_is_a_video_or_a_bad_video(at: int, value: bytes) -> None:
    data = bytearray(SHORT)
    data[at : at + len(value)] = value
    try:
        assert len(frames(bytes(data), VideosConfig(frames=4), random.Random(1))) == 4
    except Skip as skip:
        assert skip.reason in {"bad_video", "video_too_large"}
