"""Who may do what: callers are told apart by the kernel, others' services need root's files, hidden jobs stay hidden."""

import multiprocessing
import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.fake_backend import FakeBackend
from tests.helpers.daemon_rig import SERVICE, DaemonRig

from colocd.api import peer as peers
from colocd.api import rights
from colocd.api.discreet import Discreet
from colocd.api.peer import Peer, enter, peer, signed
from colocd.api.server import ApiServer
from colocd.config import ApiConfig
from colocd.errors import NotAllowed, NotFound

GAMES, NOBODY = pwd.getpwnam("games"), pwd.getpwnam("nobody")


@pytest.fixture(autouse=True)
def nobody_in_particular() -> Iterator[None]:
    """Each test ends outside of any request."""
    yield
    peers._peer.set(None)


def ask(path: str, socket: str, uid: int, out: Any) -> None:
    os.setgroups([])
    os.setuid(uid)
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://coloc") as client:
        answer = client.get(path)
        out.send((answer.status_code, answer.json()))


@pytest.mark.root
@pytest.mark.parametrize("user", [GAMES, NOBODY])
def test_the_kernel_says_who_asks(
    tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, user: pwd.struct_passwd
) -> None:
    seen: list[Peer | None] = []

    def services() -> list[Any]:
        seen.append(peer())
        return []

    monkeypatch.setattr(backend, "services", services)
    folder = Path(tempfile.mkdtemp(prefix="coloc-s-"))
    folder.chmod(0o755)
    config = ApiConfig(socket=str(folder / "c"), admin_socket=str(folder / "a"))
    server = ApiServer(backend, config)
    server.start()
    try:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()
        child = fork.Process(target=ask, args=("/v1/services", config.socket, user.pw_uid, theirs))
        child.start()
        assert ours.poll(20)
        assert ours.recv()[0] == 200
        child.join()
    finally:
        server.stop()
    assert [who.name for who in seen if who is not None] == [user.pw_name]
    assert peer() is None  # outside of the request nobody asks


def test_a_caller_the_kernel_does_not_name_has_no_rights(tmp_path: Path) -> None:
    enter(None)
    who = peer()
    assert who is not None
    assert not who.sees_all("root")
    with pytest.raises(NotAllowed):
        rights.check_apply("games", "x", "/etc/passwd", who)
    assert signed("paused").endswith("by uid -1")


