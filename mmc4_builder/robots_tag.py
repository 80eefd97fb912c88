"""The words of an X-Robots-Tag header or a robots <meta>, each with the agent that it is said to.

Google's own description has no grammar. What is read here: items parted by commas; `name: word` opens the
scope of an agent, which lasts to the next such item or the end of the field; a few words take a value after a
colon and open none. Fields are read one by one, so no scope leaks from one into the next.
"""

import re
from collections.abc import Iterator
from typing import Final

# Words with a value. `unavailable_after: Saturday, 25-Jun-2022 15:00:00 PST` holds commas and colons of its own.
VALUED: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_SCOPE = re.compile(r"\s*([^\s:,]+(?: [^\s:,]+)*)\s*:(.*)", re.S)
_TIME = re.compile(r"\d{1,2}")  # "25-Jun-2022 15:00:00 PST": what stands before this colon names no agent
_GAP = re.compile(r"[\s;]+")  # some part the words by these alone


def directives(value: str) -> Iterator[tuple[str | None, str]]:
    """(agent, directive) pairs in lower case; the agent is None where all are spoken to."""
    agent: str | None = None
    for item in value.lower().split(","):
        word = item.strip()
        while found := _SCOPE.fullmatch(word):
            name, rest = found[1], found[2].strip()
            if name in VALUED or _TIME.fullmatch(name.split()[-1]):
                word = name
                break
            agent, word = (None if name == "*" else name), rest
        yield from ((agent, one) for one in _GAP.split(word) if one)
