"""Server types through the stand-in: NVML → `coloc topo dump` → JSON → shape."""

from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.nvml.conftest import Facts
from tests.nvml.servers import CLUSTER, GIB, HYBRID_CUBE_MESH, SERVERS, bus, fabric

from coloc_topology.errors import TopologyError
from coloc_topology.fit import fit_table
from coloc_topology.nvml_facts import NvmlFacts, NvmlGpu, NvmlPair, decode_facts, encode_facts
from coloc_topology.nvml_facts import bus as plain
from coloc_topology.nvml_shape import nvlink_domain, order_from_files, pci_order, shape_from_nvml
from coloc_topology.shape import Level

DATA = Path(__file__).parents[1] / "topology/data/nvml"
CORES = {
    server: tuple(f"{i}" if server in ("one", "gb200") else f"{i},{i + 16}" for i in range(16)) for server in SERVERS
}


def words(facts: NvmlFacts) -> str:
    return "|".join(" ".join(row) for row in shape_from_nvml(facts).shape.links)


def uniform(count: int, word: str) -> str:
    return "|".join(" ".join("X" if i == j else word for j in range(count)) for i in range(count))


@pytest.mark.parametrize(
    ("server", "want"),
    [
        ("dgx1", HYBRID_CUBE_MESH),
        ("hgx_h100", uniform(8, "NV18")),
        ("hgx_a100", uniform(8, "NV12")),
        ("bridges", "X NODE NV12 SYS|NODE X SYS NV12|NV12 SYS X NODE|SYS NV12 NODE X"),
        ("flat", "X NODE SYS SYS|NODE X SYS SYS|SYS SYS X NODE|SYS SYS NODE X"),
        ("one", "X"),
        ("gb200", uniform(4, "NV18")),
    ],
)
def test_server_types(facts: Facts, server: str, want: str) -> None:
    found = facts(SERVERS[server])
    assert words(found) == want
    assert (shape_from_nvml(found).notes, found.problems) == ((), ())


def test_facts_of_a_gpu(facts: Facts) -> None:
    found = facts(SERVERS["gb200"])
    gpu = found.gpus[2]
    assert (found.host, found.driver) == ("gpu1", "570.00")
    assert (gpu.name, gpu.memory, gpu.minor, gpu.bus_id) == ("NVIDIA GB200", 80 * GIB, 2, "0000:30:00.0")
    assert gpu.uuid == "GPU-00000002-0000-0000-0000-000000000000"
    # NVML's own NUMA id of a Grace GPU is its memory, not the CPUs near it
    assert (gpu.numa, gpu.own_numa, gpu.cpus) == ((1,), 18, "8-15")
    assert gpu.mig is None
    assert len(gpu.nvlinks or ()) == 18
    assert shape_from_nvml(found).shape.numa == (0, 0, 1, 1)
    assert nvlink_domain(found) == "01234567-89ab-cdef-0123-456789abcdef.7"
    assert nvlink_domain(facts(SERVERS["hgx_h100"])) is None  # a fabric of this server alone
    assert nvlink_domain(facts(SERVERS["dgx1"])) is None
    assert facts(SERVERS["flat"]).gpus[0].nvlinks == ()


def test_islands_of_bridge_pairs_and_cube_mesh(facts: Facts) -> None:
    pairs = fit_table(shape_from_nvml(facts(SERVERS["bridges"])).shape)
    assert pairs.islands(Level.NVLINK) == (0b0101, 0b1010)
    cube = fit_table(shape_from_nvml(facts(SERVERS["dgx1"])).shape)
    assert cube.islands(Level.NVLINK) == (0x0F, 0xF0)
    assert cube.level_of(0xFF) is Level.NVLINK_PARTIAL


def test_fabric_that_is_not_ready_gives_no_nvlinks(facts: Facts) -> None:
    found = facts(SERVERS["hgx_a100"] + fabric(8, "0" * 32, 0, state=2))
    assert "NV" not in words(found)
    assert shape_from_nvml(found).notes == ("NVLinks of GPU 0-7 are not counted: the NVLink fabric is in-progress",)
    split = facts(SERVERS["gb200"] + "fabric 3 3 8 " + CLUSTER + "\n")
    assert words(split).split("|")[3] == "SYS SYS NODE X"
    assert words(split).split("|")[0] == "X NV18 NV18 SYS"
    assert nvlink_domain(split) is None


def test_refused_peer_access(facts: Facts) -> None:
    found = facts(SERVERS["bridges"] + "peer 0 2 4\n")
    assert words(found).startswith("X NODE SYS SYS|")
    assert shape_from_nvml(found).notes == (
        "NVLinks of GPU 0,2 are not counted: NVML refuses NVLink peer access (disabled)",
    )


