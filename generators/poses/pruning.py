"""TFLite networks without the parts whose outputs nobody reads. What is left computes the same bytes."""

from __future__ import annotations

from collections.abc import Collection


def pruned(model: bytes, shapes: Collection[tuple[int, ...]]) -> bytes:
    """The network (one subgraph) with its outputs of these shapes only, and the operators that they need."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    whole = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    graph = whole.subgraphs[0]
    graph.outputs = [t for t in graph.outputs if tuple(graph.tensors[t].shape) in shapes]
    needed, kept = set(graph.outputs), []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs):
            kept.append(operator)
            needed.update(operator.inputs)
    graph.operators = kept[::-1]
    whole.signatureDefs = None  # they name the outputs that are gone
    builder = flatbuffers.Builder(len(model))
    builder.Finish(whole.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
