"""Fetch many URLs from the live web, politely and safely: bounded in time, bytes, redirects and addresses.

The bytes are handed on as they came; what they show is for the images module to find out. One failed URL is
one result with a reason, never an exception and never a stall of the others.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import Final

from yarl import URL

from mmc4_builder import addresses
from mmc4_builder import fetch_rules as rules
from mmc4_builder.fetch_config import FetchConfig
from mmc4_builder.fetch_curl import Answer, Limits, Transport
from mmc4_builder.fetch_hosts import Authorities, Authority, host_of
from mmc4_builder.fetch_rules import Headers
from mmc4_builder.frontier import Frontier, Pace
from mmc4_builder.host_files import MAX_BODY, HostFile
from mmc4_builder.robots import ROBOTS_TOKEN
from mmc4_builder.signals import HEADERS, Statement, header_statements

__all__ = ["FetchConfig", "Fetched", "fetch_all"]

Refuse = Callable[[tuple[Statement, ...]], str | None]

_TO_US: Final = f"robots:{ROBOTS_TOKEN}"  # only a Disallow is stated: half the work of asking `allowed` as well
_FAR: Final = 60.0  # seconds; libcurl's own timers come before
_EAGER: Final = 0.005  # seconds that transfers may rest while results are being given
_SAYS_WHEN: Final = frozenset({429, 503})  # statuses whose Retry-After speaks for the whole host

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one URL. `data` is set exactly when `reason` is None."""

    url: str  # as asked for
    data: bytes | None
    reason: str | None  # snake_case counter name, None for success
    status: int  # of the last response, 0 where none came
    final_url: str  # the last one requested or refused, after redirects
    headers: Headers  # of the last response: lower-case names, only KEPT_HEADERS, repeated fields kept apart
    seconds: float  # spent on the network, retries and redirects included, waits for a turn not
    statements: tuple[Statement, ...] = ()  # of the hosts' files and of headers, in the order seen


def fetch_all(
    urls: Iterable[str],
    config: FetchConfig,
    *,
    refuse: Refuse | None = None,
    keep_host_file: Callable[[HostFile], None] | None = None,
) -> Iterator[Fetched]:
    """One result for each URL, in order of completion; sort where order matters.

    `urls` is read lazily, `config.window` ahead at most: mix the hosts, for a long run of one host fills the
    window. No thread works in the background: transfers move while the next result is being asked for, so a
    caller that is busy for many seconds lets them run into their deadlines.

    robots.txt of every host is asked for first, redirect targets' included, and obeyed. `refuse` may name a
    reason not to fetch a URL: it is asked with what the host's files say of it, before each request, and with
    what the headers of a good response say, before its body is read. `keep_host_file` gets each file once.
    """
    with closing(_Crawl(config, refuse, keep_host_file)) as crawl:
        yield from crawl.results(urls)


@dataclass(slots=True, eq=False)
class _Job:
    """A URL on its way, or one of the files of an authority, over redirects and retries."""

    url: str
    target: URL
    sent: str  # the target as text
    host: str
    of: Authority["_Job"] | None = None  # whose file it is
    hops: int = 0
    tries: int = 0
    failure: str | None = None  # of the last try
    status: int = 0
    headers: Headers = ()
    seconds: float = 0.0
    statements: tuple[Statement, ...] = ()


