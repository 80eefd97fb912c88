"""Fetch pictures beside img2dataset's own downloader, from nginx on this machine, and from a server that is late.

    python benchmarks/fetch.py [--rounds 3] [--hosts 32] [--concurrency 64]

The figure is pictures per CPU-second of the client. Each contender runs in a forked child, so that nothing but
its own fetching is counted, and alternates with the other; medians are compared. Both fetch the same URLs at the
same concurrency and all must succeed. In a first round, which is not timed, every body is compared byte for byte.

img2dataset: its `download_image_with_retry` in a ThreadPool with its defaults, called as its
`Downloader.download_shard` calls it. Ours: `fetch_all` with everything on: robots.txt and what else a host says
(asked of every host, counted as cost and not as pictures), limits, guards; with no delay and no limit per host but
the concurrency, as the other has none. 64 pictures a host; with fewer, these
questions weigh more.

The modes: with keep-alive (img2dataset never uses it), and with connections that the server ends after each
answer, as in a crawl that takes one picture of a host. https is verified against the system's authorities plus one
of our own (SSL_CERT_FILE for img2dataset). Every connection is a full handshake, none is resumed. A quarter of the
hosts only, for img2dataset takes long; so what ours does once, loading the authorities, weighs more than in a crawl.

Before Python 3.12, `urlopen` loads all authorities anew for every https connection, and that is nearly all of
img2dataset's time there. From 3.12 on it loads them once. So the table shows img2dataset with one context, too:
that is the ratio to expect on newer Pythons.

With a server whose latency is lognormal, the wall clock is compared with what the concurrency allows,
concurrency / mean latency, after the first quarter of the answers; a late server's mean is by its own table.
"""

import argparse
import gc
import json
import os
import platform
import random
import resource
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import mean, median
from threading import Semaphore

import local_web
from timing import installed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mmc4_builder.fetch import FetchConfig, fetch_all

MEAN_BYTES = 47_600
PICTURES_A_HOST = 64
Results = Generator[tuple[str, bytes | None, str | None], None, None]  # URL, body, what went wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What both contenders are given."""

    urls: Sequence[str]
    port: int
    concurrency: int
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run. CPU seconds count all threads and children of the client."""

    cpu: float
    wall: float
    said: object  # what the run returned, by way of JSON


def in_child(run: Callable[[], object]) -> Measured:
    """Run in a forked child and measure it there: whatever it leaves behind ends with it."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as out:
                json.dump(_measure(run), out)
            status = 0
        finally:
            os._exit(status)  # no clean-up that belongs to the parent
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit("a run failed; its error is above")
    cpu, wall, said = json.loads(text)
    return Measured(cpu=cpu, wall=wall, said=said)


def _measure(run: Callable[[], object]) -> tuple[float, float, object]:
    gc.collect()
    before, started = cpu_seconds(), time.perf_counter()
    try:
        said = run()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise
    return cpu_seconds() - before, time.perf_counter() - started, said


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def config(task: Task) -> FetchConfig:
    """Ours: all policy on, and nothing that waits or counts, for the other has no limits per host."""
    return FetchConfig(
        contact="https://example.org/crawl",
        concurrency=task.concurrency,
        per_host=task.concurrency,
        delay_seconds=0.0,
        allow_private=True,
        ports=(task.port,),
        ca_file=task.ca_file,
    )


def ours(task: Task) -> Results:
    for fetched in fetch_all(task.urls, config(task)):
        yield fetched.url, fetched.data, fetched.reason


def img2dataset(task: Task, *, one_context: bool = False) -> Results:
    """As `Downloader.download_shard` does it, with the defaults of `download`."""
    from img2dataset.downloader import download_image_with_retry

    if task.ca_file:
        os.environ["SSL_CERT_FILE"] = task.ca_file
    if one_context:
        handler = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        urllib.request.install_opener(urllib.request.build_opener(handler))
    semaphore = Semaphore(task.concurrency * 2)

    def loader() -> Iterator[tuple[int, str]]:
        for row in enumerate(task.urls):
            semaphore.acquire()
            yield row

    with ThreadPool(task.concurrency) as pool:
        download = partial(
            download_image_with_retry,
            timeout=10,
            retries=0,
            user_agent_token=None,
            disallowed_header_directives={"noai", "noimageai", "noindex", "noimageindex"},
        )
        try:
            for key, stream, error in pool.imap_unordered(download, loader()):
                yield task.urls[key], stream.getvalue() if stream else None, error
                semaphore.release()
        finally:
            semaphore.release(len(task.urls))  # a pool whose loader waits would never end


Contender = Callable[[Task], Results]


def fetch_task(contender: Contender, task: Task, bodies: dict[str, bytes], *, compare: bool) -> None:
    """Fetches everything. Not one may fail, nor have another length; nor differ by a byte with `compare`."""
    seen = 0
    for url, data, error in contender(task):
        if data is None or len(data) != len(bodies[url]) or (compare and data != bodies[url]):
            raise ValueError(f"{url}: {error or 'other bytes than were served'}")
        seen += 1
    if seen != len(bodies):
        raise ValueError(f"{seen} results for {len(bodies)} URLs")


