import os
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.core.service import Capacity, Load, Measure, Mode, Ready, ServiceSpec
from colocd.errors import BadFile
from colocd.servicefile import parse_service, service_warnings, spec_from_json, spec_to_json

ME = pwd.getpwuid(os.getuid()).pw_name
HEAD = f"""name = "chat"
user = "{ME}"
partition = "online"
gpus_per_replica = 4
"""
SCRIPT = '''script = """#!/bin/bash
exec serve --port "$COLOC_PORT"
"""
'''
TAIL = """[capacity]
per_replica = 32
[load]
url = "http://{address}:{port}/metrics"
[ready]
url = "http://{address}:{port}/health"
"""


def service(extra: str = "", *, script: str = SCRIPT, tail: str = TAIL) -> str:
    return HEAD + extra + script + tail


def refused(text: str, filename: str = "f") -> str:
    with pytest.raises(BadFile) as caught:
        parse_service(text, filename)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_small_file() -> None:
    spec = parse_service(service("lead_time = '3m'\n"), "f")
    assert spec == ServiceSpec(
        name="chat",
        user=ME,
        partition="online",
        script='#!/bin/bash\nexec serve --port "$COLOC_PORT"\n',
        gpus_per_replica=4,
        capacity=Capacity(per_replica=32.0),
        load=Load(url="http://{address}:{port}/metrics"),
        ready=Ready(url="http://{address}:{port}/health"),
        lead_time=180.0,
    )
    assert service_warnings(spec) == []


def test_a_full_file() -> None:
    extra = """link_level = "PIX"
mode = "best-effort"
min_replicas = 0
max_replicas = 8
cpus_per_replica = 16
port_base = 9000
drain_grace = 0
priority = -3
season = "7d"
sbatch_options = ["--account=lab", "--time=7-0", "--output=/var/log/chat-%j.log", "--contiguous"]
"""
    tail = TAIL.replace("32", "1e4\ntarget_use = 1").replace(
        '"\n[ready]', '"\nmeasure = "tokens_per_s"\nserver = "sglang"\n[ready]'
    )
    spec = parse_service(service(extra, tail=tail), "f")
    assert (spec.mode, spec.load.measure, spec.season) == (Mode.BEST_EFFORT, Measure.TOKENS, 7 * 86400.0)
    assert spec.sbatch_options[1] == "--time=7-0"
    assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("max_replicas = 2\nmin_replicas = 3\n", "f:6: min_replicas: must not be above max_replicas (3 > 2)"),
        (
            "max_replicas = 36\nport_base = 65500\n",
            "f:6: port_base: is too high: port_base + max_replicas (36) must not",
        ),
        ("cpus_per_replica = 0\n", "f:5: cpus_per_replica: must be at least 1"),
        ("max_replicas = 0\n", "f:5: max_replicas: must be at least 1"),
        ("link_level = 'nvlink'\n", "f:5: link_level: must be one of 'NVLINK', "),
        ("gpus = 1\n", "f:5: gpus: is not a known key"),
        ("sbatch_options = ['--time=1',\n '--job-name=x']\n", "f:6: sbatch_options[1]: '--job-name=x' is not allowed"),
        ("lead_time = 0\n", "f:5: lead_time: must be above 0"),
    ],
)
def test_bad_values(extra: str, message: str) -> None:
    assert refused(service(extra)).startswith(message)


@pytest.mark.parametrize("name", ["", "Chat", "-a", "a_b", "a" * 64, "a/b", "a.b", "ä", "a\n", "a b", "../x", "$(id)"])
def test_bad_names(name: str) -> None:
    written = name.replace("\n", "\\n")
    assert refused(service().replace('"chat"', f'"{written}"')).startswith("f:1: name: must be")


@pytest.mark.parametrize("gpus", ["0", "-1", "65", "'4'", "4.0", "true"])
def test_bad_gpus(gpus: str) -> None:
    assert refused(service().replace("= 4", f"= {gpus}")).startswith("f:4: gpus_per_replica: must be")


@pytest.mark.parametrize("size", ["0", "-1", "inf", "nan", "1e300", "'5'"])
def test_bad_capacity(size: str) -> None:
    assert refused(service().replace("= 32", f"= {size}")).startswith("f:9: capacity.per_replica: must be")


