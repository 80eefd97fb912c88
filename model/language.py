"""Any causal language model of transformers as Flamingo's: where its layers are, and how a call reaches into them.

A call must bring visual tokens to layers in the depth of somebody else's `forward`. Families pass different things
down to their layers: keyword arguments end at MPT's door, GPT-2 passes by position, caches are `past_key_values`,
`past_key_value`, `layer_past`, sometimes a tuple, and none of it stays the same from one release to the next. So
nothing is passed through. For each call `rewired` makes a copy of the few modules on the way to the layers
(shallow: parameters, buffers and everything else are the same objects), in which the list of layers is another list:
of callables that hold this call's own conditioning and hand it to our blocks as arguments. Nothing is kept between
calls and nothing of the language model is changed: its state dict, its class and its `generate` stay as they were,
two threads can call it at once, activation checkpointing recomputes with the right images, every block and every
layer is a module that FSDP can shard, and torch.compile traces the whole in one graph.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from model.config import ConfigError, LanguageConfig

Wrapper = Callable[..., Any]


def build(config: LanguageConfig, **options: Any) -> nn.Module:
    """The language model by name, through transformers: a hub's name or a local folder. Random unless `pretrained`."""
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    if config.name is None:
        raise ConfigError("this configuration names no language model: pass one of its shape")
    if config.pretrained:
        model: nn.Module = auto.from_pretrained(config.name, **options)
    else:
        model = auto.from_config(transformers.AutoConfig.from_pretrained(config.name), **options)
    return model


class Bound:
    """A module as one call sees it: called through `call`, and otherwise itself."""

    def __init__(self, module: nn.Module, call: Wrapper) -> None:
        self.module, self.call = module, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.module, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


class BoundTable(nn.Module):
    """The same of a table of embeddings, for code that asserts that its table is a module."""

    def __init__(self, table: nn.Module, embed: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.__dict__.update(table=table, embed=embed)  # the table stays a child of the language model alone

    @property
    def weight(self) -> Tensor:
        found: Tensor = self.__dict__["table"].weight
        return found

    def forward(self, input_ids: Tensor) -> Tensor:
        found: Tensor = self.__dict__["embed"](self.__dict__["table"], input_ids)
        return found


def rewired(module: nn.Module, parts: Mapping[str, Any]) -> nn.Module:
    """A shallow copy of `module` with other things at the given paths. It shares all else; make one a call."""
    here = {path: part for path, part in parts.items() if "." not in path}
    below: dict[str, dict[str, Any]] = {}
    for path, part in parts.items():
        head, dot, rest = path.partition(".")
        if dot:
            below.setdefault(head, {})[rest] = part
    _refuse_replaced_forward(module)
    copy: nn.Module = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    copy.__dict__.pop("_compiled_call_impl", None)  # of `module.compile()`, which is bound to the module itself
    children = dict(module._modules)
    for name, inner in below.items():
        child = children[name]
        assert child is not None
        children[name] = rewired(child, inner)
    for name in here:
        del children[name]
    copy.__dict__["_modules"] = children
    copy.__dict__.update(here)  # not modules: `forward` finds them, walks over modules pass them by
    return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one call puts into the language model. `after` gets what `before` gave, and the logits made of it."""

    layers: Sequence[Any]
    embed: Callable[[nn.Module, Tensor], Tensor]  # the table, ids [B, L] -> [B, L, D]
    before: Callable[[Tensor], Tensor]  # [B, L, D], past the last norm -> [.., D] whose logits are wanted
    after: Callable[[Tensor, Tensor], Tensor]  # [.., D] and the language model's [.., V] -> all logits


class Decoder:
    """Where things are in a language model. Holds no parameters: the model stays a child of who asks.

    Code of before transformers' own conventions (OpenFlamingo-3B's MPT-1B) takes token ids and no embeddings, masks of
    bools, and has no output layer: it multiplies by its table. There the table and the last norm are what is replaced.
    """

    def __init__(self, lm: nn.Module) -> None:
        self.layers_path = _layers_path(lm)
        self.table_path = _path_of(lm, table(lm))
        head = output_layer(lm)
        self.head_path = None if head is None else _path_of(lm, head)
        self.last_path = _after_layers(lm, self.layers_path) if self.head_path is None else self.head_path
        parameters = inspect.signature(lm.forward).parameters
        self.takes_positions = "position_ids" in parameters
        self.takes_embeddings = "inputs_embeds" in parameters
        rewired(lm, {self.layers_path: [], self.last_path: None})  # refuses now what it would refuse later

    def layers(self, lm: nn.Module) -> nn.ModuleList:
        found = lm.get_submodule(self.layers_path)
        assert isinstance(found, nn.ModuleList)
        return found

    def head_weight(self, lm: nn.Module) -> Tensor:
        """[V, D], which the table also is where the two are tied."""
        layer: Any = table(lm) if self.head_path is None else lm.get_submodule(self.head_path)
        weight: Tensor = layer.weight
        return weight

    def run(self, lm: nn.Module, input_ids: Tensor, call: Call, options: dict[str, Any]) -> tuple[Tensor, Any]:
        """Logits, and the cache where `options` ask for one."""
        parts: dict[str, Any] = {self.layers_path: list(call.layers)}
        if self.takes_embeddings:
            options = options | {"inputs_embeds": call.embed(table(lm), input_ids)}
        else:
            parts[self.table_path] = BoundTable(table(lm), call.embed)
            mask = options["attention_mask"]
            options = options | {"input_ids": input_ids, "attention_mask": None if mask is None else mask.bool()}
        kept: list[Tensor] = []

        def head(layer: nn.Module, hidden: Tensor) -> Tensor:
            wanted = call.before(hidden)
            return call.after(wanted, layer(wanted))

        def norm(layer: nn.Module, hidden: Tensor) -> Tensor:
            kept.append(call.before(layer(hidden)))
            return kept[0]

        tied = self.head_path is None
        parts[self.last_path] = Bound(lm.get_submodule(self.last_path), norm if tied else head)
        found = rewired(lm, parts)(return_dict=True, **options)
        return call.after(kept[0], found.logits) if tied else found.logits, found.get("past_key_values")


def table(lm: nn.Module) -> nn.Module:
    """The embeddings of input tokens."""
    find: Any = lm.get_input_embeddings
    try:
        found: nn.Module = find()
    except NotImplementedError:
        config: Any = lm.config
        tables = [m for m in lm.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == config.vocab_size]
        if len(tables) != 1:
            raise ConfigError(f"{type(lm).__name__} does not say which its input embeddings are") from None
        found = tables[0]
    return found


def output_layer(lm: nn.Module) -> nn.Module | None:
    """The module that makes logits. None: the language model multiplies by its table of embeddings."""
    find: Any = lm.get_output_embeddings
    found: nn.Module | None = find()
    return None if isinstance(found, nn.Embedding) else found


def attention_path(layer: nn.Module) -> str:
    """The name of a layer's self-attention: its one child of that name which is more than a norm or a dropout."""
    found = [
        name for name, child in layer.named_children()
        if "attn" in name.lower() or "attention" in name.lower()
        if any(parameter.ndim > 1 for parameter in child.parameters())
    ]  # fmt: skip
    if len(found) != 1:
        raise ConfigError(f"vanilla cross-attention needs one self-attention in {type(layer).__name__}, found {found}")
    return found[0]