def steady_rate(contender: Contender, task: Task, count: int) -> float:
    """Answers a second once all is under way: the first quarter of `count` is not timed, nor are URLs after it."""
    started = 0.0
    with closing(contender(task)) as results:
        for number, (url, data, error) in enumerate(results, 1):
            if data is None:
                raise ValueError(f"{url}: {error}")
            if number == count // 4:
                started = time.perf_counter()
            if number == count:
                return (count - count // 4) / (time.perf_counter() - started)
    raise ValueError("too few URLs")


def pictures(count: int = 256) -> list[bytes]:
    """Bytes of the size of pictures: lognormal, of the given mean. A fetcher does not look into them."""
    chance = random.Random(3)
    sizes = [chance.lognormvariate(0.0, 0.9) for _ in range(count)]
    return [b"\xff\xd8\xff\xe0" + chance.randbytes(int(size * MEAN_BYTES / mean(sizes))) for size in sizes]


def alternate(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Measured]]:
    """Each contender once a round, every other round in reverse."""
    taken: dict[str, list[Measured]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            taken[name].append(in_child(runs[name]))
    return taken


def race(web: local_web.Web, mode: str, served: list[bytes], args: argparse.Namespace) -> dict[str, float]:
    """Pictures per CPU-second of each contender in one mode."""
    secure = mode.startswith("https")
    hosts = local_web.HOSTS[: args.hosts // 4 if secure else args.hosts]
    pairs = web.urls(mode, PICTURES_A_HOST * len(hosts), hosts)
    bodies = {url: served[number] for url, number in pairs}
    task = Task(
        urls=list(bodies),
        port=web.ports[mode],
        concurrency=args.concurrency,
        ca_file=web.ca_file if secure else None,
    )
    contenders: dict[str, Contender] = {"ours": ours, "img2dataset": img2dataset}
    if secure:
        contenders["img2dataset, one context"] = partial(img2dataset, one_context=True)
    runs: dict[str, Callable[[], object]] = {
        name: partial(fetch_task, contender, task, bodies, compare=False) for name, contender in contenders.items()
    }
    for contender in contenders.values():
        in_child(partial(fetch_task, contender, task, bodies, compare=True))
    taken = alternate(runs, args.rounds)
    rates = {name: len(bodies) / median(one.cpu for one in took) for name, took in taken.items()}
    print(f"{mode} ({len(bodies)} pictures of {len(hosts)} hosts, {args.concurrency} at once)", file=sys.stderr)
    for name, rate in rates.items():
        wall = len(bodies) / median(one.wall for one in taken[name])
        ratio = f"ours x{rates['ours'] / rate:.2f}" if name != "ours" else ""
        print(
            f"  {name:<28}{rate:>9.0f} /CPU-s{1e6 / rate:>9.0f} CPU us each{wall:>8.0f} /s   {ratio}", file=sys.stderr
        )
    return rates


def race_latency(concurrency: int, body: bytes, args: argparse.Namespace) -> dict[str, float]:
    """Shares of the bound, concurrency / mean latency, that each contender reaches."""
    count = 20 * concurrency
    with local_web.late_web(body) as port:
        paths = [f"/{number:06d}.jpg" for number in range(count + 2 * concurrency)]
        hosts = local_web.HOSTS[: args.hosts]
        urls = [f"http://{hosts[number % len(hosts)]}:{port}{path}" for number, path in enumerate(paths)]
        bound = concurrency / mean(local_web.latency(path) for path in paths)
        task = Task(urls=urls, port=port, concurrency=concurrency)
        contenders: dict[str, Contender] = {"ours": ours, "img2dataset": img2dataset}
        runs: dict[str, Callable[[], object]] = {
            name: partial(steady_rate, contender, task, count) for name, contender in contenders.items()
        }
        taken = alternate(runs, max(1, args.rounds // 2))
    print(f"latency ({concurrency} at once, bound {bound:.0f} /s)", file=sys.stderr)
    shares = {}
    for name, took in taken.items():
        rate = median(float(str(one.said)) for one in took)
        cpu = 1e6 * median(one.cpu for one in took) / count
        shares[name] = rate / bound
        print(f"  {name:<28}{rate:>9.0f} /s{shares[name]:>9.2f} of the bound{cpu:>9.0f} CPU us each", file=sys.stderr)
    return shares


def check_policy(web: local_web.Web) -> None:
    """Ours must refuse what robots.txt forbids: no figure without the policy."""
    task = Task(urls=[web.forbidden], port=web.ports["http keep-alive"], concurrency=1)
    reason = next(error for _, _, error in ours(task))
    if reason != "optout_robots":
        raise SystemExit(f"robots.txt was not obeyed: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=32, help="64 pictures each; a quarter of them for https")
    parser.add_argument("--concurrency", type=int, default=64)
    args = parser.parse_args()
    if not installed("img2dataset"):
        raise SystemExit("img2dataset is not installed: nothing to compare with")
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for news of itself on import
    import img2dataset.downloader  # noqa: F401  # not in the child, where it would count

    served = pictures()
    with local_web.nginx(served) as web:
        check_policy(web)
        rates = {mode: race(web, mode, served, args) for mode in web.ports}
    body = min(served, key=lambda one: abs(len(one) - MEAN_BYTES))
    shares = {str(many): race_latency(many, body, args) for many in (64, 256)}
    ratios = {mode: round(rate["ours"] / rate["img2dataset"], 2) for mode, rate in rates.items()}
    worst = min((mode for mode in ratios if mode.startswith("http ")), key=ratios.__getitem__)
    line = {
        "claim": "fetch pictures (the lower of both http modes)",
        "ratio": ratios[worst],
        "ours": round(rates[worst]["ours"], 1),
        "peer": round(rates[worst]["img2dataset"], 1),
        "peer_name": "img2dataset",
        "peer_version": installed("img2dataset"),
        "unit": "pictures/CPU-s",
        "ratios": ratios,
        "one_context": {m: round(r["ours"] / r["img2dataset, one context"], 2) for m, r in rates.items() if len(r) > 2},
        "share_of_latency_bound": {many: {n: round(v, 3) for n, v in share.items()} for many, share in shares.items()},
        "python": platform.python_version(),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
