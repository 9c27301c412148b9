import pytest
from tests.slurm.contract.harness import Harness, Live, Virtual


@pytest.fixture(params=["virtual", pytest.param("live", marks=(pytest.mark.slurm, pytest.mark.root))])
def h(request: pytest.FixtureRequest) -> Harness:
    """The same questions to the virtual cluster and to a real Slurm (one for the whole run, emptied for each test)."""
    if request.param == "virtual":
        return Harness(Virtual())
    cluster = request.getfixturevalue("cluster")
    cluster.clean()
    return Harness(Live(cluster))
