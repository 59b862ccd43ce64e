// Products of a packed weight with inputs rounded to 16 bits: the `rounded` numerics.
//
// Each group of 64 columns of x is scaled to +-x_limit and rounded, codes are whole numbers too, so a group is summed without any error and
// scaled once. Without the dot product of newer CPUs this costs no more multiplications than 8-bit inputs do and is 100 times as exact.
// A Format says how the codes of a weight become words:
//
//   x_limit          the largest rounded input
//   few, panel       what the codes are multiplied by, so that a lane's share of the 64 products, and all of them, stay below 2^31
//   position(i)      the element of a group that stands at i once it is unpacked
//   Format(weight, columns, unit)
//   group(row, g, out)   64 words of a row
//   scale(row, g)        what their sum is multiplied by, but for the unit
//   fill(...)            a panel of many rows: from ByRows, where a row of the weight is one in memory
#pragma once
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "rows.h"
#include "words.h"

namespace {

constexpr int64_t GROUP = 64;
constexpr int PIECES = GROUP / (2 * L);  // Words in a group
constexpr float X_SMALLEST = 1e-30f;     // groups below count as zero: their scale would leave float32

// One row of x: 64 words a group, placed as the format unpacks, and a scale. What is not finite makes the scale of its group NaN.
template <class Format>
void round_row(const float* x, int64_t groups, float unit, int16_t* out, float* scales) {
  int32_t near[GROUP];
  for (int64_t g = 0; g < groups; g++, x += GROUP, out += GROUP) {
    V most = all(0.0f), sum = all(0.0f);
    for (int i = 0; i < GROUP; i += W) {
      const V v = load(x + i);
      most = max(most, magnitude(v)), sum = fma(v, all(0.0f), sum);  // not finite times 0 is NaN
    }
    const float limit = largest(most);
    const bool finite = !any_nan(sum), some = finite && limit > X_SMALLEST;
    const V inverse = all(some ? Format::x_limit / limit : 0.0f);
    scales[g] = finite ? (some ? limit / (Format::x_limit * unit) : 0.0f) : NAN;
    for (int i = 0; i < GROUP; i += W) store_ints(near + i, nearest(some ? load(x + i) * inverse : all(0.0f)));
    for (int i = 0; i < GROUP; i++) out[i] = (int16_t)near[Format::position(i)];
  }
}

// Up to 8 rows of x with one row of the weight.
template <class Format, int M>
void few_of_row(const Format& weight, const int16_t* x, const float* scales, int64_t groups, int64_t row, float* sums) {
  Floats sum[M];
  for (int m = 0; m < M; m++) sum[m] = no_floats();
  for (int64_t g = 0; g < groups; g++) {
    Words w[PIECES];
    weight.group(row, g, w);
    const float scale = weight.scale(row, g);
    for (int m = 0; m < M; m++) {
      const int16_t* xm = x + (m * groups + g) * GROUP;
      Ints part = no_ints();
      for (int i = 0; i < PIECES; i++) part = dot(part, w[i], words(xm + 2 * L * i));
      sum[m] = add_product(sum[m], part, every(scale * scales[m * groups + g]));
    }
  }
  for (int m = 0; m < M; m++) sums[m] = total(sum[m]);
}

template <class Format, class Weight>
void linear_rounded_few(const void* x, int dtype, int64_t inputs, const Weight& q, int64_t rows, int64_t columns,
                        const void* bias, void* out, int threads) {
  const int64_t groups = columns / GROUP;
  const Format weight(q, columns, Format::few);
  float* scales = kept((size_t)(inputs * groups + inputs * columns / 2 + columns));
  int16_t* words = (int16_t*)(scales + inputs * groups);
  float* wide = scales + inputs * groups + inputs * columns / 2;
  for (int64_t m = 0; m < inputs; m++) {
    const float* xm = (const float*)x + m * columns;
    if (dtype != FLOAT32) widen(x, dtype, m * columns, columns, wide), xm = wide;
    round_row<Format>(xm, groups, Format::few, words + m * columns, scales + m * groups);
  }
  few_rows(inputs, true, rows, columns / 8, bias, out, dtype, threads, [&](auto count, int64_t first, int64_t n, float* sums) {
    few_of_row<Format, decltype(count)::value>(weight, words + first * columns, scales + first * groups, groups, n, sums);
  });
}

// --- Many rows: a panel of the weight is unpacked once, transposed, and multiplied with all rows of x -----------------

constexpr int TALL = 4;                      // rows of x at a time: 8 sums fit the registers of AVX2 with what they are made of
constexpr int WIDE = 2 * L;                  // rows of the weight at a time
constexpr int64_t STRIP = 64, DEEP = 8;      // rows of the weight, groups of columns in a panel: 64 KiB, which stay in the L2 cache
constexpr int64_t BATCH = 512;               // rows of x for which a panel is unpacked,
constexpr int64_t BATCH_BYTES = 3 << 20;     // if, rounded, they take no more than this
constexpr int64_t PAIRS = GROUP / 2;

// A panel: for every WIDE rows of the weight and every group, PAIRS times WIDE pairs of words; and WIDE scales.
template <class Format>
void fill_panel(const Format& weight, int64_t first, int64_t rows, int64_t g0, int64_t groups, int32_t* panel, float* scales) {
  for (int64_t part = 0; part < STRIP / WIDE; part++)
    for (int64_t g = 0; g < groups; g++)
      for (int half = 0; half < 2; half++) {
        Words w[L][PIECES];
        float* s = scales + (part * DEEP + g) * WIDE + half * L;
        for (int r = 0; r < L; r++) {
          const int64_t row = first + part * WIDE + half * L + r;
          if (row < rows) {
            weight.group(row, g0 + g, w[r]), s[r] = weight.scale(row, g0 + g);
          } else {
            for (int i = 0; i < PIECES; i++) w[r][i] = pair_everywhere(0);
            s[r] = 0.0f;
          }
        }
        int32_t* to = panel + (part * DEEP + g) * PAIRS * WIDE + half * L;
        for (int i = 0; i < PIECES; i++) {
          Words t[L];
          for (int r = 0; r < L; r++) t[r] = w[r][i];
          transpose(t);
          for (int k = 0; k < L; k++) keep(to + (i * L + k) * WIDE, t[k]);
        }
      }
}

template <class Format>
struct ByRows {
  void fill(int64_t first, int64_t rows, int64_t g0, int64_t groups, int32_t* panel, float* scales) const {
    fill_panel(static_cast<const Format&>(*this), first, rows, g0, groups, panel, scales);
  }
};

// TALL rows of x with WIDE rows of the weight over some groups; adds to sums, whose rows are STRIP apart.
inline void panel_product(const int32_t* x, const float* x_scales, int64_t x_stride, const int32_t* panel, const float* scales,
                          int64_t groups, float* sums) {
  for (int64_t g = 0; g < groups; g++) {
    asm volatile("" ::: "memory");  // else `sums` stay in registers from group to group, and the innermost loop spills its own
    Ints low[TALL], high[TALL];
    for (int m = 0; m < TALL; m++) low[m] = high[m] = no_ints();
    const int32_t* w = panel + g * PAIRS * WIDE;
    const int32_t* a = x + g * PAIRS * TALL;
#pragma GCC unroll 2
    for (int64_t k = 0; k < PAIRS; k++, w += WIDE, a += TALL) {
      const Words w0 = words((const int16_t*)w), w1 = words((const int16_t*)(w + L));
#pragma GCC unroll 4
      for (int m = 0; m < TALL; m++) {
        const Words pair = pair_everywhere(a[m]);
        low[m] = dot(low[m], w0, pair), high[m] = dot(high[m], w1, pair);
      }
    }
    const Floats s0 = floats(scales + g * WIDE), s1 = floats(scales + g * WIDE + L);
#pragma GCC unroll 4
    for (int m = 0; m < TALL; m++) {
      const Floats s = every(x_scales[m * x_stride + g]);
      float* to = sums + m * STRIP;
      keep(to, add_product(floats(to), low[m], s * s0)), keep(to + L, add_product(floats(to + L), high[m], s * s1));
    }
  }
}

inline int64_t batch_of(int64_t columns) {
  return std::min(BATCH, std::max((int64_t)64, BATCH_BYTES / (2 * columns) / TALL * TALL));
}

// Where everything lies in the scratch memory, which the caller provides; what follows `shared` is there once a thread.
struct Scratch {
  Scratch(int64_t inputs, int64_t columns)
      : tiles((std::min(inputs, batch_of(columns)) + TALL - 1) / TALL), pairs(tiles * TALL * columns / 2), x_scales(tiles * TALL * columns / GROUP),
        panel(STRIP * DEEP * PAIRS), scales(STRIP * DEEP), sums(tiles * TALL * STRIP), wide(columns), row(columns / 2) {}
  int64_t shared() const { return pairs + x_scales; }
  int64_t a_thread() const { return panel + scales + sums + wide + row; }

