"""Tell for how long a GPU works in the library and in bare PyTorch code, and on what.

    python benchmarks/gpu_work.py                                       # a step of the classifier, with ResNet-50
    python benchmarks/gpu_work.py --batch-size 64 --only training_step True
    python benchmarks/gpu_work.py --only scoring "the default parts"

The comparisons are those of ``overhead.py``; ``--only`` has words of a function and of its arguments. Milliseconds are
per batch, and the difference of a long and a short call, so that the start of a training does not count. The clock runs
without the profiler. "GPU works" is the time in which the GPU runs a kernel or copies; the rest is waiting for Python.
Then follow the kernels on which the library spends most time beyond the bare code, and those before which the GPU
waited longest.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import overhead
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

SHORT, LONG = 8, 24  # batches
N_SHOWN = 10
CLOCK, WORKS = "by the clock", "GPU works"

Times = tuple[Counter[str], Counter[str], Counter[str]]  # all; by kernel; of waiting before a kernel; in milliseconds


def times_of(function: Callable[[], Any], device: torch.device) -> Times:
    """Time a function, and profile it."""
    overhead.synchronised(function, device)  # warms up
    clock = min(overhead.synchronised(function, device) for _ in range(3))
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        function()
        torch.cuda.synchronize(device)
    events = sorted(
        (event.time_range.start / 1000, event.time_range.end / 1000, event.name)
        for event in found.events()
        if event.device_type == DeviceType.CUDA
    )
    kernels, waits = Counter[str](), Counter[str]()
    works, until = 0.0, events[0][0]
    for start, end, name in events:
        kernels[name] += end - start
        waits[name] += max(0.0, start - until)
        works += max(0.0, end - max(start, until))  # copies and kernels may overlap
        until = max(until, end)
    return Counter({CLOCK: 1000 * clock, WORKS: works}), kernels, waits


def per_batch(short: Callable[[], Any], long: Callable[[], Any], device: torch.device) -> Times:
    """Return the times of a batch, from a call of few batches and one of many."""
    few, many = times_of(short, device), times_of(long, device)

    def difference(less: Counter[str], more: Counter[str]) -> Counter[str]:
        return Counter({name: (time - less[name]) / (LONG - SHORT) for name, time in more.items()})

    return difference(few[0], many[0]), difference(few[1], many[1]), difference(few[2], many[2])


def show(title: str, times: Counter[str]) -> None:
    """Print the longest times."""
    print(f"  {title}")
    for name, milliseconds in times.most_common(N_SHOWN):
        print(f"{milliseconds:>10.3f}  {name[:110]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--only", nargs="+", default=["training_step", "False"], help="words of a comparison")
    arguments = parser.parse_args()
    device, batch = torch.device(arguments.device), arguments.batch_size
    print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}")
    sizes = [overhead.Size("resnet50", 224, n_batches * batch, n_batches, batch) for n_batches in (SHORT, LONG)]
    makers = [overhead.chosen(overhead.comparisons(size, device), arguments.only) for size in sizes]
    for make_short, make_long in zip(*makers, strict=True):
        short, long = make_short(), make_long()
        library, kernels, waits = per_batch(short.library, long.library, device)
        bare, bare_kernels, _ = per_batch(short.bare, long.bare, device)
        print(f"{long.name:60}{'library':>10}{'bare':>10}{'ratio':>8}")
        for name in (CLOCK, WORKS):
            print(f"  {name:58}{library[name]:>8.2f}ms{bare[name]:>8.2f}ms{library[name] / bare[name]:>8.3f}")
        show("ms more than in the bare code, by kernel", Counter({n: t - bare_kernels[n] for n, t in kernels.items()}))
        show("ms of waiting before a kernel", waits)


if __name__ == "__main__":
    main()
