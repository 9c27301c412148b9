"""From an agent's buffer to colocd's intake over real munge and TCP: who is believed, and what strangers can do."""

import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.agent.batches import batch, gpus, infos
from tests.agent.conftest import Hosts

from colocd.agent import wire
from colocd.agent.buffer import Buffer
from colocd.agent.send import NotSent, Sender
from colocd.clock import SystemClock
from colocd.errors import BadConfig
from colocd.gpus import listener as listening
from colocd.gpus.identity import REMEMBERED, Identity, Once
from colocd.gpus.intake import Intake
from colocd.gpus.listener import Gate, Listener
from colocd.munge import Credential, Munge, MungeUnreachable

pytestmark = pytest.mark.slurm
NODES = {"n1": "127.0.0.1", "n2": "127.0.0.2"}
Open = Callable[..., "Site"]


class Site:
    """colocd's side, and how to speak to it."""

    def __init__(self, hosts: Hosts, clock: SystemClock, uid: int, nodes: dict[str, str]) -> None:
        self.hosts, self.clock, self.intake = hosts, clock, Intake()
        identity = Identity(uid, None, clock)
        identity.expect(nodes)
        self.listener = Listener("127.0.0.1", 0, Munge(hosts.socket("127.0.0.1")), identity, self.intake, clock)
        self.listener.start()

    def sender(self, host: str = "127.0.0.1") -> Sender:
        munge = Munge(self.hosts.socket(host), ttl=60, only_uid=os.getuid())
        return Sender("127.0.0.1", self.listener.port, munge, self.clock)

    def buffer(self, node: str = "n1", samples: int = 2) -> Buffer:
        made = Buffer(node, "run-0001", 5.0, 100)
        for _ in range(samples):
            made.add(self.clock.monotonic(), infos(), gpus())
        return made

    def post(self, data: bytes, source: str = "127.0.0.1") -> bytes:
        with socket.create_connection(("127.0.0.1", self.listener.port), 10, (source, 0)) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            found = b""
            while part := link.recv(65536):
                found += part
            return found

    def say(self, credential: bytes) -> wire.Reply:
        frame = wire.MAGIC + struct.pack(">I", len(credential)) + credential
        return wire.decode_reply(self.post(frame)[4:])


@pytest.fixture
def open_site(hosts: Hosts, clock: SystemClock) -> Iterator[Open]:
    made: list[Site] = []

    def call(uid: int | None = None, nodes: dict[str, str] = NODES) -> Site:
        made.append(Site(hosts, clock, os.getuid() if uid is None else uid, nodes))
        return made[-1]

    yield call
    for site in made:
        site.listener.stop()


def test_samples_arrive_and_leave_the_buffer(open_site: Open) -> None:
    site = open_site()
    buffer = site.buffer(samples=7)
    site.sender().round(buffer, ())
    assert (len(buffer), site.intake.count.samples) == (0, 7)
    assert abs(site.intake.latest()["n1"].at - site.clock.now()) < 5


def test_another_user_is_not_believed(open_site: Open) -> None:
    site = open_site(uid=4242)
    buffer = site.buffer()
    with pytest.raises(NotSent, match=f"sent by user {os.getuid()}, not by the agents' user 4242"):
        site.sender().round(buffer, ())
    assert (len(buffer), site.intake.latest()) == (2, {})
    assert site.listener.refused["user"] == 1


def test_a_node_speaks_for_itself_only(open_site: Open) -> None:
    site = open_site()
    with pytest.raises(NotSent, match=r"comes from 127\.0\.0\.2, but the address of n1 is 127\.0\.0\.1"):
        site.sender("127.0.0.2").round(site.buffer("n1"), ())
    with pytest.raises(NotSent, match="Slurm has no node n9"):
        site.sender().round(site.buffer("n9"), ())
    site.sender("127.0.0.2").round(site.buffer("n2"), ())
    assert set(site.intake.latest()) == {"n2"}


def test_names_are_looked_up_and_told_when_they_do_not_fit(open_site: Open) -> None:
    site = open_site(nodes={"n1": "localhost", "n2": "no-such-host.invalid"})
    with suppress(NotSent):  # "the address of n1 is being looked up", if it is asked for that early
        site.sender().round(site.buffer("n1"), ())
    SystemClock().sleep(1.0)
    site.sender().round(site.buffer("n1"), ())
    assert set(site.intake.latest()) == {"n1"}


def test_a_loopback_address_of_munge_is_explained(open_site: Open) -> None:
    site = open_site(nodes={"n1": "10.9.8.7"})
    with pytest.raises(NotSent, match=r"munged there gives 127\.0\.0\.1 as its address: start it with --origin"):
        site.sender().round(site.buffer("n1"), ())


def test_a_replayed_credential_is_refused(open_site: Open) -> None:
    site = open_site()
    credential = Munge(site.hosts.socket(), ttl=60, only_uid=os.getuid()).encode(wire.encode(batch()))
    assert site.say(credential) == wire.Reply(True, 1)
    again = site.say(credential)
    assert (again.ok, again.why) == (False, "this credential was used before")
    assert (site.intake.count.batches, site.listener.refused["replayed"]) == (1, 1)


