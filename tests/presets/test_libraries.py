"""Every preset with its real library on a live Slurm: evicted by load, resumed, and the work goes on where it was saved."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.live_presets import Example, evict_and_resume
from tests.presets.conftest import need

from colocd.core.view import JobState
from colocd.store.records import Handover

pytestmark = [pytest.mark.slurm, pytest.mark.presets, pytest.mark.timeout(400)]
STEPS = 60


def once(
    site: LiveSite, venv: Path, name: str, *modules: str, steps: int = STEPS, env: dict[str, str] | None = None
) -> tuple[Example, Handover]:
    """Evict the example once and let it finish; the job, and the handover that took its GPUs."""
    need(venv, *modules)
    site.load(5)
    site.begin()
    example = Example(site, name, steps, venv=venv)
    example.env |= env or {}
    ref = example.submit()
    evict_and_resume(site, [example], valley=5, peak=35)
    assert (example.job.state, example.job.restarts) == (JobState.DONE, 1), example.log()
    with site.store() as store:
        (reclaim,) = [h for h in store.handovers() if ref in h.victims]
        assert [i.kind for i in store.intents(handover=reclaim.id)].count("requeue") <= 1
    assert reclaim.state.value == "released"
    assert reclaim.data["acked"] == [ref], example.log()  # it answered: nobody had to wait for the end of its grace
    return example, reclaim


def requeued_by_coloc(site: LiveSite, reclaim: Handover) -> bool:
    with site.store() as store:
        return any(i.kind == "requeue" for i in store.intents(handover=reclaim.id))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("hf.sh", ("transformers", "accelerate")),
        ("megatron.sh", ("torch",)),
        ("torchrun.sh", ("torch",)),
        ("orbax.sh", ("jax", "orbax.checkpoint")),
    ],
)
def test_libraries_that_save_on_term_and_end(site: LiveSite, venv: Path, name: str, modules: tuple[str, ...]) -> None:
    example, reclaim = once(site, venv, name, *modules)
    # Hugging Face may save before the optimizer's step and still take it.
    example.assert_exact(redone=1 if name == "hf.sh" else 0)
    assert requeued_by_coloc(site, reclaim)
    mark = example.job.checkpoint
    assert mark is not None
    assert mark.saved is not None, example.log()


def test_lightning_requeues_itself(site: LiveSite, venv: Path) -> None:
    example, reclaim = once(site, venv, "lightning.sh", "lightning")
    assert not requeued_by_coloc(site, reclaim)  # no double requeue
    # It trains on until Slurm ends it: what it did after its save is done again, and nothing else.
    first = max(step for run, step in example.journal() if run == "0")
    again = min(step for run, step in example.journal() if run == "1")
    (image,) = [line for line in example.log().splitlines() if "goes on at step" in line and "step 0" not in line]
    assert again == int(image.split()[-1]) + 1 <= first + 1
    example.assert_exact(redone=first - again + 1)


def test_a_program_that_knows_nothing_of_it_saved_by_criu(site: LiveSite, venv: Path) -> None:
    criu = os.environ.get("CRIU") or shutil.which("criu", path=f"{venv}/bin:{os.environ['PATH']}:/usr/sbin")
    if criu is None or subprocess.run([*criu.split(), "check"], check=False, capture_output=True).returncode:
        pytest.skip("not proven here: criu is missing, or does not work with this kernel")
    example, reclaim = once(site, venv, "command.sh", env={"CRIU": criu})
    assert requeued_by_coloc(site, reclaim)
    example.assert_exact()


def test_submitit_requeues_itself(site: LiveSite, venv: Path) -> None:
    example, reclaim = once(site, venv, "submitit_job.py", "submitit")
    assert not requeued_by_coloc(site, reclaim)
    example.assert_exact()
