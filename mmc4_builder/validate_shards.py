"""Check a data set's training tars: names, members, pictures, sizes.json, and whose documents they hold."""

import io
import json
import re
import tarfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from mmc4_builder import storage
from mmc4_builder.contract import IMAGE_KEYS
from mmc4_builder.findings import Breach, Findings
from mmc4_builder.mmc4_format import FormatError, decode_doc
from mmc4_builder.shards import WIDTHS, Format, Sample, member_name, read_members, shard_name, unpack_sample

Documents = Iterator[Mapping[str, Any] | None]
Member = tuple[tarfile.TarInfo, bytes]
HEX_MEMBER = re.compile(r"[0-9a-f]{32}\.json")
IN_ORDER = "the documents of the docs files, in their order"


def check_shards(folder: str, tars: Sequence[str], documents: Documents, findings: Findings) -> None:
    """Check the tars of these names; `documents` are those of the docs files, None for a line that is no document."""
    paths = {name: storage.join(folder, name) for name in tars}
    fmt = _format_of(paths)
    for name, path in paths.items():
        if not _is_named(name, fmt):
            expected = f"{WIDTHS[fmt]} digits, as in {shard_name(0, fmt)}"
            findings.add(path, "", Breach(kind="shard_name", found=name, expected=expected))
    numbered = {int(name.removesuffix(".tar")): path for name, path in paths.items() if _is_named(name, fmt)}
    check_gap("shard_gap", folder, numbered, findings)
    pairing = _Pairing(documents, findings)
    counts = {name: _check_shard(path, fmt, pairing) for name, path in paths.items()}
    pairing.finish(folder)
    _check_sizes(storage.join(folder, "sizes.json"), counts, findings)


def check_gap(kind: str, folder: str, numbered: Mapping[int, str], findings: Findings) -> None:
    """Numbers run from 0 without a gap; the first that is missing is named."""
    missing = next((number for number in range(len(numbered)) if number not in numbered), None)
    if missing is not None:
        found = f"{PurePosixPath(numbered[max(numbered)]).name} and no number {missing}"
        findings.add(folder, "", Breach(kind=kind, found=found, expected="numbers from 0 without a gap"))


class _Pairing:
    """Holds each document of the shards against the next one of the docs files.

    After a first document that is not the next one every other would differ too, so comparing ends there; it
    does not begin where a file could not be read.
    """

    def __init__(self, documents: Documents, findings: Findings) -> None:
        self.findings = findings
        self._documents = documents
        self._open = True

    def compare(self, path: str, where: str, doc: Mapping[str, Any]) -> None:
        if not self._open:
            return
        try:
            listed = next(self._documents)
        except StopIteration:
            self._lost(path, where, f"{doc.get('url')!r}, which the docs files do not hold")
            return
        if listed is None or _as_listed(listed) == _as_listed(doc):
            return
        if listed.get("url") != doc.get("url"):
            self._lost(path, where, f"{doc.get('url')!r} in the place of {listed.get('url')!r}")
            return
        found = f"another text of document {doc.get('url')!r}"
        self.findings.add(path, where, Breach(kind="shard_documents", found=found, expected=IN_ORDER))

    def finish(self, folder: str) -> None:
        left = sum(1 for _ in self._documents)
        if self._open and left:
            self._lost(folder, "", f"{left} documents fewer")

    def _lost(self, path: str, where: str, found: str) -> None:
        self._open = False
        if not self.findings.counts["unreadable"]:
            self.findings.add(path, where, Breach(kind="shard_documents", found=found, expected=IN_ORDER))


