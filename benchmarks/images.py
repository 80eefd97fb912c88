"""Verify, shrink and hash pictures, beside img2dataset's own decode, resize and encode path.

    python benchmarks/images.py [--rounds 5] [--corpus manuals.warc.gz]

Both get the same bytes, in one thread, with the same limits (150 px, 2:1, 800 px) and the same quality of 90.
img2dataset takes one sha256, as its `compute_hash` does; ours takes two sha256 and a perceptual hash, and
reads every JPEG to its end. The ratio is CPU time over all pictures together, and every class has its own line,
because they differ: most of the gain is in what need not be encoded, or not even be decoded.

The mix is a guess at the web and not a census: many small pictures, few large ones, and half of them icons and
banners that are refused, as a crawl finds them. Its pictures are noise with a photograph's spectrum, always the
same. Photographs as PNG are in it for being the worst case: both inflate and unfilter them with the same
libraries, which is nearly all their time, and ours hashes more. The real pictures of the corpus, where there is
one, take five times as long as the mix; most are drawings as RGBA PNG, which is what img2dataset is slowest
at. So the mix has a line of its own, too.

Before a class is timed its results are compared: same sizes, total bytes, and for pictures that were shrunk the
PSNR against a Lanczos filter on the whole picture. Ours may not lie more than 0.5 dB below the peer's.
The result is for img2dataset as it comes, which encodes every picture anew. A table before it has
`skip_reencode`, with which it keeps JPEGs of up to 800 px as ours does; another has Pillow + imagehash, where
imagehash is installed.
"""

import argparse
import hashlib
import io
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from timing import compare, report, show

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mmc4_builder.images import ImageError, ImageRules, normalise

RULES = ImageRules()
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpora" / "manuals.warc.gz"
Run = Callable[[bytes], bytes | None]


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Noise with a photograph's falling spectrum, the channels alike: 0.2 bytes a pixel at quality 90."""
    random = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = np.hypot(x, y) ** 1.5
    fall[0, 0] = np.inf
    shared = random.normal(size=(height, width))
    planes = []
    for _ in range(3):
        noise = 0.8 * shared + 0.3 * random.normal(size=(height, width))
        plane = np.fft.irfft2(np.fft.rfft2(noise) / fall, (height, width))
        planes.append(plane / plane.std() * 45 + 120)
    return Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, *, progressive: bool = False) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=RULES.quality, progressive=progressive)
    return buffer.getvalue()


MIX = {  # how many of each size
    (4000, 3000): 2,
    (1600, 1200): 6,
    (1024, 768): 12,
    (640, 480): 24,
    (320, 240): 48,
    (728, 90): 24,
    (120, 120): 48,
}


def made() -> dict[str, list[bytes]]:
    """Pictures of every class that the web is full of, always the same ones."""
    classes: dict[str, list[bytes]] = {}
    for number, ((width, height), count) in enumerate(MIX.items()):
        pictures = [photo(width, height, 100 * number + seed) for seed in range(count)]
        name = f"{width}x{height}"
        classes[f"jpeg {name}"] = [encoded(picture, "JPEG") for picture in pictures]
        if width == 640:
            progressive = [encoded(one, "JPEG", progressive=True) for one in pictures[::3]]
            classes[f"jpeg {name} progressive"] = progressive
            classes[f"png {name}"] = [encoded(picture, "PNG") for picture in pictures[::6]]
    return classes


def archived(path: Path) -> list[bytes]:
    """The pictures of a WARC file."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as stream:
        return [
            record.reader.read()
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response)
            if (record.http_headers.get("content-type") or "").startswith("image/")
        ]


def ours(data: bytes) -> bytes | None:
    try:
        return normalise(data, RULES).data
    except ImageError:
        return None


def img2dataset_path(*, skip_reencode: bool) -> Run | None:
    """What img2dataset does with a fetched picture (`Downloader.download_shard`): resize, then hash."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for news of itself on import
    try:
        from img2dataset.resizer import Resizer
    except ImportError:
        return None
    resizer = Resizer(
        image_size=RULES.max_side,
        resize_mode="keep_ratio_largest",
        resize_only_if_bigger=True,
        encode_quality=RULES.quality,
        skip_reencode=skip_reencode,
        min_image_size=RULES.min_side,
        max_image_area=RULES.max_pixels,
        max_aspect_ratio=RULES.max_aspect,
    )

    def run(data: bytes) -> bytes | None:
        stream = io.BytesIO(data)
        stored: bytes | None = resizer(stream)[0]
        if stored is not None:
            stream.seek(0)
            hashlib.sha256(stream.read()).hexdigest()
        return stored

    return run


