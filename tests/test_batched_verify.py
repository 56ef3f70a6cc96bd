"""The proof that a stack equals its members, in double precision; and that the proof would notice if it did not."""

from dataclasses import replace

import pytest

from offline_tune.evaluator.batched.networks.mlp import StackedMLP
from offline_tune.evaluator.batched.verify import ALLOWED, DRAWS, verify

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", DRAWS)
def test_24_mixed_candidates_equal_24_plain_runs(family):
    (proof,) = verify([family], n_rows=150)
    assert proof.n_candidates == 24
    assert proof.largest_difference <= ALLOWED
    assert proof.permuted <= ALLOWED
    assert proof.beside_divergence <= ALLOWED
    assert proof.rank_correlation > 0.99
    assert proof.holds


def test_a_stack_that_mixes_rows_is_found_out(monkeypatch):
    right = StackedMLP.__call__

    def mixing(self, parameters, x, noise):
        found = right(self, parameters, x, noise)
        return found + 1e-8 * found.mean(0, keepdim=True)

    monkeypatch.setattr(StackedMLP, "__call__", mixing)
    (proof,) = verify(["tabular_mlp"], n_candidates=6, n_rows=150)
    assert proof.largest_difference > ALLOWED
    assert not proof.holds


def test_a_proof_with_one_large_difference_does_not_hold():
    (proof,) = verify(["tabular_mlp"], n_candidates=4, n_rows=150)
    for name in ("largest_difference", "permuted", "beside_divergence"):
        assert not replace(proof, **{name: 2 * ALLOWED}).holds
