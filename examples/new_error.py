"""A new error of your own family: subclass `CoreError` and the built-in that a caller expects, keep the facts, prove it."""

from __future__ import annotations

import pickle

import bedstone as bs
from bedstone.testing.errors import check_error


class RankTooLargeError(bs.CoreError, ValueError):
    """A LoRA rank above what the layer can hold.

    Attributes:
        layer: The layer's name.
        rank: The rank asked for.
        limit: The largest rank that makes sense, min(d_in, d_out).
    """

    code = "rank_too_large"
    layer: str
    rank: int
    limit: int

    def __init__(self, *, layer: str, rank: int, limit: int) -> None:
        super().__init__(
            f"`rank` (={rank}) must not exceed min(d_in, d_out) (={limit}) of {layer}.",
            remedy=f"Set it to at most {limit}.",
            layer=layer,
            rank=rank,
            limit=limit,
        )


def adapt(layer: str, width: int, rank: int) -> None:
    if rank > width:
        raise RankTooLargeError(layer=layer, rank=rank, limit=width)


def main() -> None:
    try:
        adapt("model.layers.0.k_proj", width=192, rank=256)
    except RankTooLargeError as error:
        print(f"What the user reads:  {error}")
        print(f"What a log gets:      {error.to_dict()}")
        there_and_back = pickle.loads(pickle.dumps(error))  # noqa: S301 - as it leaves a worker process
        print(f"After a process hop:  rank {there_and_back.rank}, limit {there_and_back.limit}")
    check_error(RankTooLargeError, layer="k_proj", rank=256, limit=192)
    print("check_error: every promise of the error tree is kept.")


if __name__ == "__main__":
    main()
