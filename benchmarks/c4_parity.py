"""Does `filters.text` clean pages exactly as the code that built C4 does? Verdict and text, page by page.

Run it where the `tensorflow-datasets` distribution is installed; of its dependencies only numpy is needed
(`pip install --no-deps tensorflow-datasets==4.9.7`): the one module that is used, `text/c4_utils.py`, is
loaded alone. Pages come from `--pages`, a JSON list of texts, and from a generator that aims at every rule.
Both sides count runs of end marks as sentences, so that the splitter is not at issue. `--write` stores the
generated pages and the reference's answers for the test suite.
"""

import argparse
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import random
import re
import statistics
import sys
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from filters import text as ours
from mmc4_builder.urls import normalize_url

BAD_WORDS = (
    "darn",
    "heck",
    "two words",
    "a-b",
    "s&m",
    "c++",
    "$$$",
    "ünder",
    "x_y",
    "1st base",
    "\U0001f595",
)
ENDS = [
    ".",
    ".",
    ".",
    ".",
    "?",
    "!",
    '"',
    '."',
    "...",
    "....",
    "..",
    "",
    ",",
    ":",
    "…",
    ".”",
    ". ",
    "!?",
    ".)",
    ".\t",
]
VOCABULARY = (
    "the a river Bridge stands near Mr. Dr. U.S. e.g. 3.5 1999. J. walked; quickly, and “slowly” éàü 日本語 "
    "İstanbul ẞ darn heck Two words a-b S&M c++ $$$ Ünder x_y 1st base \U0001f595 no. etc. Why? Yes! …"
)
WORDS = VOCABULARY.split()
PHRASES = (
    "lorem ipsum|Lorem Ipsum|lorem  ipsum|javascript|JavaScript|{|}|terms of use|Privacy Policy|"
    "cookie policy|uses cookies|use of cookies|use cookies|[1]|[]|[23] |"
    "[edit]|[citation needed]|[Edit]|[ 1 ]|[a]|[1"
)
TRAPS = (*PHRASES.split("|"), "x" * 1000, "x" * 1001, "y" * 998 + "[1]", "z" * 999 + "[1]")
BREAKS = ["\n"] * 12 + ["\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\n\n", "\n \n", " \n\t"]
URLS = (
    "http://www.example.com/",
    "https://example.com",
    "HTTP://www.example.com/",
    "http://wwww.example.com",
    "https://web.example/http://www.other.example/a/",
    "https://www.www.e.com/ü/",
    "http://e.com/?utm_source=x",
    "http://e.com/?ref=1&a=2",
    "http://e.com/?a=1&utm_source=x",
    "http://e.com/p?feed=rss\nq",
    "http://e.com/?refer",
    "http://e.com/a//?feed",
    "ftp://www.e.com//",
    "http://",
    "https://www.",
    "",
)

_END_MARKS = re.compile(r"[.?!]+")


def count_marks(text: str) -> int:
    """The stand-in for a sentence counter, on both sides."""
    return len(_END_MARKS.findall(text))


