"""Networks as PyTorch modules."""

import copy
import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from theorylab.convex_relu import Network
from theorylab.convex_relu._network import Output, balanced_network


def random_network(rng, m, d, outputs):
    """Return a network with biases and a skip connection; ``outputs`` is () or (K,)."""
    return Network(
        rng.standard_normal((m, d)),
        rng.standard_normal((m, *outputs)),
        rng.standard_normal(m),
        rng.standard_normal((d, *outputs)),
        rng.standard_normal(outputs),
    )


@pytest.mark.parametrize("outputs", [(), (1,), (3,)])
@pytest.mark.parametrize("m", [0, 1, 7])
def test_a_module_computes_the_same_in_float64(outputs, m):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(m)
    X = rng.standard_normal((20, 4))
    plain = Network(rng.standard_normal((m, 4)), rng.standard_normal((m, *outputs)))
    for network in (plain, random_network(rng, m, 4, outputs)):
        torch.manual_seed(0)
        module = network.to_torch()
        # Making it draws nothing from the global generator.
        first = torch.rand(3)
        torch.manual_seed(0)
        assert torch.equal(first, torch.rand(3))
        found = module(torch.tensor(X)).detach().numpy()
        assert found.dtype == np.float64
        assert found.shape == network(X).shape
        np.testing.assert_allclose(found, network(X), rtol=1e-13, atol=1e-13)
        for name, array in network.state_dict().items():
            np.testing.assert_array_equal(module.state_dict()[name].numpy(), array)


def test_a_module_is_trained_further_and_leaves_the_network_alone():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    network, X, y = random_network(rng, 5, 3, ()), rng.standard_normal((9, 3)), np.ones(9)
    before = network(X)
    module = network.to_torch()
    optimizer = torch.optim.SGD(copy.deepcopy(module).parameters(), lr=1.0)
    assert len(optimizer.param_groups[0]["params"]) == 5
    inputs, targets = torch.tensor(X), torch.tensor(y)
    loss = 0.5 * ((module(inputs) - targets) ** 2).sum()
    loss.backward()
    hidden = np.maximum(X @ network.weights.T + network.biases, 0.0)
    np.testing.assert_allclose(
        module.output.weight.grad.numpy(), [(before - y) @ hidden], rtol=1e-12
    )
    with torch.no_grad():
        module.hidden.weight += 1.0
    np.testing.assert_array_equal(network(X), before)


def test_a_network_stays_what_it_was():
    rng = np.random.default_rng(1)
    given = [rng.standard_normal(s) for s in ((3, 2), (3,), (3,), (2,), ())]
    network, X = Network(*given), rng.standard_normal((5, 2))
    before = network(X), network.penalty
    for array in given:
        array += 1.0
    np.testing.assert_array_equal(network(X), before[0])
    assert network.penalty == before[1]


def test_a_network_has_arrays_of_its_own_of_one_kind():
    rng = np.random.default_rng(2)
    plain = [rng.standard_normal(s) for s in ((3, 2), (3, 2), (3,), (2, 2), (2,))]
    shown = [np.broadcast_to(array[..., None], (*array.shape, 1))[..., 0] for array in plain]
    wanted = [array.copy() for array in plain]
    lists, views = Network(*(a.tolist() for a in plain)), Network(*shown)
    turned = Network(*map(np.asfortranarray, plain))
    for array in plain:
        array[...] = np.nan  # which a view that cannot be written to would show
    names = "weights", "output_weights", "biases", "linear", "offset"
    for network in (lists, views, turned, dataclasses.replace(views)):
        for name, array in zip(names, wanted, strict=True):
            held = getattr(network, name)
            np.testing.assert_array_equal(held, array)
            assert held.dtype == np.float64
            assert held.flags.c_contiguous
            assert not held.flags.writeable


def test_a_missing_pytorch_is_named():
    code = (
        "import sys; sys.modules['torch'] = None; from theorylab.convex_relu import Network; "
        "Network([[1.0]], [1.0]).to_torch()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: Network.to_torch needs PyTorch: pip install torch" in done.stderr


def test_neurons_whose_squares_leave_float64_are_balanced():
    # Data of size 1e60 and targets of size 1e-130, as training hands them over.
    for size in (1e-190, 1.0, 1e190):
        points = size * np.array([[3.0, 4.0], [5.0, -12.0]])
        network = balanced_network([Output(points, np.array([1.0, -1.0]), np.zeros(2))], False, 1)
        np.testing.assert_allclose(network.penalty, 18.0 * size, rtol=1e-14)
        np.testing.assert_allclose(network.output_weights**2, np.array([5.0, 13.0]) * size)