class Test_services:
    """An operator may apply his own services, and others' only from root's files."""

    def test_root_and_coloc_itself_may_everything(self) -> None:
        rights.check_apply("games", "x", "nowhere", Peer(0))
        rights.check_apply("games", "x", "nowhere", None)

    def test_everybody_may_for_himself(self) -> None:
        rights.check_apply("games", "x", "stdin", Peer(GAMES.pw_uid))

    @pytest.mark.parametrize("name", ["stdin", "chat.toml", "/nonexistent/chat.toml", "/etc"])
    def test_not_for_another_user_without_a_file_of_roots(self, name: str) -> None:
        with pytest.raises(NotAllowed, match="games may apply services of user nobody only from a file of root's"):
            rights.check_apply("nobody", "x", name, Peer(GAMES.pw_uid))

    @pytest.mark.root
    @pytest.mark.parametrize("spoil", ["", "file", "folder", "owner", "owner of folder", "text", "link", "sticky"])
    def test_the_file_is_roots_all_the_way_up(self, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
        folder = Path("/var/lib") / f"coloc-test-{os.getpid()}"
        folder.mkdir(mode=0o755)
        file = folder / "chat.toml"
        try:
            file.write_text('name = "chat"\n')
            file.chmod(0o644)
            name, text = str(file), file.read_text()
            if spoil == "file":
                file.chmod(0o664)
            elif spoil == "folder":
                folder.chmod(0o777)
            elif spoil == "sticky":
                folder.chmod(0o1777)
            elif spoil == "owner":
                os.chown(file, GAMES.pw_uid, -1)
            elif spoil == "owner of folder":
                os.chown(folder, GAMES.pw_uid, -1)
            elif spoil == "text":
                text = 'name = "evil"\n'
            elif spoil == "link":
                hidden = folder / "theirs"
                hidden.mkdir()
                (hidden / "chat.toml").write_text(text)
                os.chown(hidden, GAMES.pw_uid, -1)
                file.unlink()
                file.symlink_to(hidden / "chat.toml")
            if spoil:
                with pytest.raises(NotAllowed):
                    rights.check_apply("nobody", text, name, Peer(GAMES.pw_uid))
            else:
                rights.check_apply("nobody", text, name, Peer(GAMES.pw_uid))
        finally:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            folder.rmdir()

    def test_in_the_daemon(self, tmp_path: Path) -> None:
        rig = DaemonRig(tmp_path)
        text = SERVICE.format(name="chat", port=1)  # of user root
        try:
            enter(str(GAMES.pw_uid))
            with pytest.raises(NotAllowed, match="user root"):
                rig.daemon.answers.apply_service(text, "stdin")
            assert rig.store.services() == ()
            mine = text.replace('user = "root"', 'user = "games"')
            assert rig.daemon.answers.apply_service(mine, "stdin")["changed"]
            rig.daemon.answers.pause("maintenance")
            told = [d.text for d in rig.store.decisions(limit=10)]
            assert any("paused: maintenance, by games" in text for text in told)
            assert any("applied, by games" in text for text in told)
        finally:
            rig.close()

    def test_a_script_file_beside_the_service_is_not_read_by_the_daemon(self, tmp_path: Path) -> None:
        rig = DaemonRig(tmp_path)
        secret = tmp_path / "secret"
        secret.write_text("#!/bin/sh\n# the secret\n")
        text = SERVICE.format(name="chat", port=1)
        text = "\n".join('script_file = "secret"' if "script =" in line else line for line in text.splitlines())
        try:
            with pytest.raises(Exception, match="absolute path"):
                rig.daemon.answers.apply_service(text, str(tmp_path / "chat.toml"))
            assert rig.store.services() == ()
        finally:
            rig.close()


class Test_hidden_jobs:
    """PrivateData=jobs."""

    @pytest.fixture
    def hiding(self, backend: FakeBackend) -> Discreet:
        backend.hidden_from = ""
        return Discreet(backend)

    @pytest.fixture
    def owner(self, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> str:
        rows = backend.queue()
        rows[0]["user"] = "games"
        assert {row["user"] for row in rows} != {"games"}
        monkeypatch.setattr(backend, "queue", lambda: rows)
        return str(rows[0]["ref"])

    def test_a_user_sees_his_own(self, hiding: Discreet, backend: FakeBackend, owner: str) -> None:
        enter(str(GAMES.pw_uid))
        assert [row["ref"] for row in hiding.queue()] == [owner]
        assert [row["user"] for row in hiding.report(None, None)] == ["games"]
        assert hiding.report(None, "ann") == []
        for call in (hiding.view, hiding.plan):
            with pytest.raises(NotAllowed, match="hides other people's jobs"):
                call()

    def test_somebody_elses_job_is_as_unknown_as_none(
        self, hiding: Discreet, backend: FakeBackend, owner: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = next(str(row["ref"]) for row in backend.queue() if row["user"] != "games")
        monkeypatch.setattr(backend, "explain", lambda s: {"subject": f"job:{s}", "now": "x", "decisions": []})
        enter(str(GAMES.pw_uid))
        assert hiding.explain(owner)["now"] == "x"
        with pytest.raises(NotFound, match=f"coloc knows nothing of {other}"):
            hiding.explain(other)
        with pytest.raises(NotFound, match="coloc knows nothing of 999999"):
            hiding.explain("999999")

    def test_history_keeps_to_ones_own(
        self, hiding: Discreet, backend: FakeBackend, owner: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = next(str(row["ref"]) for row in backend.queue() if row["user"] != "games")
        rows = [{"subject": s} for s in (f"job:{other}", f"job:{owner}", "service:chat", f"job:{other}")]
        monkeypatch.setattr(backend, "history", lambda limit: rows[:limit])
        enter(str(GAMES.pw_uid))
        assert hiding.history(2) == rows[1:3]

    @pytest.mark.parametrize("uid", [0, os.geteuid()])
    def test_root_and_coloc_see_all(self, hiding: Discreet, backend: FakeBackend, uid: int) -> None:
        enter(str(uid))
        assert hiding.queue() == backend.queue()
        assert hiding.view() == backend.view()

    def test_operators_see_all(self, backend: FakeBackend) -> None:
        backend.hidden_from = "games"
        enter(str(GAMES.pw_uid))
        assert Discreet(backend).queue() == backend.queue()

    def test_where_nothing_is_hidden_everybody_sees_all(self, backend: FakeBackend) -> None:
        enter(str(GAMES.pw_uid))
        assert Discreet(backend).queue() == backend.queue()
        assert Discreet(backend).plan() == backend.plan()
