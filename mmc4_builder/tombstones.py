"""What was removed from a build and must not come back: one list of keys, below the build's root."""

from collections.abc import Iterable

from mmc4_builder import key_lists, storage
from mmc4_builder.key_lists import KeyList

PATH = "removals/keys.txt"


def load(root: str) -> KeyList:
    """The keys of everything that was ever removed from this build; none where nothing was."""
    path = storage.join(root, PATH)
    text = storage.read(path).decode("utf-8") if storage.exists(path) else ""
    return key_lists.parse(text, path)


def of(roots: Iterable[str]) -> KeyList:
    """The keys of everything that was removed from any of these builds."""
    keys = key_lists.parse("", PATH)
    for root in roots:
        keys = keys.merge(load(root))
    return keys


def add(root: str, keys: KeyList) -> KeyList:
    """Remember further keys; all of them."""
    merged = load(root).merge(keys)
    storage.write(storage.join(root, PATH), merged.to_text().encode("utf-8"))
    return merged
