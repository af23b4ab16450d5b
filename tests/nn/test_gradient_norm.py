import pytest
import torch
from torch import distributed as dist, multiprocessing, nn
from torch.nn import functional as F

from convsmith.nn import GradNorm, gradient_penalty

T = torch.float64


class ThreeHeads(nn.Module):
    """A shared layer and the losses of three tasks on it."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(5, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        self.double()

    def forward(self, x):
        y = self.shared(x).tanh()
        return [scale * head(y).square().mean() for scale, head in zip((1, 10, 0.2), self.heads, strict=True)]


def distance_to_target(weights, network, x, initial, alpha, targets=None):
    """L_grad and the constant targets, from the gradients of the weighted losses themselves."""
    losses = network(x)
    norms = []
    for weight, loss in zip(weights, losses, strict=True):
        (gradient,) = torch.autograd.grad(weight * loss, network.shared.weight, retain_graph=True)
        norms.append(gradient.square().sum().sqrt())
    if targets is None:
        relative = [loss / first for loss, first in zip(losses, initial, strict=True)]
        mean = sum(relative) / len(relative)
        targets = [sum(norms) / len(norms) * (r / mean) ** alpha for r in relative]
    return sum((norm - target).abs() for norm, target in zip(norms, targets, strict=True)), targets


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_gradnorm_descends_on_the_distance_to_the_target_norms(alpha):
    network, x = ThreeHeads(), torch.randn(6, 5, dtype=T)
    initial = (0.3, 2.0, 0.1)
    gradnorm = GradNorm(3, alpha=alpha, initial_losses=initial).double()
    gradnorm.weights.data = torch.tensor([0.8, 0.3, 1.9], dtype=T)
    distance = gradnorm.balance(network(x), network.shared.weight)
    expected, targets = distance_to_target(gradnorm.weights.tolist(), network, x, initial, alpha)
    torch.testing.assert_close(distance, expected)
    for i in range(3):
        ends = []
        for step in (1e-5, -1e-5):
            weights = gradnorm.weights.tolist()
            weights[i] += step
            ends.append(distance_to_target(weights, network, x, initial, alpha, targets)[0])
        torch.testing.assert_close(gradnorm.weights.grad[i], (ends[0] - ends[1]) / 2e-5)


def test_the_first_step_of_two_tasks_by_hand():
    shared = torch.zeros(2, requires_grad=True)
    losses = [(shared * torch.tensor([3.0, 4.0])).sum() + 2, (shared * torch.tensor([0.0, 1.0])).sum() + 8]
    gradnorm = GradNorm(2)
    assert gradnorm.balance(losses, shared).item() == 4  # norms 5 and 1, both 2 from their mean, as r = 1
    assert gradnorm.weights.grad.tolist() == [5, -1]
    assert gradnorm.initial_losses.tolist() == [2, 8]


def test_later_steps_compare_with_the_first_losses():
    shared = torch.zeros(1, requires_grad=True)
    gradnorm = GradNorm(2, alpha=2)
    gradnorm.balance([shared.sum() + 4, shared.sum() + 10], shared)
    restored = GradNorm(2, alpha=2)
    restored.load_state_dict(gradnorm.state_dict())
    for module in (gradnorm, restored):
        # Losses of 1/4 and 3/4 of the first ones: r = 1/2 and 3/2, targets 1/4 and 9/4 times the mean norm 1.
        assert module.balance([shared.sum() + 1, shared.sum() + 7.5], shared).item() == 0.75 + 1.25
        assert module.weights.grad.tolist() == [1, -1]


def test_the_total_is_weighted_by_constants():
    gradnorm = GradNorm(2).double()
    gradnorm.weights.data = torch.tensor([0.5, 1.5], dtype=T)
    losses = torch.tensor([3.0, 7.0], dtype=T, requires_grad=True)
    total = gradnorm(losses)
    total.backward()
    assert total.item() == 0.5 * 3 + 1.5 * 7
    assert losses.grad.tolist() == [0.5, 1.5]
    assert gradnorm.weights.grad is None


def test_each_task_is_differentiated_once():
    network, calls = ThreeHeads(), []
    for i, head in enumerate(network.heads):
        head.register_full_backward_hook(lambda module, before, behind, i=i: calls.append(i))
    GradNorm(3).balance(network(torch.randn(6, 5, dtype=T)), network.shared.weight)
    assert calls == [0, 1, 2]


def test_balancing_leaves_the_network_alone_and_its_graph_usable():
    network, x = ThreeHeads(), torch.randn(6, 5, dtype=T)
    gradnorm = GradNorm(3)
    losses = network(x)
    gradnorm.balance(losses, network.shared.weight)
    assert all(parameter.grad is None for parameter in network.parameters())
    gradnorm(losses).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_weights_sum_to_the_number_of_tasks_and_stay_positive():
    gradnorm = GradNorm(3)
    gradnorm.weights.data = torch.tensor([2.0, -1.0, 6.0])
    gradnorm.renormalise()
    torch.testing.assert_close(gradnorm.weights.detach(), torch.tensor([0.75, 0.0, 2.25]), atol=1e-5, rtol=0)
    assert gradnorm.weights.min() > 0


def test_weights_even_out_tasks_of_different_scales():
    # Tasks that differ by a factor alone train at equal rates, so that the weights end as the inverse of the factors.
    shared = torch.ones(8, dtype=T, requires_grad=True)
    gradnorm = GradNorm(2, alpha=0.12).double()
    optimizer = torch.optim.SGD(gradnorm.parameters(), lr=1e-3)
    for _ in range(150):
        gradnorm.balance([scale * shared.square().sum() for scale in (1, 4)], shared)
        optimizer.step()
        gradnorm.renormalise()
    torch.testing.assert_close(gradnorm.weights.detach(), torch.tensor([1.6, 0.4], dtype=T), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "losses", [torch.ones(3), [torch.ones(())], torch.ones(2, 1), [torch.ones(1), torch.ones(1)]], ids=str
)
def test_gradnorm_wants_one_scalar_for_each_task(losses):
    with pytest.raises(ValueError, match="one scalar loss for each of 2 tasks, got losses of the shapes"):
        GradNorm(2)(losses)


@pytest.mark.parametrize("arguments", [{"num_tasks": 0}, {"num_tasks": 2, "initial_losses": (1.0,)}], ids=str)
def test_gradnorm_wants_tasks_and_their_initial_losses(arguments):
    with pytest.raises(ValueError, match="at least one task, and one initial loss for each if any, got num_tasks="):
        GradNorm(**arguments)


@pytest.mark.parametrize("first", [0.0, -0.0, -2.0, float("nan"), float("inf")])
def test_gradnorm_wants_initial_losses_to_divide_by(first):
    with pytest.raises(ValueError, match=r"initial losses must be finite and above 0.*got initial_losses=.*; state"):
        GradNorm(2, initial_losses=(first, 1.0))


@pytest.mark.parametrize("first", [0.0, -3.0])
def test_a_first_loss_that_is_not_positive_is_refused_and_leaves_no_trace(first):
    shared = torch.zeros(1, requires_grad=True)
    gradnorm = GradNorm(2)
    with pytest.raises(ValueError, match=rf"first loss of a task must be above 0.*got {first} for task 1; state"):
        gradnorm.balance([shared.sum() + 10, shared.sum() + first], shared)
    assert gradnorm.weights.grad is None
    assert gradnorm.initial_losses.isnan().all()
    stated = GradNorm(2, initial_losses=(2.0, 10.0))
    stated.balance([shared.sum(), shared.sum() + 10], shared)  # later losses may be 0
    assert stated.weights.grad.isfinite().all()


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ((4.0, -0.5), "must not be negative, .*got -0.5 for task 1; add a constant"),
        ((-1.0, 1.0), "must not be negative, .*got -1.0 for task 0; add a constant"),
        ((0.0, 0.0), r"one task at least must have a loss above 0, .*got \[0.0, 0.0\]; leave"),
    ],
)
def test_losses_without_a_rate_are_refused(losses, message):
    shared = torch.zeros(1, requires_grad=True)
    gradnorm = GradNorm(2)
    gradnorm.balance([shared.sum() + 4, shared.sum() + 1], shared)
    gradnorm.weights.grad = None
    with pytest.raises(ValueError, match=message):
        gradnorm.balance([shared.sum() + loss for loss in losses], shared)
    assert gradnorm.weights.grad is None


def balanced(xs, **arguments):
    """The weights and first losses after a step for each batch, of a network that stays as it is."""
    torch.manual_seed(0)
    network, gradnorm = ThreeHeads(), GradNorm(3, **arguments).double()
    optimizer = torch.optim.SGD(gradnorm.parameters(), lr=0.05)
    for x in xs:
        gradnorm.balance(network(x), network.shared.weight)
        optimizer.step()
        gradnorm.renormalise()
    return {name: value.detach() for name, value in gradnorm.state_dict().items()}


def batches():
    return torch.randn(4, 6, 5, dtype=T, generator=torch.Generator().manual_seed(1))


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    own = batches().chunk(2, dim=1)[rank]
    found = {"joined": balanced(own), "apart": balanced(own, group_size=1)}
    dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


def test_processes_have_the_weights_of_the_joined_batch(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(ranks[0]["joined"], balanced(batches()))
    torch.testing.assert_close(ranks[0]["joined"], ranks[1]["joined"], rtol=0, atol=0)
    for found, own in zip(ranks, batches().chunk(2, dim=1), strict=True):
        torch.testing.assert_close(found["apart"], balanced(own))
        assert not torch.allclose(found["apart"]["weights"], found["joined"]["weights"], rtol=1e-3)


def test_a_group_has_a_process():
    with pytest.raises(ValueError, match="at least one process, got group_size=0; None means all"):
        GradNorm(2, group_size=0)


def test_the_penalty_of_a_linear_critic_is_known():
    slope = torch.tensor([[2.0, -1.0, 4.0]], dtype=T, requires_grad=True)
    real, fake = torch.randn(2, 5, 3, dtype=T)
    penalty = gradient_penalty(lambda x: x @ slope.T, real, fake, weight=3.0)
    size = 21**0.5
    torch.testing.assert_close(penalty.item(), 3 * (size - 1) ** 2)
    penalty.backward()
    torch.testing.assert_close(slope.grad, 3 * 2 * (size - 1) * slope.detach() / size)


def test_the_norm_is_that_of_each_sample():
    real = torch.randn(4, 2, 3, 3, dtype=T)
    penalty = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, real, real)  # the gradient at x is x
    torch.testing.assert_close(penalty, 10 * sum((image.norm() - 1) ** 2 for image in real) / 4)


def test_the_critic_is_asked_between_real_and_fake():
    real, fake = (torch.randn(64, 3, 5, 5, dtype=T, requires_grad=True) for _ in range(2))
    seen = []

    def critic(x):
        seen.append(x)
        return x.square().sum((1, 2, 3))

    gradient_penalty(critic, real, fake).backward()
    shares = ((seen[0] - real) / (fake - real)).flatten(1)
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert 0.2 < shares[:, 0].std() < 0.37  # 0.29 for the uniform distribution
    assert real.grad is None
    assert fake.grad is None


def test_the_penalty_trains_a_convolutional_critic():
    real, fake = torch.randn(2, 3, 2, 6, 6, dtype=T)

    def penalty(weight, bias):
        torch.manual_seed(1)
        return gradient_penalty(lambda x: F.conv2d(x, weight, bias).tanh().sum((1, 2, 3)), real, fake)

    weight, bias = torch.randn(4, 2, 3, 3, dtype=T) / 4, torch.randn(4, dtype=T)
    assert torch.autograd.gradcheck(penalty, (weight.requires_grad_(), bias.requires_grad_()))


def test_a_dead_critic_has_a_finite_gradient():
    slope = torch.zeros(3, dtype=T, requires_grad=True)
    penalty = gradient_penalty(lambda x: x @ slope, *torch.randn(2, 5, 3, dtype=T))
    penalty.backward()
    assert penalty.item() == 10
    assert slope.grad.isfinite().all()


def test_real_and_fake_come_in_pairs():
    with pytest.raises(ValueError, match=r"must have the same shape, got \(4, 3\) and \(5, 3\)"):
        gradient_penalty(torch.sum, torch.ones(4, 3), torch.ones(5, 3))


@pytest.mark.parametrize("alpha", [-1.0, float("inf"), float("nan")])
def test_a_strength_below_zero_is_refused(alpha):
    with pytest.raises(
        ValueError, match=rf"alpha must be at least 0 and finite, .*, got alpha={alpha}; the paper takes"
    ):
        GradNorm(2, alpha=alpha)
