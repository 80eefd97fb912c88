"""Training tars: samples of one document and its pictures, in WebDataset's layout or in OpenFlamingo's."""

import base64
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from mmc4_builder.mmc4_format import FormatError, decode_doc, encode_doc

Format = Literal["mmc4", "openflamingo"]
Span = tuple[int, int, int]  # docs shard, first document, document behind the last
WIDTHS: Mapping[Format, int] = {"mmc4": 5, "openflamingo": 9}  # digits of a tar's name
WRITE_BYTES = 1 << 20
READ_BYTES = 1 << 17  # tarfile copies what is left of a block at each read: 1 MB would take 2.7 times as long
MAX_MEMBER_BYTES = 1 << 30  # read_shard holds one member at a time in memory
KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")  # no dot: WebDataset cuts a name at its first one; USTAR holds 100 bytes
JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One document with its pictures: images[i] is the JPEG of doc["image_info"][i]."""

    key: str
    doc: Mapping[str, Any]  # an MMC4 document, plus "provenance"; write_shard adds "member" to each image
    images: tuple[bytes, ...]


def shard_name(shard: int, fmt: Format = "mmc4") -> str:
    """00007.tar, or 000000007.tar for OpenFlamingo. Raises ValueError where the digits do not suffice."""
    width = WIDTHS[fmt]
    if not 0 <= shard < 10**width:
        raise ValueError(f"shard {shard} does not fit the {width} digits of a name: put more documents into a shard")
    return f"{shard:0{width}d}.tar"


def sample_key(shard: int, position: int) -> str:
    """The key of a shard's document, unlike any other of the set; in a shard they sort by position."""
    return f"{shard:05d}{position:06d}"


def member_name(key: str, index: int, count: int) -> str:
    """A picture's tar member: two digits, or as many as the last of `count` needs, so that names sort."""
    return f"{key}.{index:0{max(2, len(str(count - 1)))}d}.jpg"