def test_ends_that_are_not_told(facts: Facts) -> None:
    # a virtual machine: active links, but neither type nor address of the other end
    found = facts(SERVERS["hgx_a100"].replace(f"switch {bus(0xC5)}", "unknown -"))
    assert words(found) == uniform(8, "NV12")
    one_refused = facts(SERVERS["hgx_a100"].replace(f"switch {bus(0xC5)}", "unknown -") + "peer 0 1 5\n")
    assert "NV" not in words(one_refused).split("|")[0]
    assert any("is not told, so they are not counted" in note for note in shape_from_nvml(one_refused).notes)


def test_one_dead_link(facts: Facts) -> None:
    found = facts(SERVERS["bridges"] + f"link 0 3 down {bus(0x30)}\n")
    assert words(found).startswith("X NODE NV11 SYS|")
    assert shape_from_nvml(found).notes == ("GPUs 0,2 disagree on the NVLinks between them; the smaller number counts",)
    for server in ("hgx_h100", "hgx_a100"):
        dead = facts(SERVERS[server] + f"link 2 0 down {bus(0xC5)}\n")
        assert set(words(dead).split("|")[2].split()) == {"X", "NV17" if server == "hgx_h100" else "NV11"}


def test_functions_missing_in_the_driver(facts: Facts) -> None:
    old = facts(SERVERS["dgx1"], "NO_REMOTE_TYPE", "NO_FABRIC")
    assert words(old) == HYBRID_CUBE_MESH
    assert old.problems == ("this driver: nvmlDeviceGetNvLinkRemoteDeviceType: Function Not Found",)
    none = facts(SERVERS["bridges"], "NO_LINKS")
    assert none.gpus[0].nvlinks is None
    assert words(none).startswith("X NODE SYS SYS|")
    assert shape_from_nvml(none).notes == ("NVLinks of GPU 0-3 could not be read, so NVLinks may be missing here",)


def test_faults(facts: Facts) -> None:
    lost = facts(SERVERS["flat"] + "fail nvmlDeviceGetHandleByIndex 2 15\n")
    assert (lost.gpus[2].lost, lost.gpus[3].lost) == ("GPU is lost", None)
    with pytest.raises(TopologyError, match=r"GPU 2 of the NVML dump could not be read \(GPU is lost\)"):
        shape_from_nvml(lost)
    later = facts(SERVERS["flat"] + "fail nvmlDeviceGetMemoryInfo 1 15\n")
    assert later.gpus[1].lost == "GPU is lost"
    mig = facts(SERVERS["flat"] + "gpu 1 mig 1\ngpu 3 mig 1\n")
    assert [gpu.mig for gpu in mig.gpus] == [None, True, None, True]
    assert shape_from_nvml(mig).notes[0].startswith("MIG is on on GPU 1,3:")
    blind = facts(
        SERVERS["flat"] + "fail nvmlDeviceGetTopologyCommonAncestor -1 3\nfail nvmlDeviceGetCpuAffinity 0 3\n"
    )
    assert words(blind) == uniform(4, "SYS")
    assert shape_from_nvml(blind).notes == ("the PCIe path between some of GPU 0-3 is not told; it counts as SYS",)
    assert shape_from_nvml(blind).shape.cores[:2] == (None, "0-7,16-23")


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("init 9\n", "NVML cannot be used here: Driver Not Loaded"),
        ("fail nvmlDeviceGetCount -1 999\n", "NVML tells of no GPU: NVML: nvmlDeviceGetCount: Unknown Error"),
    ],
)
def test_no_nvml(facts: Facts, server: str, said: str, dump: object) -> None:
    done = dump(SERVERS["one"] + server)  # type: ignore[operator]
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.splitlines()[0] == f"coloc: {said}"
    absent = dump("", LD_LIBRARY_PATH="/nowhere")  # type: ignore[operator]
    assert (absent.returncode, "Shared Library Not Found" in absent.stderr) == (66, True)


