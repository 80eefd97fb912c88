"""The sample crawl, built whole by the command line, against the truth about it."""

import re
import shutil
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from builds import run

from mmc4_builder.funnel import Funnel, Step
from mmc4_builder.mmc4_format import read_docs_zip
from mmc4_builder.report import thumbnail, withheld
from mmc4_builder.sample import Mention, PageTruth, Truth, truth
from mmc4_builder.sample.truth import page_verdict
from mmc4_builder.signals import Statement
from mmc4_builder.validate import format_report, validate
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.plan import STAGES
from pipelines.store import Tars

AT_URL = ("url_extension", "url_word")  # such pictures are never asked for
AT_REST = (
    "missing", "empty", "not_an_image", "unsupported_format", "truncated", "corrupt", "too_small", "bad_aspect",
    "too_many_pixels",
)  # fmt: skip
BY_MODEL = ("kept", "near_duplicate", "low_similarity", "nsfw", "face", "document_dropped")  # and so may be mistaken
MISTAKES = 1 / 50  # of the tiny CLIP and the tiny NSFW model, in all pictures
FALSE_FACES = 1 / 10  # MMC4's way to find 95 of 100 faces took one picture in three for one
README = (Path(__file__).parents[1] / "README.md").read_text()
FACES = {"sample": True, "sample_ff": False}

pytestmark = pytest.mark.timeout(900)  # a whole build and a part of one, on a machine that may have other things to do


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample") / "out"
    run("--crawl", "sample", "--output", root)
    return root


