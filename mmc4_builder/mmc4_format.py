"""The released MMC4 JSON: one document as a dict, a shard of documents as one zipped JSON-lines file."""

import hashlib
import io
import json
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

MAX_LINE_BYTES = 256 << 20  # of one document; a longer line is refused before it fills the memory
BUFFER_BYTES = 1 << 18
EXTENSIONS = frozenset({"jpg", "jpeg", "png", "gif", "webp", "avif", "bmp", "tif", "tiff"})
# Loaders put these markers into the text themselves and count them. A page that happens to contain one would
# shift every later picture by a place. Upper case reads the same and is no marker to any tokenizer; VILA does
# so too.
MARKERS = (("<image>", "<IMAGE>"), ("<|endofchunk|>", "<|ENDOFCHUNK|>"))


Boxes = tuple[tuple[float, ...], ...]
"""(x1, y1, x2, y2, score) of each face, in px of the stored picture."""


class FormatError(ValueError):
    """A document or file that does not have MMC4's format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedImage:
    """One entry of image_info; the field order is the released key order."""

    image_name: str
    raw_url: str
    matched_text_index: int
    matched_sim: float
    face_detections: Boxes | None = None  # null in every released document seen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatchedDocument:
    """A document whose images are assigned; row i of `similarity` belongs to images[i]."""

    url: str
    sentences: tuple[str, ...]
    images: tuple[MatchedImage, ...]
    similarity: npt.NDArray[np.float32]  # [images, sentences]
    could_have_url_duplicate: bool | None = False  # None leaves the key out, as v1.0 did


def match_images(
    raw_urls: Sequence[str],
    similarity: npt.NDArray[np.float32],
    assignment: npt.NDArray[np.int64],
    faces: Sequence[Boxes | None] | None = None,
) -> tuple[MatchedImage, ...]:
    """The images of one document, named and matched, from similarity [n, m], assignment [n] and faces [n] if known."""
    found = faces or [None] * len(raw_urls)
    matrix = np.asarray(similarity, dtype=np.float32)
    return tuple(
        MatchedImage(
            image_name=name,
            raw_url=url,
            matched_text_index=int(index),
            matched_sim=float(matrix[row, index]),
            face_detections=found[row],
        )
        for row, (name, url, index) in enumerate(zip(image_names(raw_urls), raw_urls, assignment, strict=True))
    )


def to_json(doc: MatchedDocument) -> dict[str, Any]:
    """The document as released: its key order, float32 widened to double, images in sentence order.

    Sentence order keeps OpenFlamingo from swapping pictures: its k-th <image> token stands in sentence order
    but its k-th tensor in the order of image_info. Raises FormatError when the parts contradict each other.
    """
    matrix = np.asarray(doc.similarity, dtype=np.float32)
    _check_parts(doc, matrix)
    order = sorted(range(len(doc.images)), key=lambda row: doc.images[row].matched_text_index)
    out: dict[str, Any] = {
        "url": doc.url,
        "text_list": [escape_markers(sentence) for sentence in doc.sentences],
        "image_info": [_image_json(doc.images[row]) for row in order],
        "similarity_matrix": [matrix[row].tolist() for row in order],
    }
    if doc.could_have_url_duplicate is not None:
        out["could_have_url_duplicate"] = int(doc.could_have_url_duplicate)
    return out


def escape_markers(text: str) -> str:
    """The text with the loaders' markers in upper case: '<image>' -> '<IMAGE>'. Not undone on reading."""
    for marker, harmless in MARKERS:
        text = text.replace(marker, harmless)
    return text


def image_name(raw_url: str, *, attempt: int = 0) -> str:
    """12 hex digits of the URL's sha256, a dot, and the URL's extension as url_extension has it.

    The same URL has the same name everywhere, so one flat folder of images serves all documents. `attempt` >
    0 gives the further names of a URL whose first name is taken.
    """
    salt = f"\0{attempt}" if attempt else ""
    digest = hashlib.sha256((raw_url + salt).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:12]}.{url_extension(raw_url)}"


def image_names(raw_urls: Iterable[str]) -> tuple[str, ...]:
    """A name for each URL of one document, all different.

    48 bits collide by chance once in some thousand million documents, but a page can be built to collide, and
    one URL may come twice. The first keeps its name; a later one takes its next attempt that is free.
    """
    names: dict[str, None] = {}
    for url in raw_urls:
        attempt = 0
        while (name := image_name(url, attempt=attempt)) in names:
            attempt += 1
        names[name] = None
    return tuple(names)


