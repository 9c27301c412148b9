"""Takes samples with the agent's sampler, one for each line of its input, and prints them as JSON lines.

A program of its own: LD_LIBRARY_PATH must name the stand-in before the process starts.
"""

import sys

import msgspec

from colocd.agent.faults import FaultMemory
from colocd.agent.jobs import JobFinder
from colocd.agent.sample import Sampler

sampler = Sampler(JobFinder(sys.argv[2]), FaultMemory(sys.argv[1]))
for _ in sys.stdin:
    found = sampler.read()
    told = None
    if found is not None:
        told = [{**msgspec.structs.asdict(i), **msgspec.structs.asdict(s)} for i, s in zip(*found, strict=True)]
    sys.stdout.buffer.write(msgspec.json.encode({"gpus": told, "problems": sampler.problems}) + b"\n")
    sys.stdout.buffer.flush()
