"""An operation of your own with a GPU and a CPU implementation: `dispatch` routes, and checks where the inputs are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import bedstone as bs


@dataclass(frozen=True)
class Scores:
    """The inputs: dataclasses, tuples and mappings of tensors are all looked into."""

    query: torch.Tensor  # [tokens, dim]
    key: torch.Tensor  # [tokens, dim]


class CausalAttentionScores(bs.GpuDispatchable[Scores, torch.Tensor]):
    """softmax(q k^T / sqrt(d)) with a causal mask."""

    def dispatch_gpu(self, input: Scores, device: torch.device) -> torch.Tensor:  # noqa: A002
        """One expression over all rows; a Triton kernel would stand here."""
        return self._masked(input.query @ input.key.T * input.query.shape[-1] ** -0.5).softmax(-1)

    def dispatch_cpu(self, input: Scores, device: torch.device) -> torch.Tensor:  # noqa: A002
        """Row by row: a row needs only the keys before it, half of the work."""
        rows = torch.zeros(len(input.query), len(input.key))
        for row, query in enumerate(input.query):
            rows[row, : row + 1] = (input.key[: row + 1] @ query * len(query) ** -0.5).softmax(-1)
        return rows

    @staticmethod
    def _masked(scores: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))


def main() -> None:
    torch.manual_seed(0)
    operation = CausalAttentionScores()
    inputs = Scores(torch.randn(6, 16), torch.randn(6, 16))
    result = operation.dispatch(inputs, "cpu")
    other = operation.dispatch_gpu(inputs, torch.device("cpu"))  # plain PyTorch, so it can be compared anywhere
    print(f"The CPU implementation gives rows that sum to {result.sum(-1).mean():.6f},")
    print(f"and differs from the GPU implementation by at most {(result - other).abs().max():.1e}.")
    print(f"An accelerator is here: {operation.gpu_available()}")
    try:
        operation.dispatch(inputs, "cuda:0")
    except bs.DeviceMismatchError as error:
        print(f"Inputs in the wrong place: {error}")


if __name__ == "__main__":
    main()
