from datetime import timedelta

import pytest
import torch
from torch import distributed as dist, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from convsmith.nn import BatchNorm, ConvNormAct, CrossDeviceBatchNorm, precise_batch_norm
from convsmith.nn.cross_device_norm import _JoinedBatchNorm, process_group

# Images on each rank, by the number of ranks; one rank has none.
SIZES = {2: (3, 1), 3: (4, 0, 2)}
STEPS = 3
PROCESSES = 4


def share(x, sizes, rank):
    return x.split(list(sizes))[rank].clone()


def drawn(total, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.arange(1, total + 1, dtype=torch.float64).view(-1, *[1] * len(shape))
    return torch.randn(total, *shape, dtype=torch.float64, generator=generator) * scales + scales


def randomised(module):
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data.copy_(torch.rand(parameter.shape, dtype=parameter.dtype, generator=generator) + 0.5)
    return module


def trained_layer(norm, xs, dys):
    """Outputs, gradients of the sum of `y * dy`, and running statistics, over some batches."""
    ys, dxs = [], []
    for x, dy in zip(xs, dys, strict=True):
        x.requires_grad_()
        y = norm(x)
        (y * dy).sum().backward()
        ys.append(y.detach())
        dxs.append(x.grad)
    return {"y": ys, "dx": dxs, "dweight": norm.weight.grad, "dbias": norm.bias.grad, **norm.state_dict()}


def layer_maps(total):
    return [[drawn(total, 4, 3, 5, seed=10 * kind + step) for step in range(STEPS)] for kind in range(2)]


def layer_on_a_rank(rank, sizes, **arguments):
    xs, dys = ([share(x, sizes, rank) for x in kind] for kind in layer_maps(sum(sizes)))
    xs[-1] = xs[-1].to(memory_format=torch.channels_last)
    return trained_layer(randomised(CrossDeviceBatchNorm(4, momentum=0.3, **arguments).double()), xs, dys)


def network(norm):
    parts = [ConvNormAct(3, 6, norm=norm, act="tanh"), ConvNormAct(6, 5, stride=2, norm=norm)]
    return randomised(nn.Sequential(*parts).double())


def network_maps(total):
    return drawn(total, 3, 6, 6, seed=1), drawn(total, 5, 3, 3, seed=2)


def network_on_a_rank(rank, sizes):
    """`DistributedDataParallel` and the loss that the docstring gives."""
    import convsmith as cs

    x, target = (share(maps, sizes, rank) for maps in network_maps(sum(sizes)))
    net = network(cs.spec(CrossDeviceBatchNorm))
    trained = DistributedDataParallel(net)
    ((trained(x.requires_grad_()) * target).sum() * len(sizes) / sum(sizes)).backward()
    return {"dx": x.grad, **{name: p.grad for name, p in net.named_parameters()}}


def precise_on_a_rank(rank, sizes):
    xs, _ = layer_maps(sum(sizes))
    own = [share(x, sizes, rank) for x in xs]
    joined = CrossDeviceBatchNorm(4).double()
    precise_batch_norm(joined, own)
    apart = BatchNorm(4).double()
    precise_batch_norm(apart, [x for x in own if len(x)], all_ranks=True)
    return {"joined": joined.state_dict(), "apart": apart.state_dict()}


def precise_on_one_rank(rank, sizes):
    """The other ranks have no batches, and no rank has any for the second norm."""
    own = [share(x, sizes, rank) for x in layer_maps(sum(sizes))[0]]
    net = nn.ModuleList([BatchNorm(4), BatchNorm(4)]).double()
    names = precise_batch_norm(net, own if rank == 0 else [], forward=net[0], all_ranks=True)
    try:
        precise_batch_norm(net, [], all_ranks=True)
    except ValueError as error:
        return {"names": names, "message": str(error), "state": net.state_dict()}
    return {}


def penalty(norm, x):
    """Gradients of a gradient's square."""
    (dx,) = torch.autograd.grad(norm(x.requires_grad_()).pow(3).sum(), x, create_graph=True)
    dx.square().sum().backward()
    return {"dx": x.grad, "dweight": norm.weight.grad, "dbias": norm.bias.grad}


def penalty_on_a_rank(rank, sizes):
    return penalty(randomised(CrossDeviceBatchNorm(4).double()), share(drawn(sum(sizes), 4, 3, 5), sizes, rank))


def half(norm, x):
    y = norm.bfloat16()(x.bfloat16().requires_grad_())
    y.float().pow(2).sum().backward()
    return {"y": y.detach().float(), "dweight": norm.weight.grad.float()}


def half_on_a_rank(rank, sizes):
    return half(randomised(CrossDeviceBatchNorm(4)), share(drawn(sum(sizes), 4, 3, 5), sizes, rank))


def empty_on_a_rank(rank, sizes):
    """No rank has an image, once plainly and once for a second derivative; then all parameters and statistics."""
    norm = randomised(CrossDeviceBatchNorm(4).double())
    norm.running_mean.fill_(3)
    y = norm(torch.empty(0, 4, 3, 5, dtype=torch.float64, requires_grad=True))
    y.sum().backward()
    plain = norm.weight.grad
    norm.weight.grad = None
    return {"y": y.detach(), "plain": plain, **penalty(norm, torch.empty(0, 4, 3, 5).double()), **norm.state_dict()}


def message_on_a_rank(rank, images, **arguments):
    try:
        CrossDeviceBatchNorm(4, **arguments)(torch.randn(images[rank], 4, 1, 1))
    except ValueError as error:
        return str(error)
    return None


def work(rank, folder):
    torch.set_num_threads(1)
    found = {}
    for world in (*SIZES, PROCESSES):
        if rank >= world:
            continue
        dist.init_process_group(
            "gloo", f"file://{folder}/store{world}", timeout=timedelta(minutes=10), rank=rank, world_size=world
        )
        if world == PROCESSES:
            found["pairs"] = layer_on_a_rank(rank, (3, 1, 2, 4), group_size=2)
            found["alone"] = layer_on_a_rank(rank, (3, 1, 2, 4), group_size=1)
            found["divides"] = message_on_a_rank(rank, (1,) * PROCESSES, group_size=3)
        else:
            found[world, "layer"] = layer_on_a_rank(rank, SIZES[world])
            found[world, "network"] = network_on_a_rank(rank, [max(size, 1) for size in SIZES[world]])
            found[world, "single"] = message_on_a_rank(rank, (1, 0, 0))
            found[world, "singles"] = message_on_a_rank(rank, (1, 1, 1))
        if world == 2:
            found["precise"] = precise_on_a_rank(rank, (3, 1))
            found["precise on one"] = precise_on_one_rank(rank, (3, 1))
            found["penalty"] = penalty_on_a_rank(rank, (3, 1))
            found["empty"] = empty_on_a_rank(rank, (0, 0))
            found["half"] = half_on_a_rank(rank, (3, 1))
        dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of four real processes has found; they join in groups of different sizes, one after the other."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


def check_layer(found, sizes, expected):
    for step in range(STEPS):
        for kind in ("y", "dx"):
            torch.testing.assert_close(
                [result[kind][step] for result in found],
                [share(expected[kind][step], sizes, rank) for rank in range(len(sizes))],
                check_stride=False,
            )
    for kind in ("dweight", "dbias"):
        torch.testing.assert_close(sum(result[kind] for result in found), expected[kind])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for result in found:
            torch.testing.assert_close(result[name], expected[name])


@pytest.mark.parametrize("world", SIZES)
def test_it_is_batch_norm_on_the_joined_batch(ranks, world):
    expected = trained_layer(randomised(BatchNorm(4, momentum=0.3).double()), *layer_maps(sum(SIZES[world])))
    found = [result[world, "layer"] for result in ranks[:world]]
    check_layer(found, SIZES[world], expected)
    for result in found:  # to the last bit on all ranks
        assert torch.equal(result["running_var"], found[0]["running_var"])
        assert result["y"][-1].is_contiguous(memory_format=torch.channels_last)


def test_ranks_join_in_groups(ranks):
    sizes, maps = (3, 1, 2, 4), layer_maps(10)
    for first, images in ((0, slice(0, 4)), (2, slice(4, 10))):
        own = [[x[images].clone() for x in kind] for kind in maps]
        expected = trained_layer(randomised(BatchNorm(4, momentum=0.3).double()), *own)
        found = [result["pairs"] for result in ranks[first : first + 2]]
        check_layer(found, sizes[first : first + 2], expected)


def test_a_group_of_one_is_alone(ranks):
    maps = layer_maps(10)
    own = [[x[4:6].clone() for x in kind] for kind in maps]
    expected = trained_layer(randomised(BatchNorm(4, momentum=0.3).double()), *own)
    check_layer([ranks[2]["alone"]], (2,), expected)


@pytest.mark.parametrize("world", SIZES)
def test_distributed_training_has_the_gradients_of_the_joined_batch(ranks, world):
    import convsmith as cs

    sizes = [max(size, 1) for size in SIZES[world]]
    x, target = network_maps(sum(sizes))
    net = network(cs.spec(BatchNorm))
    ((net(x.requires_grad_()) * target).sum() / sum(sizes)).backward()
    for rank in range(world):
        found = ranks[rank][world, "network"]
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad)
        torch.testing.assert_close(found["dx"] / world, share(x.grad, sizes, rank))


