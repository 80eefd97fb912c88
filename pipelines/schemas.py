"""Columns of the files that the stages leave for one another."""

import pyarrow as pa

SIGNALS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))
IMAGE_REFS = pa.list_(
    pa.struct([("url", pa.string()), ("position", pa.int32()), ("alt", pa.string()), ("caption", pa.string())])
)
# Opt-out statements about a picture or a page: where each was said, and when (ISO time).
STATEMENTS = pa.list_(
    pa.struct([("name", pa.string()), ("value", pa.string()), ("source", pa.string()), ("seen", pa.string())])
)
SOURCE = [
    ("warc", pa.string()),
    ("offset", pa.int64()),
    ("length", pa.int64()),
    ("digest", pa.string()),
    ("timestamp", pa.string()),
]

# documents/pages: candidate pages of one WARC file, before anything is known of the others.
PAGES = pa.schema(
    [
        ("url", pa.string()),
        ("url_key", pa.uint64()),
        ("lines", pa.list_(pa.string())),
        ("numbers", pa.list_(pa.int32())),  # place of each line among all lines of the page
        ("line_keys", pa.list_(pa.uint64())),
        ("images", IMAGE_REFS),
        ("signals", SIGNALS),
        *SOURCE,
    ]
)

# documents: what MMC4 calls C4 documents, with the pictures of their pages.
DOCUMENTS = pa.schema(
    [
        ("url", pa.string()),
        ("sentences", pa.list_(pa.string())),
        ("images", IMAGE_REFS),
        ("signals", SIGNALS),
        *SOURCE,
    ]
)

# exchange/urls: one row a page, to the bucket of its URL.
URL_CLAIMS = pa.schema([("key", pa.uint64()), ("timestamp", pa.string()), ("unit", pa.string()), ("row", pa.int32())])
# exchange/url_losers: pages of which another capture is kept.
URL_LOSERS = pa.schema([("row", pa.int32())])
# exchange/lines: one row a line of a surviving page, to the bucket of its hash.
LINE_CLAIMS = pa.schema(
    [
        ("key", pa.uint64()),
        ("owner", pa.uint64()),  # hash of the page's URL
        ("unit", pa.string()),
        ("row", pa.int32()),
        ("line", pa.int32()),
    ]
)
# exchange/line_losers: lines that another page keeps.
LINE_LOSERS = pa.schema([("row", pa.int32()), ("line", pa.int32())])
# exchange/previous_urls: pages of which an earlier build has a document; exchange/previous_lines: the lines of all its
# pages that had an address to themselves. exchange/previous_url_losers and previous_line_losers: what loses to them.
PREVIOUS_URLS = pa.schema([("key", pa.uint64())])
PREVIOUS_LINES = pa.schema([("key", pa.uint64()), ("owner", pa.uint64()), ("build", pa.int32())])
# exchange/c4: released C4 documents on their way to the bucket of their URL, and on to the page that has it.
C4_CLAIMS = pa.schema([("key", pa.uint64()), ("timestamp", pa.string()), ("url", pa.string()), ("text", pa.string())])
C4_TEXTS = pa.schema([("row", pa.int32()), ("url", pa.string()), ("text", pa.string())])

# exchange/bands: one row a band of a document's MinHash, to the bucket of its key; exchange/near_losers: documents
# of which another one has nearly the same text.
BANDS = pa.schema([("key", pa.uint64()), ("owner", pa.uint64()), ("unit", pa.string()), ("row", pa.int32())])
NEAR_LOSERS = pa.schema([("row", pa.int32())])

# exchange/host_files and images/hosts: what hosts said in robots.txt and tdmrep.json, and when.
HOST_FILES = pa.schema(
    [
        ("key", pa.uint64()),  # of the host
        ("url", pa.string()),
        ("origin", pa.string()),  # archive (what it said at crawl time) or live
        ("status", pa.int32()),  # 0 where no answer came
        ("reason", pa.string()),  # why there is no body; null where there is one
        ("body", pa.binary()),  # the first 512,000 bytes
        ("seen", pa.string()),
        ("warc", pa.string()),
        ("warc_offset", pa.int64()),
    ]
)
# exchange/pages: URLs of documents, to the bucket of their host; exchange/page_statements: what that host said of them.
PAGE_URLS = pa.schema([("key", pa.uint64()), ("url", pa.string()), ("unit", pa.string()), ("row", pa.int32())])
PAGE_STATEMENTS = pa.schema([("row", pa.int32()), ("statements", STATEMENTS)])

# exchange/archive: pictures that the WARC files hold, to the bucket of the host that a page names.
ARCHIVED = pa.schema([("key", pa.uint64()), ("url", pa.string()), *SOURCE])
# exchange/redirects: URLs of pictures that lead elsewhere, to one unit; exchange/aliases: to where they lead.
REDIRECTS = pa.schema([("url", pa.string()), ("target", pa.string())])
ALIASES = pa.schema([("key", pa.uint64()), ("url", pa.string()), ("target", pa.string())])
# exchange/mentions: pictures that documents name, to the bucket of their host.
MENTIONS = pa.schema([("key", pa.uint64()), ("url", pa.string()), ("unit", pa.string()), ("documents", pa.int32())])

# exchange/imported: pictures in img2dataset's tars, to the bucket of their host.
IMPORTED = pa.schema(
    [
        ("key", pa.uint64()),
        ("url", pa.string()),
        ("reason", pa.string()),  # why img2dataset has none
        ("tar", pa.string()),
        ("offset", pa.int64()),  # of the bytes, not of the member's header
        ("length", pa.int64()),
    ]
)

