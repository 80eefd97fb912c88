"""Columns of the files that the stages leave for one another."""

import pyarrow as pa

SIGNALS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))
IMAGE_REFS = pa.list_(
    pa.struct([("url", pa.string()), ("position", pa.int32()), ("alt", pa.string()), ("caption", pa.string())])
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
# exchange/c4: released C4 documents on their way to the bucket of their URL, and on to the page that has it.
C4_CLAIMS = pa.schema([("key", pa.uint64()), ("timestamp", pa.string()), ("url", pa.string()), ("text", pa.string())])
C4_TEXTS = pa.schema([("row", pa.int32()), ("url", pa.string()), ("text", pa.string())])

# exchange/archive: pictures that the WARC files hold, to the bucket of the host that a page names.
ARCHIVED = pa.schema([("key", pa.uint64()), ("url", pa.string()), *SOURCE])
# exchange/redirects: URLs of pictures that lead elsewhere, to one unit; exchange/aliases: to where they lead.
REDIRECTS = pa.schema([("url", pa.string()), ("target", pa.string())])
ALIASES = pa.schema([("key", pa.uint64()), ("url", pa.string()), ("target", pa.string())])
# exchange/mentions: pictures that documents name, to the bucket of their host.
MENTIONS = pa.schema([("key", pa.uint64()), ("url", pa.string()), ("unit", pa.string()), ("documents", pa.int32())])

# images: one row a distinct URL, with what became of it.
IMAGES = pa.schema(
    [
        ("url", pa.string()),
        ("reason", pa.string()),  # why there is no picture; null where there is one
        ("sha256", pa.string()),  # of the stored JPEG, also its name in the tar
        ("phash", pa.uint64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_sha256", pa.string()),
        ("original_format", pa.string()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("store", pa.string()),  # the tar, relative to the build
        ("store_offset", pa.int64()),
        ("store_length", pa.int64()),
        ("origin", pa.string()),  # archive or live
        ("final_url", pa.string()),
        ("fetched", pa.string()),  # when the bytes were seen: capture time, or time of the request
        ("headers", SIGNALS),
        ("warc", pa.string()),
        ("warc_offset", pa.int64()),
        ("documents", pa.int32()),  # that name this URL
        ("units", pa.list_(pa.string())),  # documents files that name it
    ]
)

# exchange/occurrences and exchange/totals: how many documents show the same picture, wherever it lies.
OCCURRENCES = pa.schema([("key", pa.uint64()), ("unit", pa.string()), ("documents", pa.int64())])
TOTALS = pa.schema([("key", pa.uint64()), ("documents", pa.int64())])


def embeddings(width: int) -> pa.Schema:
    """scores/images: CLIP vectors of one tar of pictures."""
    return pa.schema([("sha256", pa.string()), ("clip", pa.list_(pa.float32(), width))])


def facts(width: int) -> pa.Schema:
    """exchange/facts: everything that was found out about a picture, to each documents file that names it."""
    columns = [(name, IMAGES.field(name).type) for name in FACTS]
    return pa.schema([*columns, ("occurrences", pa.int64()), ("clip", pa.list_(pa.float32(), width))])


FACTS = (
    "url",
    "reason",
    "sha256",
    "phash",
    "width",
    "height",
    "original_width",
    "original_height",
    "store",
    "store_offset",
    "store_length",
    "origin",
    "fetched",
)

# scores/documents: per document its pictures, in DOM order, each with a similarity to every sentence.
SCORED_IMAGE = pa.struct(
    [
        ("url", pa.string()),
        ("position", pa.int32()),
        ("alt", pa.string()),
        *((name, IMAGES.field(name).type) for name in FACTS[1:]),
        ("occurrences", pa.int64()),
        ("similarity", pa.list_(pa.float32())),
    ]
)
SCORED = pa.schema([("row", pa.int32()), ("images", pa.list_(SCORED_IMAGE))])

# interleave: the decision on each picture of each document, and where the bytes of the kept ones lie.
DECISIONS = pa.schema(
    [
        ("row", pa.int32()),  # of the documents file
        ("reason", pa.string()),  # why the document goes; null where it stays
        ("line", pa.int32()),  # of the docs shard; null where the document goes
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