def test_a_second_derivative(ranks):
    expected = penalty(randomised(BatchNorm(4).double()), drawn(4, 4, 3, 5))
    found = [result["penalty"] for result in ranks[:2]]
    torch.testing.assert_close(torch.cat([result["dx"] for result in found]), expected["dx"])
    for name in ("dweight", "dbias"):
        torch.testing.assert_close(sum(result[name] for result in found), expected[name])


def test_no_image_on_any_rank_passes_and_leaves_the_statistics(ranks):
    for found in (result["empty"] for result in ranks[:2]):
        assert found["y"].shape == (0, 4, 3, 5)
        assert found["running_mean"].tolist() == [3] * 4
        assert found["running_var"].tolist() == [1] * 4
        assert not any(found[name].any() for name in ("plain", "dweight", "dbias"))


def test_a_layer_in_half_precision(ranks):
    expected = half(randomised(BatchNorm(4)), drawn(4, 4, 3, 5))
    found = [result["half"] for result in ranks[:2]]
    torch.testing.assert_close(torch.cat([result["y"] for result in found]), expected["y"], rtol=0.02, atol=0.02)
    torch.testing.assert_close(sum(r["dweight"] for r in found), expected["dweight"], rtol=0.02, atol=0.02)


def test_precise_statistics_are_pooled_over_ranks(ranks):
    values = torch.cat(layer_maps(4)[0]).transpose(0, 1).flatten(1)
    for result in ranks[:2]:
        for state in result["precise"].values():
            torch.testing.assert_close(state["running_mean"], values.mean(1))
            torch.testing.assert_close(state["running_var"], values.var(1))


