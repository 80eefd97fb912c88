"""Bytes become one sample: a document with its pictures, or a caption with its picture or video."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mmc4_builder.mmc4_format import FormatError, decode_doc
from train.sequences import Skip
from train.tar_index import split_name

PICTURES = ("jpg", "jpeg", "png", "webp")
VIDEOS = ("mp4", "webm", "mkv", "avi")


class DataError(Exception):
    """A dataset that cannot be trained on; says where it looked, for what, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One document with its pictures, or one caption with its picture or video. None: not there.

    images[i] belongs to doc["image_info"][i]. Bytes may be anything: nothing has been decoded.
    """

    key: str
    doc: Mapping[str, Any] | None = None
    caption: str | None = None
    images: tuple[bytes | None, ...] = ()
    video: bytes | None = None


class Source(Protocol):
    """Random access. `problems`: what was found amiss when it was opened, by reason."""

    problems: Mapping[str, int]

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Raises Skip."""
        ...


def document_sample(key: str, parts: dict[str, bytes]) -> Sample:
    """A document of our layout, or of OpenFlamingo's with base64; raises Skip: no_document, bad_document."""
    if "json" not in parts:
        raise Skip("no_document")
    doc = read_document(parts.pop("json"), key)
    listed = doc.get("image_info")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise Skip("bad_document")
    if any("image_base64" in entry for entry in listed):
        images = tuple(_unpacked(entry.pop("image_base64", None)) for entry in listed)
    else:
        numbered = {int(number): data for name, data in parts.items() if (number := name.split(".")[0]).isdecimal()}
        images = tuple(_own(entry, parts, numbered.get(place)) for place, entry in enumerate(listed))
    return Sample(key=key, doc=doc, images=images)


def read_document(data: bytes, where: str) -> dict[str, Any]:
    try:
        return decode_doc(data, where=where)
    except FormatError as error:
        raise Skip("bad_document") from error


def _own(entry: Mapping[str, Any], parts: Mapping[str, bytes], otherwise: bytes | None) -> bytes | None:
    """The picture that a document names as its member; by number where it names none."""
    named = split_name(name) if isinstance(name := entry.get("member"), str) else None
    return parts.get(named[1]) if named else otherwise


def _unpacked(text: object) -> bytes | None:
    """Bytes of base64; what is there and cannot be read comes as no bytes, to be counted where it is decoded."""
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        return b""


def captioned_sample(key: str, parts: Mapping[str, bytes], *, video: bool) -> Sample:
    """A picture or video with its caption; raises Skip: no_caption, no_picture, no_video."""
    files = VIDEOS if video else PICTURES
    found = next((parts[extension] for extension in files if extension in parts), None)
    if found is None:
        raise Skip("no_video" if video else "no_picture")
    caption = parts.get("txt", b"").decode("utf-8", "replace").strip()
    if not caption and "json" in parts:
        said = read_document(parts["json"], key).get("caption")
        caption = said.strip() if isinstance(said, str) else ""
    if not caption:
        raise Skip("no_caption")
    if video:
        return Sample(key=key, caption=caption, video=found)
    return Sample(key=key, caption=caption, images=(found,))
