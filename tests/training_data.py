"""Small corpora for the trainer's tests: tars of documents, of captioned pictures and of captioned videos."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmc4_builder.mmc4_format import docs_stem, write_docs_zip
from mmc4_builder.shards import Format, Sample, sample_key, shard_name, sizes_json, write_shard

WORDS = [
    "red",
    "green",
    "blue",
    "bird",
    "tree",
    "house",
    "river",
    "stone",
    "cloud",
    "light",
    "boat",
    "road",
    "hill",
    "child",
    "dog",
    "cat",
]


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour for each number below 216, 51 apart in at least one channel: JPEG keeps them apart."""
    return 51 * (number % 6), 51 * (number // 6 % 6), 51 * (number // 36 % 6)


def nearest_number(pixels: Any, count: int = 216) -> int:
    """The number whose colour [3, H, W] or [..., 3] pixels have on average: the inverse of `colour_of`."""
    array = np.asarray(pixels, dtype=float)
    mean = array.mean(axis=(1, 2)) if array.shape[0] == 3 else array.reshape(-1, 3).mean(0)
    colours = np.array([colour_of(number) for number in range(count)])
    return int(np.abs(colours - mean).sum(1).argmin())


def picture(number: int, *, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """One colour all over, which `nearest_number` finds again. Size is width, height."""
    out = io.BytesIO()
    Image.new("RGB", size, colour_of(number)).save(out, kind)
    return out.getvalue()


def photograph(seed: int, *, size: tuple[int, int] = (720, 540)) -> bytes:
    """Smooth shapes and some noise: about as hard to decode as a photograph, about as many bytes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(smooth + random.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=85)
    return out.getvalue()


def sentence(seed: int, words: int = 6) -> str:
    drawn = np.random.default_rng(seed).integers(0, len(WORDS), words)
    return " ".join(WORDS[index] for index in drawn).capitalize() + "."


def document(number: int, *, images: int = 2, sentences: int = 5, words: int = 6) -> dict[str, Any]:
    """A released document: picture i belongs to sentence 2 i (modulo their number), with similarity 0.3."""
    places = [2 * image % sentences for image in range(images)]
    similarity = np.full((images, sentences), 0.2)
    for image, place in enumerate(places):
        similarity[image, place] = 0.3
    info = [
        {
            "image_name": f"{number:08x}{image:04x}.jpg",
            "raw_url": f"http://example.com/{number}/{image}.jpg",
            "matched_text_index": place,
            "matched_sim": 0.3,
            "face_detections": None,
        }
        for image, place in enumerate(places)
    ]
    return {
        "url": f"http://example.com/page{number}",
        "text_list": [sentence(100 * number + place, words) for place in range(sentences)],
        "image_info": info,
        "similarity_matrix": similarity.tolist(),
        "could_have_url_duplicate": 0,
    }


def picture_number(document_number: int, image: int) -> int:
    """The colour that `write_documents` gives to a document's picture."""
    return (7 * document_number + image) % 216


def pictures_of(number: int, count: int) -> tuple[bytes, ...]:
    return tuple(picture(picture_number(number, image)) for image in range(count))


def write_documents(
    root: Path, counts: Sequence[int], *, fmt: Format = "mmc4", images: int = 2, sentences: int = 5
) -> Path:
    """root/shards/ with a tar of counts[i] documents each, and sizes.json; returns root, as a build's folder."""
    shards = root / "shards"
    shards.mkdir(parents=True)
    first = 0
    for shard, count in enumerate(counts):
        samples = [
            Sample(
                key=sample_key(shard, position),
                doc=document(first + position, images=images, sentences=sentences),
                images=pictures_of(first + position, images),
            )
            for position in range(count)
        ]
        with (shards / shard_name(shard, fmt)).open("wb") as stream:
            write_shard(stream, samples, fmt)
        first += count
    (shards / "sizes.json").write_text(sizes_json(list(counts), fmt))
    return root


def write_released(root: Path, counts: Sequence[int], *, images: int = 2, missing: Iterable[int] = ()) -> Path:
    """The released corpus as it is used: docs zips, and a folder `images` without those of `missing` documents."""
    (root / "images").mkdir(parents=True)
    first = 0
    for shard, count in enumerate(counts):
        docs = [document(first + position, images=images) for position in range(count)]
        with (root / f"{docs_stem(shard)}.jsonl.zip").open("wb") as stream:
            write_docs_zip(stream, docs_stem(shard), docs)
        for position, doc in enumerate(docs):
            if first + position in set(missing):
                continue
            for info, data in zip(doc["image_info"], pictures_of(first + position, images), strict=True):
                (root / "images" / info["image_name"]).write_bytes(data)
        first += count
    return root


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], *, mtime: float | None = None) -> Path:
    """Any members. With a `mtime` of fractions every member gets a PAX header, as webdataset's writer does it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if mtime is not None:
                info.mtime = mtime
            tar.addfile(info, io.BytesIO(data))
    return path


def pair_members(number: int, *, extension: str = "jpg") -> list[tuple[str, bytes]]:
    """One sample as img2dataset writes it."""
    kind = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension]
    key = f"{number:09d}"
    about = {"url": f"http://example.com/{number}.jpg", "key": key, "status": "success", "caption": sentence(number)}
    return [
        (f"{key}.{extension}", picture(number, kind=kind)),
        (f"{key}.txt", sentence(number).encode()),
        (f"{key}.json", json.dumps(about).encode()),
    ]


def write_pairs(root: Path, counts: Sequence[int]) -> Path:
    """root/00000.tar, ... with counts[i] captioned pictures, one number after the other."""
    first = 0
    for shard, count in enumerate(counts):
        members = [member for number in range(first, first + count) for member in pair_members(number)]
        write_tar(root / f"{shard:05d}.tar", members, mtime=1.5)
        first += count
    return root


def video(numbers: Sequence[int], *, rate: int = 4, size: tuple[int, int] = (64, 48)) -> bytes:
    """An MP4 of len(numbers) seconds that shows colour_of(numbers[s]) in second s."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in numbers:
            pixels = np.empty((size[1], size[0], 3), np.uint8)
            pixels[:] = colour_of(number)
            for _ in range(rate):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def write_videos(root: Path, counts: Sequence[int], *, seconds: int = 3) -> Path:
    """root/00000.tar, ... Video i shows the colours i, i + 1, ... for a second each."""
    first = 0
    for shard, count in enumerate(counts):
        members: list[tuple[str, bytes]] = []
        for number in range(first, first + count):
            clip = video([(number + second) % 216 for second in range(seconds)])
            members += [(f"{number:06d}.mp4", clip), (f"{number:06d}.txt", sentence(number).encode())]
        write_tar(root / f"{shard:05d}.tar", members)
        first += count
    return root


def documents_in(paths: Iterable[Path]) -> list[Mapping[str, Any]]:
    """Every document of some tars, in order, by the builder's own reader."""
    from mmc4_builder.shards import read_shard

    return [sample.doc for path in paths for sample in read_shard(path)]
