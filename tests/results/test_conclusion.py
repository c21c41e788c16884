"""The lines that open a page: how weights were selected, and the names of data sets in sentences."""

from __future__ import annotations

from dolglab.results.card import make_card
from dolglab.results.comparison_tables import leader_lines, validation_line

TRAINING = {"images": 4, "landmarks": 2, "list": None, "classes": "0"}


def card_of(selection, validation_map=None, training=TRAINING):
    return make_card(
        name="run",
        method="DOLG",
        rankings=[],
        protocol={"selection": selection},
        checkpoint=None,
        config={},
        training=training,
        validation_map=validation_map,
    )


def test_a_page_says_how_the_weights_were_selected():
    selected = {"town validation photos": "0" * 16}
    (line,) = validation_line(card_of(selected, 0.9332))
    assert "93.32 %" in line
    assert '"town validation photos"' in line
    # An evaluation does not have the figure of the training.
    (line,) = validation_line(card_of(selected))
    assert line.startswith('The weights were selected by validation on "town validation photos"')
    (line,) = validation_line(card_of({}))
    assert "not selected by validation" in line
    # An untrained network.
    assert validation_line(card_of({}, training=None)) == []


def test_a_name_of_several_words_has_quotes_in_a_sentence(make_card_of, make_ranking):
    (line,) = leader_lines([make_card_of("town", make_ranking("town test photos", difficulties=("medium",)))])
    assert line.startswith('mAP on "town test photos": 75.00 % by town')