def test_precise_statistics_are_pooled_with_ranks_that_have_no_batch(ranks):
    values = torch.cat([share(x, (3, 1), 0) for x in layer_maps(4)[0]]).transpose(0, 1).flatten(1)
    for result in (result["precise on one"] for result in ranks[:2]):
        assert result["names"] == ["0"]
        assert result["message"].startswith("precise batch norm needs at least one batch")
        torch.testing.assert_close(result["state"]["0.running_mean"], values.mean(1))
        torch.testing.assert_close(result["state"]["0.running_var"], values.var(1))
        assert not result["state"]["1.running_mean"].any()


@pytest.mark.parametrize("world", SIZES)
def test_one_value_per_channel_over_all_ranks_is_an_error_on_all(ranks, world):
    for result in ranks[:world]:
        assert result[world, "single"].startswith(
            "batch norm needs more than one value per channel in training, got 1 "
        )
        assert result[world, "singles"] is None


def test_a_group_size_that_does_not_divide_is_an_error(ranks):
    for result in ranks:
        assert result["divides"].startswith("group_size must divide the number of processes, got group_size=3 and 4 ")


def test_alone_it_is_plain_batch_norm():
    norm, peer = CrossDeviceBatchNorm(4).double(), BatchNorm(4).double()
    xs, dys = layer_maps(3)
    check_layer([trained_layer(norm, xs, dys)], (3,), trained_layer(peer, *layer_maps(3)))
    assert process_group(None) is process_group(2) is None


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_the_gradient_of_the_function(group):
    x = drawn(3, 2, 2, 3).requires_grad_()
    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def function(x, weight, bias):
        return _JoinedBatchNorm.apply(x, weight, bias, 1e-2, group)[0]

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_precision_does_not_cancel(group, dtype):
    x = (torch.randn(4, 3, 5, 5) + (1000 if dtype is torch.float32 else 2)).to(dtype)
    y, mean, variance, count = _JoinedBatchNorm.apply(x, torch.ones(3), torch.zeros(3), 1e-5, group)
    exact = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(variance.double(), exact.var(1, unbiased=False), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean.double(), exact.mean(1), rtol=1e-6, atol=0)
    assert (y.dtype, count.item()) == (dtype, 100)


