"""The agent runs on every GPU node: it loads nothing of colocd that it does not need."""

import subprocess
import sys

HEAVY = (
    "numpy",
    "sqlalchemy",
    "alembic",
    "httpx",
    "starlette",
    "uvicorn",
    "prometheus_client",
    "apscheduler",
    "asyncio",
    "click",
)
OURS = (
    "colocd.core",
    "colocd.slurm",
    "colocd.store",
    "colocd.act",
    "colocd.api",
    "colocd.gpus",
    "colocd.config",
    "coloc_cli",
)


def test_what_the_agent_imports() -> None:
    code = "import colocd.agent.__main__, sys; import pynvml; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "colocd.agent.send" in loaded
    assert not [name for name in loaded for heavy in (*HEAVY, *OURS) if name == heavy or name.startswith(f"{heavy}.")]


def test_help_and_a_missing_configuration() -> None:
    argv = [sys.executable, "-m", "colocd.agent"]
    shown = subprocess.run([*argv, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "--once" in shown
    done = subprocess.run(
        [*argv, "--config", "/nowhere/a.toml"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 78
    assert done.stderr.startswith("coloc-agent: /nowhere/a.toml: No such file")
    assert "Traceback" not in done.stderr
