"""The report of a build: one HTML file that opens from disk, loads nothing and runs no script."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from mmc4_builder.report_data import MAX_OPTOUT_ROWS as MAX_OPTOUT_ROWS
from mmc4_builder.report_data import DroppedImage as DroppedImage
from mmc4_builder.report_data import Histogram as Histogram
from mmc4_builder.report_data import MatchedImage as MatchedImage
from mmc4_builder.report_data import OptOuts as OptOuts
from mmc4_builder.report_data import RefusingHost as RefusingHost
from mmc4_builder.report_data import ReportData as ReportData
from mmc4_builder.report_data import ReportDocument as ReportDocument
from mmc4_builder.report_data import ReportImage as ReportImage
from mmc4_builder.report_data import Signal as Signal
from mmc4_builder.report_data import ThumbnailError as ThumbnailError
from mmc4_builder.report_data import histogram as histogram
from mmc4_builder.report_data import thumbnail as thumbnail
from mmc4_builder.report_html import Html, clip, element, join
from mmc4_builder.report_page import header, sections
from mmc4_builder.report_pictures import withheld as withheld

MAX_BYTES = 8_000_000  # what the parts may take adds up to less


def render_report(data: ReportData) -> str:
    """The whole page. The same data give the same text; all of it can be encoded as UTF-8."""
    style = Html(files("mmc4_builder").joinpath("report.css").read_text("utf-8"))
    parts = list(sections(data))
    head = element("head", *_metadata(data, style), element("style", style))
    page = element("html", head, _body(data, parts), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _metadata(data: ReportData, style: Html) -> list[Html]:
    """Page text is hostile. Should markup slip through, the policy still lets nothing load or run."""
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),  # else the browser asks for one
        element("title", clip(data.title, 200)),
    ]


def _body(data: ReportData, parts: list[tuple[str, str, Html]]) -> Html:
    links = (element("a", heading, href=f"#{anchor}") for anchor, heading, _ in parts)
    bodies = (
        element("section", element("h2", heading, id=f"{anchor}-heading"), body, id=anchor, **_label(anchor))
        for anchor, heading, body in parts
    )
    return element(
        "body",
        element("a", "Skip to the report", class_="skip", href="#main"),
        element("div", header(data), element("nav", join(links), aria_label="Sections"), class_="top"),
        element("main", *bodies, id="main"),
    )


def _label(anchor: str) -> dict[str, str]:
    return {"aria_labelledby": f"{anchor}-heading"}
