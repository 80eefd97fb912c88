"""What was removed from earlier builds must not come back in one that adds to them."""

from mmc4_builder import commits, tombstones
from pipelines.plan import Plan


def inherit(plan: Plan) -> None:
    """Remember the removals of the earlier builds, before anything is done.

    Only those that the plan was made with: later ones make another plan, under which pages are read anew.
    """
    previous = plan.build.previous
    keys = tombstones.of(build.root for build in previous.builds)
    if previous.removed and commits.fingerprint(keys.to_text()) == previous.removed:
        tombstones.add(plan.root, keys)