@pytest.fixture(scope="module")
def without_faces(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same build, gone on with under another policy."""
    root = tmp_path_factory.mktemp("sample_ff") / "out"
    shutil.copytree(built, root)
    run("--crawl", "sample", "--config", "sample_ff", "--reconfigure", "--output", root)
    return root


@dataclass(frozen=True)
class Result:
    """A build beside the truth about it."""

    root: Path
    known: Truth
    decided: dict[str, dict[str, Any]]  # decisions by page URL

    @cached_property
    def judged(self) -> list[PageTruth]:
        """Pages that reach stage 4."""
        return [page for page in self.known.pages if page.url in self.decided and page.mentions]

    def reasons(self, page: PageTruth) -> dict[str, str]:
        """What was decided on the page's pictures, by URL."""
        return {image["url"]: image["reason"] or "kept" for image in self.decided[page.url]["images"]}

    def as_judged(self, page: PageTruth) -> tuple[Mention, ...]:
        """The page's pictures with the verdicts that were passed; what is not asked for keeps its own."""
        found = self.reasons(page)
        return tuple(replace(m, verdict=found.get(m.url, m.verdict)) for m in page.mentions)


@pytest.fixture(scope="module", params=list(FACES))
def result(request: pytest.FixtureRequest) -> Result:
    root = request.getfixturevalue("built" if FACES[request.param] else "without_faces")
    pairs = zip(rows(root, "documents"), rows(root, "interleave"), strict=True)
    decided = {document["url"]: {**decision, "document": document} for document, decision in pairs}
    return Result(root, truth(faces=FACES[request.param]), decided)


def rows(root: Path, stage: str) -> list[dict[str, Any]]:
    return [row for path in sorted((root / stage).glob("[0-9]*.parquet")) for row in read_rows(str(path))]


def funnel_step(root: Path, stage: str, unit: str) -> Step:
    steps = Funnel.from_json((root / "funnel.json").read_text()).steps
    return next(step for step in steps if (step.stage, step.unit) == (stage, unit))


def at_interleave(reason: str) -> bool:
    """Whether a page goes in stage 4."""
    return reason == "no_images_left" or reason.startswith("optout_")


def test_it_is_valid(result: Result) -> None:
    report = validate(result.root, min_similarity=0.15)
    assert report.ok, format_report(report)


def test_every_page_has_its_verdict(result: Result) -> None:
    """Exactly, but for pages that lose their only pictures to a mistake of a model."""
    mistaken = Counter[str]()
    for page in result.known.pages:
        if page.verdict == "kept" or at_interleave(page.verdict):
            found = result.decided[page.url]["reason"] or "kept"
            if found != page.verdict:
                assert found == page_verdict(result.as_judged(page)) and page.verdict == "kept", page.url
                mistaken[found] += 1
    assert mistaken.total() <= 3
    expected = Counter(page.verdict for page in result.known.pages)
    expected["kept"] -= mistaken.total()
    expected += mistaken
    by_text = {reason: n for reason, n in expected.items() if reason not in ("kept", "not_html")}
    by_policy = {reason: by_text.pop(reason) for reason in [*by_text] if at_interleave(reason)}
    assert dict(funnel_step(result.root, "documents", "pages").reasons) == by_text
    documents = funnel_step(result.root, "interleave", "documents")
    assert (dict(documents.reasons), documents.kept) == (by_policy, expected["kept"])


def test_every_kept_page_has_its_sentences(result: Result) -> None:
    for page in result.known.kept():
        found = result.decided[page.url]["document"]["sentences"]
        assert tuple(s for s in found if s not in page.repeated) == page.sentences, page.url
    repeated = Counter(s for d in result.decided.values() for s in d["document"]["sentences"])
    assert all(repeated[line] <= 1 for page in result.known.pages for line in page.repeated)


def test_every_picture_has_its_verdict(result: Result) -> None:
    """Exactly, but for what models decide: there the tiny ones may err now and then."""
    wrong = faces = total = 0
    for page in result.judged:
        for mention, judged in zip(page.mentions, result.as_judged(page), strict=True):
            total += 1
            if mention.verdict in AT_URL:
                assert mention.url not in result.reasons(page)
            elif judged.verdict != mention.verdict:
                assert {judged.verdict, mention.verdict} <= {*BY_MODEL}, (page.url, mention, judged.verdict)
                wrong += judged.verdict != "face"
                faces += judged.verdict == "face"
    assert wrong <= total * MISTAKES
    assert faces <= total * FALSE_FACES


def test_the_funnel_is_the_truth_reason_by_reason(result: Result) -> None:
    mentions = [mention for page in result.judged for mention in page.mentions]
    verdicts = Counter(mention.verdict for mention in mentions)
    named = funnel_step(result.root, "images", "mentions")
    assert dict(named.reasons) == {reason: verdicts[reason] for reason in AT_URL}
    assert named.kept == len(mentions) - sum(verdicts[reason] for reason in AT_URL)
    distinct = Counter({mention.url: mention.verdict for mention in mentions}.values())
    assert dict(funnel_step(result.root, "images", "urls").reasons) == {reason: distinct[reason] for reason in AT_REST}
    judged = funnel_step(result.root, "interleave", "images")
    found = {**dict(judged.reasons), "kept": judged.kept}
    exact = {reason: count for reason, count in verdicts.items() if reason not in {*AT_URL, *BY_MODEL}}
    assert {reason: count for reason, count in found.items() if reason not in BY_MODEL} == exact
    assert judged.entered == named.kept
    for reason in BY_MODEL:
        slack = MISTAKES + (FALSE_FACES if reason in ("kept", "face") else 0)
        assert abs(found.get(reason, 0) - verdicts[reason]) <= len(mentions) * slack, reason


def test_stand_ins_are_found(result: Result) -> None:
    """What goes to protect somebody: nearly all of it must be seen."""
    for reason in {"nsfw", "face"} & {mention.verdict for _, mention in result.known.mentions()}:
        meant = [(page.url, m.url) for page, m in result.known.mentions() if m.verdict == reason]
        found = {(url, i["url"]) for url, d in result.decided.items() for i in d["images"] if i["reason"] == reason}
        assert len(found.intersection(meant)) >= 0.95 * len(meant) > 20


def test_pictures_find_their_sentences(result: Result) -> None:
    """Precision at 1 within documents, over all pictures that a sentence describes."""
    pairs = {page.url: dict(page.pairs) for page in result.known.kept()}
    right = total = 0
    for path in sorted((result.root / "docs").iterdir()):
        for doc in read_docs_zip(path):
            for image in doc["image_info"]:
                sentence = pairs.get(doc["url"], {}).get(image["raw_url"])
                if sentence is not None:
                    total += 1
                    right += doc["text_list"][image["matched_text_index"]] == sentence
    assert total > 500
    assert right / total >= 0.90


def test_pictures_know_their_place_in_the_page(result: Result) -> None:
    for page in result.known.kept():
        decision = result.decided[page.url]
        places = {image["url"]: image["position"] for image in decision["images"]}
        own = len(decision["document"]["sentences"]) == len(page.sentences)
        for mention in page.mentions:
            if own and mention.url in places and sum(m.url == mention.url for m in page.mentions) == 1:
                assert places[mention.url] == mention.position, (page.url, mention.url)


def test_who_said_what_when_and_where(result: Result) -> None:
    """optout.parquet is the truth: each statement, what came of it, and the record in which it can be read."""
    held = {(row["warc"], row["warc_offset"]): row["final_url"] for row in rows(result.root, "images")}
    held |= {(row["warc"], row["offset"]): row["url"] for row in rows(result.root, "documents")}
    found = []
    for row in rows(result.root, "optout.parquet"):
        warc, _, offset = row["source"].removeprefix("warc:").rpartition("@")
        where = held[warc, int(offset)] if row["source"].startswith("warc:") else row["source"]
        assert row["host"] == row["url"].split("/")[2]
        found.append((row["page_url"], row["url"], row["name"], row["value"], where, row["seen"], row["reason"]))
        assert row["subject"] == ("page" if row["url"] == row["page_url"] else "image")
        assert row["decision"] == ("refused" if row["reason"] else "noted")
    assert Counter(found) == Counter(expected_optouts(result))


def expected_optouts(result: Result) -> Iterator[tuple[str | None, ...]]:
    for page in result.judged:
        own = [Statement(name=n, value=v, source=page.url, seen=page.timestamp) for n, v in page.signals]
        yield from _decisions(page.url, page.url, page.verdict, [*own, *page.host_says])
        for mention in page.mentions:
            yield from _decisions(page.url, mention.url, mention.verdict, mention.statements)


def _decisions(page: str, url: str, verdict: str, statements: Sequence[Statement]) -> Iterator[tuple[str | None, ...]]:
    """The first one refuses, if any does: nothing in the sample has an earlier one that does not."""
    for number, said in enumerate(statements):
        reason = verdict if number == 0 and verdict.startswith("optout_") else None
        yield page, url, said.name, said.value, said.source, said.seen, reason


def test_the_report_names_who_refuses(result: Result) -> None:
    page = (result.root / "report.html").read_text()
    assert "Hosts that refuse most" in page and "guildhall.example" in page
    assert "robots:GPTBot" in page and "tiny, kept up to" in page


def test_the_report_shows_nothing_that_was_dropped_to_protect_somebody(result: Result) -> None:
    page = (result.root / "report.html").read_text()
    shown: Counter[bool] = Counter()
    with Tars(Workspace(str(result.root), "test", Unit(name="0"))) as tars:
        for decision in result.decided.values():
            for image in decision["images"]:
                if image["sha256"] and image["reason"] in ("low_similarity", "nsfw", "face", "document_dropped"):
                    hidden = withheld(f"{image['reason']} {decision['reason'] or ''}")
                    found = b64encode(thumbnail(tars.read(image))).decode() in page
                    assert not (found and hidden), image["url"]
                    shown[found] += 1
    assert shown[True] > 5 and shown[False] > 20


def test_another_policy_runs_two_stages_only(built: Path, without_faces: Path) -> None:
    """No page is read, nothing is fetched and no model is asked again."""
    for folder in ("documents", "images", "scores", "exchange"):
        before = {path.relative_to(built): path.stat().st_mtime_ns for path in (built / folder).rglob("*.*")}
        after = {
            path.relative_to(without_faces): path.stat().st_mtime_ns for path in (without_faces / folder).rglob("*.*")
        }
        assert before == after, folder
    names = sorted(path.name for path in (without_faces / "docs").iterdir())
    assert names and all(name.startswith("docs_no_face_shard_") for name in names)


def test_command_line_and_plan_name_the_same_stages() -> None:
    assert STAGES == ("documents", "images", "scores", "interleave", "shards")


def test_the_readme_shows_what_opt_outs_the_sample_has(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The README's own code, run, prints the README's own lines."""
    (block,) = re.findall(r'python -c "\n(import collections.*?)"\n\n(.*?)\n```', README, re.DOTALL)
    code, printed = block
    exec(compile(code.replace("build/sample", str(built)), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == printed
