"""The report's section on time: what each stage took, its slowest units, and the hosts that took or failed most."""

from collections.abc import Sequence

from mmc4_builder.progress import clock_time
from mmc4_builder.report_html import Html, clip, element, join, name_of, table
from mmc4_builder.timing_sums import HostTime, StageTime, StepTime, Times

MAX_STAGES, MAX_STEPS, MAX_UNITS, MAX_HOSTS = 8, 40, 10, 10  # rows that are shown
_HEAD = ("Units", "Timed", "Units' time", "CPU time", "Median", "Longest", "Received", "Fetched", "Written")
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def timing_section(found: Times | None) -> Html:
    """The tables, or nothing where no time was noted."""
    if found is None or not found.stages:
        return Html("")
    parts = [_overview(found.stages[:MAX_STAGES]), *(_stage(stage) for stage in found.stages[:MAX_STAGES])]
    parts += [
        _hosts(title, hosts)
        for title, hosts in (("Slowest hosts", found.slowest_hosts), ("Hosts that fail most", found.failing_hosts))
        if hosts
    ]
    note = (
        "Time passed is that of the launchers that came to an end; one that was killed left none. Units' time is from "
        "start to commit, of all units together. Unlike all else here, none of this is the same on two runs."
    )
    return join([element("p", note, class_="note"), *parts])


def _overview(stages: Sequence[StageTime]) -> Html:
    rows = [
        (
            clip(stage.stage, 40),
            duration(stage.wall_seconds) if stage.runs else "-",
            f"{stage.runs:,}",
            f"{stage.retries:,}",
            *_cells(stage.steps)[:4],
            *_cells(stage.steps)[-3:],
        )
        for stage in stages
    ]
    head = ("Stage", "Time passed", "Runs", "Retries", *_HEAD[:4], *_HEAD[-3:])
    return element("div", table("Time by stage", head, rows), class_="card")


def _stage(stage: StageTime) -> Html:
    rows = [(name_of(step.step), *_cells([step])) for step in stage.steps[:MAX_STEPS]]
    slow = [
        (
            clip(f"{one.step}/{one.unit}", 80),
            duration(one.wall_seconds),
            duration(one.cpu_seconds),
            size(one.bytes_out),
            clip(one.by, 80),
        )
        for one in stage.slowest[:MAX_UNITS]
    ]
    return element(
        "section",
        element("h3", f"{clip(stage.stage, 40)}: steps and slowest units"),
        table(f"{clip(stage.stage, 40)}: time by step", ("Step", *_HEAD), rows),
        element(
            "details",
            element("summary", f"Slowest units of {stage.timed:,}"),
            table(f"{clip(stage.stage, 40)}: slowest units", ("Unit", "Time", "CPU time", "Written", "Worker"), slow),
        ),
        class_="card",
    )


def _cells(steps: Sequence[StepTime]) -> tuple[str, ...]:
    """The columns of `_HEAD`. A median of several steps would say nothing."""
    timed = sum(step.timed for step in steps)
    known = (
        duration(sum(step.wall_seconds for step in steps)),
        duration(sum(step.cpu_seconds for step in steps)),
        duration(steps[0].median_seconds) if len(steps) == 1 else "-",
        duration(max((step.longest_seconds for step in steps), default=0.0)),
        size(sum(step.bytes_received for step in steps)),
        size(sum(step.bytes_fetched for step in steps)),
        size(sum(step.bytes_out for step in steps)),
    )
    return (f"{sum(step.units for step in steps):,}", f"{timed:,}", *(known if timed else ("-",) * len(known)))


def _hosts(title: str, hosts: Sequence[HostTime]) -> Html:
    rows = [
        (element("bdi", clip(host.host, 80)), f"{host.urls:,}", f"{host.failed:,}", duration(host.seconds),
         duration(host.seconds / host.urls if host.urls else 0.0))
        for host in hosts[:MAX_HOSTS]
    ]  # fmt: skip
    head = ("Host", "URLs", "Failed", "Time on the network", "A URL")
    return element("section", element("h3", title), table(title, head, rows), class_="card")


def duration(seconds: float) -> str:
    """0.4 s, 42.0 s, 3m05s: short times with a digit more than a progress line has."""
    return f"{seconds:.3g} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else clock_time(seconds)


def size(count: int) -> str:
    """Bytes as people read them, in powers of a thousand."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_SIZES[unit]}"
