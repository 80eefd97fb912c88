"""What the command line asks for, as a configuration and a crawl."""

import argparse
import getpass
import hashlib
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

from filters import ads, faces, nsfw
from filters.ads import AdList
from filters.near_text import NearTextRules
from mmc4_builder import clip, crawl, face_detector, key_lists, storage, transport, weights_file
from mmc4_builder.columnar_index import IndexRules, files_together
from mmc4_builder.fetch_config import FetchConfig
from mmc4_builder.key_lists import KeyList
from mmc4_builder.usage_error import UsageError
from pipelines import previous
from pipelines.config import BUILDS, Build, DocumentsConfig, ImagesConfig, ImageSource, InterleaveConfig, ScoresConfig
from pipelines.interleave import MAX_AD_LIST
from pipelines.plan import STAGES, Crawl

MAX_LIST = 1 << 30  # bytes of a list that the user gives


def choose_stages(asked: str | None) -> tuple[str, ...]:
    """The stages to run, in their order."""
    if asked is None:
        return STAGES
    named = [name.strip() for name in asked.split(",")]
    for name in named:
        if name not in STAGES:
            raise UsageError(f"unknown stage {name!r} in --stages; there are {', '.join(STAGES)}")
    return tuple(name for name in STAGES if name in named)


def configure(args: argparse.Namespace) -> Build:
    """The named configuration with what the flags change of it."""
    is_sample = args.crawl == "sample"
    keys = read_keys(args.opt_out)
    made = BUILDS[args.config or ("sample" if is_sample else "mmc4")](images(args, is_sample, keys))
    scored = scores(args, made.scores, is_sample)
    decided = replace(interleave(args, made.interleave, scored), optout_keys=keys)
    if scored.clip == clip.TINY and not made.name.startswith("sample"):
        print(
            "the tiny CLIP knows only the sample: rules on what it sees are off, and matches mean nothing",
            file=sys.stderr,
        )
        decided = replace(decided, min_similarity=-1.0, min_core_fraction=0.0, max_nsfw=1.0)
    whole = replace(
        made,
        documents=documents(args, made.documents, is_sample),
        scores=scored,
        interleave=decided,
        shards=replace(made.shards, format=args.shard_format),
    )
    return with_previous(whole, args)


def with_previous(build: Build, args: argparse.Namespace) -> Build:
    """The same build on top of earlier ones, where it is asked for."""
    found, notes = previous.find(args.previous, args.output, build)
    for note in notes:
        print(note, file=sys.stderr)
    return replace(build, previous=found)


def documents(args: argparse.Namespace, made: DocumentsConfig, is_sample: bool) -> DocumentsConfig:
    """Stage 1."""
    return replace(
        made,
        c4=find_c4(args.c4),
        bad_words=bad_words(args.bad_words, is_sample),
        crawl_robots=args.crawl_robots,
        near_text=NearTextRules() if args.near_text else None,
    )


def images(args: argparse.Namespace, is_sample: bool, keys: tuple[str, ...]) -> ImagesConfig:
    """Stage 2."""
    source: ImageSource = "store" if args.image_store else args.images or ("archive" if is_sample else "live")
    fetch = FetchConfig(contact=args.contact or default_contact()) if source in ("live", "both") else None
    return ImagesConfig(source=source, fetch=fetch, store=args.image_store, optout_keys=keys)


def scores(args: argparse.Namespace, made: ScoresConfig, is_sample: bool) -> ScoresConfig:
    """Stage 3. Weights that cannot be had are said now, not after a day of fetching."""
    model = args.clip or made.clip
    head = args.nsfw or (nsfw.TINY if model == clip.TINY else made.nsfw)
    named = replace(
        made,
        clip=model,
        nsfw=None if head == "none" else head,
        faces=args.faces or (made.faces if model == clip.TINY else None),
        face_detector=args.face_detector,
        evaluation=args.decontaminate,
    )
    return replace(
        named,
        clip_sha256=weights_file.digest_of_file(model.partition(":")[2]),
        detector_sha256=weights_file.digest_of_file(named.face_detector),
        evaluation_sha256=_listing(named.evaluation) if named.evaluation else "",
        head_sha256s=(weights_file.digest_of_file(named.nsfw), weights_file.digest_of_file(named.faces)),
    )


