"""The sample crawl: its layout, and its truth held against the rules that the pipeline applies."""

import gzip
import io
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image

from filters import ads, blank, language, optout
from filters.duplicates import near_duplicates
from filters.text import BadWords, CleanPage, clean_lines
from filters.url import reject as reject_url
from mmc4_builder.charset import decode
from mmc4_builder.host_files import HostFile, HostRules
from mmc4_builder.html import parse_page
from mmc4_builder.image_evidence import detail
from mmc4_builder.images import ImageError, StoredImage, normalise
from mmc4_builder.phash import thumbnail
from mmc4_builder.records import Page
from mmc4_builder.sample import bpe, truth, write_crawl
from mmc4_builder.sample.compose import Document, Writer, timestamp
from mmc4_builder.sample.draw import draw_scene
from mmc4_builder.sample.illustrations import ENCODINGS, FAULTS, NO_MENTION
from mmc4_builder.sample.markup import EMPTY_GIF, TAGS, Sheet, Shown, Style
from mmc4_builder.sample.markup import html as page_html
from mmc4_builder.sample.pack import CRAWL, WARC_FILES, responses, warc_path
from mmc4_builder.sample.pictures import payload
from mmc4_builder.sample.refusals import HARMLESS, ROBOTS
from mmc4_builder.sample.scenes import KINDS, LABELS, held_out, random_scene
from mmc4_builder.sample.shapes import SHAPES
from mmc4_builder.sample.special import BAD_WORDS
from mmc4_builder.sample.truth import KEPT, UNDECIDED, Mention, PageTruth, Truth
from mmc4_builder.sample.unrelated import VARIANTS, draw_unrelated
from mmc4_builder.sample.web import HOSTS, STYLES, build
from mmc4_builder.sample.words import describe
from mmc4_builder.sentences import positions_in_sentences, sentence_spans
from mmc4_builder.signals import Statement, header_signals
from mmc4_builder.urls import normalize_url
from mmc4_builder.xmp import data_mining

Archive = dict[str, tuple[int, dict[str, str], bytes]]
BY_URL = ("url_extension", "url_word")
BY_BYTES = (
    "empty", "not_an_image", "unsupported_format", "truncated", "corrupt", "too_small", "bad_aspect",
    "too_many_pixels",
)  # fmt: skip
BY_SIGHT = ("ad_banner", "blank", "too_frequent", "nsfw", "face", "near_duplicate", "low_similarity")
OPT_OUT = (
    "optout_robots", "optout_robots_agent", "optout_content_usage", "optout_header", "optout_tdm", "optout_metadata",
)  # fmt: skip


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crawl")
    write_crawl(root)
    return root


@pytest.fixture(scope="module")
def archive(crawl: Path) -> Archive:
    """URL -> (status, headers, payload); of two captures of a page the last one read."""
    found: Archive = {}
    for number in range(WARC_FILES):
        with (crawl / warc_path(number)).open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                url = record.headers["WARC-Target-URI"]
                assert record.http_headers is not None
                headers = {name.lower(): value for name, value in record.http_headers.asdict().items()}
                found[url] = (record.http_headers.status_code, headers, record.reader.read())
    return found


def answer(url: str, archive: Archive) -> bytes | None:
    """What a client that follows redirects is given; None for a failure."""
    for _ in range(5):
        status, headers, body = archive.get(url, (404, {}, b""))
        if status == 200:
            return body
        url = headers.get("location", "")
    return None


@pytest.fixture(scope="module")
def stored(archive: Archive) -> dict[str, StoredImage | str]:
    """Picture URL -> what the image stage makes of it, or its reason."""
    found: dict[str, StoredImage | str] = {}
    for _, mention in truth().mentions():
        if mention.url in found:
            continue
        data = answer(mention.url, archive)
        try:
            found[mention.url] = reject_url(mention.url) or ("missing" if data is None else normalise(data))
        except ImageError as error:
            found[mention.url] = error.reason
    return found


def parsed(document: Document) -> Page:
    text, _ = decode(document.body, dict(document.headers)["Content-Type"])
    return parse_page(text, document.truth.url)


