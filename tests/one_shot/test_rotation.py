"""Changes of basis of one head: exact, and the first dimensions carry most."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.one_shot.rotation import rotate_query_key, rotate_rows_, rotate_value_output, square_roots


TOLERANCE = 1e-9


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_queries_and_keys(frames=30, width=6, seed=0):
    """Queries and keys of one clip with correlated dimensions; the keys are centred."""
    queries = normal(frames, width, seed=seed) @ normal(width, width, seed=seed + 1) + 0.5
    keys = normal(frames, width, seed=seed + 2) @ normal(width, width, seed=seed + 3)
    return queries, keys - keys.mean(0)


def gram_of(states):
    return states.T @ states / len(states)


@given(seed=st.integers(0, 1000), width=st.integers(1, 8))
def test_first_dimensions_are_the_best_approximation_of_the_scores(seed, width):
    queries, keys = make_queries_and_keys(width=width, seed=seed)
    rotation = rotate_query_key(gram_of(queries), gram_of(keys))
    scores = queries @ keys.T
    values = torch.linalg.svdvals(scores)
    new_queries, new_keys = queries @ rotation.query, keys @ rotation.key
    for rank in range(width + 1):
        error = float((scores - new_queries[:, :rank] @ new_keys[:, :rank].T).square().sum())
        assert error == pytest.approx(float(values[rank:].square().sum()), rel=1e-6, abs=1e-8 * float(values[0]) ** 2)


@given(seed=st.integers(0, 1000), width=st.integers(1, 8))
def test_energies_of_scores_fall_and_add_up(seed, width):
    queries, keys = make_queries_and_keys(width=width, seed=seed)
    energy = rotate_query_key(gram_of(queries), gram_of(keys)).energy
    assert (energy.diff() <= 0).all()
    # The mean over all pairs of frames of a squared score.
    assert float(energy.sum()) == pytest.approx(float((queries @ keys.T).square().mean()), rel=1e-8)


@given(seed=st.integers(0, 1000), width=st.integers(1, 8), hidden_size=st.integers(8, 12))
def test_first_dimensions_are_the_best_approximation_of_the_output(seed, width, hidden_size):
    contexts = normal(40, width, seed=seed) @ normal(width, width, seed=seed + 1) + 0.5
    output = normal(hidden_size, width, seed=seed + 2)
    rotation = rotate_value_output(gram_of(contexts), output)
    result = contexts @ output.T
    values = torch.linalg.svdvals(result)
    new_contexts = contexts @ rotation.value
    assert (rotation.energy.diff() <= 0).all()
    assert float(rotation.energy.sum()) == pytest.approx(float(result.square().sum(1).mean()), rel=1e-8)
    for rank in range(width + 1):
        error = float((result - new_contexts[:, :rank] @ rotation.output[:, :rank].T).square().sum())
        assert error == pytest.approx(float(values[rank:].square().sum()), rel=1e-6, abs=1e-8 * float(values[0]) ** 2)


def degenerate_grams():
    """Gram matrices of too few frames, of one direction, of silence, and of states of very small or large size."""
    full = gram_of(normal(30, 6))
    yield "full", full
    yield "few frames", gram_of(normal(2, 6))
    yield "one direction", torch.outer(torch.arange(6.0), torch.arange(6.0)).double()
    yield "one dimension", torch.diag(torch.tensor([0, 0, 3.0, 0, 0, 0], dtype=torch.float64))
    yield "zero", torch.zeros(6, 6, dtype=torch.float64)
    yield "rounding", 1e-16 * full
    yield "small", 1e-10 * full
    yield "large", 1e10 * full


GRAMS = dict(degenerate_grams())


@pytest.mark.parametrize("key", GRAMS)
@pytest.mark.parametrize("query", GRAMS)
def test_scores_stay_on_any_audio(query, key):
    """On frames that the statistics did not see, in float32, whatever the statistics were."""
    rotation = rotate_query_key(GRAMS[query], GRAMS[key])
    identity = rotation.query @ rotation.key.T
    torch.testing.assert_close(identity, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
    for matrix in (rotation.query, rotation.key):
        assert torch.isfinite(matrix.float()).all()
        assert matrix.float().abs().max() > 1e-30
    assert torch.isfinite(rotation.energy).all() and (rotation.energy >= 0).all()


@pytest.mark.parametrize("context", GRAMS)
def test_output_stays_on_any_audio(context):
    output = normal(24, 6)
    rotation = rotate_value_output(GRAMS[context], output)
    torch.testing.assert_close(rotation.value @ rotation.output.T, output.T, rtol=0, atol=1e-6)
    assert torch.isfinite(rotation.value.float()).all() and torch.isfinite(rotation.output.float()).all()
    assert torch.isfinite(rotation.energy).all() and (rotation.energy >= 0).all()


@pytest.mark.parametrize("context", GRAMS)
def test_output_of_rank_one_and_zero(context):
    for output in (torch.outer(normal(24), normal(6)), torch.zeros(24, 6, dtype=torch.float64)):
        rotation = rotate_value_output(GRAMS[context], output)
        value, columns = rotation.value.float(), rotation.output.float()
        assert torch.isfinite(value).all() and torch.isfinite(columns).all()
        product = (rotation.value @ rotation.output.T).T
        torch.testing.assert_close(product, output, rtol=0, atol=1e-6)


def test_square_roots():
    gram = gram_of(normal(30, 5))
    root, inverse = square_roots(gram)
    torch.testing.assert_close(root @ root, gram, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(root @ inverse, torch.eye(5, dtype=torch.float64), rtol=0, atol=TOLERANCE)
    assert torch.equal(root, root.T) or torch.allclose(root, root.T, atol=1e-14)


@pytest.mark.parametrize("gram", GRAMS)
def test_roots_are_inverses_of_each_other(gram):
    root, inverse = square_roots(GRAMS[gram])
    torch.testing.assert_close(root @ inverse, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_rows_are_multiplied_in_place(dtype, tolerance):
    layer = torch.nn.Linear(7, 6, dtype=dtype)
    inputs, matrix = normal(9, 7).to(dtype), normal(3, 3)
    before = layer(inputs).detach()
    rows = slice(2, 5)
    rotate_rows_(layer.weight.data[rows], layer.bias.data[rows], matrix)
    after = layer(inputs).detach()
    torch.testing.assert_close(after[:, rows], before[:, rows] @ matrix.to(dtype), rtol=0, atol=tolerance)
    assert torch.equal(after[:, :2], before[:, :2]) and torch.equal(after[:, 5:], before[:, 5:])


@given(seed=st.integers(0, 200), width=st.integers(1, 8))
def test_signs_of_the_basis_do_not_depend_on_rounding(seed, width):
    """They are arbitrary in a decomposition, and would differ between sums in another order."""
    queries, keys = make_queries_and_keys(width=width, seed=seed)
    query_gram, key_gram = gram_of(queries), gram_of(keys)
    output = normal(12, width, seed=seed + 4)
    query_key, value_output = rotate_query_key(query_gram, key_gram), rotate_value_output(query_gram, output)
    query_root, _ = square_roots(query_gram)
    for matrix in (query_key.query, value_output.value):
        left = query_root @ matrix
        assert (left.gather(0, left.abs().argmax(0, keepdim=True)) > 0).all()
