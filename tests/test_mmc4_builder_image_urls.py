"""Where a picture really is: addresses, srcset, lazy attributes."""

from urllib.parse import urljoin

import pytest

from mmc4_builder.image_urls import Base, absolute, best_candidate, candidates, picture_url, resolver

PAGE = "https://site.org/a/b.html?q=1"
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("x.jpg", "https://site.org/a/x.jpg"),
        ("/x.jpg", "https://site.org/x.jpg"),
        ("../x.jpg", "https://site.org/x.jpg"),
        ("./x.jpg", "https://site.org/a/x.jpg"),
        ("c/../x.jpg", "https://site.org/a/x.jpg"),
        ("//cdn.org/x.jpg", "https://cdn.org/x.jpg"),
        ("x//y.jpg", "https://site.org/a/x//y.jpg"),  # as in browsers; urljoin would drop a slash
        ("?id=3", "https://site.org/a/b.html?id=3"),
        ("HTTP://cdn.org/x.jpg#top", "HTTP://cdn.org/x.jpg"),
        ("  x\n y.jpg\t", "https://site.org/a/x%20y.jpg"),
        ("img\\x.jpg?a\\b", "https://site.org/a/img/x.jpg?a\\b"),
        ("é.jpg", "https://site.org/a/é.jpg"),
        ("#top", ""),
        ("", ""),
        ("   ", ""),
        (GIF, ""),
        ("blob:https://site.org/1", ""),
        ("javascript:void(0)", ""),
        ("file:///etc/passwd", ""),
        ("ftp://site.org/x.jpg", ""),
        ("https:///x.jpg", ""),
        ("http://[::1/x.jpg", ""),
        ("//[", ""),
        ("{{ item.src }}", ""),
        ("${src}", ""),
        ("x" * 5000, ""),
    ],
)
def test_absolute(raw: str, url: str) -> None:
    assert absolute(Base(PAGE), raw) == url


@pytest.mark.parametrize("base", [PAGE, "http://x.org", "http://x.org/", "http://x.org/a/", "http://x.org/a/../b/c"])
@pytest.mark.parametrize("raw", ["x", "x/y", "/x", "//h/x", "../x", "?q", "x/./y", ".x", "x?a=/../b"])
def test_the_quick_join_is_urljoin(base: str, raw: str) -> None:
    assert Base(base).join(raw) == urljoin(base, raw)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("", "https://site.org/a/x"),
        ("/img/", "https://site.org/img/x"),
        ("https://cdn.org/p/q", "https://cdn.org/p/x"),
        ("data:,", "https://site.org/a/x"),
        ("http://[", "https://site.org/a/x"),
    ],
)
def test_base_href(base: str, url: str) -> None:
    assert resolver(PAGE, base)("x") == url


@pytest.mark.parametrize(
    ("srcset", "expected"),
    [
        ("", []),
        (" , ,", [("", "")]),
        ("a.jpg", [("a.jpg", "")]),
        ("a.jpg, b.jpg 2x", [("a.jpg", ""), ("b.jpg", "2x")]),
        ("a.jpg 1x,b.jpg 2x", [("a.jpg", "1x"), ("b.jpg", "2x")]),
        (
            "/w_1,h_2/a.jpg 300w,\n  /w_3,h_4/b.jpg 600w",
            [("/w_1,h_2/a.jpg", "300w"), ("/w_3,h_4/b.jpg", "600w")],
        ),
        ("a.jpg 100w 50h, b.jpg", [("a.jpg", "100w"), ("b.jpg", "")]),
        ("a.jpg foo(1, 2) 3x, b.jpg", [("a.jpg", "3x"), ("b.jpg", "")]),
        ("a.jpg foo(1, b.jpg 2x", [("a.jpg", "2x")]),
    ],
)
def test_candidates(srcset: str, expected: list[tuple[str, str]]) -> None:
    assert list(candidates(srcset)) == expected


@pytest.mark.parametrize(
    ("srcset", "url"),
    [
        ("/s 300w, /m 800w, /l 1600w, /xl 3200w", "/l"),
        ("/xl 3200w, /xxl 6400w", "/xl"),
        ("/a, /b 2x, /c 3x", "/b"),
        ("/c 3x, /d 4x", "/c"),
        ("/a 100w, /b 100w", "/a"),
        ("/a nonsense, /b wx", "/a"),
        (f"{GIF} 900w, /b 300w", "/b"),
        ("/a 0w, /b -5w, /c nanw, /d infw", ""),
    ],
)
def test_best_candidate(srcset: str, url: str) -> None:
    assert best_candidate(srcset, resolver(PAGE)).removeprefix("https://site.org") == url


@pytest.mark.parametrize(
    ("picture", "sources", "url"),
    [
        ({"src": "/a"}, [], "/a"),
        ({"src": "/a", "srcset": "/b 800w"}, [], "/b"),
        ({"src": "/a", "srcset": GIF}, [], "/a"),
        ({"alt": "nothing"}, [], ""),
        # Lazy: only where src is missing, a data: address or a placeholder.
        ({"data-src": "/a"}, [], "/a"),
        ({"src": GIF, "data-src": "/a"}, [], "/a"),
        ({"src": "", "data-original": "/a"}, [], "/a"),
        ({"src": GIF, "data-src": "/a", "data-srcset": "/b 400w, /c 800w"}, [], "/c"),
        ({"src": "/img/blank.gif", "data-lazy-src": "/a"}, [], "/a"),
        ({"src": "/thumb.jpg", "data-src": "/a"}, [], "/thumb.jpg"),
        ({"src": "/img/1x1.png", "class": "lazyload"}, [], ""),
        ({"src": "/img/pixel.png"}, [], "/img/pixel.png"),
        ({"src": "/pixel-art.png", "data-src": GIF}, [], ""),
        ({"src": GIF, "data-src": "{{url}}", "data-lazy": "/b"}, [], "/b"),
        # <picture>: a source that states widths is taken before src, other ones only where src is missing.
        ({"src": "/a"}, [{"srcset": "/b 500w, /c 1000w"}], "/c"),
        ({"src": "/a"}, [{"srcset": "/b"}], "/a"),
        ({"src": GIF}, [{"srcset": "/b"}], "/b"),
        ({"src": "/a"}, [{"srcset": "/b 900w", "type": "image/webp"}], "/a"),
        ({}, [{"srcset": "/b", "type": "image/avif"}, {"srcset": "/c", "type": "image/jpeg"}], "/c"),
        ({}, [{"srcset": "/b", "type": "image/avif"}], "/b"),
        ({}, [{"data-srcset": "/b 100w, /c 200w"}], "/c"),
        ({"data-src": "/a"}, [{"data-srcset": "/b"}], "/a"),
    ],
)
def test_picture_url(picture: dict[str, str], sources: list[dict[str, str]], url: str) -> None:
    assert picture_url(picture, sources, resolver(PAGE)).removeprefix("https://site.org") == url
