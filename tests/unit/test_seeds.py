"""Derived seeds: another formula would change every split, training and search."""

from __future__ import annotations

from searchae.config.seeds import sampler_seed, split_seed, training_seed


def test_streams_differ_by_seed_purpose_and_epoch() -> None:
    named = [(0, "noise", 1), (0, "noise", 2), (0, "order", 1), (1, "noise", 1), (0, "noise", 11)]
    derived = {training_seed(seed, purpose, epoch=epoch) for seed, purpose, epoch in named}
    assert len(derived) == len(named)
    assert all(0 <= d < 2**63 for d in derived)


def test_seeds_are_the_recorded_ones() -> None:
    assert training_seed(7, "init") == 2692798039704106005
    assert training_seed(7, "order", epoch=2) == 3759329177332215235
    assert split_seed(7, "validation") == 4053499814
    assert sampler_seed(7, 3) == 1940484988
