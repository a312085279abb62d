"""What a copy of a model loses, as text and as a piece of HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from stabdiag.core.layer_loss import LayerLoss, LayerLosses, Loss
from stabdiag.render import untrusted
from stabdiag.render.numbers import count, number
from stabdiag.render.terminal import speakable

HEAD = ("layer", "type", "introduced", "SNR", "accumulated", "SNR", "cosine")
SHOWN = 30
NAMED = 8


def sentence(losses: LayerLosses) -> str:
    """What the whole loses, and where most of it comes from."""
    whole, lossy = losses.whole, _lossy(losses)
    if not losses.layers and not whole:
        return "Nothing could be compared: no module of the same name returned numbers in both models."
    told = "" if whole is None else _whole(whole.accumulated)
    if not lossy:
        return told or "No layer loses anything."
    worst, own = untrusted.name(lossy[0].name) or "it", lossy[0].own
    return f"{told} Most is lost in {worst}: {_error(own)} ({_decibel(own)}).".strip()


def _lossy(losses: LayerLosses) -> list[LayerLoss]:
    """The layers that lose anything by themselves."""
    return [layer for layer in losses.layers if layer.own.error > 0]


def _whole(loss: Loss) -> str:
    if loss.error == 0:
        return "The outputs of both models are the same."
    if loss.nonfinite:
        return f"The output of the second model is not finite in {count(loss.nonfinite, 'place')}."
    return f"The output of the second model is {_error(loss)} off ({_decibel(loss)})."


def text(losses: LayerLosses, width: int = 100) -> str:
    """A table of lines of at most `width` characters, for any terminal."""
    rows = [HEAD, *(_row(layer) for layer in _lossy(losses)[:SHOWN])]
    sizes = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    # Long names give way to the numbers: names of modules by their beginnings, where they are alike, and
    # those of types by their ends.
    room = max(width - sum(sizes[2:]) - 2 * (len(HEAD) - 1), 20)
    sizes[:2] = [min(sizes[0], room * 2 // 3), min(sizes[1], room - min(sizes[0], room * 2 // 3))]
    lines = [sentence(losses), ""]
    for row in rows if len(rows) > 1 else ():
        names = _last(row[0], sizes[0]).ljust(sizes[0]), _first(row[1], sizes[1]).ljust(sizes[1])
        values = (cell.rjust(size) for cell, size in zip(row[2:], sizes[2:], strict=True))
        lines.append("  ".join((*names, *values)).rstrip())
    lines += ["", *_remarks(losses)]
    return "\n".join(speakable(line, "utf-8") for line in lines).rstrip()


def fragment(losses: LayerLosses) -> str:
    """A table without script or style of its own: what `_repr_html_` returns."""
    head, *rows = (
        Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(kind), cell) for cell in row)
        for kind, row in (("th", HEAD), *(("td", _row(layer)) for layer in _lossy(losses)[:SHOWN]))
    )
    said = [speakable(line, "utf-8") for line in (sentence(losses), *_remarks(losses))]
    remarks = Markup("").join(Markup("<p>{}</p>").format(line) for line in said[1:])
    body = Markup("").join(Markup("<tr>{}</tr>").format(row) for row in rows)
    frame = Markup("<div><p><b>{}</b></p><table><tr>{}</tr>{}</table>{}</div>")
    return str(frame.format(said[0], head, body, remarks))


def _row(layer: LayerLoss) -> tuple[str, ...]:
    same = layer.type_a == layer.type_b
    own, whole = layer.introduced, layer.accumulated
    return (
        speakable(untrusted.name(layer.name) or "the model", "utf-8"),
        layer.type_a if same else f"{layer.type_a} → {layer.type_b}",
        _error(own) if own else "-",
        _decibel(own) if own else "-",
        _error(whole),
        _decibel(whole),
        "-" if math.isnan(whole.cosine) else f"{whole.cosine:.6f}",
    )


def _error(loss: Loss) -> str:
    """`0.31 %`, `2.1e-05`, `not finite`."""
    if loss.nonfinite:
        return "not finite"
    if loss.error >= 1e-4:
        return f"{loss.error * 100:.2g} %" if loss.error < 1 else f"{number(loss.error)} times"
    return f"{loss.error:.1e}" if loss.error else "0"


def _decibel(loss: Loss) -> str:
    if loss.nonfinite:
        return "-"
    return "same" if loss.snr == math.inf else f"{loss.snr:.1f} dB"


def _remarks(losses: LayerLosses) -> Iterator[str]:
    lossy = len(_lossy(losses))
    if lossy > SHOWN:
        yield f"and {count(lossy - SHOWN, 'more layer')}: `.frame()` has all of them"
    if lossy and lossy < len(losses.layers):
        yield f"{count(len(losses.layers) - lossy, 'layer')} lose nothing by themselves"
    for which, names in (("first", losses.only_a), ("second", losses.only_b)):
        if names:
            yield f"ran in the {which} model alone: {_listed(names)}"
    yield from map(untrusted.presentable, losses.notes[:NAMED])
    if len(losses.notes) > NAMED:
        yield f"and {count(len(losses.notes) - NAMED, 'more note')} in `.notes`"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    shown = ", ".join(untrusted.name(name) or "the model" for name in names[:NAMED])
    return f"{shown} and {count(more)} more" if more > 0 else shown


def _last(name: str, size: int) -> str:
    return name if len(name) <= size else "…" + name[1 - size :]


def _first(name: str, size: int) -> str:
    return name if len(name) <= size else name[: size - 1] + "…"
