"""The funnel: at each step of a build, what entered, what was kept, and why the rest was not."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


class FunnelError(ValueError):
    """Counts that do not add up, or a funnel.json that is not one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision of one stage. `entered == kept + sum(reasons)`, or FunnelError with the numbers.

    Reasons are put in order at construction, biggest first, then by name: equal counts are equal steps.
    """

    stage: str
    unit: str  # what is counted: pages, lines, images, documents, pairs
    entered: int
    kept: int
    reasons: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.reasons, key=lambda reason: (-reason[1], reason[0])))
        object.__setattr__(self, "reasons", ordered)
        _check_names(self)
        _check_sum(self)

    @property
    def dropped(self) -> int:
        return self.entered - self.kept


@dataclass(frozen=True, slots=True)
class Funnel:
    """The steps of a build, in the order in which they run. No two share both stage and unit."""

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        for (stage, unit), times in Counter((step.stage, step.unit) for step in self.steps).items():
            if times > 1:
                raise FunnelError(f"{times} steps count {unit} of stage {stage}: merge them, or name them apart")

    def to_json(self) -> str:
        """The text of funnel.json: the same bytes for the same counts."""
        steps = [
            {
                "stage": step.stage,
                "unit": step.unit,
                "entered": step.entered,
                "kept": step.kept,
                "reasons": dict(step.reasons),
            }
            for step in self.steps
        ]
        return json.dumps({"steps": steps}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Funnel":
        """The inverse of `to_json`. FunnelError for anything else, a sum that is off by one included."""
        try:
            return cls(tuple(_step_of(step) for step in json.loads(text)["steps"]))
        except FunnelError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FunnelError(f"not a funnel.json ({error!r}): build it again from the commit records") from error


def tally(stage: str, unit: str, verdicts: Iterable[str | None]) -> Step:
    """Count what filters returned: None is kept, a string is the reason."""
    counts = Counter(verdicts)
    kept = counts.pop(None, 0)
    reasons = tuple((str(reason), count) for reason, count in counts.items())
    return Step(stage=stage, unit=unit, entered=kept + sum(counts.values()), kept=kept, reasons=reasons)


def to_counts(step: Step) -> dict[str, int]:
    """The step as the flat counts of a commit record: pages.entered, pages.kept, pages.dropped.no_images."""
    dropped = {f"{step.unit}.dropped.{reason}": count for reason, count in step.reasons}
    return {f"{step.unit}.entered": step.entered, f"{step.unit}.kept": step.kept, **dropped}


def from_counts(stage: str, units: Iterable[str], counts: Mapping[str, int]) -> Funnel:
    """The inverse of `to_counts`, one step for each of `units`; counts of anything else are passed over."""
    steps = []
    for unit in units:
        prefix = f"{unit}.dropped."
        reasons = {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
        entered, kept = counts.get(f"{unit}.entered", 0), counts.get(f"{unit}.kept", 0)
        steps.append(Step(stage=stage, unit=unit, entered=entered, kept=kept, reasons=tuple(reasons.items())))
    return Funnel(tuple(steps))


def merge(funnels: Iterable[Funnel]) -> Funnel:
    """The sum over work units. Steps stand in the order in which the units first name them."""
    entered: Counter[tuple[str, str]] = Counter()
    kept: Counter[tuple[str, str]] = Counter()
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for step in (step for funnel in funnels for step in funnel.steps):
        key = (step.stage, step.unit)
        entered[key] += step.entered
        kept[key] += step.kept
        # Counter.update would lose nothing here, but `+` drops zeros: a filter that dropped none must show.
        reasons.setdefault(key, Counter()).update(dict(step.reasons))
    return Funnel(
        tuple(
            Step(
                stage=stage,
                unit=unit,
                entered=entered[stage, unit],
                kept=kept[stage, unit],
                reasons=tuple(counts.items()),
            )
            for (stage, unit), counts in reasons.items()
        )
    )


def share(part: int, whole: int) -> str:
    """`part` of `whole` in per cent. Never "0.0 %" for something, never "100.0 %" for not quite all."""
    if whole == 0:
        return "-"
    if 0 < part * 1000 < whole:
        return "<0.1 %"
    if 0 < (whole - part) * 1000 < whole:
        return ">99.9 %"
    return f"{100 * part / whole:.1f} %"


def format_table(funnel: Funnel) -> str:
    """A table for a terminal: kept + dropped is entered, and the reasons add up to dropped."""
    if not funnel.steps:
        return "nothing was counted\n"
    blocks = [(f"{step.stage}, {step.unit}", list(_table_rows(step))) for step in funnel.steps]
    rows = [row for _, block in blocks for row in block]
    label_width = max(len(label) for label, _, _ in rows)
    count_width = max(len(count) for _, count, _ in rows)
    return "\n".join(
        f"{title}\n"
        + "".join(f"{label:<{label_width}}  {count:>{count_width}}  {part:>7}\n" for label, count, part in block)
        for title, block in blocks
    )


def _table_rows(step: Step) -> Iterator[tuple[str, str, str]]:
    yield "  entered", f"{step.entered:,}", share(step.entered, step.entered)
    yield "  kept", f"{step.kept:,}", share(step.kept, step.entered)
    if step.reasons:
        yield "  dropped", f"{step.dropped:,}", share(step.dropped, step.entered)
    for reason, count in step.reasons:
        yield f"    {reason}", f"{count:,}", share(count, step.entered)


def _step_of(fields: dict[str, object]) -> Step:
    reasons = fields["reasons"]
    if not isinstance(reasons, dict):
        raise FunnelError(f"reasons are {reasons!r}, not an object of counts")
    return Step(
        stage=str(fields["stage"]),
        unit=str(fields["unit"]),
        entered=_whole("entered", fields["entered"]),
        kept=_whole("kept", fields["kept"]),
        reasons=tuple((name, _whole(name, count)) for name, count in reasons.items()),
    )


def _whole(name: str, count: object) -> int:
    """JSON also has 1.5, "1" and true; none of them is a count."""
    if type(count) is not int:
        raise FunnelError(f"the count of {name} is {count!r}, not a whole number")
    return count


def _check_names(step: Step) -> None:
    names = [name for name, _ in step.reasons]
    for name in (step.stage, step.unit, *names):
        if not name or not name.isprintable():  # a newline in a reason would break the table
            raise FunnelError(f"{name!r} is no name for a stage, a unit or a reason: use snake_case")
    if len(set(names)) < len(names):
        raise FunnelError(f"a reason of {step.stage}, {step.unit} is named twice: {names}")


def _check_sum(step: Step) -> None:
    where = f"{step.stage}, {step.unit}"
    for name, count in (("entered", step.entered), ("kept", step.kept), *step.reasons):
        if count < 0:
            raise FunnelError(f"{where}: {name} is {count}; a count is not negative")
    total = sum(count for _, count in step.reasons)
    if step.entered != step.kept + total:
        raise FunnelError(
            f"{where}: {step.entered} entered, but {step.kept} kept + {total} dropped = {step.kept + total}"
        )