def test_layout(crawl: Path) -> None:
    lines = gzip.decompress((crawl / "crawl-data" / CRAWL / "warc.paths.gz").read_bytes()).decode().split("\n")
    assert lines.pop() == "" and len(lines) == WARC_FILES
    for line in lines:
        assert re.match(r"^crawl-data/([^/]+)/segments/([^/]+)/warc/CC-MAIN-\d{14}-\d{14}-\d{5}\.warc\.gz$", line)
        assert (crawl / line).stat().st_size > 1_000_000


def test_size() -> None:
    pages, mentions = truth().pages, list(truth().mentions())
    assert len(pages) >= 200 and len(HOSTS) == 25
    assert sum(bool(m.sentence) and m.verdict == KEPT for _, m in mentions) >= 600
    assert {page.verdict for page in pages} == {
        KEPT, "no_images", "too_few_sentences", "lorem_ipsum", "curly_bracket", "not_english", "bad_words",
        "duplicate_url", "not_html", "no_images_left", "optout_header", "optout_meta", "optout_tdm",
        "optout_robots_agent",
    }  # fmt: skip
    reasons = {"missing", "document_dropped", *BY_URL, *BY_BYTES, *BY_SIGHT, *OPT_OUT}
    assert {m.verdict for _, m in mentions} == {KEPT, *reasons} - {"face"}
    assert {m.verdict for _, m in truth(faces=False).mentions()} == {KEPT, *reasons}
    assert {fault.verdict for fault in FAULTS.values()} <= {NO_MENTION, *reasons}
    labels = Counter(m.label for _, m in mentions)
    assert labels["face"] >= 20 and labels["nsfw_standin"] >= 20


def test_same_bytes_every_time() -> None:
    again = build.__wrapped__()
    assert again == build() and again is not build()
    one, two = (list(responses(web, 1)) for web in (build(), again))
    assert one == two


@pytest.mark.parametrize("page", truth().kept(), ids=lambda page: page.url.partition("//")[2])
def test_kept_page_is_consistent(page: PageTruth) -> None:
    assert 8 <= len(page.sentences) <= 40
    assert any(m.verdict == KEPT for m in page.mentions)
    for mention in page.mentions:
        assert 0 <= mention.position <= len(page.sentences)
        assert not mention.sentence or page.sentences.count(mention.sentence) == 1
        assert not mention.sentence or mention.verdict in (KEPT, "missing", "nsfw", *OPT_OUT)
    positions = [m.position for m in page.mentions]
    assert positions == sorted(positions)


def test_no_sentence_occurs_twice() -> None:
    said = Counter(sentence for page in truth().pages for sentence in page.sentences)
    assert said.most_common(1)[0][1] == 1
    assert all(len(s.split()) >= 5 and s.endswith(".") and s[0].isupper() for s in said)


def test_repeated_lines_are_repeated() -> None:
    lines = Counter(line for page in truth().pages for line in page.repeated)
    assert len(lines) == len(HOSTS) and min(lines.values()) >= 8


@pytest.mark.parametrize("document", build().documents, ids=lambda document: document.truth.url.partition("//")[2])
def test_text_rules_agree(document: Document) -> None:
    """C4's rules on the page's lines give the verdict, the sentences and the places of the truth."""
    page = document.truth
    if page.verdict == "not_html":
        assert not dict(document.headers)["Content-Type"].startswith("text/html")
        return
    clean = clean_lines(parsed(document).lines)
    if not isinstance(clean, CleanPage):
        assert clean == page.verdict
        return
    text = "\n".join(clean.lines)
    verdict = language.reject(language.score(text)) or BadWords(BAD_WORDS).reject(text)
    if page.verdict in ("duplicate_url", "no_images", "no_images_left", KEPT) or page.verdict.startswith("optout_"):
        assert verdict is None
    else:
        assert verdict == page.verdict
    if page.sentences:
        spans = sentence_spans(text)
        assert tuple(text[start:stop] for start, stop in spans) == page.sentences + page.repeated
        found = [image.position for image in parsed(document).images]
        assert positions_in_sentences(clean.lines, clean.indices, found, spans) == [m.position for m in page.mentions]


