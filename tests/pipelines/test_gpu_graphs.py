"""The graphs of a GPU, defined but not built, which would need one: where every operator runs, and how it decodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest

from pipelines import graph
from pipelines.dali import backend
from pipelines.views import TestViews

REGISTERED = {
    "cpu": set(backend.RegisteredCPUOps()),
    "gpu": set(backend.RegisteredGPUOps()),
    "mixed": set(backend.RegisteredMixedOps()),
}
# On a CPU even for a GPU: what reads arguments, or chooses what to do by them.
ARGUMENTS = {"_conditional__Split", "_conditional__Merge", "ArithmeticGenericOp", "_ArithmeticGenericOp", "Constant"}
INTERNAL = "NumbaFuncImpl"  # of the fused operator; in no list, but tests of the CPU run it
LOAD = {"cuda": 0.0, "hardware": 1.0}


class Operator(NamedTuple):
    name: str
    device: str
    arguments: dict


def defined(make_graph: Callable) -> list[Operator]:
    """DALI's operators of a graph on GPU 0, in order."""
    pipe = make_graph(source=lambda: None, batch_size=2, num_threads=1, device_id=0, prefetch_queue_depth=2)
    pipe._build_graph()
    assert [edge.device for edge in pipe._graph_outputs] == ["gpu"]
    found = []
    for node in pipe._ops:
        op = node._op
        if "ExternalSource" in type(op).__name__:
            continue
        name = getattr(op, "_internal_schema_name", None) or op.schema_name
        if name != INTERNAL:
            assert name in REGISTERED[op.device], f"{name} has no {op.device} implementation"
        assert {edge.device for edge in node.outputs} == {"cpu" if op.device == "cpu" else "gpu"}
        found.append(Operator(name, op.device, op._init_args))
    return found


def decoders(operators: list[Operator]) -> list[Operator]:
    return [op for op in operators if "ecoder" in op.name]


@pytest.mark.parametrize("decoder", LOAD)
@pytest.mark.parametrize(
    "make_graph",
    [
        partial(graph.train_graph, size=32),
        partial(graph.train_graph, size=32, clips=True),
        partial(graph.test_graph, views=TestViews(40, 32)),
        graph.whole_graph,
    ],
    ids=["train", "clips", "test", "whole"],
)
def test_views_are_made_on_the_gpu_after_one_kind_of_decoder(make_graph: Callable, decoder: graph.Decoder):
    operators = defined(partial(make_graph, decoder=decoder))
    found = decoders(operators)
    assert found
    for op in found:
        assert (op.device, op.arguments["hw_decoder_load"]) == ("mixed", LOAD[decoder])
        assert op.arguments["jpeg_fancy_upsampling"]
    on_cpu = {op.name for op in operators if op.device == "cpu"}
    assert on_cpu <= ARGUMENTS
    assert "Constant" not in {op.name for op in operators if op.device == "gpu"}  # it would be copied back


@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_views_of_the_cpu_are_only_copied(clips: bool, fused: bool, monkeypatch: pytest.MonkeyPatch):
    if not fused:
        monkeypatch.setattr(graph.fused, "library", lambda: None)
    make_graph, _ = graph.train_path(32, "cpu", to_gpu=True, bfloat16=True, clips=clips)
    operators = defined(make_graph)
    assert {op.device for op in decoders(operators)} == {"cpu"}
    assert {op.device for op in operators} == {"cpu"}
