import io

import pytest
from rich.console import Console

from src.contracts import BadImage
from src.results.card import make_card
from src.results.tables import markdown_table, print_table, summarize


@pytest.fixture
def card(make_ranking):
    def make(method, *rankings, name="run", **protocol):
        return make_card(name=name, method=method, rankings=rankings, protocol=protocol, checkpoint=None, config={})

    return make


@pytest.fixture
def two(card, make_ranking):
    protocol = {"scales": [0.70710678, 1.0], "resize": "released", "image_size": 1024, "selection": {"val": "1" * 16}}
    first = card("DOLG", make_ranking(), make_ranking("one", difficulties=("medium",)), **protocol)
    second = card(
        "GeM",
        make_ranking(maps=(0.95, 0.75, 0.4), bad=(BadImage("a", "b"),)),
        **(protocol | {"selection": {"toy": "0123456789abcdef"}}),
    )
    return [first, second]


def test_markdown_exactly(two):
    assert (
        markdown_table(two)
        == """\
**Mean average precision, %**

| method | toy easy | toy medium | toy hard | one mAP |
| --- | ---: | ---: | ---: | ---: |
| DOLG [1] | 90.00 | **75.00** | **50.00** | 75.00 |
| GeM [2] | **95.00** [3] [4] | **75.00** [3] [4] | 40.00 [3] [4] | – |

**Mean precision at k on toy, %**

| method | easy @1 | easy @5 | medium @1 | medium @5 | hard @1 | hard @5 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| DOLG [1] | **100.0** | **62.5** | **100.0** | **62.5** | **100.0** | **62.5** |
| GeM [2] | **100.0** [3] [4] | **62.5** [3] [4] | **100.0** [3] [4] | **62.5** [3] [4] | **100.0** [3] [4] | **62.5** [3] [4] |

**Mean precision at k on one, %**

| method | @1 | @5 |
| --- | ---: | ---: |
| DOLG [1] | 100.0 | 62.5 |
| GeM [2] | – | – |

[1] crop pil; scales 0.7071, 1; resize released; image size 1024; selection val

[2] crop pil; scales 0.7071, 1; resize released; image size 1024; selection toy

[3] 1 image skipped

[4] selected on this set

toy: 2 queries, 8 gallery images, digest 0123456789ab

one: 2 queries, 8 gallery images, digest 0123456789ab
"""  # noqa: E501, RUF001
    )


def test_one_row_has_no_best_and_a_plain_protocol_line(card, make_ranking):
    text = markdown_table([card("DOLG", make_ranking(), scales=[1.0])])
    assert "| DOLG | 90.00 | 75.00 | 50.00 |" in text
    assert "Protocol: crop pil; scales 1\n" in text


def test_crops_that_differ_between_sets_are_named(card, make_ranking):
    cards = [card("DOLG", make_ranking(), make_ranking("other", crop="none"))]
    summary = summarize(cards)
    assert summary.lines[0] == "Protocol: crop pil (toy), none (other)"
    assert summary.notes == ("queries not cropped",)


def test_sets_of_one_name_and_other_contents_have_columns_of_their_own(card, make_ranking):
    cards = [card("A", make_ranking()), card("B", make_ranking(digest="fedcba9876543210"))]
    assert summarize(cards).tables[0].groups == [("toy (012345)", 3), ("toy (fedcba)", 3)]


def test_methods_of_one_name_are_told_apart_by_run(card, make_ranking):
    cards = [card("DOLG", make_ranking(), name=name) for name in ("seed0", "seed1")]
    assert [heading.text for heading, _ in summarize(cards).tables[0].rows] == [
        "DOLG (seed0)",
        "DOLG (seed1)",
    ]


def test_a_figure_left_out_is_a_dash_and_never_the_best(card, make_ranking):
    cards = [card(m, make_ranking(maps=(easy, 0.5, 0.5))) for m, easy in (("A", float("nan")), ("B", 0.1))]
    (_, first), (_, second) = summarize(cards).tables[0].rows
    assert (first[0].text, first[0].best) == ("–", False)  # noqa: RUF001
    assert (second[0].text, second[0].best) == ("10.00", False)


@pytest.mark.parametrize("width", [20, 80, 500])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_console_is_too_narrow(two, width, terminal):
    two[0]["method"] = "DOLG [bold] " + "x" * 60
    file = io.StringIO()
    print_table(two, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    if not terminal:
        assert f"{two[0]['method']} [1] 90.00 75.00 50.00 75.00" in lines
        assert "GeM [2] 95.00 [3] [4] 75.00 [3] [4] 40.00 [3] [4] –" in lines  # noqa: RUF001
    assert "[2] crop pil; scales 0.7071, 1; resize released; image size 1024; selection toy" in lines
    assert "…" not in file.getvalue()


def test_markdown_is_safe_from_names(card, make_ranking):
    assert "| a\\|b &lt;script> |" in markdown_table([card("a|b <script>", make_ranking())])
