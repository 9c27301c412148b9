import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.core.service import Capacity, Load, Measure, Mode, Ready, ServiceSpec
from colocd.errors import BadFile
from colocd.sbatch_options import option_reason, script_reason
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


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('"echo"', 'must start with "#!"'),
        ('""', 'must start with "#!"'),
        ("'''#! \necho'''", "must name an interpreter"),
        ('"#!/bin/sh\\n\\u0000"', "contains a NUL character"),
        (
            "'''#!/bin/sh\n#SBATCH --time=3 -J x\n'''",
            "line 2 of the script has the option '-J', but coloc sets --job-name",
        ),
        ("3", "must be a text"),
    ],
)
def test_bad_scripts(script: str, reason: str) -> None:
    assert refused(service(script=f"script = {script}\n")).startswith(f"f:5: script: {reason}")


def test_windows_line_ends_become_plain_ones(tmp_path: Path) -> None:
    expected = parse_service(service(), "f")
    assert parse_service(service().replace("\n", "\r\n"), "f") == expected
    escaped = service(script='script = "#!/bin/bash\\r\\nexec serve --port \\"$COLOC_PORT\\"\\r\\n"\n')
    assert parse_service(escaped, "f") == expected
    (tmp_path / "run.sh").write_bytes(expected.script.replace("\n", "\r\n").encode())
    assert parse_service(service(script="script_file = 'run.sh'\n"), str(tmp_path / "f.toml")) == expected


def test_a_script_is_needed_once(tmp_path: Path) -> None:
    assert refused(service(script="")) == "f:1: script: is missing; give script or script_file"
    assert "beside script" in refused(service("script_file = 'x'\n"))


def test_script_file_is_read_from_below_the_service_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "run.sh").write_text("#!/bin/bash\n: $COLOC_PORT\n")
    spec = parse_service(service(script="script_file = 'sub/run.sh'\n"), str(tmp_path / "f.toml"))
    assert spec.script == "#!/bin/bash\n: $COLOC_PORT\n"


def test_script_files_that_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "outside.sh").write_text("#!/bin/sh\n")
    (folder / "link.sh").symlink_to("../outside.sh")
    (folder / "loop.sh").symlink_to("loop.sh")
    (folder / "bin.sh").write_bytes(b"#!/bin/sh\n\xff")
    (folder / "plain.sh").write_text("echo")
    os.mkfifo(folder / "pipe.sh")
    reasons = {
        "../outside.sh": "must be a path below",
        "/etc/passwd": "must be a path below",
        "": "must not be empty",
        "link.sh": "outside the folder",
        "loop.sh": "cannot be read",
        "bin.sh": "is not UTF-8",
        "plain.sh": 'must start with "#!"',
        "pipe.sh": "is not a regular file",
        ".": "cannot be read",
        "missing.sh": "No such file",
    }
    for name, reason in reasons.items():
        said = refused(service(script=f"script_file = '{name}'\n"), str(folder / "f.toml"))
        assert said.startswith(f"{folder}/f.toml:5: script_file: ")
        assert reason in said
    assert "must be a text" in refused(service(script="script_file = 3\n"))


@pytest.mark.parametrize(
    "word",
    [
        "--job-name=x",
        "--comment=x",
        "--partition=p",
        "--gres=gpu:1",
        "--gpus=1",
        "--gpus-per-node=1",
        "--nodelist=n",
        "--reservation=r",
        "--hold",
        "--requeue",
        "--no-requeue",
        "--uid=0",
        "--gid=0",
        "--array=1-9",
        "--wrap=x",
        "--exclusive",
        "--nodel=n",
        "--jo=x",
        "--res=x",
        "--u=0",
        "--export=ALL",
        "--parsable",
        "--test-only",
        "--help",
        "-Jx",
        "-H",
        "x",
        "--",
        "--account",
        "run.sh",
        "",
        "--account=a\n",
    ],
)
def test_options_that_are_refused(word: str) -> None:
    assert option_reason(word) is not None


@pytest.mark.parametrize(
    "word",
    [
        "--output=x",
        "--error=x",
        "--account=x",
        "--qos=x",
        "--time=1",
        "--mem=4G",
        "--nice",
        "--signal=B:USR1@60",
        "--chdir=/x",
    ],
)
def test_options_that_are_taken(word: str) -> None:
    assert option_reason(word) is None


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("#!/bin/sh\n#SBATCH -A lab --mem=0 # --hold\n##SBATCH -H\necho\n#SBATCH --hold\n", None),
        ("#!/bin/sh\n\n# x\n#SBATCH -QH\n", 4),
        ("#!/bin/sh\n#SBATCH -Ahold\n", None),
        ("#!/bin/sh\n#SBATCH --gpus=3\n", 2),
        ("#!/bin/sh\n#SBATCH hetjob\n", 2),
        ("#!/bin/sh\n#SBATCH --comment='x\n", 2),
    ],
)
def test_sbatch_lines_of_the_script(script: str, line: int | None) -> None:
    found = script_reason(script)
    assert (found[0] if found else None) == line


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
