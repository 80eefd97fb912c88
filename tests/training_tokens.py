"""A small tokenizer for the trainer's tests, made in memory: byte-level BPE, as GPT-NeoX's, from a few sentences."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from model.config import LanguageConfig
from train.vocabulary import Vocabulary, of

END = "<|endoftext|>"
SENTENCES = (
    "The red fox sleeps on the old stone wall beside the garden.",
    "A picture of a dog that runs along the beach in the evening light.",
    "We walked to the market, bought apples, pears and bread, and went home by the river.",
    "This recipe needs two eggs, a cup of flour, some sugar and a little salt.",
    "Click here to read more about the history of the town and its people.",
    "In 1998 the museum opened its doors; since then more than 250,000 visitors have come.",
)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """512 tokens at most: 256 bytes, <|endoftext|> as number 0, and the merges of SENTENCES."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=512, special_tokens=[END], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, unk_token=END)


def language(new_tokens: int = 2) -> LanguageConfig:
    """A language model of the tokenizer's size."""
    return LanguageConfig(name=None, layers=2, width=16, vocab_size=len(tokenizer()), new_tokens=new_tokens)


def vocabulary(new_tokens: int = 2) -> Vocabulary:
    return of(tokenizer(), language(new_tokens))
