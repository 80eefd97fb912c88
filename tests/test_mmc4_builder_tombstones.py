"""The list of what was removed from a build."""

from pathlib import Path

import pytest

from mmc4_builder import key_lists, tombstones

HASH = "ab" * 32


def test_a_build_from_which_nothing_was_removed_has_no_tombstones(tmp_path: Path) -> None:
    assert len(tombstones.load(str(tmp_path))) == 0
    assert not list(tmp_path.iterdir())


def test_tombstones_add_up_and_stay(tmp_path: Path) -> None:
    root = str(tmp_path)
    tombstones.add(root, key_lists.parse("one.example\nhttp://two.example/p.jpg\n", "first"))
    every = tombstones.add(root, key_lists.parse(f"{HASH}\none.example\n", "second"))
    assert list(every) == ["one.example", "http://two.example/p.jpg", HASH]
    again = tombstones.load(root)
    assert list(again) == list(every)
    assert again.matches_url("https://sub.one.example/x")
    assert again.matches_url("http://two.example/p.jpg")
    assert again.matches_hash(HASH)
    assert not again.matches_url("http://two.example/")


def test_the_same_keys_make_the_same_file(tmp_path: Path) -> None:
    keys = key_lists.parse("b.example\na.example\n", "list")
    tombstones.add(str(tmp_path), keys)
    before = (tmp_path / tombstones.PATH).read_bytes()
    tombstones.add(str(tmp_path), keys)
    assert (tmp_path / tombstones.PATH).read_bytes() == before == b"a.example\nb.example\n"


def test_a_spoilt_list_is_told(tmp_path: Path) -> None:
    """A removal must not go on as if nothing had been removed before."""
    (tmp_path / "removals").mkdir()
    (tmp_path / tombstones.PATH).write_text("not a key\n")
    with pytest.raises(key_lists.KeyListError, match=r"keys\.txt, line 1"):
        tombstones.load(str(tmp_path))
