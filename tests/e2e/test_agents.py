"""A real agent beside a real colocd: readings, a GPU that fails, and both of them killed."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.live import LiveSite
from tests.nvml.conftest import library as library
from tests.nvml.live import H100

from colocd.munge import Munge
from colocd.testcluster import PrivateCluster, ports

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
XID = "xid 0 79 0\n"


class Rig:
    """A site whose colocd hears agents, and the agent of n1 on a stand-in for NVML. `server` says what its GPUs do."""

    def __init__(self, site: LiveSite, library: Path) -> None:
        self.site, self.library = site, library
        self.sock = f"{site.cluster.spec.base}/run/munge.sock"
        self.port = ports.reserve(site.base, 1)
        munge = Munge(self.sock)
        origin = munge.decode(munge.encode(b"x")).origin
        (site.base / "hosts").write_text("".join(f"{origin} {name}\n" for name in site.cluster.spec.names))
        (site.base / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-7]\n")
        site.settings["topology"] = {"gres_conf": f"{site.base}/gres.conf"}
        site.settings["telemetry.agents"] = {
            "listen": f"127.0.0.1:{self.port}",
            "user": str(os.getuid()),
            "hosts": f"{site.base}/hosts",
            "munge_socket": self.sock,
        }
        site.write_config("act")
        self.config = site.base / "agent.toml"
        self.config.write_text(
            f'server = "127.0.0.1:{self.port}"\nnode = "n1"\nperiod = 0.3\nsend_every = 0.6\nmunge_socket = "{self.sock}"\n'
            f'reader = {os.getuid()}\nfaults = "{site.base}/xids"\n'
        )
        self.agent: subprocess.Popen[bytes] | None = None
        self.server(H100)

    def server(self, text: str) -> None:
        new = self.site.base / "server.new"
        new.write_text(text)
        new.rename(self.site.base / "server.txt")

    def start(self) -> None:
        env = {**os.environ, "LD_LIBRARY_PATH": str(self.library), "COLOC_NVML_STANDIN": f"{self.site.base}/server.txt"}
        with (self.site.base / "agent.log").open("ab") as out:
            argv = [sys.executable, "-m", "colocd.agent", "--config", str(self.config)]
            self.agent = subprocess.Popen(argv, env=env, cwd="/", stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def end(self) -> None:
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait()

    def log(self) -> str:
        return (self.site.base / "agent.log").read_text()

    def node(self) -> Any:
        (node,) = self.site.ask("topo", "show", "n1")
        return node


@pytest.fixture
def rig(clean_cluster: PrivateCluster, library: Callable[..., Path]) -> Iterator[Rig]:
    with LiveSite(clean_cluster) as site:
        made = Rig(site, library())
        yield made
        made.end()


def test_an_agents_life(rig: Rig) -> None:
    site = rig.site
    rig.start()
    # The first replica goes elsewhere, so that nobody holds the GPU that fails.
    site.cluster.run("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    site.cluster.run("scontrol", "update", "nodename=n1", "state=resume")
    site.until(lambda: rig.node()["busy"] == [60] * 8, "the first reading")
    assert rig.node()["failed"] == {}
    assert rig.agent is not None
    status = Path(f"/proc/{rig.agent.pid}/status").read_text()
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) < 40_000

    rig.server(H100 + XID)
    site.until(lambda: rig.node()["failed"] == {"0": "XID 79: fell off the bus"}, "the failure")
    assert "GPU 0 of n1 has failed and is not given out: XID 79" in site.coloc("status").stdout.replace("\n", " ")
    assert site.ask("status")["gpus"]["failed"] == 1

    islands = 2 * site.cluster.spec.nodes - 1
    site.load(10 * islands - 5)
    site.until(lambda: site.ready() == islands, "a replica on every island that is whole", 120)
    (service,) = site.ask("status")["services"]
    assert next(r for r in service["replicas"] if r["node"] == "n1")["places"] == {"n1": "4-7"}
    assert sum(r["node"] == "n1" for r in service["replicas"]) == 1

    assert site.colocd is not None
    site.colocd.kill()
    site.colocd = None
    site.until(lambda: "sending: colocd on 127.0.0.1" in rig.log(), "the agent's complaint")
    site.clock.sleep(1.5)
    site.start()
    assert rig.node()["failed"] == {"0": "XID 79: fell off the bus"}
    site.until(lambda: "sending: works again" in rig.log(), "the agent's relief")
    site.until(lambda: rig.node()["busy"] is not None, "readings after the restart")

    rig.end()
    rig.server(H100)
    rig.start()
    site.clock.sleep(3.0)
    assert rig.node()["failed"] == {"0": "XID 79: fell off the bus"}, "killing the agent mended the GPU"
    rig.agent.terminate()
    assert rig.agent.wait(20) == 0
    assert "Traceback" not in rig.log()
