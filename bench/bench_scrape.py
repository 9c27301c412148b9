"""What it takes to read the metrics of many replicas: 50 kB of vLLM's text each, from servers on this machine.

    python bench/bench_scrape.py [--replicas 100 400 1200]

CPU is that of the reader alone (reading and parsing); the servers are one other process, which shares the machine's CPUs with it.
"""

import argparse
import asyncio
import multiprocessing
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.telemetry.test_serving import VLLM

from colocd.clock import SystemClock
from colocd.telemetry.scrape import Failure, Scraper, Target
from colocd.testcluster import ports

CLOCK = SystemClock()
ROUNDS = 5


def serve(port: int, body: bytes) -> None:
    """Answer everybody with the same text."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096)
        async with server:
            await server.serve_forever()

    asyncio.run(run())


def main() -> None:
    """Print a line for each number of replicas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[100, 400, 1200])
    options = parser.parse_args()
    port = ports.reserve(Path("/tmp"), 1)
    server = multiprocessing.Process(target=serve, args=(port, VLLM.encode()), daemon=True)
    server.start()
    CLOCK.sleep(1.0)
    scraper = Scraper(CLOCK)
    print("replicas  seconds  CPU seconds  CPU ms each  unread")
    for count in options.replicas:
        targets = [Target(i, f"http://127.0.0.1:{port}/metrics", "vllm") for i in range(count)]
        times = []
        for _ in range(ROUNDS):
            begun, used = CLOCK.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
            found = scraper.read(targets)
            now = resource.getrusage(resource.RUSAGE_SELF)
            cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            unread = sum(isinstance(answer, Failure) for answer in found.values())
            times.append((CLOCK.monotonic() - begun, cpu, unread))
        wall, cpu, unread = sorted(times)[ROUNDS // 2]
        print(f"{count:>8}  {wall:>7.2f}  {cpu:>11.2f}  {1000 * cpu / count:>11.2f}  {unread:>6}")
    server.terminate()


if __name__ == "__main__":
    main()
