"""As much of slurmrestd as the comparison of adapters needs: a server of one's own, and its calls over a Unix socket."""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from colocd.clock import SystemClock
from colocd.testcluster import PrivateCluster

PATH = "/slurm/v0.0.45"


class Rest:
    """slurmrestd beside a test cluster in another system (`root=`). Use as a context.

    It refuses to run as root or SlurmUser, so rest_auth/local is of no use to somebody who acts for others: it runs as nobody
    here, and root's calls carry a token (auth/jwt).
    """

    def __init__(self, cluster: PrivateCluster) -> None:
        assert cluster.spec.root is not None
        base = Path(cluster.spec.base)
        (base / "jwt.key").write_bytes(os.urandom(32))
        (base / "jwt.key").chmod(0o600)
        with cluster.conf.open("a") as conf:
            conf.write(f"AuthAltTypes=auth/jwt\nAuthAltParameters=jwt_key={base}/jwt.key\n")
        cluster.stop_controller()
        cluster.start_controller()
        token = cluster.run("scontrol", "token", "username=root", "lifespan=7200").stdout.strip().partition("=")[2]
        self.socket = cluster.work / "rest.sock"
        env = {**cluster.environment, "SLURM_JWT": "daemon"}
        argv = [
            "chroot",
            "--userspec=nobody:nogroup",
            cluster.spec.root,
            "/usr/sbin/slurmrestd",
            "-f",
            str(cluster.conf),
        ]
        self.log = cluster.directory / "log" / "slurmrestd.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*argv, "-a", "rest_auth/jwt", "-s", "slurmctld", "-d", "v0.0.45", f"unix:{self.socket}"],
                env=env,
                stdout=out,
                stderr=out,
            )
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)),
            base_url=f"http://localhost{PATH}",
            timeout=60,
            headers={"X-SLURM-USER-NAME": "root", "X-SLURM-USER-TOKEN": token},
        )

    def get(self, path: str) -> Any:
        """The decoded answer; raises when Slurm says no."""
        answer = self.http.get(path)
        answer.raise_for_status()
        return msgspec.json.decode(answer.content)

    def read(self) -> dict[str, Any]:
        """What a whole reading needs."""
        return {name: self.get(f"/{name}/") for name in ("jobs", "nodes", "partitions", "reservations")}

    def jobs(self, refs: list[str]) -> list[Any]:
        """A few jobs."""
        return [self.get(f"/job/{ref}") for ref in refs]

    def submit(self, name: str) -> str:
        """A held job."""
        job = {
            "name": name,
            "partition": "batch",
            "hold": True,
            "current_working_directory": "/",
            "standard_output": "/dev/null",
            "environment": ["PATH=/usr/bin:/bin"],
        }
        answer = self.http.post("/job/submit", json={"script": "#!/bin/sh\ntrue\n", "job": job})
        answer.raise_for_status()
        return str(msgspec.json.decode(answer.content)["job_id"])

    def comment(self, ref: str, text: str) -> None:
        """Change a job's comment."""
        self.http.post(f"/job/{ref}", json={"comment": text}).raise_for_status()

    def memory(self) -> int:
        """The server's largest resident size so far, in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

    def __enter__(self) -> Self:
        clock = SystemClock()
        for _ in range(100):
            if self.socket.exists():
                return self
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            clock.sleep(0.1)
        raise AssertionError(self.log.read_text()[-2000:])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        os.kill(self.process.pid, 15)
        self.process.wait(10)
