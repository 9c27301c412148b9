"""The quota: which share of the GPUs that services leave batch jobs may hold, by how often they are evicted.

Once in `quota_period`, from the runs that ended within the last hour, e of which the share that ended by an eviction, against
e* = `eviction_target`:

    e >= 1.5 e*                       share := max(quota_min, share * e* / e)
    e <= 0.5 e* and somebody waits    share := min(1, share * (1.5 - e / e*))

and in between it stays, so it does not swing. Fewer than `ENOUGH` ended runs say nothing: then it grows back.
"""

import msgspec

from colocd.core.policy import Policy

ENOUGH = 5
"""Ended runs below which their shares mean nothing."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """Which share (0..1] of the GPUs that services leave batch jobs may hold since `at`, and why it is below 1."""

    at: float = 0.0
    share: float = 1.0
    why: str = ""


def steer(state: Quota, evicted: int, ended: int, waiting: bool, policy: Policy, now: float) -> Quota:
    """The next state; the same one while its period lasts. `evicted` of `ended` runs of the last hour ended by an eviction."""
    if policy.eviction_target >= 1.0:
        return Quota(at=now) if state.share < 1.0 else state
    if now - state.at < policy.quota_period:
        return state
    rate = evicted / ended if ended >= ENOUGH else 0.0
    told = (
        f"{evicted} of {ended} runs of the last hour ended by an eviction; at most {policy.eviction_target:.0%} should"
    )
    share = state.share
    if rate >= 1.5 * policy.eviction_target:
        share = max(policy.quota_min, share * policy.eviction_target / rate)
    elif rate <= 0.5 * policy.eviction_target and waiting:
        share = min(1.0, share * (1.5 - rate / policy.eviction_target))
    share = round(share, 4)
    if share == state.share:
        return msgspec.structs.replace(state, at=now)
    return Quota(at=now, share=share, why=told if share < 1.0 else "")
