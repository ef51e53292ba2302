"""Recall of retrieval, as the published evaluation of SCE counts it."""

from __future__ import annotations

import pytest

from bassl_fast.retrieval import recall
from tests.golden_seeds import arrays, facts


@pytest.mark.parametrize("centred", [True, False])
def test_recall(centred: bool):
    given, answer = arrays("sce_retrieval"), facts("sce_retrieval_answer")
    hits = answer["hits_centered" if centred else "hits_not_centered"]
    found = recall(given["query"], given["query_labels"], given["bank"], given["bank_labels"], centred=centred)
    assert found == pytest.approx({int(k): 100 * count / answer["queries"] for k, count in hits.items()})