class _Crawl:
    """The way of each URL: its host's files, its turn, the request, and what the answer leads to."""

    def __init__(
        self, config: FetchConfig, refuse: Refuse | None, keep_host_file: Callable[[HostFile], None] | None
    ) -> None:
        self._config = config
        self._refuse = refuse
        self._hosts: Authorities[_Job] = Authorities(config.max_rules_bytes, keep_host_file)
        self._frontier: Frontier[_Job] = Frontier(_pace(config))
        self._transport: Transport[_Job] = Transport(_limits(config), self._judge)
        self._ready: deque[Fetched] = deque()
        self._ready_bytes = 0
        self._moved = 0.0  # when transfers were last given their time

    def close(self) -> None:
        self._transport.close()

    def results(self, urls: Iterable[str]) -> Iterator[Fetched]:
        source, taken, given = iter(urls), 0, 0
        while True:
            for url in islice(source, self._config.window - (taken - given)):
                taken += 1
                self._admit(url)
            if taken == given:
                return
            if not self._ready or time.monotonic() - self._moved > _EAGER:
                self._advance()
            if self._ready:
                fetched = self._ready.popleft()
                self._ready_bytes -= len(fetched.data or b"")
                yield fetched
                given += 1

    def _advance(self) -> None:
        """Starts what may start, lets transfers move, and waits only where there is nothing to give."""
        now = time.monotonic()
        while self._ready_bytes < self._config.max_ready_bytes and (job := self._frontier.take(now)):
            self._start(job)
        self._end_dropped()
        wake_at = self._frontier.wake_at()
        wait = 0.0 if self._ready else _FAR if wake_at is None else min(_FAR, max(0.0, wake_at - now))
        for job, answer in self._transport.poll(wait):
            self._settle(job, answer)
        self._end_dropped()
        self._moved = time.monotonic()

    def _admit(self, url: str) -> None:
        private = self._config.allow_private
        target = addresses.checked_url(url, self._config.ports, allow_private=private)
        if isinstance(target, str):
            self._give(url, target)
        else:
            self._approach(_Job(url, target, str(target), host_of(target)))

    def _approach(self, job: _Job) -> None:
        """Asks for the files of the target's host, or goes on with what they say."""
        authority = self._hosts.find(job.target, job.host)
        if authority.known:
            self._consider(job, authority)
            return
        authority.waiting.append(job)
        if len(authority.waiting) == 1:
            self._ask_host(authority, authority.robots_url)

    def _ask_host(self, authority: Authority[_Job], url: str) -> None:
        target = URL(url, encoded=True)
        job = _Job(url, target, url, host_of(target), authority)
        self._frontier.add(job.host, job, first=True)

    def _consider(self, job: _Job, authority: Authority[_Job]) -> None:
        """A URL whose host's files are known is queued, or ends."""
        said = authority.rules
        assert said is not None  # known
        statements = () if authority.silent else said.statements(job.sent, self._config.agents)
        job.statements += statements
        reason = authority.failure
        if reason is None and any(statement.name == _TO_US for statement in statements):
            reason = "optout_robots"
        if reason := reason or self._ask(statements):
            self._finish(job, reason)
        else:
            self._frontier.add(job.host, job)

    def _ask(self, statements: tuple[Statement, ...]) -> str | None:
        try:
            return self._refuse(statements) if self._refuse else None
        except Exception:
            _log.exception("judging %.500r failed in an unforeseen way", statements)
            return "internal_error"

    def _start(self, job: _Job) -> None:
        job.status, job.headers = 0, ()
        limit = self._config.max_bytes if job.of is None else MAX_BODY + 1
        self._transport.start(job.sent, job, seconds=self._config.total_seconds - job.seconds, max_bytes=limit)

    def _judge(self, job: _Job, status: int, headers: Sequence[tuple[str, str]]) -> str | None:
        """Sees the head of an answer; a reason ends it before its body."""
        if job.of is not None or status not in rules.WHOLE:
            return None
        if rules.coding_of(headers) is None:
            return "content_encoding"
        length = rules.header(headers, "content-length") or ""
        if length.isdecimal() and int(length[:20]) > self._config.max_bytes:
            return "too_many_bytes"
        if all(name not in HEADERS for name, _ in headers):
            return None
        statements = header_statements(headers, job.sent, _now())
        job.statements += statements
        return self._ask(statements)

    def _settle(self, job: _Job, answer: Answer) -> None:
        """After a request: on to a retry, a redirect's target, or the end."""
        now, config = time.monotonic(), self._config
        job.status, job.seconds = answer.status, job.seconds + answer.seconds
        job.headers = rules.kept_headers(answer.headers)
        reason = job.failure = answer.reason or _status_reason(answer.status)
        passing = reason is not None and rules.may_pass(reason)
        asked = _asked_wait(answer) if passing else None
        wait = asked
        if passing and wait is None:
            wait = rules.backoff(
                job.url, job.tries, base=config.retry_seconds, most=config.max_retry_wait, seed=config.seed
            )
        pause = wait if wait is not None and answer.status in _SAYS_WHEN else 0.0
        failed = reason is not None and rules.speaks_of_host(reason)
        self._frontier.done(job.host, now, failed=failed, pause=pause)
        if asked is not None and asked > config.max_retry_after:
            self._frontier.give_up(job.host)
        elif wait is not None and job.tries < config.retries and job.seconds < config.total_seconds:
            job.tries += 1
            self._frontier.add(job.host, job, at=now + wait)
            return
        if reason is None and answer.status in rules.REDIRECTS:
            reason = self._redirect(job, answer)
            if reason is None:
                return
        self._conclude(job, reason, answer.body)

    def _redirect(self, job: _Job, answer: Answer) -> str | None:
        """Sends the job where the redirect leads; the reason where it must not go."""
        job.hops += 1
        if job.hops > self._config.max_redirects:
            return "too_many_redirects"
        location, private = rules.header(answer.headers, "location"), self._config.allow_private
        target = addresses.follow(job.target, location, self._config.ports, allow_private=private)
        if isinstance(target, str):
            return target
        if job.seconds >= self._config.total_seconds:
            return "timeout"
        job.target, job.sent, job.host = target, str(target), host_of(target)
        if job.of is None:
            self._approach(job)
        else:
            self._frontier.add(job.host, job, first=True)
        return None

    def _end_dropped(self) -> None:
        """Ends what the frontier gave up: with its own failure where it had one, else with the host's."""
        while self._frontier.ended:
            job, reason = self._frontier.ended.popleft()
            self._conclude(job, job.failure or reason, b"")

    def _conclude(self, job: _Job, reason: str | None, body: bytes) -> None:
        if job.of is not None:
            self._learn(job, job.of, reason, body)
        elif reason:
            self._finish(job, reason)
        else:
            data = rules.plain_body(body, job.headers, self._config.max_bytes)
            self._finish(job, "content_encoding" if data is None else None if data else "empty", data)

    def _learn(self, job: _Job, authority: Authority[_Job], reason: str | None, body: bytes) -> None:
        """A host's file has come, or will not: on to the next file, or back to the URLs that wait."""
        if reason == "too_many_bytes" or (job.status and reason == _status_reason(job.status)):
            reason = None  # the start is enough (RFC 9309 §2.5), and a status speaks for itself
        plain = None if reason else rules.plain_body(body, job.headers, MAX_BODY + 1)
        if plain is None:  # it has rules, only we cannot read them
            reason = reason or "content_encoding"
        file = HostFile(url=job.url, status=job.status, reason=reason, body=plain or b"", seen=_now())
        if following := self._hosts.learn(authority, file, job.hops):
            self._ask_host(authority, following)
            return
        delay = authority.rules.crawl_delay if authority.rules else None
        if delay:
            own_host = host_of(URL(authority.origin, encoded=True))
            self._frontier.slow_down(own_host, min(delay, self._config.max_crawl_delay))
        waiting, authority.waiting = authority.waiting, []
        for each in waiting:
            self._consider(each, authority)

    def _finish(self, job: _Job, reason: str | None, data: bytes | None = None) -> None:
        self._ready_bytes += len(data or b"") if reason is None else 0
        self._ready.append(
            Fetched(
                url=job.url,
                data=data if reason is None else None,
                reason=reason,
                status=job.status,
                final_url=job.sent,
                headers=job.headers,
                seconds=job.seconds,
                statements=job.statements,
            )
        )

    def _give(self, url: str, reason: str) -> None:
        """A URL that is none, or must not be asked for."""
        self._ready.append(Fetched(url=url, data=None, reason=reason, status=0, final_url=url, headers=(), seconds=0.0))


def _status_reason(status: int) -> str | None:
    return None if status in rules.WHOLE or status in rules.REDIRECTS else f"http_{status}"


def _asked_wait(answer: Answer) -> float | None:
    if answer.status not in _SAYS_WHEN:
        return None
    return rules.retry_wait(rules.header(answer.headers, "retry-after"), time.time())


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pace(config: FetchConfig) -> Pace:
    return Pace(
        concurrency=config.concurrency,
        per_host=config.per_host,
        delay_seconds=config.delay_seconds,
        max_failures=config.max_failures,
        host_seconds=config.host_seconds,
        host_requests=config.host_requests,
    )


def _limits(config: FetchConfig) -> Limits:
    return Limits(
        user_agent=config.user_agent,
        connections=4 * config.concurrency,
        connect_seconds=config.connect_seconds,
        grace_seconds=config.grace_seconds,
        min_rate=config.min_rate,
        ca_file=config.ca_file,
        resolve=config.resolve,
        allow_private=config.allow_private,
    )
