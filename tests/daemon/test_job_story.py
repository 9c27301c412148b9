"""`coloc explain JOB` for a student's eyes: each state says what it waits for, what was saved, and when it goes on."""

from collections.abc import Sequence

import msgspec
import pytest
from tests.helpers.views import AT, batch, view

from colocd.answer_words import handover_sentence
from colocd.answers_job import array_story, job_story, queue_rows
from colocd.core.actions import Plan
from colocd.core.delays import Delays
from colocd.core.outlook import Window, windows
from colocd.core.view import Checkpoint, Forecast, Held, Job, JobFacts, JobState, Quantiles, Reading, ServiceView
from colocd.store.records import Decision, Handover, HandoverState

MARK = Checkpoint(signal="USR1", saved=AT - 300)
EVICTED = JobFacts(evictions=2, evicted_at=AT - 240, ours=True, ever_released=True)
WHY = "gives up its GPUs for service chat: load 25; needs 3, has 2: GPUs 0-3 of n1 are joined by NVLINK, taking them from 1"


def handover(**data: object) -> Handover:
    return Handover(
        id=7, service="chat", slot=2, places={"n1": 0x0F}, level="NVLINK", victims=("1",), created_at=AT - 10,
        updated_at=AT, state=HandoverState.SIGNALLED, data=data, why="load 25; needs 3, has 2",
    )  # fmt: skip


def told(
    job: Job,
    facts: JobFacts | None = None,
    window: Window | None = None,
    handovers: Sequence[Handover] = (),
    decisions: Sequence[Decision] = (),
    foreseen: float | None = None,
) -> str:
    from tests.helpers.views import service

    points = tuple(Quantiles(t, {"0.5": 1.0, "0.9": 1.0}) for t in (0.0, foreseen or 0.0))
    forecast = Forecast(points=points, step=60.0, trust=None, basis="test")
    one = ServiceView(spec=service(), load=Reading(1.0, AT), forecast=forecast if foreseen else None)
    facts = facts or JobFacts()
    seen = view(job, services=(one,), facts={job.ref: facts}, delays=Delays(kill_wait=30.0, requeue=121.0))
    return "; ".join(job_story(job, seen, window, handovers, decisions))


@pytest.mark.parametrize(
    ("window", "foreseen", "words"),
    [
        ((AT + 600, AT + 2400), 86_400.0, "it is expected to start in 10 min to 40 min"),
        ((AT + 600, AT + 600), 86_400.0, "it is expected to start in 10 min"),
        (
            (AT + 600, None),
            86_400.0,
            "to start in 10 min at the earliest; if the load is high, not within what is foreseen",
        ),
        ((None, None), 86_400.0, "no valley long enough for it (1 GPUs for 10 min) is foreseen in the next 24.0 h"),
        ((None, None), None, "when it will start cannot be foreseen: too little is known"),
    ],
)
def test_one_that_waits(window: Window, foreseen: float | None, words: str) -> None:
    story = told(batch(1), window=window, foreseen=foreseen)
    assert story.startswith("waits in coloc's queue; ")
    assert words in story
    rows = queue_rows(view(batch(1)), Plan(at=AT), {"1": window}, ())
    assert rows[0]["expected"] == list(window)


def test_one_that_others_hold() -> None:
    assert told(batch(1, held=Held.ADMIN)) == (
        "is held by an administrator: coloc leaves it alone until `scontrol release 1`"
    )
    own = batch(1, checkpoint=Checkpoint(hold="user"))
    assert told(own) == "is held by its own user: coloc leaves it alone until `scontrol release 1`"


def test_one_that_slurm_starts() -> None:
    assert "may start; Slurm has not started it yet (Resources)" in told(batch(1, held=Held.NO, reason="Resources"))
    again = told(batch(1, held=Held.NO, reason="BeginTime", restarts=1))
    assert again == "was requeued: Slurm itself starts it again, 121 s after that at the earliest"


def test_one_that_runs() -> None:
    story = told(batch(1, {"n1": 0x0F}, checkpoint=MARK))
    assert story == "is running on GPUs 0-3 of n1 for 17 min; its last checkpoint was 5 min ago"


