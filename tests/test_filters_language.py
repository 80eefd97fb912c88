"""English or not: plain cases in many languages, mixtures, and text that no detector likes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.language import reject, score

RELEASED = Path(__file__).parents[2] / "shared" / "data" / "mmc4_docs.jsonl"
ENGLISH = (
    "The old bridge crosses the river where the town began. Every spring the water rises, and the people "
    "who live beside it carry their boats up to the road and wait until the flood has gone."
)
OTHERS = {
    "german": (
        "Die alte Brücke führt dort über den Fluss, wo die Stadt entstanden ist. Jedes Frühjahr "
        "steigt das Wasser, und die Leute tragen ihre Boote hinauf zur Straße und warten, bis die "
        "Flut vorüber ist."
    ),
    "french": (
        "Le vieux pont traverse la rivière là où la ville a commencé. Chaque printemps l'eau monte, "
        "et les habitants portent leurs bateaux jusqu'à la route en attendant la fin de la crue."
    ),
    "spanish": (
        "El viejo puente cruza el río donde empezó la ciudad. Cada primavera sube el agua, y los "
        "vecinos llevan sus barcas hasta la carretera y esperan a que pase la crecida."
    ),
    "italian": (
        "Il vecchio ponte attraversa il fiume dove è nata la città. Ogni primavera l'acqua sale e "
        "la gente porta le barche fino alla strada e aspetta che la piena finisca."
    ),
    "dutch": (
        "De oude brug gaat over de rivier waar de stad begon. Elk voorjaar stijgt het water, en de "
        "mensen dragen hun boten naar de weg en wachten tot het hoogwater voorbij is."
    ),
    "polish": (
        "Stary most przechodzi nad rzeką tam, gdzie powstało miasto. Każdej wiosny woda się "
        "podnosi, a ludzie wynoszą swoje łodzie na drogę i czekają, aż powódź minie."
    ),
    "russian": (
        "Старый мост пересекает реку там, где начинался город. Каждую весну вода поднимается, и "
        "люди переносят свои лодки к дороге и ждут, пока не закончится паводок."
    ),
    "japanese": (
        "古い橋は町が始まった場所で川を渡っています。毎年春になる"
        "と水位が上がり、人々は船を道まで運び、水が引くのを待ちます。"
    ),
}


def test_keeps_english() -> None:
    assert score(ENGLISH) > 0.999
    assert reject(score(ENGLISH)) is None


@pytest.mark.parametrize("language", OTHERS)
def test_rejects_other_languages(language: str) -> None:
    assert score(OTHERS[language]) < 0.01
    assert reject(score(OTHERS[language])) == "not_english"


def test_a_quotation_does_not_matter_but_half_the_page_does() -> None:
    assert reject(score(ENGLISH * 4 + " " + OTHERS["french"])) is None
    assert reject(score(ENGLISH + " " + OTHERS["french"])) == "not_english"


@pytest.mark.parametrize(("value", "reason"), [(0.99, None), (0.9899, "not_english"), (0.0, "not_english")])
def test_threshold(value: float, reason: str | None) -> None:
    assert reject(value) == reason
    assert reject(value, min_english=0.0) is None


@pytest.mark.parametrize("text", ["", " \n", "\x00", "123 456", "!!!", "\ud800\udfff", "\ufffe\uffff", "\x7f\x85\x0b"])
def test_no_language_is_not_english(text: str) -> None:
    assert score(text) == 0.0


def test_every_code_point_is_survived() -> None:
    for start in range(0, 0x110000, 0x400):
        assert 0.0 <= score("".join(map(chr, range(start, start + 0x400)))) <= 1.0


def test_control_characters_do_not_change_the_verdict() -> None:
    assert reject(score(ENGLISH.replace(" ", "\x00 \ud83d"))) is None


@given(st.text(st.characters(), max_size=200))
def test_any_text_gets_a_score(text: str) -> None:
    assert 0.0 <= score(text) <= 1.0


@pytest.mark.skipif(not RELEASED.exists(), reason="released MMC4 documents are not here")
def test_keeps_every_released_document() -> None:
    documents = [json.loads(line)["doc"] for line in RELEASED.read_text().splitlines()]
    assert all(reject(score(" ".join(document["text_list"]))) is None for document in documents)
