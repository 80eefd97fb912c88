"""Which image a token sees, against a definition written out token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import masking

IMAGE, END = 9, 1


def sees(ids: list[int], documents: list[int], place: int, ahead: bool) -> int:
    """The number of the image that the token at `place` sees: 0 for none."""
    images = [i for i, token in enumerate(ids) if token == IMAGE]
    mine = [i for i in images if documents[i] == documents[place]]
    if ids[place] == IMAGE:
        return images.index(place) + 1
    found = [i for i in mine if i > place][:1] if ahead else [i for i in mine if i < place][-1:]
    return images.index(found[0]) + 1 if found else 0


sequences = st.lists(st.sampled_from([3, 4, END, IMAGE, IMAGE]), min_size=1, max_size=16)


@settings(max_examples=150)
@given(ids=sequences, draws=st.lists(st.booleans(), min_size=16, max_size=16), packed=st.booleans())
def test_phi_is_what_the_definition_says(ids: list[int], draws: list[bool], packed: bool) -> None:
    tokens = torch.tensor([ids])
    documents = masking.documents_between(tokens, END) if packed else None
    numbers = documents[0].tolist() if documents is not None else [0] * len(ids)
    ahead = [draws[number] for number in numbers]
    phi = masking.visible(tokens, IMAGE, documents=documents, look_ahead=torch.tensor([ahead]))
    assert phi[0].tolist() == [sees(ids, numbers, place, ahead[place]) for place in range(len(ids))]
    first, last = masking.visible(tokens, IMAGE, documents=documents, all_previous=True)[0].unbind(-1)
    images = [i for i, token in enumerate(ids) if token == IMAGE]
    for place in range(len(ids)):
        allowed = [n + 1 for n, i in enumerate(images) if i <= place and numbers[i] == numbers[place]]
        assert [n for n in range(1, len(images) + 1) if first[place] <= n <= last[place]] == allowed


def test_the_papers_figure() -> None:
    """Leading text sees nothing; an image token sees its own image, and the text after it that image."""
    ids = torch.tensor([[5, IMAGE, 6, 7, IMAGE, IMAGE, 8]])
    assert masking.visible(ids, IMAGE).tolist() == [[0, 1, 1, 1, 2, 3, 3]]
    ahead = masking.visible(ids, IMAGE, look_ahead=torch.tensor([[True]]))
    assert ahead.tolist() == [[1, 1, 2, 2, 2, 3, 0]]


def test_packed_documents_do_not_see_each_others_images() -> None:
    ids = torch.tensor([[IMAGE, 5, END, 6, IMAGE, 7]])
    documents = masking.documents_between(ids, END)
    assert documents.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert masking.visible(ids, IMAGE, documents=documents).tolist() == [[1, 1, 1, 0, 2, 2]]
    assert masking.all_previous_images(ids, IMAGE, documents)[0, -1].tolist() == [2, 2]


@pytest.mark.parametrize("both", (False, True))
def test_the_mask_has_no_empty_row(both: bool) -> None:
    phi = torch.tensor([[0, 1, 2, 2]])
    if both:
        phi = torch.stack([phi.clamp(max=1), phi], dim=-1)
    mask, seen = masking.view(phi, torch.tensor([[True, False]]), tokens_per_image=2)
    assert mask.shape == (1, 1, 4, 4)
    assert seen[0, :, 0].tolist() == ([False, True, True, True] if both else [False, True, False, False])
    assert mask[0, 0, 1].tolist() == [True, True, False, False]
    assert mask[0, 0, 0].all()  # seen by nobody in the end: its output is multiplied by zero
