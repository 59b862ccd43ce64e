"""Know the memory before it is taken: estimates of an attention layer, and a tracker that refuses what does not fit.

Run it with `python examples/memory_tracking.py`; it needs no GPU and allocates almost nothing.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import bedstone as bs
from bedstone.core.memory import format_bytes

LAYER = {"batch_size": 1, "num_heads": 32, "seq_len": 8192, "head_dim": 128, "dtype": "bf16"}


def show_estimates() -> int:
    """Print what one attention layer takes in four ways; return the smallest."""
    print("One attention layer, 8,192 tokens, 32 heads of 128, bfloat16:")
    sizes = []
    for mode in ("materialized", "linear"):
        for num_kv_heads in (32, 8):
            size = bs.estimate_attention_memory(**LAYER, num_kv_heads=num_kv_heads, mode=mode, backward=True)
            print(f"  {mode:12}  {num_kv_heads:2} kv heads, with backward: {format_bytes(size):>10}")
            sizes.append(size)
    return min(sizes)


def show_refusal(tracker: bs.MemoryTracker) -> None:
    """Ask for more than there is, and print what the error knows."""
    try:
        tracker.allocate(2 * 2**30)
    except bs.OutOfMemoryError as error:
        print(f"Refused: {error}")
        print(f"  as data: {error.requested_bytes=} {error.allocated_bytes=} {error.limit_bytes=}")


def work(tracker: bs.MemoryTracker, size: int) -> str:
    """Reserve memory for a while, as one of several threads."""
    try:
        with tracker.reserve(size):
            time.sleep(0.005)
            return "ran"
    except bs.OutOfMemoryError:
        return "was refused"


def main() -> None:
    layer = show_estimates()
    tracker = bs.MemoryTracker("1 GiB", limits={"cuda:0": "80 GiB"})
    with tracker.reserve(layer):
        print(f"Reserved {format_bytes(layer)}, {format_bytes(tracker.free_bytes or 0)} are free.")
        show_refusal(tracker)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: work(tracker, 300 * 2**20), range(32)))
    print(
        f"32 jobs of 300 MiB on 8 threads: {outcomes.count('ran')} ran, {outcomes.count('was refused')} were refused."
    )
    print(
        f"Peak {format_bytes(tracker.peak_bytes)} of {format_bytes(tracker.limit_bytes or 0)}, all given back: ", end=""
    )
    print(tracker.allocated_bytes == 0)
    print(f"With the allocator's overhead, plan for {format_bytes(tracker.estimate_with_overhead(layer))}.")


if __name__ == "__main__":
    main()