def hex_key(key: str) -> str:
    """32 hex digits in the place of OpenFlamingo's random uuid4: the same for the same key."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def plan_shards(counts: Sequence[int], per_shard: int) -> list[list[Span]]:
    """Cut the documents of docs shards 0, 1, … (`counts` each) into tars of `per_shard` documents.

    Tar i takes the spans of list i, in order; only the last tar is shorter. Raises ValueError unless
    per_shard >= 1 and no count is negative.
    """
    if per_shard < 1:
        raise ValueError(f"documents per shard must be at least 1, not {per_shard}")
    if any(count < 0 for count in counts):
        raise ValueError(f"a docs shard cannot hold {min(counts)} documents")
    plan: list[list[Span]] = []
    room = 0
    for docs_shard, count in enumerate(counts):
        start = 0
        while start < count:
            if room == 0:
                plan.append([])
                room = per_shard
            stop = min(count, start + room)
            plan[-1].append((docs_shard, start, stop))
            room -= stop - start
            start = stop
    return plan


def sizes_json(counts: Sequence[int], fmt: Format = "mmc4") -> str:
    """The text of sizes.json, as OpenFlamingo and open_clip read it: the number of samples by tar name."""
    return json.dumps({shard_name(shard, fmt): count for shard, count in enumerate(counts)}, indent=1) + "\n"


def write_shard(stream: IO[bytes], samples: Iterable[Sample], fmt: Format = "mmc4") -> int:
    """Write one tar and return its number of samples; same samples, same bytes.

    'mmc4': `key.json`, then `key.00.jpg`, `key.01.jpg`, … 'openflamingo': one `<hex>.json` with every picture
    as base64 inside. Raises FormatError for a key with a dot or used twice, and for pictures that do not fit
    the doc.
    """
    members = _openflamingo_members if fmt == "openflamingo" else _mmc4_members
    seen: set[str] = set()
    # A 1 MB buffer: 80 µs a sample, against 112 by webdataset.TarWriter(mtime=0) and 424 by tarfile's "w|".
    buffer = io.BufferedWriter(stream, WRITE_BYTES)
    try:
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                _check(sample, seen)
                seen.add(sample.key)
                for name, data in members(sample):
                    info = tarfile.TarInfo(name)  # by default time 0, owner 0, mode 0644: a fixed header
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    finally:
        buffer.detach()  # flushes, and leaves the stream open: it is the caller's to commit or to drop
    return len(seen)


def read_shard(source: Path | str | IO[bytes]) -> Iterator[Sample]:
    """The samples of a tar of either layout, in order, one in memory at a time.

    OpenFlamingo's base64 comes back as images, no longer in the doc; an entry without one yields b"" there.
    Raises FormatError for a damaged tar and for a member that stands before its document.
    """
    sample: Sample | None = None
    for member, data in read_members(source):
        key, _, extension = member.name.partition(".")
        if extension == "json":
            if sample:
                yield sample
            sample = unpack_sample(key, decode_doc(data, where=member.name))
        elif sample and key == sample.key:
            sample = replace(sample, images=(*sample.images, data))
        else:
            raise FormatError(f"{member.name} stands before its document")
    if sample:
        yield sample


def unpack_sample(key: str, doc: dict[str, Any]) -> Sample:
    """The document of a JSON member, with the pictures taken out of it where it carries them as base64."""
    listed = doc.get("image_info")
    if not isinstance(listed, list) or not all(isinstance(image, dict) for image in listed):
        return Sample(key=key, doc=doc, images=())
    if not any("image_base64" in image for image in listed):
        return Sample(key=key, doc=doc, images=())
    try:
        images = tuple(base64.b64decode(image.get("image_base64", ""), validate=True) for image in listed)
    except (TypeError, ValueError) as error:  # binascii.Error is a ValueError
        raise FormatError(f"{key}.json: image_base64 cannot be decoded: {error}") from error
    info = [{name: value for name, value in image.items() if name != "image_base64"} for image in listed]
    return Sample(key=key, doc={**doc, "image_info": info}, images=images)


def read_members(source: Path | str | IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The members of a tar with their bytes, in order; raises FormatError for a tar that cannot be read."""
    path, stream = (source, None) if isinstance(source, (str, Path)) else (None, source)
    try:
        with tarfile.open(path, "r|", stream, READ_BYTES, tarinfo=_StrictInfo) as tar:
            for member in tar:
                if not member.isreg() or member.size > MAX_MEMBER_BYTES:
                    raise FormatError(f"{member.name!r} is no plain file of at most {MAX_MEMBER_BYTES} bytes")
                file = tar.extractfile(member)
                yield member, file.read() if file else b""
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"the tar cannot be read: {error}") from error


class _StrictInfo(tarfile.TarInfo):
    """Ends at the end mark alone: tarfile itself stops quietly where a header is cut or spoilt."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_StrictInfo":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the stubs leave it out
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset}") from error


def _mmc4_members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    names = [member_name(sample.key, index, len(sample.images)) for index in range(len(sample.images))]
    listed = zip(sample.doc["image_info"], names, strict=True)
    info = [{**image, "member": name} for image, name in listed]
    yield f"{sample.key}.json", encode_doc({**sample.doc, "image_info": info})
    yield from zip(names, sample.images, strict=True)


def _openflamingo_members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    listed = zip(sample.doc["image_info"], sample.images, strict=True)
    info = [{**image, "image_base64": base64.b64encode(data).decode("ascii")} for image, data in listed]
    yield f"{hex_key(sample.key)}.json", encode_doc({**sample.doc, "image_info": info})


def _check(sample: Sample, seen: set[str]) -> None:
    if not KEY.fullmatch(sample.key):
        raise FormatError(f"key {sample.key!r} must match {KEY.pattern}: a dot would cut it for every reader")
    if sample.key in seen:
        raise FormatError(f"key {sample.key} comes twice: readers would merge the two samples")
    if "is_gpt" in sample.doc:
        raise FormatError(f"{sample.key}: the key 'is_gpt' sends the document down another path of OpenFlamingo")
    listed = len(sample.doc["image_info"])
    if listed != len(sample.images):
        raise FormatError(f"{sample.key} lists {listed} images and carries {len(sample.images)}")
    for index, data in enumerate(sample.images):
        if not data.startswith(JPEG_START):
            raise FormatError(f"image {index} of {sample.key} is no JPEG: it starts with {data[:3]!r}")