def test_one_that_has_to_go() -> None:
    job = batch(1, {"n1": 0x0F}, checkpoint=MARK)
    story = told(job, handovers=[handover(grace=20.0, kill_wait=30.0, told_at=AT - 5)])
    assert "it was told to save 5 s ago and keeps them until it says that it has, at most 15 s more" in story
    assert "for service chat (handover 7)" in story
    assert "if it ignores TERM then, Slurm kills it 30 s later" in story
    assert "will be told to save in a moment" in told(job, handovers=[handover()])
    deaf = told(job, handovers=[handover(grace=0.0, kill_wait=None, told_at=AT - 5)])
    assert "nobody there can be asked to save, so it is requeued now" in deaf


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (AT - 239, "its last checkpoint was 4 min ago, after it was asked: nothing was lost"),
        (AT - 240.7, "its last checkpoint was 4 min ago, after it was asked: nothing was lost"),
        (AT - 300, "its last checkpoint was 60 s before that: what it did since is done again"),
        (None, "coloc knows of no checkpoint of it"),
    ],
)
def test_one_that_was_evicted(saved: float | None, words: str) -> None:
    job = batch(1, held=Held.ADMIN, checkpoint=Checkpoint(signal="USR1", saved=saved))
    past = [Decision(at=AT - 241, subject="job:1", kind="evict", text=WHY)]
    story = told(job, EVICTED, (AT + 600, AT + 2400), decisions=past, foreseen=86_400.0)
    assert story.startswith(
        "waits in coloc's queue; was evicted 4 min ago (2 times in all) for service chat: load 25; needs 3"
    )
    assert words in story
    assert story.endswith("it is expected to go on in 10 min to 40 min")


def test_one_that_was_evicted_without_a_word_of_a_checkpoint() -> None:
    job = batch(1, held=Held.ADMIN)
    answered = msgspec.structs.replace(EVICTED, answered=1, took=7.0)
    assert "it answered 7 s after it was told to save: nothing should be lost" in told(job, answered)
    silent = msgspec.structs.replace(EVICTED, silent=1)
    assert "it did not answer in the time that it asks for; coloc knows of no checkpoint of it" in told(job, silent)
    others = msgspec.structs.replace(answered, alike=True)
    assert "; coloc knows of no checkpoint of it" in told(job, others)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Dependency", "Slurm keeps it back: a job that it depends on has not ended"),
        ("BeginTime", "Slurm keeps it back: its begin time has not come"),
        ("JobArrayTaskLimit", "as many tasks of its array run as its owner lets run at once"),
    ],
)
def test_one_that_slurm_keeps_back_has_no_expected_start(reason: str, words: str) -> None:
    job = batch(1, held=Held.NO, reason=reason)
    assert words in told(job)
    assert windows(view(job)) == {}
    assert set(windows(view(msgspec.structs.replace(job, reason="Resources")))) == {"1"}


def test_what_of_a_jobs_own_word_does_not_count() -> None:
    story = told(batch(1, checkpoint=Checkpoint(interval=60.0, rank="gold")), JobFacts(ran=900.0))
    assert "it asks for class gold, which users cannot choose here: it is in none" in story
    assert "it says that it saves every 60 s, but in 15 min coloc heard of no save: `coloc checkpointed`" in story
    assert "class" not in told(batch(1, checkpoint=Checkpoint(rank="normal")))
    assert "heard of no save" not in told(batch(1, checkpoint=MARK), JobFacts(ran=900.0))


def test_an_array_is_told_of_as_a_whole() -> None:
    tasks = [
        msgspec.structs.replace(batch(5, {"n1": 1 << n} if n < 2 else None, user="bob"), ref=f"5_{n}") for n in range(6)
    ]
    v = view(*tasks, batch(51), facts={"5_0": JobFacts(evictions=2)})
    notes = {"job:5_2": "waits: no node has 1 GPU that stay free", "job:51": "parked"}
    story = "; ".join(array_story("5", v, notes, {"5_3": (AT + 600, None), "5_4": (None, None)}))
    assert story.startswith("is an array; of its tasks that Slurm still knows 4 pending, 2 running; 2 evictions so far")
    assert "the next is expected to start in 10 min; the first that is not started: waits: no node has 1 GPU" in story
    assert array_story("7", v, notes, {}) == []


def test_a_handover_says_until_when_its_gpus_come_free() -> None:
    text = handover_sentence(handover(grace=20.0, kill_wait=30.0, told_at=AT - 5))
    assert "its GPUs come free within 50 s of the signal: 20 s of grace, 30 s of KillWait" in text
    assert "come free" not in handover_sentence(handover())


def test_one_that_failed_on_resume() -> None:
    over = batch(1, state=JobState.FAILED, restarts=1)
    assert "requeue 1" not in told(over)
    once, parked = told(over, JobFacts(deaths=1)), told(over, JobFacts(deaths=2, parked="it ended 2 times"))
    assert "it can go on from there with `scontrol requeue 1` while Slurm remembers it" in once
    assert "coloc unpark 1" not in once
    assert parked.endswith("it is parked then, until `coloc unpark 1`")
