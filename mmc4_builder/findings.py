"""What a check of a data set found: problems with their places, counted, and bounded in memory."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmc4_builder.progress import Progress

MAX_SHOWN = 300  # characters of what was found; a hostile document decides their number
TOTALS = ("docs files", "documents", "images", "shards", "samples")


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One broken promise; `kind` is the name that it is counted under."""

    kind: str
    found: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A breach and its place."""

    kind: str
    file: str  # relative to the root
    where: str  # "line 3", a member of a tar, or "" for the file as a whole
    found: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The first problems of each kind, how many there are in all, and how much was looked at."""

    problems: tuple[Problem, ...]
    counts: Mapping[str, int]  # of each kind, with those that `problems` leaves out
    totals: Mapping[str, int]

    @property
    def ok(self) -> bool:
        return not self.counts


@dataclass(slots=True, kw_only=True)
class Findings:
    """Collects problems, at most `limit` of a kind, so that a broken corpus cannot fill the memory."""

    root: str  # with its last slash or without
    limit: int
    progress: Progress | None = None
    files: int = 0  # that have been read
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, path: str, where: str, breach: Breach) -> None:
        self.counts[breach.kind] += 1
        if self.counts[breach.kind] > self.limit:
            return
        self.problems.append(
            Problem(
                kind=breach.kind,
                file=path.removeprefix(self.root.rstrip("/")).strip("/"),
                where=where,
                found=shorten(breach.found),
                expected=shorten(breach.expected),
            )
        )

    def file_done(self) -> None:
        """One more file has been read."""
        self.files += 1
        if self.progress:
            self.progress.update(self.files, {"documents": self.totals["documents"]})

    def report(self) -> Report:
        return Report(
            problems=tuple(sorted(self.problems, key=lambda problem: problem.kind)),
            counts=dict(sorted(self.counts.items())),
            totals={name: self.totals[name] for name in TOTALS},
        )


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """The text as far as `limit` characters, with a mark where it was cut."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def format_report(report: Report) -> str:
    """The report for a terminal: what was looked at, then each kind of problem with its first places."""
    lines = ["checked " + ", ".join(f"{name}: {count}" for name, count in report.totals.items())]
    for kind, count in report.counts.items():
        shown = [problem for problem in report.problems if problem.kind == kind]
        lines.append(f"{kind}: {count}" + (f" (the first {len(shown)} shown)" if len(shown) < count else ""))
        for problem in shown:
            place = ", ".join(part for part in (problem.file, problem.where) if part)
            lines.append(f"  {place}: found {problem.found}; expected {problem.expected}")
    lines.append("no problems" if report.ok else f"problems: {sum(report.counts.values())}")
    # Text of the web may hold control characters and lone surrogates; neither may reach a terminal.
    return "\n".join("".join(char if char.isprintable() else "?" for char in line) for line in lines)
