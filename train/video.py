"""A video file becomes a few frames: one picture a second or so, from a window of it."""

import io
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mmc4_builder.image_decode import Pixels
from train.config import VideosConfig
from train.sequences import Skip

MAX_FRAMES = 4096  # decoded for one sample: the window and what stands before it from the last key frame on
MAX_PIXELS = 4096 * 2304  # of a frame
MAX_SIDE = 512  # px, longer side that frames are scaled to as they leave the decoder
_HALF_A_FRAME = 0.5
# A playlist or a list of files would have the decoder open whatever it names, here or on the network.
_SAFE = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi", "protocol_whitelist": "none"}


def frames(data: bytes, config: VideosConfig, rng: random.Random | None) -> list[Pixels]:
    """`config.frames` pictures [h, w, 3], `1 / config.fps` seconds apart, each the nearest to its time.

    They start anywhere where they still fit, or at the start without `rng`. A shorter video repeats its last picture:
    all videos of a batch have the same number. Raises Skip: bad_video, and video_too_large for frames beyond caps.
    """
    import av

    try:
        with av.open(io.BytesIO(data), "r", options=_SAFE) as container:
            if not container.streams.video or container.streams.video[0].codec_context is None:  # None: no decoder
                raise Skip("bad_video")
            found = _frames(container, container.streams.video[0], config, rng)
    except (av.error.FFmpegError, ValueError, IndexError, OSError, MemoryError) as error:
        raise Skip("bad_video") from error
    if not found:
        raise Skip("bad_video")
    return found + [found[-1]] * (config.frames - len(found))


def _frames(container: Any, stream: Any, config: VideosConfig, rng: random.Random | None) -> list[Pixels]:
    stream.thread_type, stream.thread_count = "NONE", 1
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise Skip("video_too_large")
    length = _seconds(container, stream)
    room = max(0.0, length - (config.frames - 1) / config.fps - _HALF_A_FRAME / config.fps)
    start = rng.uniform(0, room) if rng else 0.0
    first = float((stream.start_time or 0) * stream.time_base)
    if start > 0:
        container.seek(int((first + start) / stream.time_base), stream=stream)  # to the key frame before it
    times = [first + start + number / config.fps for number in range(config.frames)]
    return [_rgb(frame) for frame in nearest(container.decode(stream), times)]


def nearest(decoded: Iterator[Any], times: Sequence[float]) -> Iterator[Any]:
    """For each time, in order, the frame nearest to it; ends with the video. Frames have `time`, which rises."""
    previous: Any = None
    number = 0
    for frame in islice(decoded, MAX_FRAMES):
        if frame.time is None:
            continue
        while number < len(times) and frame.time >= times[number]:
            earlier = previous is not None and times[number] - previous.time < frame.time - times[number]
            yield previous if earlier else frame
            number += 1
        if number == len(times):
            return
        previous = frame
    # The last picture stays until the video ends: it is what is seen at the next time too.
    if previous is not None and number < len(times):
        yield previous


def _seconds(container: Any, stream: Any) -> float:
    """As the file says; 0 where it does not say: then the window is at the start."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return float(container.duration or 0) / 1e6


def _rgb(frame: Any) -> Pixels:
    if frame.width * frame.height > MAX_PIXELS:  # a stream may change its size on the way
        raise Skip("video_too_large")
    scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    pixels: Pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return pixels