def url_extension(raw_url: str) -> str:
    """The extension of the URL's path, in its own case, if it is a picture's; else 'jpg'."""
    try:
        path = urlsplit(raw_url).path
    except ValueError:
        return "jpg"
    extension = posixpath.splitext(path)[1][1:]
    return extension if extension.lower() in EXTENSIONS else "jpg"


def docs_stem(shard: int, *, no_face: bool = False, core: bool = False) -> str:
    """The released stem, e.g. docs_no_face_shard_7_v3. v2 means the full set and v3 core, not a release."""
    return f"docs{'_no_face' if no_face else ''}_shard_{shard}_v{3 if core else 2}"


def write_docs_zip(stream: IO[bytes], stem: str, docs: Iterable[Mapping[str, Any]]) -> int:
    """Write the documents as the one deflated member `<stem>.jsonl`, a line each; returns their number.

    No newline ends the file. Documents are written as they come. Dates and attributes are fixed and the
    stream is never sought, so that the bytes are the same on every run and on every file system. Raises
    FormatError for NaN and what JSON cannot hold.
    """
    info = zipfile.ZipInfo(f"{stem}.jsonl", date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix, wherever it runs
    info.external_attr = 0o100644 << 16
    count = 0
    with (
        zipfile.ZipFile(_WriteOnly(stream), "w") as archive,
        archive.open(info, "w", force_zip64=True) as member,
    ):
        for doc in docs:
            member.write((b"\n" if count else b"") + encode_doc(doc))
            count += 1
    return count


def encode_doc(doc: Mapping[str, Any]) -> bytes:
    """One line of JSON in the released spelling (the defaults of json.dumps), without a newline."""
    try:
        return json.dumps(doc, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise FormatError(f"document {doc.get('url')!r} cannot be written as JSON: {error}") from error


def read_docs_zip(source: Path | str | IO[bytes]) -> Iterator[dict[str, Any]]:
    """The documents of a .jsonl.zip, one at a time; raises FormatError for a damaged file or line.

    Blank lines are passed over: other tools end a file with a newline.
    """
    for number, line in enumerate(read_docs_lines(source), 1):
        if line:
            yield decode_doc(line, where=f"line {number}")


def decode_doc(line: bytes, *, where: str) -> dict[str, Any]:
    """One line of JSON as a document; raises FormatError, naming `where` it stood, for NaN too."""
    try:
        doc = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON: {error}") from error
    if not isinstance(doc, dict):
        raise FormatError(f"{where} holds a {type(doc).__name__}, expected an object")
    return doc


def read_docs_lines(source: Path | str | IO[bytes]) -> Iterator[bytes]:
    """The raw lines of the zip's first member, cut at the newlines: one at the very end leaves a last b"".

    Raises FormatError for a damaged or empty zip and for a line of more than MAX_LINE_BYTES.
    """
    last = b""
    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
            if not names:
                raise FormatError("the zip is empty, expected one .jsonl member")
            # Through a buffer, readline() takes half the time of the zip's own.
            with io.BufferedReader(cast(io.RawIOBase, archive.open(names[0])), BUFFER_BYTES) as member:
                while line := member.readline(MAX_LINE_BYTES + 1):
                    if len(line) > MAX_LINE_BYTES:
                        raise FormatError(f"a line is longer than {MAX_LINE_BYTES} bytes")
                    yield line.removesuffix(b"\n")
                    last = line
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"the zip cannot be read: {error}") from error
    if last.endswith(b"\n"):
        yield b""


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _image_json(image: MatchedImage) -> dict[str, Any]:
    faces = image.face_detections
    return {
        "image_name": image.image_name,
        "raw_url": image.raw_url,
        "matched_text_index": image.matched_text_index,
        "matched_sim": image.matched_sim,
        "face_detections": None if faces is None else [list(box) for box in faces],
    }


def _check_parts(doc: MatchedDocument, matrix: npt.NDArray[np.float32]) -> None:
    shape = (len(doc.images), len(doc.sentences))
    if matrix.shape != shape:
        raise FormatError(f"{doc.url}: similarity has shape {matrix.shape}, expected {shape} (images, sentences)")
    if len({image.image_name for image in doc.images}) != len(doc.images):
        raise FormatError(f"{doc.url}: two images have one name: take them from image_names()")
    for row, image in enumerate(doc.images):
        index = image.matched_text_index
        if not 0 <= index < shape[1]:
            raise FormatError(f"{doc.url}: image {row} is matched to sentence {index} of {shape[1]}")
        if image.matched_sim != float(matrix[row, index]):
            raise FormatError(f"{doc.url}: image {row} has matched_sim {image.matched_sim}, not its cell of the matrix")


class _WriteOnly:
    """A stream without seek and tell: zipfile then writes sizes behind the data, on every file system."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Nothing: the stream is the caller's to commit or to drop."""
