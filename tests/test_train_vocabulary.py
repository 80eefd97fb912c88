"""Text never becomes a structural token, whatever is written in it, with fast and slow tokenizers."""

import pickle
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from training_tokens import END, SENTENCES, language, tokenizer, vocabulary
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from model.config import ConfigError, LanguageConfig
from train.vocabulary import Vocabulary, load, of

NAMES = (END, "<s>", "</s>", "<unk>", "<pad>", "<image>", "<|endofchunk|>", "<PAD>")


def llama_like(normalized_by_prepending: bool) -> PreTrainedTokenizerFast:
    """Sentencepiece's ways: a space before every text, bytes for unknown characters, <s> at the start."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    made.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=700, special_tokens=tokens))
    if normalized_by_prepending:
        made.pre_tokenizer = None  # type: ignore[assignment]
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def before(tokens: Any, vocab_size: int | None = None, new_tokens: int = 2) -> Vocabulary:
    size = len(tokens) if vocab_size is None else vocab_size
    return of(tokens, LanguageConfig(name=None, layers=1, width=8, vocab_size=size, new_tokens=new_tokens))


VOCABULARIES = {
    "byte-level": vocabulary,
    "byte-level, own pad": lambda: vocabulary(3),
    "llama, legacy": lambda: before(llama_like(True)),
    "llama": lambda: before(llama_like(False)),
    "slow": lambda: before(ByT5Tokenizer()),
}


@pytest.fixture(scope="module", params=VOCABULARIES)
def made(request: pytest.FixtureRequest) -> Vocabulary:
    return VOCABULARIES[request.param]()


def test_new_tokens_follow_the_language_model_s_own() -> None:
    size = len(tokenizer())
    two, three = vocabulary(2), vocabulary(3)
    assert (two.end_of_chunk, two.image, two.end, two.pad, two.start) == (size, size + 1, 0, 0, None)
    assert (three.end_of_chunk, three.image, three.pad) == (size, size + 1, size + 2)


def test_padding_is_the_tokenizer_s_own_where_it_has_one() -> None:
    assert before(ByT5Tokenizer()).pad == ByT5Tokenizer().pad_token_id != before(ByT5Tokenizer()).end


def test_a_start_token_only_where_the_tokenizer_puts_one() -> None:
    assert before(llama_like(False)).start == 1
    quiet = llama_like(False)
    quiet.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    assert before(quiet).start is None


@pytest.mark.parametrize("name", NAMES)
def test_names_of_special_tokens_are_plain_text(made: Vocabulary, name: str) -> None:
    text = f"Write {name} at the end{name}.{name}"
    (ids,) = made.encode([text])
    assert max(ids) < made.first_new
    assert not {made.end, made.pad, made.start} & set(ids)
    if made.tokenizer.is_fast:
        assert made.decode(ids) == text
    else:
        assert made.decode(ids).replace(" ", "") == text.replace(" ", "")


@given(texts=st.lists(st.text(st.characters(), max_size=30) | st.sampled_from(NAMES), max_size=4))
def test_any_text_is_only_text(texts: list[str]) -> None:
    for made in (vocabulary(), before(ByT5Tokenizer())):
        found = made.encode([*texts, "".join(texts)])
        assert len(found) == len(texts) + 1
        assert all(i < made.first_new and i not in (made.end, made.pad) for ids in found for i in ids)


def test_half_a_surrogate_pair_is_replaced() -> None:
    made = vocabulary()
    assert made.encode(["a\ud800b", "\ud83d\ude00"]) == made.encode(["a\ufffdb", "\U0001f600"])


def test_a_space_that_the_tokenizer_adds_is_noticed() -> None:
    assert before(llama_like(True)).adds_space
    assert before(llama_like(False)).adds_space
    assert not vocabulary().adds_space
    assert not before(ByT5Tokenizer()).adds_space


def test_decoding_leaves_structure_out(made: Vocabulary) -> None:
    (ids,) = made.encode(["a dog"])
    start = [] if made.start is None else [made.start]
    whole = [*start, made.image, *ids, made.end_of_chunk, made.end, made.pad]
    assert made.decode(whole) == "a dog"


def test_the_tokenizer_stays_as_it_was() -> None:
    own = llama_like(True)
    own.backend_tokenizer.enable_truncation(2)
    text = f"two eggs and </s> {SENTENCES[0]}"
    was = own.backend_tokenizer.to_str(), own.backend_tokenizer.encode_special_tokens
    assert len(before(own).encode([text])[0]) > 20
    assert (own.backend_tokenizer.to_str(), own.backend_tokenizer.encode_special_tokens) == was


def test_workers_get_the_same_vocabulary(made: Vocabulary) -> None:
    text = f"a </s> b {END} c"
    assert pickle.loads(pickle.dumps(made)).encode([text]) == made.encode([text])


def test_an_added_token_that_is_not_special_but_ends_texts() -> None:
    """A careless tokenizer: its eos is found in any text, since it is not marked as special."""
    own = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    own.add_tokens([AddedToken("STOP", special=False)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=own)
    wrapped.eos_token = "STOP"
    made = before(wrapped)
    (ids,) = made.encode(["Do not STOP here"])
    assert made.end not in ids
    assert made.decode(ids) == "Do not STOP here"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 300}, "vocab_size is 300"),
        ({"new_tokens": 1}, "at least 2, not 1"),
    ],
)
def test_sizes_that_do_not_fit(change: dict[str, int], message: str) -> None:
    sizes = {"vocab_size": len(tokenizer()), "new_tokens": 2, **change}
    with pytest.raises(ConfigError, match=message):
        of(tokenizer(), LanguageConfig(name=None, layers=1, width=8, **sizes))


def test_embeddings_may_be_padded() -> None:
    assert before(tokenizer(), vocab_size=1024).image == 1025


def test_a_tokenizer_without_an_end() -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ConfigError, match="set its eos_token"):
        before(endless)


def test_loading(tmp_path: Any) -> None:
    tokenizer().save_pretrained(tmp_path)
    config = language()
    made = load(LanguageConfig(name=str(tmp_path), layers=1, width=8, vocab_size=config.vocab_size))
    assert made.encode(SENTENCES) == vocabulary().encode(SENTENCES)
    with pytest.raises(ConfigError, match="no name"):
        load(config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="gives no tokenizer"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(LanguageConfig(name=str(tmp_path / "empty"), layers=1, width=8, vocab_size=9))
