"""Random numbers follow from a seed in one thread, and torch's global generators stay as they are."""

import contextlib
import threading

import numpy as np
import pytest
import timm
import torch
from torch import nn

from skdfb.utils import NetworkDraws, isolated_rng
from skdfb.utils._random import _is_random

CPU = torch.device("cpu")

DRAWS = {
    "rand": lambda: torch.rand(5),
    "randn": lambda: torch.randn(5),
    "randperm": lambda: torch.randperm(9),
    "randint": lambda: torch.randint(100, (5,)),
    "randint from low": lambda: torch.randint(5, 100, (5,)),
    "rand_like": lambda: torch.rand_like(torch.ones(5)),
    "randn_like": lambda: torch.randn_like(torch.ones(5)),
    "normal": lambda: torch.normal(torch.ones(5), 2.0),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 3),
    "poisson": lambda: torch.poisson(torch.full((5,), 9.0)),
    "bernoulli_": lambda: torch.empty(20).bernoulli_(0.5),
    "exponential_": lambda: torch.empty(5).exponential_(),
    "trunc_normal_": lambda: nn.init.trunc_normal_(torch.empty(5)),
    "kaiming_normal_": lambda: nn.init.kaiming_normal_(torch.empty(3, 4)),
    "dropout": lambda: nn.functional.dropout(torch.ones(50)),
    "dropout2d": lambda: nn.functional.dropout2d(torch.ones(2, 30, 2, 2)),
    "alpha_dropout": lambda: nn.functional.alpha_dropout(torch.ones(50), training=True),
    "rrelu": lambda: nn.functional.rrelu(-torch.ones(5), training=True),
    "attention": lambda: nn.functional.scaled_dot_product_attention(*torch.ones(3, 1, 4, 4), dropout_p=0.5),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_numbers_are_those_of_a_seeded_global_generator(draw):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = [draw(), draw()]
    before = torch.get_rng_state()
    with isolated_rng(3):
        found = [draw(), draw()]
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "levit_128s"])
def test_weights_of_timm_models(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = timm.create_model(name, num_classes=3).state_dict()
    before = torch.get_rng_state()
    with isolated_rng(5):
        found = timm.create_model(name, num_classes=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_own_generators_of_the_caller_are_kept():
    generator = torch.Generator().manual_seed(1)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(1))
    with isolated_rng(0):
        assert torch.equal(torch.rand(3, generator=generator), expected)


def test_blocks_within_blocks():
    with isolated_rng(0):
        first, second = torch.rand(2), torch.rand(2)
    with isolated_rng(0):
        assert torch.equal(torch.rand(2), first)
        with isolated_rng(9):
            torch.rand(7)
        assert torch.equal(torch.rand(2), second)


def test_threads_do_not_disturb_each_other():
    before, barrier, found = torch.get_rng_state(), threading.Barrier(2), {}

    def draw(seed: int) -> None:
        with isolated_rng(seed):
            for place in range(20):
                barrier.wait()  # both draw at the same time
                found[seed, place] = torch.rand(50)

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), before)
    for seed in (0, 1):
        with isolated_rng(seed):
            assert all(torch.equal(found[seed, place], torch.rand(50)) for place in range(20))


def test_meta_tensors_need_no_numbers():
    with isolated_rng(0), torch.device("meta"):
        assert nn.Linear(2, 3).weight.device.type == "meta"


class Gate(nn.Module):
    """Stochastic depth, written by hand."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * (torch.rand(len(values), 1) < 0.5)


class TestNetworkDraws:
    def test_steps_follow_from_their_seed(self):
        network = nn.Sequential(nn.Dropout(), Gate()).train()
        draws, before, steps = NetworkDraws(network), torch.get_rng_state(), []
        for seed in (0, 1, 0):
            with draws.seeded(seed, CPU):
                steps.append(network(torch.ones(9, 9)))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(steps[0], steps[2])
        assert not torch.equal(steps[0], steps[1])

    def test_a_network_that_draws_nothing_is_watched_in_one_step(self):
        draws = NetworkDraws(nn.Linear(2, 2))
        for n_modes in (1, 0, 0):
            with draws.seeded(0, CPU):
                assert torch._C._len_torch_dispatch_stack() == n_modes

    @pytest.mark.parametrize(("dropout", "n_modes"), [(0.0, 0), (0.5, 1)])
    def test_attention_draws_only_with_dropout(self, dropout, n_modes):
        class Attention(nn.Module):
            def forward(self, tokens):
                return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(tokens, tokens, tokens, dropout)

        network, tokens = Attention(), torch.ones(1, 1, 4, 8, requires_grad=True)
        draws = NetworkDraws(network)
        with draws.seeded(0, CPU), contextlib.suppress(RuntimeError):  # the kernel of the CPU has no dropout
            network(tokens)[0].sum().backward()
        with draws.seeded(0, CPU):
            assert torch._C._len_torch_dispatch_stack() == n_modes

    def test_backward_operations_with_the_tag_get_what_the_forward_pass_drew(self):
        """So they draw nothing, and are let through; see ``_is_random``."""
        names = (getattr(torch.ops.aten, name) for name in dir(torch.ops.aten))
        operations = [
            getattr(packet, overload) for packet in names for overload in getattr(packet, "overloads", list)()
        ]
        tagged = [
            operation
            for operation in operations
            if torch.Tag.nondeterministic_seeded in operation.tags and "_backward" in str(operation)
        ]
        assert tagged
        for operation in tagged:
            assert {"philox_seed", "philox_offset"} <= {argument.name for argument in operation._schema.arguments}
            assert not _is_random(operation)

    def test_a_failed_step_does_not_count(self):
        draws = NetworkDraws(nn.Dropout())
        with pytest.raises(MemoryError), draws.seeded(0, CPU):
            raise MemoryError
        with draws.seeded(0, CPU):
            assert torch._C._len_torch_dispatch_stack() == 1

    @pytest.mark.parametrize("flagged", [True, False])
    def test_checkpointing_repeats_the_numbers_or_is_refused(self, flagged):
        """A second draw in the backward pass would give gradients of another network, without an error."""
        dropout = nn.Dropout()
        dropout.grad_checkpointing = flagged
        values, before = torch.ones(99, requires_grad=True), torch.get_rng_state()

        def step() -> torch.Tensor:
            with NetworkDraws(dropout).seeded(0, CPU):
                result = torch.utils.checkpoint.checkpoint(dropout, values, use_reentrant=False)
                (result * values).sum().backward()
            return result

        if flagged:
            result = step().detach()
            np.testing.assert_array_equal(values.grad, 2 * result)
        else:
            with pytest.raises(RuntimeError, match="set grad_checkpointing = True"):
                step()
        assert torch.equal(torch.get_rng_state(), before)
