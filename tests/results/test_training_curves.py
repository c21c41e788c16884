import pytest

from dolglab.errors import UserError
from dolglab.results.metrics_log import read_series
from dolglab.results.training_charts import compared_curves, training_charts

METRICS = """\
epoch,step,train/loss,train/target_cosine,val/toy_set/easy,val/toy_set/hard,val/toy_set/medium,pooling/p,lr-AdamW
0,9,8.0,0.1,,,,3.0,0.1
0,19,6.0,,,,,,0.1
0,19,,,0.5,0.1,0.3,,
1,29,5.0,0.3,,,,nan,0.1
1,39,99.0,,,,,,
epoch,step,train/loss,val/toy_set/easy,val/toy_set/hard,val/toy_set/medium,train/images_per_second
1,29,4.0,0.0,,,250
1,35,3.0,,,,260
2,45,2.0,0.7,0.2,0.4
"""


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS)
    return path


def test_a_resumed_run_replaces_repeated_steps(metrics):
    series = read_series(metrics)
    assert (series["train/loss"].steps, series["train/loss"].values) == ([9, 19, 29, 35, 45], [8, 6, 4, 3, 2])
    assert (series["val/toy_set/medium"].steps, series["val/toy_set/medium"].values) == ([19, 45], [0.3, 0.4])
    assert series["pooling/p"].values == [3.0]
    assert series["train/images_per_second"].values == [250, 260]


def test_curves_have_a_chart_for_each_group_with_data(metrics):
    assert [chart.title for chart in training_charts(metrics.parent)] == [
        "Loss by epoch",
        "Loss by step",
        "Validation mAP by epoch, toy set",
        "Learning rate by step",
        "Cosine to the class weights",
        "GeM exponent p",
        "Throughput",
    ]


def test_charts_show_the_values_of_the_log(metrics):
    by_epoch, by_step, validation, *_ = (chart.drawing.values() for chart in training_charts(metrics.parent))
    # Epochs are counted from 1, as the terminal does.
    assert by_epoch.rows == (("1", "7"), ("2", "3.5"), ("3", "2"))
    assert by_step.rows == (("9", "8"), ("19", "6"), ("29", "4"), ("35", "3"), ("45", "2"))
    assert validation.heading == ("epoch", "easy", "medium", "hard")
    assert validation.rows[-1] == ("3", "70", "40", "20")


def test_several_benchmarks_have_a_chart_each_and_one_figure_is_called_map(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/a/medium,validation/b/medium,val/medium\n0,5,0.5,0.6,0.7\n")
    charts = training_charts(tmp_path)
    assert [(chart.title, chart.drawing.values().rows) for chart in charts] == [
        ("Validation mAP by epoch, a", (("1", "50"),)),
        ("Validation mAP by epoch, b", (("1", "60"),)),
        ("Validation mAP by epoch", (("1", "70"),)),
    ]
    assert {chart.drawing.values().heading for chart in charts} == {("epoch", "mAP")}


def test_compared_runs_have_a_line_each(metrics, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.csv").write_text("epoch,step,train/loss,val/toy_set/medium\n0,9,7.0,0.25\n")
    loss, by_step, validation, rate = compared_curves({"A": metrics.parent, "B": other, "none": tmp_path / "absent"})
    assert loss.drawing.values().heading == ("epoch", "A", "B")
    assert loss.drawing.values().rows == (("1", "7", "7"), ("2", "3.5", ""), ("3", "2", ""))
    assert by_step.drawing.values().rows[0] == ("9", "8", "7")
    assert validation.drawing.values().rows == (("1", "30", "25"), ("3", "40", ""))
    assert rate.title == "Learning rate by step"


def test_some_of_hundreds_of_runs_are_drawn_with_a_note(metrics):
    charts = compared_curves({f"run {place}": metrics.parent for place in range(300)})
    assert all("of 300 runs" in chart.note for chart in charts)
    assert len(charts[0].drawing.values().heading) < 20


def test_without_metrics_there_are_no_curves(tmp_path):
    assert training_charts(tmp_path) == []
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,other\n0,1,2\n")
    assert training_charts(tmp_path) == []


def test_a_truncated_log_is_read(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,9,8.5\n0,19,7.25\n0,2")
    by_epoch, by_step = training_charts(tmp_path)
    assert by_epoch.drawing.values().rows == (("1", "7.875"),)
    assert by_step.drawing.values().rows == (("9", "8.5"), ("19", "7.25"))


def test_files_without_metrics_are_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"metrics\.csv"):
        training_charts(tmp_path)
    with pytest.raises(UserError, match=r"absent\.csv"):
        read_series(tmp_path / "absent.csv")
