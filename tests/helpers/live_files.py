"""The files of a live site: configuration, service file and load, below one folder."""

import getpass
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo import files

from colocd.testcluster import PrivateCluster, ports

POLICY: dict[str, object] = {
    "grace": 20.0,
    "protected_runtime": 0.0,
    "max_evictions_per_job": 50,
    "eviction_cost": 10.0,
    "max_unsaved": 60.0,
    "valley_quantile": 0.5,
    "peak_quantile": 0.5,
    "min_useful": 1.0,
    "stale_after": 10.0,
    "start_timeout": 30.0,
    "retry_after": 2.0,
    "scale_down_after": 1.5,
    "min_stay": 0.0,
}
SERVICE: dict[str, object] = {
    "name": "chat",
    "user": getpass.getuser(),
    "partition": "online",
    "gpus_per_replica": 4,
    "min_replicas": 1,
    "max_replicas": 7,
    "drain_grace": 3.0,
    # No mean of a 144th of it is complete within a test, so nothing is foreseen. With a day's, whatever ran while a ten minutes
    # of the wall clock ended had a forecast from then on, and kept its replicas.
    "season": 300 * 86400.0,
    "lead_time": 1.0,  # and Slurm's KillWait, 5 s on most clusters here
}
CAPACITY = 10
"""Load that one replica carries; `peak_quantile` 0.5 and `target_use` 1 make the need load / CAPACITY, rounded up."""

CHECKPOINTED = """#!/bin/bash
# checkpointed.sh checkpointed [--yield]: `coloc checkpointed` in short, for a system in which coloc is not installed
now=$(date +%s.%N)
old=$(scontrol -o show job "$SLURM_JOB_ID" | grep -o '\\[coloc v=1[^]]*\\]' | sed -E 's/ (saved|yielded)=[0-9.]+//g; s/\\]$//')
mark="$old saved=$now"
[ "$2" != --yield ] || mark="$mark yielded=$now"
exec scontrol update "JobId=$SLURM_JOB_ID" "Comment=$mark]"
"""

STRANGER = "games" if os.getuid() == 0 else None
"""Who does not use coloc: another user where root can submit as one, else the one user there is (None)."""


def toml(values: Mapping[str, object]) -> str:
    """Lines of a TOML table; JSON writes these values alike."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


class SiteFiles:
    """Folder, configuration and service file of a site on `cluster`; `settings` and `service` may be changed later."""

    def __init__(
        self,
        cluster: PrivateCluster,
        *,
        mode: str = "act",
        policy: Mapping[str, object] | None = None,
        service: Mapping[str, object] | None = None,
        database: str | None = None,
        slurm_timeout: float = 10.0,
        period: float = 0.7,
        cycle: Mapping[str, object] | None = None,
    ) -> None:
        self.cluster = cluster
        # short: Unix sockets lie below it; jobs in another system see only the cluster's own folder
        where = "/tmp" if cluster.spec.root is None else cluster.work
        self.base = Path(tempfile.mkdtemp(prefix="coloc-e2e-", dir=where))
        self.base.chmod(0o755)
        self.jobs, self.live = self.base / "jobs", self.base / "live"
        for folder in (self.jobs, self.live):
            folder.mkdir()
            folder.chmod(0o1777)
        self.database = database or f"sqlite:///{self.base / 'coloc.db'}"
        self.config = self.base / "colocd.toml"
        self.port = ports.reserve(self.base, 10)
        self.load(0)
        self.settings: dict[str, dict[str, object]] = {
            "database": {"url": self.database},
            "slurm": {
                "conf": str(cluster.conf),
                "timeout": slurm_timeout,
                "calls_per_minute": 6000,
                **({"bin_dir": cluster.bin_dir} if cluster.bin_dir else {}),
            },
            "cycle": {"period": period, "handover_period": 0.2, **(cycle or {})},
            "policy": {**POLICY, **(policy or {})},
            "api": {"socket": f"{self.base}/c.sock", "admin_socket": f"{self.base}/a.sock"},
        }
        self.write_config(mode)
        self.service = {**SERVICE, **(service or {}), "port_base": self.port}
        self.write_service()

    def write_config(self, mode: str) -> None:
        """Write colocd.toml, whole or not at all."""
        topology = self.base / "topo.txt"
        topology.write_text(files.topology_text(self.cluster.spec.shape))
        source = {"nodes": f"n[1-{self.cluster.spec.nodes}]", "file": str(topology)}
        text = f'mode = "{mode}"\n[[topology.sources]]\n{toml(source)}'
        text += "".join(f"[{name}]\n{toml(values)}" for name, values in self.settings.items())
        fresh = self.base / "colocd.toml.new"
        fresh.write_text(text)
        fresh.replace(self.config)

    def write_service(
        self, load_url: str = "http://{address}:{port}/metrics", ready: str = "/health", first: str = ""
    ) -> None:
        """Write the service file; `first`: a line of shell at the begin of a replica."""
        server = self.base / "chat_server.py"
        server.write_bytes((files.HERE / "chat_server.py").read_bytes())
        server.chmod(0o755)
        script = f"#!/bin/bash\nexport COLOC_DEMO={self.base} COLOC_WARMUP=0.3 COLOC_CAPACITY=100\n{first}\n"
        text = toml({**self.service, "script": f"{script}exec {self.python} {server}\n"})
        text += f"[capacity]\n{toml({'per_replica': CAPACITY, 'target_use': 1.0})}[load]\n{toml({'url': load_url})}"
        text += f"[ready]\n{toml({'url': 'http://{address}:{port}' + ready, 'timeout': 6.0})}"
        (self.base / "chat.toml").write_text(text)

    def programs(self, *names: str) -> list[str]:
        """Paths of the demo's programs, where the jobs see them."""
        if self.cluster.spec.root is None:
            return [str(files.HERE / name) for name in names]
        for name in names:
            (self.base / name).write_bytes((files.HERE / name).read_bytes())
            (self.base / name).chmod(0o755)
        return [str(self.base / name) for name in names]

    @property
    def command(self) -> str:
        """`coloc` for the jobs. In another system it is not installed: a script there does what `coloc checkpointed` does."""
        if self.cluster.spec.root is None:
            return f"{sys.executable} -m coloc_cli.main"
        script = self.base / "checkpointed.sh"
        if not script.exists():
            script.write_text(CHECKPOINTED)
            script.chmod(0o755)
        return str(script)

    @property
    def python(self) -> str:
        """What replicas and batch jobs run on: the system's Python starts faster."""
        if self.cluster.spec.root is not None:
            return "/usr/bin/python3"
        return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """For colocd, coloc and the jobs."""
        env = {**self.cluster.environment, "COLOC_CONFIG": str(self.config), "HOME": str(self.jobs)}
        for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
            if name in os.environ:
                env[name] = os.environ[name]
        return env

    def load(self, value: float) -> None:
        """Set the requests that all replicas together have from now on."""
        self.curve(0.0, [(0.0, value)])

    def curve(self, start: float, points: Sequence[tuple[float, float]]) -> None:
        """Set these requests: (seconds after `start`, requests), straight between the points."""
        fresh = self.base / "curve.new"
        fresh.write_text(json.dumps({"start": start, "points": points}))
        fresh.replace(self.base / "curve.json")
