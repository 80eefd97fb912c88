"""Which picture URLs are worth a request: MMC4's rules on the extension and on words that mark decoration."""

from dataclasses import dataclass, replace
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRules:
    """What a picture's URL must look like; the defaults are MMC4's (MMC4 §3).

    None of 417 released URLs has a query, an extension in capitals, or a banned word in any case. Hence the
    extension is the literal end of the URL, and banned words are looked for without regard to case, anywhere
    in the URL.
    """

    extensions: tuple[str, ...] = (".jpg", ".jpeg", ".png")  # lower-case
    banned: tuple[str, ...] = ("logo", "button", "icon", "plugin", "widget")  # lower-case
    max_chars: int = 2048  # ours: longer ones are mostly generated; the longest of the 417 has 139
    literal_end: bool = True  # False: take the path's end, in any case, whatever query or fragment follows

    def __post_init__(self) -> None:
        if self.max_chars < 1:
            raise ValueError(f"max_chars must be positive, got {self.max_chars}")
        for word in (*self.extensions, *self.banned):
            if not word or word != word.lower():
                raise ValueError(f"extensions and banned words must be lower-case and not empty, got {word!r}")


MMC4 = UrlRules()


def wide(rules: UrlRules = MMC4) -> UrlRules:
    """A wider net than MMC4's: WebP too, extensions in any case, and URLs with a query."""
    return replace(rules, extensions=(*rules.extensions, ".webp"), literal_end=False)


def reject(url: str, *, rules: UrlRules = MMC4) -> str | None:
    """Why not to fetch the picture at this URL: not_http, url_too_long, url_extension or url_word."""
    lower = url.lower()
    if not lower.startswith(("http://", "https://")):
        return "not_http"
    if len(url) > rules.max_chars:
        return "url_too_long"
    if not (url if rules.literal_end else _path(lower)).endswith(rules.extensions):
        return "url_extension"
    if any(word in lower for word in rules.banned):
        return "url_word"
    return None


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # such as an unclosed [ in the host: no server to ask
        return ""