# images: one row a distinct URL, with what became of it.
IMAGES = pa.schema(
    [
        ("url", pa.string()),
        ("reason", pa.string()),  # why there is no picture; null where there is one
        ("sha256", pa.string()),  # of the stored JPEG, also its name in the tar
        ("phash", pa.uint64()),
        ("detail", pa.float32()),  # how much there is to see; see filters/blank.py
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_sha256", pa.string()),
        ("original_format", pa.string()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("store", pa.string()),  # the tar, relative to the build
        ("store_offset", pa.int64()),
        ("store_length", pa.int64()),
        ("origin", pa.string()),  # archive, live or store
        ("final_url", pa.string()),
        ("fetched", pa.string()),  # when the bytes were seen: capture time, or time of the request
        ("headers", SIGNALS),
        ("statements", STATEMENTS),  # opt-outs, for or against, whether or not a policy minds them
        ("warc", pa.string()),
        ("warc_offset", pa.int64()),
        ("documents", pa.int32()),  # that name this URL
        ("units", pa.list_(pa.string())),  # documents files that name it
    ]
)

# exchange/occurrences and exchange/totals: how many documents show the same picture, wherever it lies.
OCCURRENCES = pa.schema([("key", pa.uint64()), ("unit", pa.string()), ("documents", pa.int64())])
TOTALS = pa.schema([("key", pa.uint64()), ("documents", pa.int64())])
# exchange/frequent and images/frequent.parquet: pictures that many documents show, which near copies count with.
FREQUENT = TOTALS

# scores/faces: what RetinaFace found on each stored picture.
FACE = pa.struct([*((side, pa.int32()) for side in ("x1", "y1", "x2", "y2")), ("score", pa.float32())])
FACES = pa.schema([("sha256", pa.string()), ("faces", pa.list_(FACE))])
# scores/opinions: what the small models and the whole corpus say of each stored picture.
SCORES = pa.schema(
    [
        ("sha256", pa.string()),
        ("occurrences", pa.int64()),  # documents that show it, or nearly it
        ("nsfw", pa.float32()),  # probability; null where no such model was asked
        ("face", pa.float32()),  # probability by the distilled model
        ("faces", pa.list_(FACE)),  # by RetinaFace
        ("evaluation_distance", pa.int32()),  # bits to the nearest picture of an evaluation set
        ("evaluation_similarity", pa.float32()),  # cosine to the nearest
    ]
)
# exchange/opinions: the same, to each documents file that names the picture.
OPINIONS = SCORES.set(0, pa.field("url", pa.string()))


def embeddings(width: int) -> pa.Schema:
    """scores/images: CLIP vectors of one tar of pictures."""
    return pa.schema([("sha256", pa.string()), ("clip", pa.list_(pa.float32(), width))])


def facts(width: int) -> pa.Schema:
    """exchange/facts: what was found out about a picture when it was stored, to each documents file that names it."""
    columns = [(name, IMAGES.field(name).type) for name in FACTS]
    return pa.schema([*columns, ("clip", pa.list_(pa.float32(), width))])


FACTS = (
    "url",
    "reason",
    "sha256",
    "phash",
    "detail",
    "width",
    "height",
    "original_sha256",
    "original_width",
    "original_height",
    "store",
    "store_offset",
    "store_length",
    "origin",
    "fetched",
    "statements",
)

# scores/documents: per document its pictures, in DOM order, each with a similarity to every sentence.
SCORED_IMAGE = pa.struct(
    [
        ("url", pa.string()),
        ("position", pa.int32()),
        ("alt", pa.string()),
        *((name, IMAGES.field(name).type) for name in FACTS[1:]),
        ("similarity", pa.list_(pa.float32())),
    ]
)
SCORED = pa.schema([("row", pa.int32()), ("images", pa.list_(SCORED_IMAGE))])

# interleave: the decision on each picture of each document, and where the bytes of the kept ones lie.
DECISIONS = pa.schema(
    [
        ("row", pa.int32()),  # of the documents file
        ("reason", pa.string()),  # why the document goes; null where it stays
        ("line", pa.int32()),  # its place among the unit's documents; null where the document goes
        (
            "images",
            pa.list_(
                pa.struct(
                    [
                        ("url", pa.string()),
                        ("reason", pa.string()),
                        ("image_name", pa.string()),
                        ("position", pa.int32()),
                        ("alt", pa.string()),
                        ("matched_text_index", pa.int32()),
                        ("matched_sim", pa.float32()),
                        ("best_sim", pa.float32()),
                        ("occurrences", pa.int64()),
                        ("nsfw", pa.float32()),
                        ("face", pa.float32()),
                        ("faces", pa.list_(FACE)),
                        ("sha256", pa.string()),
                        ("phash", pa.uint64()),
                        ("width", pa.int32()),
                        ("height", pa.int32()),
                        ("store", pa.string()),
                        ("store_offset", pa.int64()),
                        ("store_length", pa.int64()),
                        ("origin", pa.string()),
                        ("fetched", pa.string()),
                    ]
                )
            ),
        ),
    ]
)

# optout.parquet: one row a decision on an opt-out statement, whether it refuses or not.
OPTOUT = pa.schema(
    [
        ("subject", pa.string()),  # page or image
        ("page_url", pa.string()),
        ("url", pa.string()),  # of the subject
        ("host", pa.string()),  # of the subject
        ("decision", pa.string()),  # refused, or noted: the policy does not mind it
        ("reason", pa.string()),  # the counter's name where refused
        ("name", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("seen", pa.string()),
    ]
)