def _as_listed(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    """A shard's document without what the shards stage adds to it: only the released keys of each image."""
    plain = {key: value for key, value in doc.items() if key != "provenance"}
    if images := _images(doc):
        plain["image_info"] = [{key: image[key] for key in IMAGE_KEYS if key in image} for image in images]
    return plain


def _images(doc: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of image_info; none where it is not a list of objects, which the comparison will tell."""
    listed = doc.get("image_info")
    whole = isinstance(listed, list) and all(isinstance(image, dict) for image in listed)
    return listed if whole and listed else []


def _check_shard(path: str, fmt: Format, pairing: _Pairing) -> int:
    """The number of samples of one tar, each checked."""
    findings = pairing.findings
    findings.totals["shards"] += 1
    count = 0
    try:
        with storage.open_read(path) as stream:
            for _, members in groupby(read_members(stream), key=lambda member: member[0].name.partition(".")[0]):
                count += 1
                _check_sample(path, fmt, list(members), pairing)
    except FormatError as error:
        findings.add(path, "", Breach(kind="unreadable", found=str(error), expected="a readable tar"))
    findings.totals["samples"] += count
    findings.file_done()
    return count


def _check_sample(path: str, fmt: Format, members: Sequence[Member], pairing: _Pairing) -> None:
    findings = pairing.findings
    where = members[0][0].name
    for breach in _check_headers(members):
        findings.add(path, where, breach)
    try:
        doc = decode_doc(members[0][1], where=where)
        packed = unpack_sample(where.partition(".")[0], doc)
    except FormatError as error:
        expected = "the sample's document first, as JSON"
        findings.add(path, where, Breach(kind="shard_json", found=str(error), expected=expected))
        return
    for breach in (*_check_provenance(doc), *_check_members(fmt, packed, members)):
        findings.add(path, where, breach)
    pictures = packed.images if fmt == "openflamingo" else [data for _, data in members[1:]]
    for index, data in enumerate(pictures):
        if fault := jpeg_fault(data):
            expected = "a JPEG that can be decoded"
            findings.add(path, where, Breach(kind="jpeg", found=f"image {index}: {fault}", expected=expected))
    pairing.compare(path, where, packed.doc)


def _check_headers(members: Sequence[Member]) -> Iterator[Breach]:
    """Times and owners would make two runs differ."""
    for info, _ in members:
        found = (info.mtime, info.uid, info.gid, info.mode, info.uname, info.gname)
        if found != (0, 0, 0, 0o644, "", ""):
            shown = f"{info.name}: time {info.mtime}, owner {info.uid}:{info.gid}, mode {info.mode:o}"
            yield Breach(kind="shard_header", found=shown, expected="time 0, owner 0:0 without a name, mode 644")


def _check_provenance(doc: Mapping[str, Any]) -> Iterator[Breach]:
    value = doc.get("provenance")
    if not isinstance(value, dict):
        yield Breach(kind="provenance", found=f"a {type(value).__name__}", expected="an object")


def _check_members(fmt: Format, packed: Sample, members: Sequence[Member]) -> Iterator[Breach]:
    """The members of a sample are exactly the document and, in mmc4's layout, the pictures that it lists."""
    found = [info.name for info, _ in members]
    listed = _images(packed.doc)
    if fmt == "openflamingo":
        if len(found) > 1 or not HEX_MEMBER.fullmatch(found[0]):
            yield Breach(kind="shard_members", found=", ".join(found), expected="one <32 hex digits>.json")
        if len(packed.images) != len(listed):
            yield Breach(kind="shard_members", found="no image_base64", expected="one for each image")
        return
    names = [member_name(packed.key, index, len(listed)) for index in range(len(listed))]
    expected = [f"{packed.key}.json", *names]
    if found != expected:
        yield Breach(kind="shard_members", found=", ".join(found), expected=", ".join(expected))
    given = [image.get("member") for image in listed]
    if given != names:
        shown = ", ".join(map(repr, given))
        yield Breach(kind="shard_members", found=f"members {shown} listed", expected=", ".join(names))


def jpeg_fault(data: bytes) -> str | None:
    """Why the bytes are no whole JPEG, or None. Decoding at an eighth of the size reads all the data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                image.draft(None, (image.width // 8, image.height // 8))
                image.load()
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        return f"{type(error).__name__}: {error}" if data else "no bytes"
    return None


def _is_named(name: str, fmt: Format) -> bool:
    return re.fullmatch(rf"[0-9]{{{WIDTHS[fmt]}}}\.tar", name) is not None


def _format_of(names: Collection[str]) -> Format:
    """OpenFlamingo's layout where every name has its nine digits, else the ordinary one."""
    return "openflamingo" if names and all(_is_named(name, "openflamingo") for name in names) else "mmc4"


def _check_sizes(path: str, counts: Mapping[str, int], findings: Findings) -> None:
    found: object
    written = storage.find(path)
    try:
        found = "no such file" if written is None else json.loads(written)
    except ValueError as error:
        found = f"no JSON: {error}"
    if found == counts:
        return
    if isinstance(found, dict):  # only what differs: there may be very many tars
        names = sorted(found.keys() | counts.keys())
        wrong = [name for name in names if found.get(name) != counts.get(name)]
        for name in wrong:
            shown = f"{name}: {found.get(name)}"
            findings.add(path, "", Breach(kind="sizes", found=shown, expected=str(counts.get(name))))
        return
    findings.add(path, "", Breach(kind="sizes", found=str(found), expected=f"{len(counts)} tars by name"))
