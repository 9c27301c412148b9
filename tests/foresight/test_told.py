"""How well a service is foreseen is told wherever somebody looks: status, explain, metrics."""

from tests.helpers.views import AT, service, view

from colocd.answer_words import service_words
from colocd.core.forecast import headline
from colocd.core.plan import explain, plan
from colocd.core.view import Forecast, Quantiles, Reading, Record, ServiceView
from colocd.metrics import Metrics


def record(ahead: float, *, lost: bool) -> Record:
    used = "persistence" if lost else "weekly profile, shifted"
    return Record(ahead=ahead, wape=0.21, persistence=0.2, covered95=0.947, seen=500, used=used, lost=lost)


FORECAST = Forecast(
    points=(Quantiles(0.0, {"0.5": 5.0, "0.9": 6.0}),),
    step=900.0,
    trust=0.8,
    basis="no cycle found; 1 h ahead by the last value, which nothing beat",
    records=(record(600.0, lost=False), record(3600.0, lost=True), record(86400.0, lost=False)),
)
CHAT = ServiceView(spec=service(), load=Reading(5.0, AT), forecast=FORECAST)
NEW = ServiceView(spec=service("new"), load=Reading(5.0, AT))


def test_an_hour_ahead_is_the_headline() -> None:
    found = headline(FORECAST, 86400.0)
    assert found is not None
    assert (found.ahead, found.lost) == (3600.0, True)
    assert headline(None, 86400.0) is None


def test_status_and_explain_tell_it() -> None:
    seen = view(services=(CHAT, NEW))
    words = service_words(CHAT, seen)["forecast"]
    assert (words["wape"], words["covered95"], words["lost"]) == (0.21, 0.947, True)
    assert service_words(NEW, seen)["forecast"] is None
    assert any("which nothing beat" in line for line in explain("service:chat", seen, plan(seen)))
    assert not any("foreseen" in line for line in explain("service:new", seen, plan(seen)))


def test_metrics_have_a_series_for_each_horizon_and_forget_a_service_that_goes() -> None:
    metrics = Metrics()
    metrics.seen(view(services=(CHAT, NEW)))
    text = metrics.text().decode()
    for line in (
        'coloc_forecast_error_ratio{ahead="600",service="chat"} 0.21',
        'coloc_forecast_last_value_error_ratio{ahead="3600",service="chat"} 0.2',
        'coloc_forecast_covered95_ratio{ahead="86400",service="chat"} 0.947',
        'coloc_forecast_used{ahead="600",service="chat"} 1.0',
        'coloc_forecast_used{ahead="3600",service="chat"} 0.0',
    ):
        assert line in text
    assert 'service="new"' not in "".join(line for line in text.splitlines(keepends=True) if "forecast" in line)
    metrics.seen(view(services=(NEW,)))
    assert "coloc_forecast_used{" not in metrics.text().decode()
