"""What TensorBoard's plugins take: numbers, histograms, text and a layout, each as a value of a summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stabdiag.render.tensorboard_layout import Category

QUANTILES = {"q001": 0.001, "q01": 0.01, "q50": 0.5, "q99": 0.99, "q999": 0.999}
"""Statistics of the kinds `distribution…`, and the share of values below each."""
MASSES = np.diff(list(QUANTILES.values()))


def tag(series: str, site: str) -> str:
    """`run/loss`, `grad.norm/blocks.3.attn.weight`: what is before the first slash is a group of charts."""
    return series.replace(".", "/", 1) if site == "run" else f"{series}/{site}"


def scalar(name: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=name, simple_value=value)


def histogram(name: str, edges: NDArray[np.floating], count: float) -> Any:
    """Of `count` values whose quantiles lie at `edges`, [5], increasing; spread evenly between two."""
    from tensorboard.plugins.histogram import metadata

    buckets = np.stack([edges[:-1], edges[1:], count * MASSES], axis=1).astype(np.float64)
    return _tensor(name, buckets, metadata.create_summary_metadata("", ""))


def text(name: str, markdown: str) -> Any:
    from tensorboard.plugins.text import metadata

    return _tensor(
        name, np.array([markdown.encode()], dtype=object), metadata.create_summary_metadata("", "")
    )


def layout(categories: Sequence[Category]) -> Any:
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    def chart(title: str, tags: Sequence[str]) -> Any:
        return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))

    content = layout_pb2.Layout()
    for one in categories:
        charts = [chart(shown.title, shown.tags) for shown in one.charts]
        content.category.add(title=one.title, closed=one.closed, chart=charts)
    serialized = np.array(content.SerializeToString(), dtype=object)
    return _tensor(metadata.CONFIG_SUMMARY_TAG, serialized, metadata.create_summary_metadata())


def _tensor(name: str, array: np.ndarray, described: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_tensor_proto

    return Summary.Value(tag=name, tensor=make_tensor_proto(array), metadata=described)
