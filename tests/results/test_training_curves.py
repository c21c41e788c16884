from xml.etree import ElementTree

import pytest

from dolglab.errors import UserError
from dolglab.results.card_charts import training_charts
from dolglab.results.charts import read_series

METRICS = """\
epoch,step,train/loss,train/target_cosine,val/toy/easy,val/toy/hard,val/toy/medium,pooling/p,lr-AdamW
0,9,8.0,0.1,,,,3.0,0.1
0,19,6.0,,,,,,0.1
0,19,,,0.5,0.1,0.3,,
1,29,5.0,0.3,,,,nan,0.1
1,39,99.0,,,,,,
epoch,step,train/loss,train/nontarget_cosine,val/toy/easy,val/toy/hard,val/toy/medium,train/images_per_second
1,29,4.0,0.0,,,,250
1,35,3.0,,,,,260
2,45,2.0,,0.7,0.2,0.4
"""


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS)
    return path


def test_a_resumed_run_replaces_what_it_does_again(metrics):
    series = read_series(metrics)
    assert (series["train/loss"].steps, series["train/loss"].values) == ([9, 19, 29, 35, 45], [8, 6, 4, 3, 2])
    assert (series["val/toy/medium"].steps, series["val/toy/medium"].values) == ([19, 45], [0.3, 0.4])
    assert series["pooling/p"].values == [3.0]
    assert series["train/images_per_second"].values == [250, 260]


def test_curves_have_a_chart_for_each_group_with_data(metrics):
    assert [chart.title for chart in training_charts(metrics.parent)] == [
        "Loss",
        "Validation mAP, toy",
        "Cosine to the class weights",
        "GeM exponent p",
        "Learning rate",
        "Throughput",
    ]


def test_curves_are_elements_in_the_colour_of_the_page_and_the_same_each_time(metrics):
    charts = training_charts(metrics.parent)
    assert charts == training_charts(metrics.parent)
    for svg in (chart.svg for chart in charts):
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        ElementTree.fromstring(svg.replace("xlink:href", "href"))
    (legend,) = (chart.svg for chart in charts if chart.title == "Validation mAP, toy")
    assert legend.index(">easy<") < legend.index(">medium<") < legend.index(">hard<")


def test_several_benchmarks_have_a_chart_each_and_one_point_is_a_marker(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/a/medium,validation/b/medium,val/medium\n0,5,0.5,0.6,0.7\n")
    charts = training_charts(tmp_path)
    assert [chart.title for chart in charts] == ["Validation mAP, a", "Validation mAP, b", "Validation mAP"]
    assert all("stroke-linejoin" in chart.svg and "<use" in chart.svg for chart in charts)


def test_a_long_curve_is_thinned(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n" + "".join(f"{step},{step % 7}\n" for step in range(50_000)))
    (chart,) = training_charts(tmp_path)
    assert len(chart.svg) < 60_000


def test_no_metrics_no_curves(tmp_path):
    assert training_charts(tmp_path) == []
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,other\n0,1,2\n")
    assert training_charts(tmp_path) == []


def test_what_is_no_file_of_metrics_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"metrics\.csv"):
        training_charts(tmp_path)
    with pytest.raises(UserError, match=r"absent\.csv"):
        read_series(tmp_path / "absent.csv")
