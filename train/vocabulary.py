"""The numbers of the tokens that structure a sequence, and text to numbers and back."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from model.config import ConfigError, LanguageConfig

SPACES = "▁Ġ"  # how sentencepiece and byte-level BPE spell a space


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What sequences are made of.

    The new tokens are numbers behind the tokenizer's own. The tokenizer never learns their spelling, so that no text
    of the web can be mistaken for them.
    """

    image: int
    end_of_chunk: int
    end: int  # the tokenizer's eos
    pad: int
    start: int | None  # bos, only where the tokenizer itself puts one
    tokenizer: Any  # of transformers; never changed
    first_new: int = 1 << 62  # numbers from here on are no text
    adds_space: bool = False  # the tokenizer puts a space before every text, as LLaMA's does
    backend: Any = None  # our own copy of a fast tokenizer's engine

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Numbers of each text, without any special token: "<|endoftext|>" in a text is thirteen characters of it."""
        if self.backend is None:
            return [self._encode_apart(text) for text in texts]
        if not self.backend.encode_special_tokens:  # pickling forgets it
            self.backend.encode_special_tokens = True
        clean = [text if text.isascii() else _without_surrogates(text) for text in texts]
        found = [encoding.ids for encoding in self.backend.encode_batch_fast(clean, add_special_tokens=False)]
        if any(not self._is_text(ids) for ids in found):
            return [
                ids if self._is_text(ids) else self._encode_apart(text) for ids, text in zip(found, clean, strict=True)
            ]
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the numbers; tokens that are no text are left out."""
        return str(self.tokenizer.decode([i for i in ids if i < self.first_new and i not in self._structure]))

    @property
    def _structure(self) -> tuple[int, ...]:
        return (self.end, self.pad, self.end if self.start is None else self.start)

    def _is_text(self, ids: Sequence[int]) -> bool:
        return self.end not in ids and self.pad not in ids and (self.start is None or self.start not in ids)

    def _encode_apart(self, text: str) -> list[int]:
        """For tokenizers that always find special tokens: the text is cut inside each of their names.

        Slow tokenizers of transformers 4 do so in spite of `split_special_tokens`. What is still no text in the end,
        say an unknown character that the tokenizer writes as its eos, is left out.
        """
        text = _without_surrogates(text)
        names = sorted((re.escape(name) for name in self.tokenizer.all_special_tokens if len(name) > 1), reverse=True)
        starts = [m.start() + 1 for m in re.finditer("|".join(names), text)] if names else []
        parts = [text[a:b] for a, b in zip([0, *starts], [*starts, len(text)], strict=True)]
        ids = [i for part in parts for i in self._encode_slowly(part)]
        return [i for i in ids if i < self.first_new and i not in self._structure]

    def _encode_slowly(self, text: str) -> list[int]:
        if self.backend is not None:
            found: list[int] = self.backend.encode(text, add_special_tokens=False).ids
            return found
        pieces = self.tokenizer.tokenize(text)
        return list(self.tokenizer.convert_tokens_to_ids(pieces))


def load(config: LanguageConfig) -> Vocabulary:
    """The tokenizer of the language model `config.name`: a local folder, or a name on the hub."""
    from transformers import AutoTokenizer

    if config.name is None:
        raise ConfigError("the language model has no name to find a tokenizer by: call of(tokenizer, config)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{config.name!r} gives no tokenizer; name a folder or a hub's model that has one: {error}"
        ) from error
    return of(tokenizer, config)


def of(tokenizer: Any, config: LanguageConfig) -> Vocabulary:
    """The vocabulary of a tokenizer of transformers, fast or slow, before a language model of `config`.

    The tokenizer may have fewer tokens than `config.vocab_size`: embeddings are often padded to a round number.
    """
    if config.new_tokens < 2:
        raise ConfigError(f"<|endofchunk|> and <image> need new_tokens of at least 2, not {config.new_tokens}")
    last = max(tokenizer.get_vocab().values())
    if last >= config.vocab_size:
        raise ConfigError(
            f"the tokenizer's last token is number {last}, but vocab_size is {config.vocab_size}: "
            "take the language model's own tokenizer, as it was before new tokens were added to it"
        )
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError("the tokenizer has no eos token: set its eos_token")
    pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    probe = deepcopy(tokenizer)  # a call changes the settings of a fast tokenizer's engine
    return Vocabulary(
        end_of_chunk=config.vocab_size,
        image=config.vocab_size + 1,
        pad=config.vocab_size + 2 if config.new_tokens >= 3 else pad,
        end=end,
        start=_start(probe),
        tokenizer=tokenizer,
        first_new=config.vocab_size,
        adds_space=_adds_space(probe),
        backend=_backend(probe),
    )


def _start(tokenizer: Any) -> int | None:
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token_id
    return int(bos) if bos is not None and first == [bos] else None


def _adds_space(tokenizer: Any) -> bool:
    pieces = tokenizer.tokenize("a")
    return bool(pieces) and pieces[0][:1] in SPACES


def _backend(tokenizer: Any) -> Any:
    """The engine, neither truncating nor padding, or None for a tokenizer in Python."""
    engine = getattr(tokenizer, "backend_tokenizer", None)
    if engine is not None:
        engine.no_truncation()
        engine.no_padding()
    return engine


def _without_surrogates(text: str) -> str:
    """JSON can hold halves of UTF-16 pairs, which are no text to a tokenizer."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
