"""A stand-in for pyslurm: enough of it for the helper's protocol, and ways to hang, crash and print. No Slurm."""

import contextlib
import ctypes
import os
import sys
import threading

__version__ = os.environ.get("FAKE_PYSLURM", "26.5.0")
if __version__ == "broken":
    raise ImportError("libslurmfull.so.45 is missing")


class RPCError(Exception):
    def __init__(self, errno, text):
        super().__init__(text)
        self.errno = errno


def _misbehave():
    """What the file named by FAKE_MOOD says is done once."""
    path = os.environ.get("FAKE_MOOD", "")
    if not os.path.exists(path):
        return
    with open(path) as file:
        mood = file.read().strip()
    if mood != "hang":
        os.unlink(path)
    if mood == "hang":
        threading.Event().wait(600)
    elif mood == "crash":
        ctypes.string_at(0)
    elif mood == "exit":
        print("fatal: Unable to process configuration file", file=sys.stderr)
        os._exit(1)
    elif mood == "garbage":
        for handle in range(3, 20):
            with contextlib.suppress(OSError):
                os.write(handle, b"error: this is no frame\n")
    elif mood == "chatty":
        os.write(1, b"x" * 300000)  # a library that prints to standard output
    elif mood == "munge":
        print("error: Munge encode failed: Failed to access socket", file=sys.stderr)
        raise RPCError(1007, "Protocol authentication error")
    elif mood == "lost":
        raise RPCError(1003, "Message receive failure")
    elif mood == "connect":
        raise RPCError(1001, "Unable to contact slurm controller (connect failure)")


class Job:
    def __init__(self, ref=17):
        self.id = ref
        self.array_id = self.array_task_id = self.array_tasks_waiting = None
        self.name, self.user_name, self.user_id = "train", "games", 5
        self.state, self.state_reason, self.priority, self.partition = "RUNNING", "None", 1, "batch"
        self.requeue_count, self.submit_time, self.start_time, self.end_time = 0, 1000, 1001, 1601
        self.time_limit, self.num_nodes, self.cpus, self.ntasks = 10, 1, 2, 1
        self.allocated_nodes, self.required_nodes, self.reservation, self.comment = "n1", None, None, None
        self.qos = "normal"
        self.eligible_time, self.dependencies = 1000, None
        self.gres_per_node = {"gres/gpu:h100": 2}
        if ref == 18:
            self.state, self.array_id, self.array_tasks_waiting, self.priority = "PENDING", 18, "1-3,7%2", 0
            self.allocated_nodes, self.state_reason = None, "JobHeldUser"
        if ref == 19:
            self.array_id = 18

    @property
    def name(self):
        if self.id == 19:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return self._name

    @name.setter
    def name(self, value):
        self._name = value

    @staticmethod
    def load(ref):
        _misbehave()
        if ref > 100:
            raise RPCError(2017, "Invalid job id specified")
        return Job(ref)

    def hold(self):
        _misbehave()
        if self.id > 100:
            raise RPCError(2017, "Invalid job id specified")

    release = cancel = hold

    def requeue(self, hold):
        self.hold()

    def send_signal(self, name, steps):
        self.hold()

    def modify(self, changes):
        self.hold()


class JobSubmitDescription:
    def __init__(self, **words):
        self.words = words

    def submit(self):
        _misbehave()
        assert "SLURM_CONF" not in os.environ
        return 42


class _Load:
    found = ()

    @classmethod
    def load(cls):
        _misbehave()
        return dict(enumerate(cls.found))


class Jobs(_Load):
    found = (Job(17), Job(18), Job(19))


class _Thing:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class Nodes(_Load):
    found = (
        _Thing(
            name="n1",
            address="127.0.0.1",
            state="MIXED",
            configured_gres={"gpu:h100": 8},
            partitions=["batch"],
            effective_cpus=16,
            allocated_cpus=2,
        ),
    )


class Partitions(_Load):
    found = (
        _Thing(
            name="batch",
            state="UP",
            priority_tier=1,
            nodes="n1",
            preempt_mode="OFF",
            oversubscribe="NO",
            allow_root_jobs=False,
        ),
    )


class Reservations(_Load):
    found = ()
