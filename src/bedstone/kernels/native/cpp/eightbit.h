// int8 and the two float8 types: code * (absmax / limit).
#pragma once
#include "fourbit.h"

namespace {

constexpr float TINY = 0x1p-100f, LIFT = 0x1p64f;  // below TINY, limit / absmax may leave float32, absmax / limit is subnormal
constexpr float LARGEST = 0x1.fffffep127f;
constexpr float LIMITS[3] = {127.0f, 448.0f, 57344.0f};

// A float32 to the nearest float8, as torch converts it: what is too large becomes NaN, of e5m2 infinity. Without a branch, so that a
// compiler makes vectors of it.
template <int KIND>
inline uint8_t to_float8(float value) {
  constexpr int mantissa = KIND == 1 ? 3 : 2, bias = KIND == 1 ? 7 : 15, shift = 23 - mantissa;
  constexpr uint32_t above = KIND == 1 ? 0x43f00000u : 0x47800000u;    // from here on it is no finite float8: 480, 65536
  constexpr uint32_t normal = (uint32_t)(127 - bias + 1) << 23;          // the smallest that is not subnormal
  constexpr uint32_t subnormal = (uint32_t)(127 - bias + shift + 1) << 23;  // adding this leaves the bits of a subnormal at the right
  const uint32_t bits = float_to_bits(value), sign = bits & 0x80000000u, size = bits ^ sign;
  const uint32_t small = float_to_bits(bits_to_float(size) + bits_to_float(subnormal)) - subnormal;
  const uint32_t large = (size + ((uint32_t)(bias - 127) << 23) + ((1u << (shift - 1)) - 1) + (size >> shift & 1)) >> shift;
  const uint32_t beyond = KIND == 1 ? 0x7fu : size > 0x7f800000u ? 0x7fu : 0x7cu;
  const uint32_t code = size >= above ? beyond : size < normal ? small : large;
  return (uint8_t)(code | sign >> 24);
}

// One block: absmax and codes, or codes by a given absmax.
template <int KIND>
void quantize_block(const float* __restrict w, int64_t size, float most, uint8_t* __restrict q) {
  float lift = 1.0f;
  if (most < TINY) lift = LIFT, most *= LIFT;
  const float scale = most == 0.0f ? 0.0f : LIMITS[KIND] * (1.0f / most);  // two roundings, as torch divides a number by a tensor
  int64_t i = 0;
  if (KIND == 0 && most * 0.0f == 0.0f)
    for (; i + 32 <= size; i += 32) {
      Codes k[32 / W];
      for (int j = 0; j < 32 / W; j++) k[j] = nearest(load(w + i + j * W) * all(lift) * all(scale));
      store_32_bytes(q + i, k);
    }
  if (KIND == 0)
    for (; i + W <= size; i += W) store_bytes(q + i, nearest(load(w + i) * all(lift) * all(scale)));
  if (KIND == 0)
    for (; i < size; i++) q[i] = (uint8_t)(int8_t)std::nearbyint(w[i] * lift * scale);
  else
    for (; i < size; i++) q[i] = to_float8<KIND>(w[i] * lift * scale);
}

// With one scale for all, block is the number of columns.
template <int KIND>
void quantize_kind(const void* weight, int dtype, int64_t rows, int64_t columns, int64_t block, bool per_tensor, uint8_t* codes,
                   float* absmax, int threads) {
  const int64_t blocks = (columns + block - 1) / block;
  auto by_rows = [&](auto body) {
    in_parallel(rows, 1, rows * columns, threads, [&](int64_t from, int64_t to) {
      std::vector<float> wide(dtype == FLOAT32 ? 0 : columns);
      for (int64_t r = from; r < to; r++) {
        const float* row = (const float*)weight + r * columns;
        if (dtype != FLOAT32) widen(weight, dtype, r * columns, columns, wide.data()), row = wide.data();
        body(r, row);
      }
    });
  };
  if (!per_tensor) {
    by_rows([&](int64_t r, const float* row) {
      for (int64_t b = 0; b < blocks; b++) {
        const int64_t start = b * block, size = std::min(block, columns - start);
        const float most = absmax[r * blocks + b] = absmax_of(row + start, size);
        quantize_block<KIND>(row + start, size, most, codes + r * columns + start);
      }
    });
    return;
  }
  std::vector<float> largest_of(rows);
  by_rows([&](int64_t r, const float* row) { largest_of[r] = absmax_of(row, columns); });
  float most = 0.0f;
  for (float each : largest_of) most = each > most || each != each ? each : most;
  *absmax = most;
  by_rows([&](int64_t r, const float* row) { quantize_block<KIND>(row, columns, most, codes + r * columns); });
}

void quantize_8bit(const void* weight, int dtype, int64_t rows, int64_t columns, int64_t block, int kind, int per_tensor,
                   uint8_t* codes, float* absmax, int threads) {
  auto run = kind == 0 ? quantize_kind<0> : kind == 1 ? quantize_kind<1> : quantize_kind<2>;
  run(weight, dtype, rows, columns, block, per_tensor != 0, codes, absmax, threads);
}

// A float8 is moved to where float32 has its exponent, then scaled: subnormals come out right, no table is read. What lies beyond the
// largest number is NaN, of e5m2 first infinity.
template <int KIND>
inline V decode(const uint8_t* p) {
  if (KIND == 0) return as_float(signed_bytes((const int8_t*)p));
  Codes c = bytes(p), sign = left(both(c, 0x80), 24);
  if (KIND == 1) return beyond(from_bits(either(sign, left(both(c, 0x7f), 20))) * all(0x1p120f), 448.0f, all(NAN));
  V value = from_bits(either(sign, left(both(c, 0x7f), 21))) * all(0x1p112f);
  return beyond(beyond(value, 65536.0f, all(NAN)), 57344.0f, value * all(INFINITY));
}
template <int KIND>
inline float decode_one(uint8_t c) {
  if (KIND == 0) return (float)(int8_t)c;
  const uint32_t sign = (uint32_t)(c & 0x80) << 24, rest = c & 0x7f;
  if (KIND == 1) return rest == 0x7f ? NAN : bits_to_float(sign | rest << 20) * 0x1p120f;
  if (rest > 0x7c) return NAN;
  const float value = bits_to_float(sign | rest << 21) * 0x1p112f;
  return rest == 0x7c ? value * INFINITY : value;
}

template <int KIND>
void dequantize_kind(const BsEightBit* q, int64_t rows, int64_t columns, void* out, int dtype, int threads) {
  const float most = (float)((double)LARGEST / LIMITS[KIND] * (1 - 0x1p-23));  // a larger scale would make the largest code infinite
  in_parallel(rows, 1, rows * columns, threads, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++)
      for (int64_t k = 0, b = 0; k < columns; k += q->block, b++) {
        const float absmax = q->absmax[r * q->row_stride + b * q->block_stride];
        const bool tiny = absmax < TINY && absmax > 0.0f;
        float s = (tiny ? absmax * LIFT : absmax) / LIMITS[KIND];
        if (s > most) s = most;
        const float back = tiny ? 1 / LIFT : 1.0f;
        const int64_t at = r * columns + k, size = std::min(q->block, columns - k);
        int64_t i = 0;
        for (; i + W <= size; i += W) put_all(out, dtype, at + i, decode<KIND>(q->codes + at + i) * all(s) * all(back));
        for (; i < size; i++) put(out, dtype, at + i, decode_one<KIND>(q->codes[at + i]) * s * back);
      }
  });
}