def interleave(args: argparse.Namespace, made: InterleaveConfig, scored: ScoresConfig) -> InterleaveConfig:
    """Stage 4."""
    if made.drop_faces and not (scored.faces or scored.face_detector):
        raise UsageError(
            "fewer faces by which model? give --faces FILE (--fit-faces makes one), or --face-detector WEIGHTS"
        )
    if scored.faces:
        made = replace(made, max_face=faces.load(scored.faces).threshold)
    if args.ad_list:
        rules = transport.read_bytes(args.ad_list, MAX_AD_LIST)
        ads.load([rules.decode("utf-8", "replace")])  # a missing package, or a web page, is said now
        named = AdList(path=args.ad_list, sha256=hashlib.sha256(rules).hexdigest())
        made = replace(made, ads=replace(made.ads, lists=(named,)))
    return made


def find_weights(scored: ScoresConfig) -> None:
    """Raise, with the remedy, where a model that the build needs cannot be had."""
    clip.find(scored.clip)
    if scored.nsfw:
        nsfw.find(scored.nsfw)
    if scored.face_detector:
        face_detector.find(scored.face_detector)


def read_keys(path: str | None) -> tuple[str, ...]:
    """The keys of a list, in order; none without a list."""
    if path is None:
        return ()
    return tuple(read_list(path))


def read_list(path: str) -> KeyList:
    """A list of domains, URLs and hashes that the user gives."""
    return key_lists.parse(transport.read_bytes(path, MAX_LIST).decode("utf-8"), path)


def _listing(folder: str) -> str:
    """Names and sizes of a folder's files, as one hash."""
    names = storage.names(folder)
    if not names:
        raise UsageError(f"--decontaminate {folder}: there are no files in it")
    sizes = "".join(f"{name}\t{storage.size(storage.join(folder, name))}\n" for name in names)
    return hashlib.sha256(sizes.encode()).hexdigest()


def default_contact() -> str:
    """Somebody must answer for the requests; without a page of theirs, it is the user of this machine."""
    contact = f"mailto:{getpass.getuser()}@{socket.getfqdn()}"
    print(f"no --contact given: hosts will see {contact}", file=sys.stderr)
    return contact


def find_c4(asked: str) -> tuple[str, ...]:
    """The files of released C4, or none for its rules."""
    return () if asked == "rules" else tuple(crawl.expand_inputs([storage.join(asked, "*.json.gz")]))


def bad_words(path: str | None, is_sample: bool) -> tuple[str, ...]:
    """The words themselves travel in the configuration: workers need not reach the file."""
    if path is None:
        from mmc4_builder.sample.special import BAD_WORDS

        return BAD_WORDS if is_sample else ()
    text = transport.read_bytes(path, MAX_LIST).decode("utf-8")
    return tuple(sorted({line.strip().lower() for line in text.splitlines() if line.strip()}))


def with_index(build: Build, args: argparse.Namespace, found: Crawl) -> Build:
    """The same build with the crawl's index, where it is asked for."""
    if not args.index:
        return build
    released = sum(storage.size(path) or 0 for path in build.documents.c4)
    rules = IndexRules(
        parts=tuple(crawl.list_index(found.name, found.root)),
        files_per_unit=files_together(released, len(found.warcs)),
    )
    return replace(build, documents=replace(build.documents, index=rules))


def find_crawl(args: argparse.Namespace) -> Crawl:
    """The WARC files to read."""
    if args.input:
        paths = crawl.expand_inputs(args.input, args.limit)
        return Crawl(name="input", root="", warcs=tuple((path, *_size(path)) for path in paths))
    if args.crawl == "sample":
        return sample_crawl(args.output)
    root = args.crawl_root.rstrip("/")
    paths = crawl.list_crawl(args.crawl, root, limit=args.limit)
    warcs = tuple((path.removeprefix(f"{root}/"), *_size(path)) for path in paths)
    return Crawl(name=args.crawl, root=root, warcs=warcs)


def _size(path: str) -> tuple[str, ...]:
    """A local file that changed is another file."""
    return (str(os.path.getsize(path)),) if storage.is_local(path) else ()


def sample_crawl(output: str) -> Crawl:
    """The sample crawl, written beside what is built of it, once."""
    from mmc4_builder.sample import pack

    if not storage.is_local(output):
        raise UsageError(f"the sample crawl is written beside its build: --output must be a folder, not {output!r}")
    root = Path(output, "crawl")
    names = [pack.warc_path(number) for number in range(pack.WARC_FILES)]
    if not (root / "crawl-data" / pack.CRAWL / "warc.paths.gz").exists():  # written last
        print("writing the sample crawl", file=sys.stderr)
        pack.write_crawl(root)
    return Crawl(name=pack.CRAWL, root=str(root), warcs=tuple((name, *_size(str(root / name))) for name in names))
