"""Check a finished data set against MMC4's drop-in contract and say what is wrong where.

The document's own rules are in contract.py, those of the tars in validate_shards.py.
"""

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mmc4_builder import storage
from mmc4_builder.contract import Rules, check_document
from mmc4_builder.findings import Breach, Findings, Problem, Report, format_report
from mmc4_builder.mmc4_format import FormatError, decode_doc, encode_doc, read_docs_lines
from mmc4_builder.progress import Progress
from mmc4_builder.validate_shards import check_gap, check_shards

__all__ = ["Problem", "Report", "format_report", "validate"]

DOCS_FILE = re.compile(r"(docs(?:_no_face)?)_shard_(0|[1-9][0-9]{0,17})_(v[23])\.jsonl\.zip")


def validate(
    root: str | Path, *, min_similarity: float | None = None, limit: int = 20, watched: bool = False
) -> Report:
    """Check the build in `root` (docs/, shards/, shards/sizes.json), or a folder of released files.

    `root` may lie in an object store. A folder without docs/ is taken for a released set: there, gaps in the
    numbers, images out of order and literal markers are known facts and no problems. Everything is read once, one
    document at a time; at most `limit` problems of each kind are kept, all are counted. `watched` shows progress on
    stderr. Raises OSError or StorageError where a file cannot be read at all.
    """
    root = str(root)
    docs, shards = storage.join(root, "docs"), storage.join(root, "shards")
    ours, has_shards = storage.has_folder(docs), storage.has_folder(shards)
    names = storage.names(docs if ours else root)
    tars = [name for name in storage.names(shards) if name.endswith(".tar")]
    files = sum(name.endswith(".zip") for name in names) + len(tars)
    with Progress("validate", files) if watched else nullcontext() as progress:
        findings = Findings(root=root, limit=limit, progress=progress)
        families = _docs_families(docs if ours else root, names, findings, check_gaps=ours)
        rules = Rules(ours=ours, min_similarity=min_similarity)
        streams = [_documents(files, rules, findings) for files in families]
        if has_shards:
            check_shards(shards, tars, streams[0] if streams else iter(()), findings)
        for _ in chain.from_iterable(streams):  # what no shard asked for is checked by reading it
            pass
    return findings.report()


def _docs_families(folder: str, names: Iterable[str], findings: Findings, *, check_gaps: bool) -> list[list[str]]:
    """The docs files by set (docs before docs_no_face, v2 before v3), each in the order of its numbers."""
    families: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        path = storage.join(folder, name)
        if match := DOCS_FILE.fullmatch(name):
            families[match[1], match[3]][int(match[2])] = path
        elif name.endswith(".zip"):
            expected = "docs[_no_face]_shard_<n>_v<2 or 3>.jsonl.zip"
            findings.add(path, "", Breach(kind="docs_name", found=name, expected=expected))
    if not families:
        expected = "docs_shard_<n>_v2.jsonl.zip"
        findings.add(folder, "", Breach(kind="no_documents", found="no docs file", expected=expected))
    ordered = [numbered for _, numbered in sorted(families.items())]
    for numbered in ordered if check_gaps else ():
        check_gap("docs_gap", folder, numbered, findings)
    return [[path for _, path in sorted(numbered.items())] for numbered in ordered]


def _documents(files: Sequence[str], rules: Rules, findings: Findings) -> Iterator[Mapping[str, Any] | None]:
    """Every document of the files in order, checked on the way; None for a line that is no document."""
    for path in files:
        findings.totals["docs files"] += 1
        try:
            with storage.open_read(path) as stream:
                _check_zip(path, stream, findings)
                for number, line in enumerate(read_docs_lines(stream), 1):
                    findings.totals["documents"] += 1
                    yield _check_line(path, number, line, rules, findings)
        except FormatError as error:
            expected = "a readable zip of JSON lines"
            findings.add(path, "", Breach(kind="unreadable", found=str(error), expected=expected))
        findings.file_done()


def _check_zip(path: str, stream: BinaryIO, findings: Findings) -> None:
    """MM-Interleaved opens the member by its name, OpenFlamingo takes the first: there is one, so named."""
    try:
        with zipfile.ZipFile(stream) as archive:
            found = [(info.filename, info.compress_type) for info in archive.infolist()]
    except zipfile.BadZipFile as error:
        raise FormatError(f"the zip cannot be read: {error}") from error
    member = PurePosixPath(path).stem
    if found != [(member, zipfile.ZIP_DEFLATED)]:
        names = ", ".join(f"{name} (method {method})" for name, method in found) or "no member"
        expected = f"{member} (method {zipfile.ZIP_DEFLATED}, deflate) alone"
        findings.add(path, "", Breach(kind="docs_member", found=names, expected=expected))


def _check_line(path: str, number: int, line: bytes, rules: Rules, findings: Findings) -> Mapping[str, Any] | None:
    where = f"line {number}"
    try:
        doc = decode_doc(line, where=where)
        spelled = encode_doc(doc)
    except FormatError as error:
        findings.add(path, where, Breach(kind="json", found=str(error), expected="one JSON object a line"))
        return None
    if spelled != line:
        found = f"{len(line)} bytes, which json.dumps(json.loads(line)) spells as {len(spelled)} others"
        findings.add(path, where, Breach(kind="round_trip", found=found, expected="the same bytes"))
    images = doc.get("image_info")
    findings.totals["images"] += len(images) if isinstance(images, list) else 0
    for breach in check_document(doc, rules):
        findings.add(path, where, breach)
    return doc