@pytest.mark.parametrize(
    "document",
    [document for document in build().documents if document.truth.mentions],
    ids=lambda document: document.truth.url.partition("//")[2],
)
def test_every_picture_is_found_in_the_markup(document: Document) -> None:
    page = parsed(document)
    assert [(i.url, i.alt) for i in page.images] == [(m.url, m.alt) for m in document.truth.mentions]
    assert header_signals(document.headers) + page.signals == document.truth.signals


def test_second_captures() -> None:
    captures = defaultdict(list)
    for page in truth().pages:
        captures[normalize_url(page.url)].append(page)
    several = [sorted(pages, key=lambda page: page.timestamp) for pages in captures.values() if len(pages) > 1]
    assert len(several) == 5
    for older, newer in several:
        assert (older.verdict, newer.verdict) == ("duplicate_url", KEPT)


def of_verdict(*verdicts: str) -> list[Mention]:
    found = {m.url: m for _, m in truth().mentions() if m.verdict in verdicts}
    return sorted(found.values(), key=lambda m: m.url)


@pytest.mark.parametrize("verdict", [*BY_URL, *BY_BYTES, "missing"])
def test_image_stage_agrees(verdict: str, stored: dict[str, StoredImage | str]) -> None:
    mentions = of_verdict(verdict)
    assert mentions
    assert {m.url: stored[m.url] for m in mentions} == {m.url: verdict for m in mentions}


def test_other_pictures_are_sound(stored: dict[str, StoredImage | str]) -> None:
    for mention in of_verdict(KEPT, "document_dropped", *BY_SIGHT, *OPT_OUT):
        picture = stored[mention.url]
        assert isinstance(picture, StoredImage), (mention.url, picture)
        assert max(picture.width, picture.height) <= 800


@pytest.mark.parametrize("known", [truth(), truth(faces=False)], ids=["faces", "without faces"])
def test_hash_finds_near_duplicates_and_nothing_else(known: Truth, stored: dict[str, StoredImage | str]) -> None:
    """Among the pictures that nothing speaks against but what stands beside them."""
    for page in known.pages:
        left = [(m, stored[m.url]) for m in page.mentions if m.verdict in UNDECIDED]
        sound = [(m, p) for m, p in left if isinstance(p, StoredImage)]
        assert len(sound) == len(left)
        pixels = [p.original_width * p.original_height for _, p in sound]
        for distance in (5, 10):  # MMC4 and its core subset
            found = near_duplicates([p.phash for _, p in sound], pixels=pixels, max_distance=distance)
            marked = [m.verdict == "near_duplicate" for m, _ in sound]
            assert [original is not None for original in found] == marked, page.url


def test_ads_and_blanks_are_those_that_the_rules_name(stored: dict[str, StoredImage | str]) -> None:
    for page, mention in truth().mentions():
        picture = stored[mention.url]
        if mention.verdict in ("near_duplicate", *OPT_OUT) or not isinstance(picture, StoredImage):
            continue
        ad = ads.reject(mention.url, page.url, picture.original_width, picture.original_height)
        grey = Image.open(io.BytesIO(picture.data)).convert("L")
        reason = ad or blank.reject(detail(thumbnail(grey)))
        assert (reason or KEPT) == (mention.verdict if mention.verdict in ("ad_banner", "blank") else KEPT), mention.url


def test_same_bytes(archive: Archive, stored: dict[str, StoredImage | str]) -> None:
    pairs = truth().duplicate_of
    assert len(pairs) >= 15
    for copy, original in pairs.items():
        assert archive[copy][2] == archive[original][2]
    ordinary = Counter(
        p.sha256
        for url, p in stored.items()
        if isinstance(p, StoredImage) and url not in {m.url for m in of_verdict("too_frequent")}
    )
    assert max(ordinary.values()) <= 2


def test_frequent_pictures(stored: dict[str, StoredImage | str]) -> None:
    """Two of them; of one there are copies, too few to be frequent, that only a near look counts with it."""
    shown: Counter[tuple[str, int]] = Counter()
    for _, mention in truth().mentions():
        picture = stored[mention.url]
        if mention.verdict == "too_frequent" and isinstance(picture, StoredImage):
            shown[picture.sha256, picture.phash] += 1
    (one, many), (other, times), *near = shown.most_common()
    assert many > 10 and times > 10
    assert len(near) == 3
    for (_, phash), count in near:
        assert count == 1 and sorted(((phash ^ h).bit_count() for _, h in (one, other)))[0] in range(1, 6)
    assert (one[1] ^ other[1]).bit_count() > 20