void dequantize_8bit(const BsEightBit* q, int64_t rows, int64_t columns, void* out, int dtype, int threads) {
  auto kind = q->kind == 0 ? dequantize_kind<0> : q->kind == 1 ? dequantize_kind<1> : dequantize_kind<2>;
  kind(q, rows, columns, out, dtype, threads);
}

template <int KIND>
struct EightBitRow {
  template <int M>
  struct Of {
    static void multiply(const float* x, int64_t stride, const BsEightBit& q, int64_t row, int64_t columns, float* sums) {
      V total[M];
      float rest[M];
      for (int m = 0; m < M; m++) total[m] = all(0.0f), rest[m] = 0.0f;
      for (int64_t k = 0, b = 0; k < columns; k += q.block, b++) {
        const float scale = q.absmax[row * q.row_stride + b * q.block_stride] / LIMITS[KIND];
        const uint8_t* p = q.codes + row * columns + k;
        const int64_t size = std::min(q.block, columns - k);
        int64_t i = 0;
        V first[M], second[M];
        for (int m = 0; m < M; m++) first[m] = second[m] = all(0.0f);
        for (; i + 2 * W <= size; i += 2 * W) {
          V c = decode<KIND>(p + i), d = decode<KIND>(p + i + W);
          for (int m = 0; m < M; m++) {
            first[m] = fma(c, load(x + m * stride + k + i), first[m]);
            second[m] = fma(d, load(x + m * stride + k + i + W), second[m]);
          }
        }
        for (int m = 0; m < M; m++) total[m] = fma(first[m] + second[m], all(scale), total[m]);
        for (; i < size; i++)
          for (int m = 0; m < M; m++) rest[m] += scale * decode_one<KIND>(p[i]) * x[m * stride + k + i];
      }
      for (int m = 0; m < M; m++) sums[m] = sum(total[m]) + rest[m];
    }
  };
};

void linear_8bit(const void* x, int dtype, int64_t inputs, const BsEightBit* weight, int64_t rows, int64_t columns,
                 const void* bias, void* out, int threads) {
  const float* wide = as_floats(x, dtype, inputs * columns);
  if (weight->kind == 0) linear_few<EightBitRow<0>::Of>(wide, columns, inputs, *weight, rows, columns, bias, out, dtype, threads);
  if (weight->kind == 1) linear_few<EightBitRow<1>::Of>(wide, columns, inputs, *weight, rows, columns, bias, out, dtype, threads);
  if (weight->kind == 2) linear_few<EightBitRow<2>::Of>(wide, columns, inputs, *weight, rows, columns, bias, out, dtype, threads);
}

// For rounded products of int8: columns and block are multiples of 64.
struct Int8Words : ByRows<Int8Words> {
  static constexpr float x_limit = 32767.0f, few = 1.0f, panel = 1.0f;
  static constexpr int position(int i) { return i; }

  Int8Words(const BsEightBit& weight, int64_t columns, float) : q(weight), width(columns), in_block(weight.block / GROUP) {}
  void group(int64_t row, int64_t g, Words* out) const {
    const uint8_t* p = q.codes + row * width + g * GROUP;
    __builtin_prefetch(p + 2048);
    for (int i = 0; i < PIECES; i++) out[i] = widened(p + 2 * L * i);
  }
  float scale(int64_t row, int64_t g) const {
    return q.absmax[row * q.row_stride + (q.block_stride ? g / in_block * q.block_stride : 0)] / LIMITS[0];
  }

  const BsEightBit& q;
  int64_t width, in_block;
};

void linear_int8_rounded(const void* x, int dtype, int64_t inputs, const BsEightBit* weight, int64_t rows, int64_t columns,
                         const void* bias, void* out, void* scratch, int threads) {
  linear_rounded<Int8Words>(x, dtype, inputs, *weight, rows, columns, bias, out, scratch, threads);
}

}  // namespace
