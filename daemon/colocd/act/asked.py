"""A site's job_submit plugin may change what coloc submits: each submission is looked at before anything rests on it."""

from colocd.act.tools import Tools
from colocd.slurm.port import Submission
from colocd.store.records import Handover


class RewrittenJob(Exception):
    """A job came into Slurm other than it was submitted, and was ended; the text is the reason for giving up."""


def check(tools: Tools, h: Handover, ref: str, job: Submission) -> None:
    """Compare Slurm's job with what was submitted; raises `RewrittenJob` after ending one that is not as asked.

    Without its mark a job would be lost to coloc after a crash, and plugs would be submitted again and again.
    """
    seen = tools.slurm.jobs([ref]).get(ref)
    if seen is None:
        return  # ended already: the next step meets that
    wrong = None
    if job.comment and job.comment not in seen.comment:
        wrong = "its comment has lost coloc's mark"
    elif seen.partition != job.partition:
        wrong = f"its partition is {seen.partition} and not {job.partition}"
    elif seen.reservation != job.reservation:
        wrong = f"its reservation is {seen.reservation or 'none'} and not {job.reservation}"
    elif seen.required_nodes and set(seen.required_nodes) != set(job.nodes):
        wrong = f"its nodes are {','.join(seen.required_nodes)} and not {','.join(job.nodes)}"
    elif seen.gpus_requested != job.gpus * max(1, len(job.nodes)):
        wrong = f"it asks for {seen.gpus_requested} GPUs and not {job.gpus * max(1, len(job.nodes))}"
    if wrong is not None:
        tools.call(h, "unplace", f"job:{ref}", lambda: tools.slurm.cancel([ref]))
        raise RewrittenJob(
            f"a job_submit plugin of this site changed job {ref} ({job.name}): {wrong}; see docs/site-policies.md"
        )