def layer_count(lm: nn.Module) -> int:
    return _size(lm, "num_hidden_layers", "n_layers")


def attention_width(lm: nn.Module) -> int:
    """Heads times their width."""
    config: Any = lm.config
    heads = _size(lm, "num_attention_heads", "n_heads")
    head = getattr(config.get_text_config(), "head_dim", None) or _size(lm, "hidden_size", "d_model") // heads
    return int(head * heads)


def _size(lm: nn.Module, *names: str) -> int:
    """A number of the configuration, by the first of its names that is there."""
    config: Any = lm.config
    found = next((value for name in names if (value := getattr(config.get_text_config(), name, None))), None)
    if found is None:
        raise ConfigError(f"the configuration of {type(lm).__name__} has no {' or '.join(names)}")
    return int(found)


def _layers_path(lm: nn.Module) -> str:
    """The path of the list of decoder layers: the highest one as long as the configuration says."""
    count = layer_count(lm)
    found = [name for name, m in lm.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    depths = [name.count(".") for name in found]
    highest = [name for name, depth in zip(found, depths, strict=True) if depth == min(depths)]
    if len(highest) != 1:
        raise ConfigError(f"{type(lm).__name__}: one list of {count} layers expected, found {found or 'none'}")
    return str(highest[0])


def _path_of(lm: nn.Module, wanted: nn.Module) -> str:
    return str(next(name for name, module in lm.named_modules() if module is wanted))


def _after_layers(lm: nn.Module, layers_path: str) -> str:
    """The path of the norm after the layers, whose output is multiplied by the table of embeddings."""
    parent, _, name = layers_path.rpartition(".")
    children = [child for child, module in lm.get_submodule(parent).named_children() if list(module.parameters())]
    after = children[children.index(name) + 1 :]
    config: Any = lm.config
    scale = getattr(config, "logit_scale", None)
    if len(after) != 1 or scale not in (None, 1):
        raise ConfigError(
            f"{type(lm).__name__} has no output layer, and logits are not simply what its table makes of the last norm "
            f"(after the layers: {after or 'nothing'}; logit_scale: {scale}): give its class a module that makes "
            "logits, and `get_output_embeddings` that returns it"
        )
    return f"{parent}.{after[0]}" if parent else after[0]


def _refuse_replaced_forward(module: nn.Module) -> None:
    """A `forward` put on an instance (accelerate's device_map does) is bound to that instance: a copy has no say."""
    if "forward" in module.__dict__:
        raise ConfigError(
            f"{type(module).__name__} has had its forward replaced, as device_map and hooks do: load it without them"
        )
