"""The part of the configuration file that is about readings of GPUs: `[telemetry.…]`."""

import re

import msgspec

from colocd.units import Rule, absolute_path, duration, host_port, one_line


class AgentsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where coloc-agents send what they read (docs/agent.md)."""

    listen: str | None = None
    """`address:port` on which agents are heard (TCP). Not set: no port is opened."""
    user: str = "coloc-agent"
    """User, or its number, as whom the agents run; nobody else is believed."""
    hosts: str | None = None
    """File like /etc/hosts, for nodes on which munge gives another address than NodeAddr. Not set: NodeAddr and name count."""
    munge_socket: str | None = None
    """munged's socket. Not set: munge's default."""


class PrometheusConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The site's Prometheus with dcgm-exporter's metrics, for nodes without an agent."""

    url: str | None = None
    """Its base URL: `http://prometheus:9090`. Not set: it is not asked."""
    select: str = ""
    """More label matchers, as PromQL has them: `cluster="a",job="dcgm"`."""
    timeout: float = 5.0
    """Longest wait for one answer; no cycle waits for it."""


class TelemetryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Readings of the GPUs themselves. Both may be on: of a node told by both, the newer reading counts."""

    agents: AgentsConfig = AgentsConfig()
    """See `[telemetry.agents]` below."""
    prometheus: PrometheusConfig = PrometheusConfig()
    """See `[telemetry.prometheus]` below."""


def _http_url(value: str) -> str | None:
    found = one_line(value) or (
        None if value.startswith(("http://", "https://")) else "must start with http:// or https://"
    )
    return found or ("must have no query" if "?" in value or "#" in value else None)


def _matchers(value: str) -> str | None:
    one = r'\s*[A-Za-z_]\w*\s*(=|!=|=~|!~)\s*"[^"\\\n]*"\s*'
    if not value or re.fullmatch(f"{one}(,{one})*", value):
        return None
    return 'must be label matchers like cluster="a",job=~"dcgm.*"'


TELEMETRY_RULES: dict[str, Rule] = {
    "telemetry.agents.listen": Rule(check=host_port),
    "telemetry.agents.user": Rule(check=one_line),
    "telemetry.agents.hosts": Rule(check=absolute_path),
    "telemetry.agents.munge_socket": Rule(check=absolute_path),
    "telemetry.prometheus.url": Rule(check=_http_url),
    "telemetry.prometheus.select": Rule(check=_matchers),
    "telemetry.prometheus.timeout": duration(high=60.0),
}