  int64_t tiles, pairs, x_scales, panel, scales, sums, wide, row;  // all but the first in 4 bytes
};

// TALL rows of x, rounded, pair by pair beside each other; rows past the end are zero.
template <class Format>
void round_tile(const void* x, int dtype, int64_t first, int64_t inputs, int64_t columns, int32_t* out, float* scales, float* wide,
                int16_t* row) {
  const int64_t groups = columns / GROUP;
  for (int m = 0; m < TALL; m++) {
    const float* xm = (const float*)x + (first + m) * columns;
    if (first + m >= inputs) {
      std::fill(row, row + columns, (int16_t)0), std::fill(scales + m * groups, scales + (m + 1) * groups, 0.0f);
    } else {
      if (dtype != FLOAT32) widen(x, dtype, (first + m) * columns, columns, wide), xm = wide;
      round_row<Format>(xm, groups, Format::panel, row, scales + m * groups);
    }
    for (int64_t k = 0; k < columns / 2; k++) std::memcpy(out + k * TALL + m, row + 2 * k, 4);
  }
}

// STRIP rows of the weight with all rounded rows of x.
template <class Format>
void strip_product(const Format& weight, int64_t first, int64_t rows, int64_t groups, const Scratch& size, const int32_t* pairs,
                   const float* x_scales, int32_t* panel, float* scales, float* sums) {
  std::fill(sums, sums + size.sums, 0.0f);
  for (int64_t g = 0; g < groups; g += DEEP) {
    const int64_t deep = std::min(DEEP, groups - g);
    weight.fill(first, rows, g, deep, panel, scales);
    for (int64_t t = 0; t < size.tiles; t++)
      for (int64_t part = 0; part < STRIP / WIDE; part++)
        panel_product(pairs + (t * groups + g) * PAIRS * TALL, x_scales + t * TALL * groups + g, groups,
                      panel + part * DEEP * PAIRS * WIDE, scales + part * DEEP * WIDE, deep, sums + t * TALL * STRIP + part * WIDE);
  }
}

inline int thread_number() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

template <class Format>
void linear_rounded_many(const void* x, int dtype, int64_t inputs, const Format& weight, int64_t rows, int64_t columns,
                         const void* bias, void* out, void* scratch, int threads) {
  const int64_t groups = columns / GROUP, item = dtype == FLOAT32 ? 4 : 2;
  const Scratch all_at_most(inputs, columns);
  int32_t* pairs = (int32_t*)scratch;
  float* x_scales = (float*)(pairs + all_at_most.pairs);
  const int64_t batch = batch_of(columns);
  for (int64_t start = 0; start < inputs; start += batch) {
    const int64_t count = std::min(batch, inputs - start);
    const Scratch size(count, columns);
    const void* from = (const char*)x + start * columns * item;
    void* to = (char*)out + start * rows * item;
    const bool split = threads > 1 && rows * columns * count / 8 >= SERIAL;
#pragma omp parallel num_threads(threads) if (split)
    {
      int32_t* panel = (int32_t*)scratch + all_at_most.shared() + thread_number() * all_at_most.a_thread();
      float *scales = (float*)(panel + size.panel), *sums = scales + size.scales, *wide = sums + all_at_most.sums;
      int16_t* row = (int16_t*)(wide + columns);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < size.tiles; t++)
        round_tile<Format>(from, dtype, t * TALL, count, columns, pairs + t * TALL * columns / 2, x_scales + t * TALL * groups, wide, row);
#pragma omp for schedule(dynamic, 1)
      for (int64_t n = 0; n < rows; n += STRIP) {
        strip_product(weight, n, rows, groups, size, pairs, x_scales, panel, scales, sums);
        for (int64_t m = 0; m < count; m++)
          for (int64_t i = 0; i < std::min(STRIP, rows - n); i++)
            put(to, dtype, m * rows + n + i, sums[m * STRIP + i] + (bias ? one(bias, dtype, n + i) : 0.0f));
      }
    }
  }
}

constexpr int64_t ROUNDED_FEW = 16;  // rows of x up to which unpacking a panel costs more than it brings

// Bytes that the product of many rows takes from its caller.
inline int64_t rounded_scratch(int64_t inputs, int64_t columns, int threads) {
  const Scratch size(inputs, columns);
  return 4 * (size.shared() + threads * size.a_thread());
}

template <class Format, class Weight>
void linear_rounded(const void* x, int dtype, int64_t inputs, const Weight& q, int64_t rows, int64_t columns, const void* bias,
                    void* out, void* scratch, int threads) {
  if (inputs <= ROUNDED_FEW) linear_rounded_few<Format>(x, dtype, inputs, q, rows, columns, bias, out, threads);
  else linear_rounded_many(x, dtype, inputs, Format(q, columns, Format::panel), rows, columns, bias, out, scratch, threads);
}

}  // namespace
