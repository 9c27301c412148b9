"""`coloc topo dump`: NVML's facts of this node on stdout."""

import socket

from coloc_cli import output


def run(host: str | None) -> None:
    """Print the facts; what NVML failed to tell goes to stderr and into the document."""
    from coloc_topology.nvml_facts import encode_facts
    from colocd.telemetry.nvml import read_nvml
    from colocd.telemetry.nvml_cores import read_cores

    facts = read_nvml(host or socket.gethostname().partition(".")[0], read_cores())
    output.raw(encode_facts(facts).encode())
    for problem in facts.problems:
        output.warn(f"coloc: {output.clean(problem)}")