@pytest.mark.parametrize("user", ["", "-u", "a b", "a:b", "a,b", "a\\u0000", "a/b"])
def test_bad_users(user: str) -> None:
    assert refused(service().replace(f'user = "{ME}"', f'user = "{user}"')).startswith("f:2: user: must be")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://x/", "must start with http:// or https://"),
        ("x", "must start with http"),
        ("", "must not be empty"),
        ("http:///metrics", "must name a host"),
        ("http://{host}/", "has the unknown placeholder {host}"),
        ("http://{}/", "has the unknown placeholder {}"),
        ("http://{address!r}/", "has the unknown placeholder {address}"),
        ("http://{address.x}/", "has the unknown placeholder {address.x}"),
        ("http://{port:>1000000000}/", "has the unknown placeholder {port}"),
        ("http://{address/", "is not a URL"),
        ("http://x:99999/", "is not a URL"),
        ("http://x:0/", "must not use port 0"),
        ("http://u:p@x/", "must not contain a user name"),
        ("http://x/ y", "must not contain blanks"),
        ("http://x/\\u0000", "contains the control character U+0000"),
        ("http://x/\\r\\nHost: y", "contains the control character U+000D"),
    ],
)
@pytest.mark.parametrize("key", ["metrics", "health"])
def test_bad_urls(url: str, reason: str, key: str) -> None:
    line, name = (11, "load.url") if key == "metrics" else (13, "ready.url")
    said = refused(service().replace(f"http://{{address}}:{{port}}/{key}", url))
    assert said.startswith(f"f:{line}: {name}: {reason}")


@pytest.mark.parametrize("url", ["https://[2001:db8::1]:8000/m", "http://{node}:{port}/m?slot={slot}", "http://lb/m"])
def test_good_urls(url: str) -> None:
    parse_service(service().replace("http://{address}:{port}/metrics", url), "f")


def test_a_measure_the_server_cannot_tell_is_refused() -> None:
    tail = TAIL.replace('metrics"\n', 'metrics"\nserver = "triton"\nmeasure = "tokens_per_s"\n')
    assert refused(service(tail=tail)).startswith(
        "f:13: load.measure: tokens_per_s cannot be read from triton; it tells con"
    )
    said = refused(service(tail=TAIL.replace('metrics"\n', 'metrics"\nserver = "ollama"\n')))
    assert said.startswith("f:12: load.server: must be one of vllm, ")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (f'user = "{ME}"', 'user = "no-such-user-here"', "is not known on this host"),
        ("{port}/metrics", "8000/metrics", ""),
        ("http://{address}:{port}/health", "http://lb/health", "ready.url names no replica"),
        ("$COLOC_PORT", "8000", "never mentions COLOC_PORT"),
        ("gpus_per_replica = 4", "gpus_per_replica = 4\nport_base = 80", "port_base is below 1024"),
        ("gpus_per_replica = 4", "gpus_per_replica = 4\nlead_time = '11m'", "lead_time is longer"),
        ("gpus_per_replica = 4", "gpus_per_replica = 4\nmin_replicas = 0", "min_replicas is 0"),
        ("per_replica = 32", "per_replica = 32\ntarget_use = 0.99", "target_use is above"),
    ],
)
def test_odd_services_are_warned_of(old: str, new: str, part: str) -> None:
    found = service_warnings(parse_service(service().replace(old, new), "f"))
    assert len(found) == (1 if part else 0)
    assert all(part in warning for warning in found)


def test_two_replicas_at_one_address_are_warned_of() -> None:
    text = service("max_replicas = 2\n").replace("{port}/metrics", "8000/metrics")
    assert any("two replicas on one node" in warning for warning in service_warnings(parse_service(text, "f")))


def test_no_ready_check_is_warned_of() -> None:
    text = service(tail=TAIL.split("[ready]")[0])
    assert service_warnings(parse_service(text, "f")) == [
        "ready.url is not set: a replica counts as ready as soon as its job runs"
    ]


@pytest.mark.parametrize("text", ["", "{}", "[]", "\ud800", '{"name": 3}'])
def test_a_broken_stored_spec_is_a_bad_file(text: str) -> None:
    with pytest.raises(BadFile):
        spec_from_json(text)


@given(st.integers(0, len(service())), st.integers(0, 30), st.text(max_size=8))
def test_a_damaged_file_is_a_spec_or_a_bad_file(start: int, length: int, patch: str) -> None:
    text = service()
    said = ""
    try:
        service_warnings(parse_service(text[:start] + patch + text[start + length :], "f"))
    except BadFile as error:
        said = str(error)
    assert "\n" not in said