def test_a_munged_that_forgot_lets_no_replay_through(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """munged remembers in memory only: after its restart it takes a credential again that is still good."""
    site = open_site()
    munge = Munge(site.hosts.socket(), ttl=60, only_uid=os.getuid())
    first, second = (munge.encode(wire.encode(batch(first=first))) for first in (0, 2))
    forgetful = {text: site.listener._munge.decode(text) for text in (first, second)}
    monkeypatch.setattr(site.listener._munge, "decode", forgetful.get)
    assert [site.say(text).ok for text in (first, second)] == [True, True]
    assert [site.say(text).why for text in (first, second)] == ["this credential was used before"] * 2
    assert (site.intake.count.samples, site.listener.refused["replayed"]) == (4, 2)


def test_what_is_remembered_of_credentials_is_bounded() -> None:
    class Tick(SystemClock):
        at = 0.0

        def monotonic(self) -> float:
            return self.at

    clock = Tick()
    once = Once(clock)
    for number in range(5000):
        clock.at += 1.0
        once.take(Credential(0, "", str(number).encode(), 1, "127.0.0.1", clock.at, clock.at))
    assert len(once._seen) <= REMEMBERED + 2


def test_old_credentials_and_wrong_clocks_are_told(open_site: Open) -> None:
    site = open_site()
    credential = Munge(site.hosts.socket(), ttl=1, only_uid=os.getuid()).encode(wire.encode(batch()))
    SystemClock().sleep(2.1)
    told = site.say(credential)
    assert (told.ok, "s behind the head node's" in told.why) == (False, True)


def test_forged_damaged_and_foreign_credentials(open_site: Open) -> None:
    site = open_site()
    munge = Munge(site.hosts.socket(), ttl=60, only_uid=os.getuid())
    good = munge.encode(wire.encode(batch()))
    middle = len(good) // 2
    damaged = good[:middle] + (b"A" if good[middle : middle + 1] != b"A" else b"B") + good[middle + 1 :]
    for bad in (damaged, b"MUNGE:AwQDAAA:", b"x" * 1000, b"\0", good[:-20]):
        assert site.say(bad).ok is False
    other = Munge(site.hosts.socket(), only_uid=os.getuid() + 1).encode(wire.encode(batch()))
    assert "munge says: Unauthorized credential" in site.say(other).why
    assert "cannot be read" in site.say(munge.encode(b"not a batch")).why
    assert site.intake.latest() == {}
    assert site.say(good).ok


def test_too_long_and_too_strange_messages(open_site: Open) -> None:
    site = open_site()
    for data in (b"GET / HTTP/1.1\r\n\r\n", wire.MAGIC + struct.pack(">I", wire.MAX_CREDENTIAL + 1)):
        assert b"this is no batch" in site.post(data)
    assert site.post(wire.MAGIC + struct.pack(">I", 100) + b"short") == b""
    site.sender().round(site.buffer(), ())


@given(data=st.binary(max_size=300))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_does_not_harm(open_site: Open, data: bytes) -> None:
    site = open_site()
    site.post(data)
    site.sender().round(site.buffer(), ())
    site.listener.stop()


def test_slow_and_many_connections(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PATIENCE", 1.0)
    site = open_site()
    where = ("127.0.0.1", site.listener.port)
    idle = [socket.create_connection(where, 5, ("127.0.0.9", 0)) for _ in range(12)]
    for link in idle:
        link.settimeout(5)
    SystemClock().sleep(0.2)
    assert site.listener.refused["flood"] == 4  # the ninth and later ones of one address
    site.sender().round(site.buffer(), ())  # others are served meanwhile
    ends = []
    for link in idle:
        try:
            ends.append(link.recv(1))
        except ConnectionResetError:
            ends.append(b"")
        link.close()
    assert ends == [b""] * 12
    assert site.listener.refused["broken"] == 8


def test_the_gate_opens_again() -> None:
    class Standing:
        def __init__(self) -> None:
            self.at = 0.0

        def monotonic(self) -> float:
            return self.at

    clock = Standing()
    gate = Gate(clock)  # type: ignore[arg-type]
    passed = 0
    for _ in range(200):
        if gate.enter("a"):
            passed += 1
            gate.leave("a")
    assert passed == listening.BURST
    assert gate.enter("b")
    clock.at = 1.0
    assert sum(gate.enter("a") for _ in range(50)) == listening.AT_ONCE_EACH


def test_what_was_not_confirmed_is_sent_again_after_a_restart(open_site: Open) -> None:
    first = open_site()
    sender, buffer = first.sender(), first.buffer()
    first.listener.stop()
    with pytest.raises(NotSent, match="cannot be reached"):
        sender.round(buffer, ())
    assert len(buffer) == 2
    second = open_site()
    second.sender().round(buffer, ())
    assert (len(buffer), second.intake.count.samples) == (0, 2)


def test_munge_that_is_away(open_site: Open, hosts: Hosts) -> None:
    site = open_site()
    sender, buffer = site.sender("127.0.0.3"), site.buffer()
    hosts.end("127.0.0.3")
    with pytest.raises(MungeUnreachable, match="munge gives no credential"):
        sender.round(buffer, ())
    os.kill(hosts.pid(), signal.SIGSTOP)
    try:
        assert hosts.socket("127.0.0.4")
        frame = Munge(hosts.socket("127.0.0.4"), only_uid=os.getuid()).encode(wire.encode(batch()))
        whole = wire.MAGIC + struct.pack(">I", len(frame)) + frame
        with socket.create_connection(("127.0.0.1", site.listener.port), 10) as link:
            link.sendall(whole)
            SystemClock().sleep(0.3)
    finally:
        os.kill(hosts.pid(), signal.SIGCONT)
    SystemClock().sleep(0.5)
    site.sender().round(site.buffer(), ())
    assert "n1" in site.intake.latest()


def test_an_address_that_is_taken(open_site: Open, hosts: Hosts, clock: SystemClock) -> None:
    site = open_site()
    twin = Listener("127.0.0.1", site.listener.port, Munge(hosts.socket()), Identity(0, None, clock), Intake(), clock)
    with pytest.raises(BadConfig, match=r"telemetry\.agents\.listen"):
        twin.start()
    twin.stop()
