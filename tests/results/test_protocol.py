"""The text of protocols."""

from dataclasses import replace

from dolglab.results.comparison_tables import summarize
from dolglab.results.tables import protocol_line, protocol_lines


def staged(ranking, **stages):
    return replace(ranking, stages=stages)


def test_crops_that_differ_between_sets_are_named(make_card_of, make_ranking):
    summary = summarize([make_card_of("DOLG", make_ranking(), make_ranking("other", crop="none"))])
    assert summary.lines[0] == "Protocol: crop pil (toy), none (other)."
    assert list(summary.notes.values()) == ["queries not cropped"]


def test_stages_follow_the_protocol(make_card_of, make_ranking):
    stages = {
        "index": "flat",
        "post": ["whitening", {"alpha_qe": {"neighbours": 10, "alpha": 3.0}}],
        "rerank": {"spatial": {"depth": 100, "model": "affine", "top_down": True}},
        "aggregate": None,
    }
    assert protocol_line(make_card_of("DOLG", staged(make_ranking(), **stages), scales=[1.0])) == (
        "crop pil; scales 1; index flat; post whitening, alpha qe (neighbours 10, alpha 3); "
        "rerank spatial (depth 100, model affine, top down yes)"
    )


def test_rows_state_only_their_differences(make_card_of, make_ranking):
    cards = [
        make_card_of("A", staged(make_ranking(), index="flat"), scales=[1.0], precision=None),
        make_card_of("B", staged(make_ranking(), index="hnsw"), scales=[1.0], precision="bf16-mixed", image_size=1024),
        make_card_of("C", staged(make_ranking(), index="flat", rerank="spatial"), scales=[1.0]),
    ]
    shared, own = protocol_lines(cards)
    assert shared == "crop pil; scales 1"
    assert own == [
        "index flat; image size unlimited; precision 32-true; rerank none",
        "index hnsw; image size 1024; precision bf16-mixed; rerank none",
        "index flat; image size unlimited; precision 32-true; rerank spatial",
    ]


def test_stages_that_differ_between_sets_are_named(make_card_of, make_ranking):
    card = make_card_of("A", staged(make_ranking(), rerank="spatial"), make_ranking("other"))
    assert protocol_line(card) == "crop pil; rerank spatial (toy), none (other)"


def test_equal_rows_share_the_protocol_and_equal_differences_a_note(make_card_of, make_ranking):
    cards = [make_card_of(name, staged(make_ranking(), index="flat"), scales=[1.0]) for name in "AB"]
    assert protocol_lines(cards) == ("crop pil; scales 1; index flat", ["", ""])
    cards.append(make_card_of("C", make_ranking(), scales=[1.0]))
    assert [heading.notes for heading, _ in summarize(cards).tables[0].rows] == [("1",), ("1",), ("2",)]


def test_a_run_without_benchmarks_has_a_protocol_too(make_card_of, make_ranking):
    shared, own = protocol_lines([make_card_of("A", scales=[1.0]), make_card_of("B", make_ranking(), scales=[1.0])])
    assert (shared, own) == ("scales 1", ["crop –", "crop pil"])  # noqa: RUF001


def test_nothing_is_claimed_of_descriptors_from_elsewhere(make_card_of, make_ranking):
    rules = {"measure": "mAP", "images": "whole; queries cropped to their boxes"}
    known = make_ranking()
    known = replace(known, benchmark=replace(known.benchmark, protocol=rules))
    given = make_card_of("Theirs", staged(known, descriptors="from theirs.npy"), image_size=None)
    (benchmark,) = given["benchmarks"]
    assert benchmark["crop"] == "unknown"
    assert benchmark["protocol"]["measure"] == "mAP"
    assert "cropped" not in benchmark["protocol"]["images"]
    assert protocol_line(given) == "crop unknown; scales unknown; resize unknown; descriptors from theirs.npy"
    summary = summarize([given])
    assert any("unknown crop" in note for note in summary.notes.values())
    assert not any("cropped" in line or "pil" in line for line in summary.lines)
    # An older card claims to know the crop, and repeats the stage's name.
    old = {
        **given,
        "benchmarks": [
            benchmark | {"crop": "pil", "protocol": rules, "stages": {"descriptors": "descriptors of theirs.npy"}}
        ],
    }
    assert protocol_line(old) == "crop unknown; scales unknown; resize unknown; descriptors of theirs.npy"
    assert summarize([old]).lines[-1] == summary.lines[-1]
    # Beside a row that was described here, the rules are those of that row.
    own = make_card_of("Ours", known, scales=[1.0], resize="released", image_size=512)
    assert protocol_lines([own, given])[1] == [
        "crop pil; scales 1; resize released; image size 512",
        "crop unknown; scales unknown; resize unknown; image size unknown; descriptors from theirs.npy",
    ]
    for cards in ([own, given], [given, own]):
        assert "queries cropped to their boxes." in summarize(cards).lines[-1]