def load_reference() -> Any:
    """The reference module, with stand-ins for the imports that its pure functions do not use."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("tensorflow-datasets is not installed; pip install --no-deps tensorflow-datasets==4.9.7")
    counter = types.SimpleNamespace(inc=lambda *_: None)
    metrics = types.SimpleNamespace(Metrics=types.SimpleNamespace(counter=lambda *_: counter))
    lazy = types.SimpleNamespace(apache_beam=types.SimpleNamespace(metrics=metrics))
    root = "tensorflow_datasets"
    stand_ins: dict[str, dict[str, Any]] = {
        "absl": {"logging": None},
        root: {},
        f"{root}.public_api": {"core": types.SimpleNamespace(lazy_imports=lazy)},
        f"{root}.core": {},
        f"{root}.core.utils": {},
        f"{root}.core.utils.lazy_imports_utils": {
            "tensorflow": types.SimpleNamespace(compat=types.SimpleNamespace(as_text=str))
        },
    }
    for name, members in stand_ins.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(members)
    sys.modules[root].__dict__["public_api"] = sys.modules[f"{root}.public_api"]
    path = Path(next(iter(spec.submodule_search_locations))) / "text" / "c4_utils.py"
    found = importlib.util.spec_from_file_location("c4_utils", path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["c4_utils"] = module
    found.loader.exec_module(module)
    module.__dict__["_get_sentences"] = _END_MARKS.findall
    return module


def made_page(rng: random.Random) -> str:
    """One page of random lines; about half of them good, the rest aimed at a rule or at its edge."""
    parts: list[str] = []
    for _ in range(rng.choice((0, 1, 2, 3, 4, 6, 9, 14))):
        words = rng.choices(WORDS[:12] if rng.random() < 0.6 else WORDS, k=rng.choice((1, 3, 4, 5, 5, 6, 8, 12)))
        if rng.random() < 0.16:
            words.insert(rng.randrange(len(words) + 1), rng.choice(TRAPS))
        line = " ".join(words) + rng.choice(ENDS)
        if rng.random() < 0.08:
            line = rng.choice((f"{line} [{rng.randrange(99)}]", f"[edit] {line}", f"  {line}\u00a0", line.upper()))
        parts += [
            parts[rng.randrange(len(parts))] if parts and rng.random() < 0.05 else line,
            rng.choice(BREAKS),
        ]
    return "".join(parts)


def long_page(chars: int) -> str:
    """A page of exactly `chars` characters, for the length limit."""
    line = "This line is long enough to stay on the page.\n"
    return (line * (chars // len(line) + 1))[: chars - 1] + "."


def wet_text(text: str) -> str:
    """The text as the reference reads it from a WET file: lines stripped, blank ones gone."""
    lines = (line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return "\n".join(line for line in lines if line)


def reference_answer(module: Any, text: str) -> str | None:
    """The cleaned text, or None for a rejected page."""
    page = module.PageFeatures(text=text)
    if not module.is_valid_length(page):
        return None
    kept = list(module.get_clean_page_fn()(page))
    return kept[0].text if kept else None


def our_answer(text: str) -> str | None:
    page = ours.clean_lines(text.splitlines(), sentences=count_marks)
    return None if isinstance(page, str) else "\n".join(page.lines)


def picked(text: str) -> list[bool]:
    """Pretend that another page keeps every third line, by its hash, so that equal lines share their fate."""
    return [hashlib.md5(line.strip().lower().encode()).digest()[15] % 3 == 0 for line in text.split("\n")]


def reference_dedup(module: Any, text: str) -> str | None:
    page = module.PageFeatures(url="u", text=text)
    keys = [key for key, _ in module._emit_url_to_lines(page)]
    keep = [key for key, gone in zip(keys, picked(text), strict=True) if not gone]
    joined = ("u", {"pages": [page], "lines": keep})
    left = list(module._remove_lines_from_text(joined, lambda *_: None, module._MIN_NUM_SENTENCES))
    return left[0].text if left else None


def our_dedup(text: str) -> str | None:
    lines = tuple(text.split("\n"))
    page = ours.CleanPage(lines=lines, indices=tuple(range(len(lines))), dropped={})
    left = ours.keep_lines(page, picked(text), sentences=count_marks)
    return None if isinstance(left, str) else "\n".join(left.lines)


def compare(module: Any, texts: list[str]) -> Counter[str]:
    """Count pages, verdicts and differences; prints the first few pages that differ."""
    bad_filter = module.get_badwords_filter_fn({"en": BAD_WORDS})
    bad_words = ours.BadWords(BAD_WORDS)
    seen: Counter[str] = Counter()
    for text in texts:
        theirs = reference_answer(module, text)
        pairs = [("clean", theirs, our_answer(text))]
        if theirs:
            pairs.append(("dedup", reference_dedup(module, theirs), our_dedup(theirs)))
            flagged = not bad_filter(module.PageFeatures(text=theirs, language="en"))
            pairs.append(("bad_words", str(flagged), str(bad_words.reject(theirs) is not None)))
        for name, expected, got in pairs:
            seen[f"{name}: pages"] += 1
            seen[f"{name}: kept"] += expected not in (None, "True")
            seen[f"{name}: different"] += expected != got
            if expected != got and seen[f"{name}: different"] < 4:
                print(f"{name} differs on {text[:300]!r}\n  {expected!r}\n  {got!r}", file=sys.stderr)
    return seen


def fixture(module: Any, texts: list[str]) -> dict[str, Any]:
    """What the test suite needs: pages, and what the reference made of them."""
    bad_filter = module.get_badwords_filter_fn({"en": BAD_WORDS})
    pages = []
    for text in texts:
        clean = reference_answer(module, text)
        dedup = reference_dedup(module, clean) if clean else None
        bad = bool(clean) and not bad_filter(module.PageFeatures(text=clean, language="en"))
        pages.append({"text": text, "clean": clean, "dedup": dedup, "bad_words": bad})
    return {
        "reference": f"tensorflow-datasets {importlib.metadata.version('tensorflow-datasets')}",
        "bad_words": BAD_WORDS,
        "urls": [{"url": url, "normal": module.normalize_url(url)} for url in URLS],
        "lengths": [{"chars": n, "kept": reference_answer(module, long_page(n)) is not None} for n in (190000, 190001)],
        "pages": pages,
    }


def speed(module: Any, texts: list[str], rounds: int = 5) -> tuple[float, float]:
    """Median seconds over all pages, ours and theirs in turn."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        start = time.perf_counter()
        for text in texts:
            our_answer(text)
        middle = time.perf_counter()
        for text in texts:
            reference_answer(module, text)
        times.append((middle - start, time.perf_counter() - middle))
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, help="a JSON list of page texts to compare as well")
    parser.add_argument("--made", type=int, default=20_000, help="how many pages to generate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="store this many generated pages' answers here (.json.gz)")
    parser.add_argument("--written", type=int, default=600, help="how many generated pages to store")
    args = parser.parse_args()
    module = load_reference()
    rng = random.Random(args.seed)
    made = [wet_text(made_page(rng)) for _ in range(args.made)] + [long_page(n) for n in (189_999, 190_000, 190_001)]
    real = [wet_text(text) for text in json.loads(args.pages.read_text())] if args.pages else []
    different = sum(normalize_url(url) != module.normalize_url(url) for url in URLS)
    for name, texts in (("generated", made), ("given", real)):
        seen = compare(module, texts)
        different += sum(count for key, count in seen.items() if key.endswith("different"))
        print(name, json.dumps(dict(sorted(seen.items())), indent=1), file=sys.stderr)
    if args.write:
        packed = json.dumps(fixture(module, made[: args.written]), ensure_ascii=True).encode()
        args.write.write_bytes(gzip.compress(packed, 9, mtime=0))
    mine, peer = speed(module, real or made[:2000])
    print(f"{len(made) + len(real)} pages, {different} differences", file=sys.stderr)
    result = {
        "claim": "c4_parity",
        "ratio": peer / mine,
        "ours": mine,
        "peer": peer,
        "peer_name": "tensorflow-datasets",
        "peer_version": importlib.metadata.version("tensorflow-datasets"),
        "unit": "s",
    }
    print(json.dumps(result))
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