def test_index_maps(facts: Facts) -> None:
    found = facts(SERVERS["quads_swapped"])
    assert pci_order(found) == tuple(range(8))
    read = order_from_files(found, [f"/dev/nvidia{i}" for i in range(8)])
    assert (read.order, read.mismatches) == ((4, 5, 6, 7, 0, 1, 2, 3), ())
    shape = shape_from_nvml(found, order=read.order)
    assert shape.shape.numa == (1,) * 4 + (0,) * 4
    assert shape.numbers[0] == (0, 4, 0, "0000:50:00.0", "GPU-00000004-0000-0000-0000-000000000000")
    wrong = order_from_files(found, ["/dev/nvidia0", None, "/dev/nvidia9", "/dev/nvidia0", "/dev/dri/card3"])
    assert wrong.order is None
    assert wrong.mismatches == (
        "GPU 1 has no File, so nothing tells which device it is",
        "GPU 2 is /dev/nvidia9, but NVML knows no GPU with minor number 9",
        "GPU 3 is /dev/nvidia0, as GPU 0 is",
        "GPU 4 is /dev/dri/card3, which is no /dev/nvidiaN",
    )
    few = order_from_files(found, ["/dev/nvidia0"])
    assert few.mismatches[0] == "NVML's GPU 0 (0000:10:00.0) is missing"
    with pytest.raises(TopologyError, match="each of the 8 GPUs once"):
        shape_from_nvml(found, order=(0, 1))


def test_dump_survives_json(facts: Facts) -> None:
    found = facts(SERVERS["dgx1"])
    assert decode_facts("\ufeff" + encode_facts(found)) == found
    ordered = msgspec.structs.replace(found, order=(4, 5, 6, 7, 0, 1, 2, 3))
    assert shape_from_nvml(decode_facts(encode_facts(ordered))).numbers[0].nvml == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "this is no NVML dump"),
        ('{"gpus": 3}', "this is no NVML dump"),
        ('{"format": "x"}', "its format is 'x'"),
        ('{"version": 2}', "version 2"),
        ('{"gpus": [{"index": 1}]}', "not numbered"),
        ('{"gpus": [{"index": 0}], "pairs": [{"a": 0, "b": 1}]}', "pair 0 and 1"),
        ('{"gpus": [{"index": 0}, {"index": 1}], "pairs": [{"a": 0, "b": 1}, {"a": 1, "b": 0}]}', "0 and 1 twice"),
        ('{"gpus": [{"index": 0, "bus_id": "0:1:0.0"}, {"index": 1, "bus_id": "0000:01:00.0"}]}', "same bus_id"),
        ('{"gpus": [{"index": 0}], "order": [1]}', "`order`"),
        ("[" * 5000, "this is no NVML dump"),
    ],
)
def test_bad_dumps(text: str, said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        decode_facts(text)


def test_no_gpu_at_all() -> None:
    with pytest.raises(TopologyError, match="has no GPU"):
        shape_from_nvml(NvmlFacts())


def test_bus_ids() -> None:
    assert plain("00000000:3B:00.0") == plain("0000:3b:00.0") == "0000:3b:00.0"
    assert plain("00010001:3B:00.0") == "10001:3b:00.0"
    assert plain("00000000:00:00.0") is plain("") is plain(None) is plain("nonsense") is None


GPUS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        *(
            st.builds(
                NvmlGpu,
                index=st.just(i),
                minor=st.none() | st.just(9 - i),
                bus_id=st.none() | st.just(f"0000:{9 - i:02x}:00.0"),
                nvlinks=st.none() | st.just(()),
            )
            for i in range(n)
        )
    )
)


@given(GPUS, st.data())
def test_any_facts_give_a_symmetric_shape_that_promises_nothing(gpus: tuple[NvmlGpu, ...], data: st.DataObject) -> None:
    told = [pair for pair in combinations(range(len(gpus)), 2) if data.draw(st.booleans())]
    path = st.sampled_from([None, "PIX", "SYS", "nonsense"])
    facts = NvmlFacts(gpus=gpus, pairs=tuple(NvmlPair(a=a, b=b, ancestor=data.draw(path)) for a, b in told))
    read = shape_from_nvml(decode_facts(encode_facts(facts)))
    links = read.shape.links
    assert all(links[i][j] == links[j][i] for i in range(len(gpus)) for j in range(len(gpus)))
    assert {word for row in links for word in row} <= {"X", "PIX", "SYS"}
    assert sorted(number.nvml for number in read.numbers) == list(range(len(gpus)))
    if all(gpu.bus_id for gpu in gpus):
        assert [number.nvml for number in read.numbers] == list(reversed(range(len(gpus))))
    fit_table(read.shape)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    for candidate in (text, "{" + text, '{"gpus": [{"index": 0, "bus_id": ' + repr(text) + "}]}"):
        try:
            decode_facts(candidate)
        except TopologyError as error:
            assert "\n" not in str(error)  # noqa: PT017 -- any error of that kind will do


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_recorded_dumps_are_what_the_reader_prints(facts: Facts, server: str) -> None:
    # these files are what the tests of the pure parts read
    found = msgspec.structs.replace(facts(SERVERS[server]), cores=CORES[server])
    assert (DATA / f"{server}.json").read_text() == encode_facts(found)
