"""Which hosts of the live web took most time, and which failed most: beside the results, as all that is about time."""

from dataclasses import dataclass, field

from mmc4_builder.fetch import Fetched
from mmc4_builder.timings import Hosts
from mmc4_builder.urls import host_of

REFUSAL = "optout_"  # a host that refuses has not failed


@dataclass(slots=True)
class HostTimes:
    """Adds up, by the host of the URL as it was asked for. There are no more of them than URLs in a bucket."""

    found: Hosts = field(default_factory=dict)

    def note(self, fetched: Fetched) -> None:
        """One URL that was fetched, or was not."""
        if host := host_of(fetched.url):
            urls, failed, seconds = self.found.get(host, (0, 0, 0.0))
            is_failure = fetched.reason is not None and not fetched.reason.startswith(REFUSAL)
            self.found[host] = (urls + 1, failed + is_failure, seconds + fetched.seconds)