def test_every_encoding_is_kept_somewhere() -> None:
    files = {file.url: file for file in build().pictures}
    kept = [files[m.url] for m in of_verdict(KEPT) if m.url in files]
    assert {*ENCODINGS, "jpeg", "png"} <= {file.encoding for file in kept}
    assert any(max(file.size) >= 6000 for file in kept)
    assert {301, 302, 307, 308} & {file.status for file in kept}


def test_pages_that_refuse() -> None:
    own = {page.verdict: page for page in truth().pages if page.verdict.startswith("optout_")}
    assert own["optout_header"].signals[0][0] == "header:x-robots-tag"
    assert own["optout_meta"].signals[0][0] == "meta:robots"
    assert own["optout_tdm"].signals == (("header:tdm-reservation", "1"),)
    assert own["optout_robots_agent"].host_says[0].signal == ("robots:CCBot", "Disallow: /members/")
    for page in truth().pages:
        dropped = [m.verdict == "document_dropped" for m in page.mentions]
        assert any(dropped) == page.verdict.startswith("optout_")
        assert not any(m.verdict == KEPT for m in page.mentions) or page.verdict == KEPT


@pytest.mark.parametrize("verdict", OPT_OUT)
def test_pictures_that_are_refused(verdict: str, archive: Archive) -> None:
    """Whoever refuses can be read where the statement says."""
    for mention in of_verdict(verdict):
        (said,) = mention.statements
        status, headers, body = archive[said.source]
        kind, _, field = said.name.partition(":")
        assert status == 200
        if kind == "header":
            assert headers[field] == said.value
        elif kind == "xmp":
            assert data_mining(body) == said.value
        elif kind == "robots":
            rule = said.value.rpartition(" ")[2]  # ends with a path, or is a preference that ends a line
            assert f"{rule}\n" in body.decode() and said.source.endswith("/robots.txt")
        else:
            assert kind == "tdmrep" and '"/img/reserved/*"' in body.decode()


@pytest.fixture(scope="module")
def rules(archive: Archive) -> dict[str, HostRules]:
    """Scheme and host -> what it says in its files."""
    found: dict[str, dict[str, HostFile]] = defaultdict(dict)
    for notice in build().notices:
        root, _, name = notice.url.rpartition("/.well-known/" if notice.url.endswith(".json") else "/")
        body = archive[notice.url][2]
        found[root][name] = HostFile(url=notice.url, status=200, reason=None, body=body, seen=timestamp(0))
    return {root: HostRules.of(said.get("robots.txt"), said.get("tdmrep.json")) for root, said in found.items()}


def test_hosts_say_what_the_truth_says(rules: dict[str, HostRules]) -> None:
    def asked(url: str) -> list[Statement]:
        host = rules.get("/".join(url.split("/")[:3]))
        return [*host.statements(url, optout.AI_AGENTS)] if host else []

    for page, mention in truth().mentions():
        assert asked(page.url) == [*page.host_says], page.url
        assert asked(mention.url) == [s for s in mention.statements if s.seen == timestamp(0)], mention.url


def test_what_is_said_decides() -> None:
    for page in truth().pages:
        reason = optout.reject([*page.signals, *(said.signal for said in page.host_says)])
        assert reason == (page.verdict if page.verdict.startswith("optout_") else None), page.url
        for mention in page.mentions:
            reason = optout.reject(said.signal for said in mention.statements)
            assert reason == (mention.verdict if mention.verdict in OPT_OUT else None), mention.url


def test_some_statements_refuse_nothing() -> None:
    said = {s.signal for m in of_verdict(KEPT) for s in m.statements}
    assert said == {
        *(("header:" + name.lower(), value) for name, value in HARMLESS),
        ("xmp:datamining", "DMI-ALLOWED"),
        ("tdmrep:tdm-reservation", "0"),
        ("robots:content-usage", "train-ai=y"),
    }
    assert "User-agent: OtherBot\nDisallow: /\n" in "".join(ROBOTS.values())
    assert any(page.verdict == KEPT and page.signals == (("header:x-robots-tag", "otherbot: noai"),)
               for page in truth().pages)  # fmt: skip


