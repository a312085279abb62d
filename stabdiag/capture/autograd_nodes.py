"""What the nodes of an autograd graph computed, read off what they keep for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

Forward = Callable[..., torch.Tensor]
REDUCTIONS = ("none", "mean", "sum")
WRAPPED = 2**63


class Unreadable(Exception):
    """A node whose forward cannot be told; the message is one clause."""


class Node:
    """An autograd node. Its attributes are those that torch saved in it, `keep.self` for `_saved_self`.

    Reading them unpacks saved tensors. Where the script has put hooks on these (checkpointing, offloading),
    that would run its code: Unreadable then, as for tensors that are freed or were changed in place.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.edges: tuple[tuple[Any, int], ...] = function.next_functions

    @property
    def kind(self) -> str:
        """Its class without the number of the overload, `Mul` for `MulBackward0`."""
        return str(self.function.name()).rpartition("Backward")[0]

    def saved(self, name: str) -> Any:
        raw = getattr(self.function, f"_raw_saved_{name}", None)
        for one in raw if isinstance(raw, tuple | list) else (raw,):
            if one is not None and not hasattr(one, "unpack_hook"):
                raise Unreadable("torch before 2.8 does not tell whether hooks are on what its graph keeps")
            if one is not None and one.unpack_hook is not None:
                raise Unreadable("hooks of the script are on the tensors that its graph keeps")
        try:
            value = getattr(self.function, f"_saved_{name}", None)
        except RuntimeError as error:
            raise Unreadable("a tensor that its graph keeps was freed or changed") from error
        if isinstance(value, torch.Tensor):
            return value.detach()
        return _signed(value)

    @property
    def result(self) -> Any:
        """Shape, dtype and device of what the node computed."""
        return self.function._input_metadata[0]


def _signed(value: Any) -> Any:
    """Negative indices, which torch shows as unsigned."""
    if isinstance(value, tuple | list):
        return type(value)(_signed(item) for item in value)
    return value - 2 * WRAPPED if isinstance(value, int) and value >= WRAPPED else value


def forward_of(node: Node, given: tuple[bool, ...]) -> Forward:
    """The function that the node computed, of as many tensors as there are True in `given`: its operands that
    need gradients. The others are among what it saved. KeyError for one that is not in FORWARDS."""
    return FORWARDS[node.kind](node, given)


def _shaped(node: Node, _given: Any) -> Forward:
    shape = tuple(node.result.shape)
    return lambda x: x.reshape(shape)


def _expanded(node: Node, _given: Any) -> Forward:
    shape = tuple(node.result.shape)
    return lambda x: x.expand(shape)


def _cast(node: Node, _given: Any) -> Forward:
    device, dtype = node.result.device, node.result.dtype
    # A replay may run in a wider type than the script: narrowing is what it is to leave out.
    return lambda x: x.to(device, torch.promote_types(dtype, x.dtype) if dtype.itemsize < 4 else dtype)


def _slice(node: Node, _given: Any) -> Forward:
    dim, start, step = (node.saved(name) for name in ("dim", "start", "step"))
    begin = start + node.saved("self_sym_sizes")[dim] if start < 0 else start
    stop = begin + tuple(node.result.shape)[dim] * step
    return lambda x: torch.ops.aten.slice.Tensor(x, dim, begin, stop, step)


def _with_constant(operation: Callable[[Any, Any], torch.Tensor]) -> Callable[[Node, Any], Forward]:
    """Of two operands, where the one without gradients is saved."""

    def make(node: Node, given: tuple[bool, ...]) -> Forward:
        if sum(given) == 2:
            return operation
        left = given[0]
        constant = node.saved("other" if left else "self")
        if constant is None:
            raise Unreadable(f"an operand of {node.function.name()} is not kept")
        if isinstance(constant, torch.Tensor) and constant.numel() == 1:
            # A gradient scaler's factor changes in place; a number of Python's is kept as float64.
            wide = node.result.dtype == torch.float64
            constant = constant.clone() if wide or constant.dtype != torch.float64 else constant.float()
        return (lambda x: operation(x, constant)) if left else (lambda x: operation(constant, x))

    return make


def _reduction(operation: Callable[..., torch.Tensor]) -> Callable[[Node, Any], Forward]:
    def make(node: Node, _given: Any) -> Forward:
        dim = node.saved("dim")
        if dim is None:
            return lambda x: operation(x)
        keepdim = bool(node.saved("keepdim"))
        return lambda x: operation(x, dim=dim, keepdim=keepdim)

    return make


