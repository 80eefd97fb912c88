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
from typing import Any

from torch import nn

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


class Decoder:
    """Where things are in a language model. Holds no parameters: the model stays a child of who asks."""

    def __init__(self, lm: nn.Module) -> None:
        self.layers_path = _layers_path(lm)
        self.head_path = _path_of(lm, lm.get_output_embeddings())  # type: ignore[operator]
        parameters = inspect.signature(lm.forward).parameters
        self.takes_positions = "position_ids" in parameters
        rewired(lm, {self.layers_path: [], self.head_path: None})  # refuses now what it would refuse later

    def layers(self, lm: nn.Module) -> nn.ModuleList:
        found = lm.get_submodule(self.layers_path)
        assert isinstance(found, nn.ModuleList)
        return found

    def view(self, lm: nn.Module, layers: Sequence[Any], head: Wrapper | None) -> nn.Module:
        """The language model as one call sees it: these layers, and perhaps another head."""
        parts: dict[str, Any] = {self.layers_path: list(layers)}
        if head is not None:
            parts[self.head_path] = Bound(lm.get_submodule(self.head_path), head)
        return rewired(lm, parts)


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
    config: Any = lm.config
    return int(config.get_text_config().num_hidden_layers)


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
    for name, module in lm.named_modules():
        if module is wanted and not isinstance(module, nn.Embedding):
            return str(name)
    raise ConfigError(f"{type(lm).__name__} has no output layer of its own (a module that makes logits)")


def _refuse_replaced_forward(module: nn.Module) -> None:
    """A `forward` put on an instance (accelerate's device_map does) is bound to that instance: a copy has no say."""
    if "forward" in module.__dict__:
        raise ConfigError(
            f"{type(module).__name__} has had its forward replaced, as device_map and hooks do: load it without them"
        )