def test_without_faces() -> None:
    """Faces go with a reason of their own, wherever nothing else is known against the picture itself."""
    before, after = (dict(enumerate(known.mentions())) for known in (truth(), truth(faces=False)))
    changed = {before[i][1].verdict for i in before if before[i][1].verdict != after[i][1].verdict}
    assert changed == {KEPT, "near_duplicate"}
    assert all(before[i] == after[i] for i in before if before[i][0].verdict == "no_images_left")
    faces = [mention for _, mention in after.values() if mention.label == "face"]
    assert len(faces) >= 20 and {mention.verdict for mention in faces} == {"face"}
    assert len(truth(faces=False).kept()) == len(truth().kept()) - 1


@pytest.mark.parametrize("tag", sorted(TAGS))
@pytest.mark.parametrize("links", ["absolute", "relative", "base", "host", "protocol"])
def test_every_way_to_write_a_picture(tag: str, links: str) -> None:
    sheet = Sheet(host="a.example", scheme="https", title="T", elements=(Shown(url="https://a.example/img/1.jpg"),))
    page = page_html(sheet, Style(tag=tag, links=links)).decode()
    written = {
        "absolute": "https://a.example/img/1.jpg", "relative": "../img/1.jpg", "base": "1.jpg",
        "host": "/img/1.jpg", "protocol": "//a.example/img/1.jpg",
    }  # fmt: skip
    assert re.search(rf'["\s,]{re.escape(written[links])}["\s]', page)
    assert ("<base " in page) == (links == "base")
    assert (EMPTY_GIF in page) == (tag in ("lazy", "lazy_set", "noscript", "lazy_noscript"))


def test_styles_cover_every_tag_and_charset() -> None:
    used = STYLES[: len(HOSTS)]
    assert {style.tag for style in used} == set(TAGS)
    assert {style.declared for style in used} == {"header", "meta", "bom", "nowhere"}


def test_sample_and_training_share_no_main_thing_in_one_place() -> None:
    rng = random.Random(1)
    shown = [file.scene for file in build().pictures if file.scene]
    assert all(held_out(scene.main.kind, scene.main.colour, scene.place) for scene in shown)
    for _ in range(300):
        scene = random_scene(rng, for_sample=False)
        assert not held_out(scene.main.kind, scene.main.colour, scene.place)
    assert {scene.main.kind for scene in shown} == {*KINDS, *LABELS}


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_every_kind_is_drawn_and_described(kind: str) -> None:
    scene = random_scene(random.Random(kind), for_sample=True, kind=kind)
    picture = draw_scene(scene, 160, 120)
    assert picture.tobytes() == draw_scene(scene, 160, 120).tobytes()
    assert len(set(picture.tobytes())) > 20
    sentence = describe(scene, random.Random(0))
    assert sentence[0].isupper() and sentence.endswith(".") and len(sentence.split()) >= 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_unrelated_pictures_are_settled_by_their_seed(variant: str) -> None:
    one, same, other = (draw_unrelated(variant, seed, 90, 60).tobytes() for seed in (1, 1, 2))
    assert one == same != other


def test_writer_says_when_it_has_nothing_new() -> None:
    writer = Writer(0)
    with pytest.raises(RuntimeError, match="no new sentence"):
        for _ in range(200_000):
            writer.accented()


def test_merges_read_back(tmp_path: Path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    merges = bpe.learn_merges(["the red boat", "the red bird", "the boats"], 6)
    bpe.write_merges(tmp_path / "bpe.txt.gz", merges)
    tokenizer = SimpleTokenizer(str(tmp_path / "bpe.txt.gz"))
    assert tokenizer.vocab_size == bpe.SPECIALS + 6
    assert tokenizer.decode(tokenizer.encode("The red boat")).strip() == "the red boat"
    assert len(tokenizer.encode("the")) == 1


def test_payload_of_failures() -> None:
    failed = [file for file in build().pictures if file.status >= 400]
    assert {file.status for file in failed} == {404, 410}
    assert all(b"Not found" in payload(file) for file in failed)
