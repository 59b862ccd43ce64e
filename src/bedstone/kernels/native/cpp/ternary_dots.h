// Trits times inputs rounded to whole numbers: exact sums of integers, scaled once a row.
//
// An input is rounded to 8 bits (DIGITS 1: `approximate`, what BitNet calls its activations) or to two digits of 7 and 8 bits, 128 high + low
// (DIGITS 2: `rounded`), which are multiplied as two rows of bytes. One scale for a row of x. A code is trit + 1, so the sum of the
// inputs is taken off at the end.
#pragma once
#include "dots.h"
#include "ternary.h"

namespace {

// Chunks whose sums fit 16 bits, also if a damaged byte holds the code 3: a lane adds 8 products (L = 8) or 16 of at most 3 * 127 a chunk.
constexpr int64_t SAFE = L == 8 ? 8 : 5;

// Rows of bytes, whole chunks each, placed as the planes of the weight; rows past the end of the last chunk are zero.
template <int DIGITS>
void round_bytes(const float* x, int64_t columns, int64_t chunks, int8_t* out, float* scale, int64_t* sum) {
  constexpr float limit = DIGITS == 1 ? 127.0f : 16319.0f;  // 127 * 128 + 63
  V most = all(0.0f), finite = all(0.0f);
  int64_t i = 0;
  for (; i + W <= columns; i += W) {
    const V v = load(x + i);
    most = max(most, magnitude(v)), finite = fma(v, all(0.0f), finite);
  }
  float largest_one = largest(most);
  bool good = !any_nan(finite);
  for (; i < columns; i++) largest_one = std::max(largest_one, std::fabs(x[i])), good = good && x[i] * 0.0f == 0.0f;
  const bool some = good && largest_one > X_SMALLEST;
  const float inverse = some ? limit / largest_one : 0.0f;
  *scale = good ? (some ? largest_one / limit : 0.0f) : NAN;
  std::memset(out, 0, DIGITS * chunks * CHUNK);
  int64_t total = 0;
  for (int64_t k = 0; some && k < columns; k += CHUNK) {
    const int64_t size = std::min(CHUNK, columns - k), stride = (size + 3) / 4;
    int32_t near[CHUNK] = {}, placed[CHUNK] = {};
    int64_t j = 0;
    for (; j + W <= size; j += W) store_ints(near + j, nearest(load(x + k + j) * all(inverse)));
    for (; j < size; j++) near[j] = (int32_t)std::nearbyint(x[k + j] * inverse);
    int32_t part = 0;
    for (int64_t i = 0; i < CHUNK; i++) part += near[i];
    total += part;
    const int32_t* from = near;
    if (size < CHUNK) {  // a plane of a short chunk holds fewer columns than its place
      for (int64_t i = 0; i < size; i++) placed[i / stride * (CHUNK / 4) + i % stride] = near[i];
      from = placed;
    }
    int8_t *high = out + k, *low = high + (DIGITS - 1) * chunks * CHUNK;
    for (int64_t i = 0; i < CHUNK; i++) high[i] = (int8_t)(DIGITS == 1 ? from[i] : (from[i] + 64) >> 7);
    if (DIGITS == 2)
      for (int64_t i = 0; i < CHUNK; i++) low[i] = (int8_t)(from[i] - 128 * ((from[i] + 64) >> 7));
  }
  *sum = total;
}

// One row of the weight with one row of bytes. Every other plane stays where it is and is summed by itself, four times too large: half of the
// shifts are saved, where reading the weight is all there is to do.
inline int32_t code_dot(const int8_t* x, const uint8_t* p, int64_t width, int64_t chunks, int64_t whole_chunks) {
  Ints once = no_ints(), four_times = no_ints();
  for (int64_t first = 0; first < chunks; first += SAFE) {
    Shorts a = no_shorts(), b = no_shorts(), c = no_shorts(), d = no_shorts();
    for (int64_t k = first; k < std::min(chunks, first + SAFE); k++) {
      const uint8_t* at = p + k * (CHUNK / 4);
      const int8_t* xk = x + k * CHUNK;
      uint8_t last[CHUNK / 4] = {};
      if (k >= whole_chunks) std::memcpy(last, at, width - k * (CHUNK / 4));
      __builtin_prefetch(at + 2048);
      const Bytes w = bytes32(k < whole_chunks ? at : last);
      a = add_codes(a, two_bits<0>(w), bytes32(xk)), settle(a);
      b = add_codes(b, two_bits_times_4<0>(w), bytes32(xk + CHUNK / 4)), settle(b);
      c = add_codes(c, two_bits<2>(w), bytes32(xk + CHUNK / 2)), settle(c);
      d = add_codes(d, two_bits_times_4<1>(w), bytes32(xk + 3 * (CHUNK / 4))), settle(d);
    }
    once = add_shorts(add_shorts(once, a), c), four_times = add_shorts(add_shorts(four_times, b), d);
  }
  return whole(once) + whole(four_times) / 4;
}

// R rows of the weight with M rows of bytes.
template <int R, int M>
inline void code_dots(const int8_t* x, const uint8_t* p, int64_t width, int64_t chunks, int64_t whole_chunks, int32_t sums[R][M]) {
  Ints total[R][M];
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) total[r][m] = no_ints();
  for (int64_t first = 0; first < chunks; first += SAFE) {
    Shorts part[R][M];
    for (int r = 0; r < R; r++)
      for (int m = 0; m < M; m++) part[r][m] = no_shorts();
    for (int64_t c = first; c < std::min(chunks, first + SAFE); c++) {
      Bytes w[R];
      for (int r = 0; r < R; r++) {
        const uint8_t* at = p + r * width + c * (CHUNK / 4);
        if (R == 1) __builtin_prefetch(at + 2048);
        if (c < whole_chunks) {
          w[r] = bytes32(at);
        } else {
          uint8_t last[CHUNK / 4] = {};
          std::memcpy(last, at, width - c * (CHUNK / 4));
          w[r] = bytes32(last);
        }
      }
      auto plane = [&](auto number) {
        constexpr int N = decltype(number)::value;
        Bytes codes[R];
        for (int r = 0; r < R; r++) codes[r] = two_bits<N>(w[r]);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
          const Bytes xm = bytes32(x + m * chunks * CHUNK + c * CHUNK + N * (CHUNK / 4));
#pragma GCC unroll 4
          for (int r = 0; r < R; r++) part[r][m] = add_codes(part[r][m], codes[r], xm), settle(part[r][m]);
        }
      };
      plane(std::integral_constant<int, 0>{}), plane(std::integral_constant<int, 1>{});
      plane(std::integral_constant<int, 2>{}), plane(std::integral_constant<int, 3>{});
    }
    for (int r = 0; r < R; r++)
      for (int m = 0; m < M; m++) total[r][m] = add_shorts(total[r][m], part[r][m]);
  }
  for (int r = 0; r < R; r++)
    for (int m = 0; m < M; m++) sums[r][m] = whole(total[r][m]);
}