def test_a_group_has_a_process():
    with pytest.raises(ValueError, match="at least one process, got group_size=0; None means all"):
        CrossDeviceBatchNorm(4, group_size=0)


def work_on_gpu(rank, world, folder):
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", f"file://{folder}/store", rank=rank, world_size=world)
    found = {}
    for name, memory_format in (("plain", torch.contiguous_format), ("last", torch.channels_last)):
        (x, *_), (dy, *_) = layer_maps(2 * world)
        x, dy = (share(maps, [2] * world, rank).cuda().to(memory_format=memory_format) for maps in (x, dy))
        norm = randomised(CrossDeviceBatchNorm(4).double()).cuda()
        inputs = (x.requires_grad_(), norm.weight, norm.bias)
        # On one GPU the module would be plain: the function is asked itself.
        y, mean, variance, _ = _JoinedBatchNorm.apply(*inputs, norm.eps, dist.group.WORLD)
        gradients = torch.autograd.grad(y, inputs, dy)
        found[name] = [tensor.detach().cpu() for tensor in (y, mean, variance, *gradients)]
    dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.mark.gpu
def test_it_is_batch_norm_on_the_joined_batch_with_nccl(tmp_path):
    world = torch.cuda.device_count()
    multiprocessing.spawn(work_on_gpu, (world, str(tmp_path)), nprocs=world)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    (x, *_), (dy, *_) = layer_maps(2 * world)
    norm = randomised(BatchNorm(4).double())
    y = norm(x.requires_grad_())
    dx, dweight, dbias = torch.autograd.grad(y, (x, norm.weight, norm.bias), dy)
    for name in ("plain", "last"):
        results = list(zip(*(result[name] for result in found), strict=True))
        torch.testing.assert_close(torch.cat(results[0]), y.detach(), check_stride=False)
        torch.testing.assert_close(results[1][0], x.detach().mean((0, 2, 3)))
        torch.testing.assert_close(results[2][0], x.detach().var((0, 2, 3), unbiased=False))
        torch.testing.assert_close(torch.cat(results[3]), dx, check_stride=False)
        torch.testing.assert_close((sum(results[4]), sum(results[5])), (dweight, dbias))
