// Four-bit codes times inputs rounded to 8 bits: the `approximate` numerics, taken by name. Less is read and unpacked than by the rounded
// product, for an error a hundred times as large; columns and block are multiples of 64.
#pragma once
#include "dots.h"
#include "fourbit.h"

namespace {

// A group of 64: the even columns, then the odd ones, as the nibbles come; a scale each.
inline void round_to_bytes(const float* x, int64_t groups, int8_t* out, float* scales) {
  for (int64_t g = 0; g < groups; g++, x += GROUP, out += GROUP) {
    const float most = absmax_of(x, GROUP);
    const bool some = most > X_SMALLEST && most * 0.0f == 0.0f;
    const float inverse = some ? 127.0f / most : 0.0f;
    scales[g] = some ? most / (127.0f * 127.0f) : most * 0.0f;  // NaN where the group is not finite
    for (int i = 0; i < GROUP; i++) out[i / 2 + i % 2 * (GROUP / 2)] = some ? (int8_t)std::nearbyint(x[i] * inverse) : 0;
  }
}

template <int M>
void bytes_of_row(const BsFourBit& q, const ByteTable& book, const int8_t* x, const float* scales, int64_t groups, int64_t row,
                  float* sums) {
  const int64_t in_block = q.block / GROUP;
  Floats sum[M];
  for (int m = 0; m < M; m++) sum[m] = no_floats();
  for (int64_t g = 0; g < groups; g++) {
    const int64_t at = row * groups + g;
    const uint8_t* p = q.packed + at * (GROUP / 2);
    __builtin_prefetch(p + 1024);
    const Bytes two = bytes32(p), even = lookup_high(book, two), odd = lookup_low(book, two);
    const float scale = q.absmax[in_block == 1 ? at : at / in_block];
    for (int m = 0; m < M; m++) {
      const int8_t* xm = x + (m * groups + g) * GROUP;
      const Ints part = add_bytes(add_bytes(no_ints(), even, bytes32(xm)), odd, bytes32(xm + GROUP / 2));
      sum[m] = add_product(sum[m], part, every(scale * scales[m * groups + g]));
    }
  }
  for (int m = 0; m < M; m++) sums[m] = total(sum[m]);
}

void linear_4bit_int8(const void* x, int dtype, int64_t inputs, const BsFourBit* q, int64_t rows, int64_t columns, const void* bias,
                      void* out, int threads) {
  const int64_t groups = columns / GROUP;
  int8_t values[16];
  for (int i = 0; i < 16; i++) values[i] = (int8_t)std::nearbyint(q->table[i] * 127.0f);
  const ByteTable book = byte_table(values);
  float* scales = kept((size_t)(inputs * groups + inputs * columns / 4 + columns));
  int8_t* codes = (int8_t*)(scales + inputs * groups);
  float* wide = scales + inputs * groups + inputs * columns / 4;
  for (int64_t m = 0; m < inputs; m++) {
    const float* xm = (const float*)x + m * columns;
    if (dtype != FLOAT32) widen(x, dtype, m * columns, columns, wide), xm = wide;
    round_to_bytes(xm, groups, codes + m * columns, scales + m * groups);
  }
  few_rows(inputs, true, rows, columns / 8, bias, out, dtype, threads, [&](auto count, int64_t first, int64_t n, float* sums) {
    bytes_of_row<decltype(count)::value>(*q, book, codes + first * columns, scales + first * groups, groups, n, sums);
  });
}

}  // namespace