def pillow_path() -> Run | None:
    """The few lines that most people would write: Pillow, and imagehash for the perceptual hash."""
    try:
        import imagehash
    except ImportError:
        return None

    def run(data: bytes) -> bytes | None:
        opened = Image.open(io.BytesIO(data))
        short, long = sorted(opened.size)
        if short < RULES.min_side or long > RULES.max_aspect * short:
            return None
        keep = opened.format == "JPEG" and long <= RULES.max_side
        image = opened.convert("RGB")
        image.thumbnail((RULES.max_side, RULES.max_side), Image.Resampling.LANCZOS, reducing_gap=None)
        imagehash.phash(image)
        stored = data if keep else encoded(image, "JPEG")
        hashlib.sha256(data).hexdigest()
        hashlib.sha256(stored).hexdigest()
        return stored

    return run


def each(run: Run, pictures: list[bytes]) -> None:
    for data in pictures:
        run(data)


def pixels(data: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def decibels(source: bytes, stored: bytes) -> float:
    """PSNR of a shrunk picture against a Lanczos filter on all of it, on white."""
    seen = pixels(stored)
    whole = Image.open(io.BytesIO(source)).convert("RGBA")
    white = Image.new("RGBA", whole.size, (255, 255, 255, 255))
    reference = Image.alpha_composite(white, whole).convert("RGB")
    error = seen - np.asarray(reference.resize(seen.shape[1::-1], Image.Resampling.LANCZOS))
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def check_fair(pictures: list[bytes], peer: Run, *, may_lose: float, most: int = 24) -> str:
    """Output beside the peer's, so that nobody wins by writing less or worse."""
    kept = []
    for data in pictures:
        mine, theirs = ours(data), peer(data)
        if mine is None or theirs is None:
            if mine is not theirs:
                raise SystemExit("one takes a picture that the other refuses")
            continue
        sides = {max(simplejpeg.decode_jpeg_header(one)[:2]) for one in (mine, theirs)}
        if len(sides) > 1:
            raise SystemExit(f"not the same sizes: {sides}")
        kept.append((data, mine, theirs))
    if not kept:
        return "all refused"
    said = f"bytes {sum(len(mine) for _, mine, _ in kept) / sum(len(theirs) for _, _, theirs in kept):.2f}"
    shrunk = [row for row in kept if max(Image.open(io.BytesIO(row[0])).size) > RULES.max_side][:most]
    if shrunk:
        first, second = (np.mean([decibels(row[0], row[side]) for row in shrunk]) for side in (1, 2))
        if first < second - may_lose:
            raise SystemExit(f"ours is worse: {first:.1f} dB, and the peer's {second:.1f} dB")
        said += f", dB {first:.1f}/{second:.1f}"
    return said


def race(
    classes: Mapping[str, list[bytes]], peer: Run, name: str, *, rounds: int, may_lose: float = 0.5
) -> tuple[float, float]:
    """CPU microseconds a picture, of ours and of the peer, over all classes."""
    taken = {}
    for label, pictures in classes.items():
        fair = check_fair(pictures, peer, may_lose=may_lose)
        runs = {"ours": partial(each, ours, pictures), name: partial(each, peer, pictures)}
        times = compare(runs, rounds=rounds)
        ratio = times[name].cpu / times["ours"].cpu
        show(times, items=len(pictures), label=f"{label} ({fair}) x{ratio:.2f}")
        taken[label] = times["ours"].cpu, times[name].cpu
    made_alone = [pair for label, pair in taken.items() if label.startswith(("jpeg", "png"))]
    for label, pairs in ("the mix", made_alone), ("all classes", list(taken.values())):
        mine, theirs = (sum(pair[side] for pair in pairs) for side in (0, 1))
        print(f"{label}, beside {name}: x{theirs / mine:.2f}", file=sys.stderr)
    count = sum(map(len, classes.values()))
    return 1e6 * mine / count, 1e6 * theirs / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="WARC file with pictures, if it exists")
    args = parser.parse_args()
    classes = made()
    if args.corpus.exists():
        classes[args.corpus.name] = archived(args.corpus)
    if (pillow := pillow_path()) is not None:
        race(classes, pillow, "Pillow + imagehash", rounds=args.rounds, may_lose=4)  # it shrinks by Lanczos
    else:
        print("imagehash is not installed: Pillow + imagehash left out", file=sys.stderr)
    keeping, plain = (img2dataset_path(skip_reencode=skip) for skip in (True, False))
    if keeping is None or plain is None:
        raise SystemExit("img2dataset is not installed: nothing to compare with")
    race(classes, keeping, "img2dataset skip_reencode", rounds=args.rounds)
    mine, theirs = race(classes, plain, "img2dataset", rounds=args.rounds)
    report(
        claim="verify, resize and hash a picture",
        ours=mine,
        peer=theirs,
        peer_name="img2dataset",
        unit="CPU us/picture",
        lower_is_better=True,
    )


if __name__ == "__main__":
    main()