template <int DIGITS>
void linear_ternary_digits(const void* x, int dtype, int64_t inputs, const BsTernary* q, int64_t rows, int64_t columns,
                           const void* bias, void* out, int threads) {
  const int64_t chunks = (columns + CHUNK - 1) / CHUNK, width = trit_bytes(columns), digits = inputs * DIGITS;
  std::vector<float> scales(inputs);
  std::vector<int64_t> offsets(inputs);
  int8_t* codes = (int8_t*)kept((size_t)(digits * chunks * CHUNK / 4));
  in_parallel(inputs, 1, inputs * columns, threads, [&](int64_t from, int64_t to) {
    std::vector<float> wide(dtype == FLOAT32 ? 0 : columns);
    for (int64_t m = from; m < to; m++) {
      const float* xm = (const float*)x + m * columns;
      if (dtype != FLOAT32) widen(x, dtype, m * columns, columns, wide.data()), xm = wide.data();
      round_bytes<DIGITS>(xm, columns, chunks, codes + m * DIGITS * chunks * CHUNK, &scales[m], &offsets[m]);
    }
  });
  constexpr int64_t BAND = 32;  // rows of the weight that stay near while all rows of x pass
  in_parallel(rows, BAND, rows * columns * digits / 16, threads, [&](int64_t from, int64_t to) {
    std::vector<int32_t> sums(digits * BAND);
    for (int64_t n = from; n < to; n += BAND) {
      const int64_t count = std::min(BAND, to - n);
      const uint8_t* p = q->packed + n * width;
      int64_t d = 0;
      auto pass = [&](auto height, auto rows_of_x) {
        constexpr int R = decltype(height)::value, M = decltype(rows_of_x)::value;
        for (; d + M <= digits; d += M) {
          int64_t r = 0;
          int32_t found[R][M];
          for (; R > 1 && r + R <= count; r += R) {
            code_dots<R, M>(codes + d * chunks * CHUNK, p + r * width, width, chunks, columns / CHUNK, found);
            for (int a = 0; a < R; a++)
              for (int b = 0; b < M; b++) sums[(d + b) * BAND + r + a] = found[a][b];
          }
          int32_t last[1][M];
          for (; r < count; r++) {
            if (M == 1) last[0][0] = code_dot(codes + d * chunks * CHUNK, p + r * width, width, chunks, columns / CHUNK);
            else code_dots<1, M>(codes + d * chunks * CHUNK, p + r * width, width, chunks, columns / CHUNK, last);
            for (int b = 0; b < M; b++) sums[(d + b) * BAND + r] = last[0][b];
          }
        }
      };
      pass(std::integral_constant<int, 2>{}, std::integral_constant<int, 4>{});
      pass(std::integral_constant<int, 1>{}, std::integral_constant<int, 2>{});
      pass(std::integral_constant<int, 1>{}, std::integral_constant<int, 1>{});
      for (int64_t m = 0; m < inputs; m++)
        for (int64_t i = 0; i < count; i++) {
          const int32_t* s = sums.data() + m * DIGITS * BAND + i;
          const int64_t sum = DIGITS == 1 ? s[0] : (int64_t)s[0] * 128 + s[BAND];
          const float value = (float)(sum - offsets[m]) * (scales[m] * q->scale[(n + i) * q->row_stride]);
          put(out, dtype, m * rows + n + i, value + (bias ? one(bias, dtype, n + i) : 0.0f));
        }
    }
  });
}

