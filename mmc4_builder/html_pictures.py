"""Pictures as the lexer met them, and the image references that they become."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mmc4_builder.image_urls import Resolve, picture_url
from mmc4_builder.records import ImageRef

MAX_SOURCES = 50  # of one <picture>
_GALLERY_DEPTH = 4  # how far out a caption is looked for


@dataclass(slots=True)
class Figure:
    """An open <figure>. Its caption may come after its pictures, so they keep hold of the figure."""

    parent: "Figure | None" = None
    caption: str = ""

    def nearest_caption(self) -> str:
        """Its own caption, or that of the gallery it stands in."""
        figure: Figure | None = self
        for _ in range(_GALLERY_DEPTH):
            if figure is None or figure.caption:
                break
            figure = figure.parent
        return figure.caption if figure else ""


@dataclass(slots=True)
class Picture:
    """An <img> with what it needs of its surroundings; addresses are not yet resolved."""

    attributes: dict[str, str]
    sources: list[dict[str, str]] = field(default_factory=list)  # <source>s before it in its <picture>
    figure: Figure | None = None
    fallback: bool = False  # stands in <noscript>


def image_refs(pictures: Iterable[tuple[Picture, int]], resolve: Resolve, max_chars: int) -> tuple[ImageRef, ...]:
    """References of the (picture, position)s that have an address, alt and caption cut to `max_chars`.

    A <noscript> that repeats the picture beside it for readers without scripts is the same picture.
    """
    images: list[ImageRef] = []
    fallback = False  # of the image before
    for picture, position in pictures:
        url = picture_url(picture.attributes, picture.sources, resolve)
        repeated = bool(images) and images[-1].url == url and (picture.fallback or fallback)
        if url and not repeated:
            fallback = picture.fallback
            alt = " ".join(picture.attributes.get("alt", "").split())[:max_chars]
            caption = picture.figure.nearest_caption() if picture.figure else ""
            images.append(ImageRef(url=url, position=position, alt=alt, caption=caption))
    return tuple(images)