def _vector_norm(node: Node, _given: Any) -> Forward:
    order, dim, keepdim = node.saved("ord"), node.saved("dim"), node.saved("keepdim")
    return lambda x: torch.linalg.vector_norm(x, order, dim, keepdim)


def _norm(node: Node, _given: Any) -> Forward:
    order = node.saved("p")
    dim = node.saved("dim")
    keepdim = bool(node.saved("keepdim"))
    return lambda x: torch.linalg.vector_norm(x, 2 if order is None else order, dim, keepdim)


def _loss(function: Callable[..., torch.Tensor], *names: str) -> Callable[[Node, Any], Forward]:
    """A loss of torch's own, with the options that it saved under `names`."""

    def make(node: Node, given: tuple[bool, ...]) -> Forward:
        if given != (True, *[False] * (len(given) - 1)):
            raise Unreadable(f"the target of {node.function.name()} needs gradients")
        target = node.saved("target")
        options = {name: node.saved(name) for name in names}
        options["reduction"] = REDUCTIONS[node.saved("reduction")]

        def forward(x: torch.Tensor) -> torch.Tensor:
            wide = {k: v.to(x.dtype) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
            return function(x, target.to(x.dtype) if target.is_floating_point() else target, **wide)

        return forward

    return make


def _method(name: str, *arguments: str) -> Callable[[Node, Any], Forward]:
    """A method of the tensor, of arguments that the node saved."""

    def make(node: Node, _given: Any) -> Forward:
        values = [node.saved(argument) for argument in arguments]
        return lambda x: getattr(x, name)(*values)

    return make


def _masked_fill(node: Node, _given: Any) -> Forward:
    mask = node.saved("mask")
    return lambda x: x.masked_fill(mask, 0.0)  # the value is not kept; that of torch's cross-entropy is 0


def _softplus(node: Node, _given: Any) -> Forward:
    beta, threshold = node.saved("beta"), node.saved("threshold")
    return lambda x: F.softplus(x, beta, threshold)


def _index(node: Node, _given: Any) -> Forward:
    indices = list(node.saved("indices"))
    return lambda x: torch.ops.aten.index.Tensor(x, indices)


_SAME: Callable[[Node, Any], Forward] = lambda _node, _given: lambda x: x  # noqa: E731

FORWARDS: Mapping[str, Callable[[Node, tuple[bool, ...]], Forward]] = {
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze"), _shaped),
    **dict.fromkeys(("Clone", "Alias"), _SAME),
    "Expand": _expanded,
    "ToCopy": _cast,
    "Slice": _slice,
    "Select": _method("select", "dim", "index"),
    "Transpose": _method("transpose", "dim0", "dim1"),
    "Permute": _method("permute", "dims"),
    "T": _method("t"),
    "Index": _index,
    "Gather": _method("gather", "dim", "index"),
    "MaskedFill": _masked_fill,
    "Mul": _with_constant(lambda a, b: a * b),
    "Div": _with_constant(lambda a, b: a / b),
    "Neg": _method("neg"),
    "Pow": _method("pow", "exponent"),
    "Exp": _method("exp"),
    "Log": _method("log"),
    "Sqrt": _method("sqrt"),
    "Abs": _method("abs"),
    "Sigmoid": _method("sigmoid"),
    "Tanh": _method("tanh"),
    "Relu": _method("relu"),
    "Softplus": _softplus,
    "LogSigmoid": lambda _node, _given: F.logsigmoid,
    "Clamp": _method("clamp", "min", "max"),
    "Mean": _reduction(torch.mean),
    "Sum": _reduction(torch.sum),
    "Logsumexp": _reduction(torch.logsumexp),
    "LinalgVectorNorm": _vector_norm,
    "Norm": _norm,
    "LogSoftmax": _method("log_softmax", "dim"),
    "Softmax": _method("softmax", "dim"),
    "NllLoss": _loss(F.nll_loss, "weight", "ignore_index"),
    "NllLoss2D": _loss(F.nll_loss, "weight", "ignore_index"),
    "MseLoss": _loss(F.mse_loss),
    "SmoothL1Loss": _loss(F.smooth_l1_loss, "beta"),
    "HuberLoss": _loss(F.huber_loss, "delta"),
    "BinaryCrossEntropy": _loss(F.binary_cross_entropy, "weight"),
    "BinaryCrossEntropyWithLogits": _loss(F.binary_cross_entropy_with_logits, "weight", "pos_weight"),
    "KlDiv": _loss(F.kl_div, "log_target"),
}