void linear_ternary_int8(const void* x, int dtype, int64_t inputs, const BsTernary* weight, int64_t rows, int64_t columns,
                         const void* bias, void* out, int threads) {
  linear_ternary_digits<1>(x, dtype, inputs, weight, rows, columns, bias, out, threads);
}
// The trits of a group of 64 columns as words, for many rows of x.
struct TernaryWords : ByRows<TernaryWords> {
  static constexpr float x_limit = 32767.0f, few = 1.0f, panel = 1.0f;
  static constexpr int position(int i) { return i; }

  TernaryWords(const BsTernary& weight, int64_t columns, float)
      : q(weight), width(trit_bytes(columns)), whole_chunks(columns / CHUNK) {}
  void group(int64_t row, int64_t g, Words* out) const {
    const uint8_t* p = q.packed + row * width + g / 2 * (CHUNK / 4);
    uint8_t codes[GROUP];
    const int64_t stride = g / 2 < whole_chunks ? CHUNK / 4 : GROUP / 4, first = g / 2 < whole_chunks ? g % 2 * 2 : 0;
    for (int64_t n = 0; n < GROUP / stride; n++)
      for (int64_t i = 0; i < stride; i++) codes[n * stride + i] = (uint8_t)((p[i] >> (2 * (first + n)) & 3) - 1);
    for (int i = 0; i < PIECES; i++) out[i] = widened(codes + 2 * L * i);
  }
  float scale(int64_t row, int64_t) const { return q.scale[row * q.row_stride]; }

  const BsTernary& q;
  int64_t width, whole_chunks;
};

void linear_ternary_rounded(const void* x, int dtype, int64_t inputs, const BsTernary* weight, int64_t rows, int64_t columns,
                            const void* bias, void* out, void* scratch, int threads) {
  if (inputs > ROUNDED_FEW && columns % GROUP == 0)
    return linear_rounded_many(x, dtype, inputs, TernaryWords(*weight, columns, 1.0f), rows, columns, bias, out, scratch, threads);
  linear_ternary_digits<2>(x, dtype, inputs, weight, rows, columns, bias, out, threads);
}

}  // namespace
