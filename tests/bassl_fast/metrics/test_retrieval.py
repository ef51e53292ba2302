"""Recall of retrieval, as the published evaluation of SCE counts it."""

from __future__ import annotations

import pytest

from bassl_fast.metrics import retrieval
from bassl_fast.metrics.retrieval import recall
from tests.golden_seeds import arrays, facts


@pytest.mark.parametrize("centred", [True, False])
def test_recall(centred: bool):
    given, answer = arrays("sce_retrieval"), facts("sce_retrieval_answer")
    hits = answer["hits_centered" if centred else "hits_not_centered"]
    found = recall(given["query"], given["query_labels"], given["bank"], given["bank_labels"], centred=centred)
    assert found == pytest.approx({int(k): 100 * count / answer["queries"] for k, count in hits.items()})


def test_recall_goes_block_by_block(monkeypatch):
    given = arrays("sce_retrieval")
    sets = [given[name] for name in ("query", "query_labels", "bank", "bank_labels")]
    whole = recall(*sets)
    monkeypatch.setattr(retrieval, "_AT_ONCE", 3 * len(given["bank"]))
    assert recall(*sets) == whole
