// What all formats share: work over rows in parallel, inputs as float32, outputs in their own dtype.
#pragma once
#include <algorithm>
#include <vector>

#include "api.h"
#include "vec.h"

namespace {

enum { FLOAT32, BFLOAT16, FLOAT16 };
constexpr int64_t SERIAL = 1 << 18;  // elements to unpack (about 30 us) below which a second thread costs more than it brings; a product is 4 times as fast
constexpr int64_t NEAR = 1 << 16;    // bytes of x that are read again for each row of the weight, and so should lie near

// Calls body(first, last) on whole parts of [0, count); a part depends on count and granule alone, never on who computes it.
template <class Body>
void in_parallel(int64_t count, int64_t granule, int64_t elements, int threads, Body body) {
  int64_t parts = (count + granule - 1) / granule;
  if (threads < 2 || parts < 2 || elements < SERIAL) {
    if (count > 0) body((int64_t)0, count);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < parts; part++) body(part * granule, std::min((part + 1) * granule, count));
}

inline V load_any(const void* p, int dtype, int64_t i) {
  if (dtype == FLOAT32) return load((const float*)p + i);
  return dtype == BFLOAT16 ? load_bf16((const uint16_t*)p + i) : load_fp16((const uint16_t*)p + i);
}
inline float one(const void* p, int dtype, int64_t i) {
  if (dtype == FLOAT32) return ((const float*)p)[i];
  return dtype == BFLOAT16 ? from_bf16(((const uint16_t*)p)[i]) : from_fp16(((const uint16_t*)p)[i]);
}
inline void put(void* p, int dtype, int64_t i, float value) {
  if (dtype == FLOAT32) ((float*)p)[i] = value;
  else ((uint16_t*)p)[i] = dtype == BFLOAT16 ? to_bf16(value) : to_fp16(value);
}
inline void put_all(void* p, int dtype, int64_t i, V value) {
  if (dtype == FLOAT32) store((float*)p + i, value);
  else if (dtype == BFLOAT16) store_bf16((uint16_t*)p + i, value);
  else store_fp16((uint16_t*)p + i, value);
}

// Copies `count` values to float32.
inline void widen(const void* p, int dtype, int64_t start, int64_t count, float* out) {
  if (dtype == FLOAT32) {
    std::memcpy(out, (const float*)p + start, count * sizeof(float));
    return;
  }
  int64_t i = 0;
  for (; i + W <= count; i += W) store(out + i, load_any(p, dtype, start + i));
  for (; i < count; i++) out[i] = one(p, dtype, start + i);
}

// A buffer of the calling thread, kept between calls.
inline float* kept(size_t floats) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < floats) buffer.resize(floats);
  return buffer.data();
}

// `count` values as float32: where they are, or copied to the buffer.
inline const float* as_floats(const void* p, int dtype, int64_t count) {
  if (dtype == FLOAT32) return (const float*)p;
  float* buffer = kept((size_t)count);
  widen(p, dtype, 0, count, buffer);
  return buffer;
}

// out[m, n] = what row(M, m, n, sums) finds for M rows of x from m on with row n of the weight, + bias. Up to 8 rows of x share one decoding of
// the weight, or 4; `elements` of the weight are decoded for each of them.
template <class Row>
void few_rows(int64_t inputs, bool eight, int64_t rows, int64_t elements, const void* bias, void* out, int dtype, int threads, Row row) {
  auto run = [&](auto count, int64_t first) {
    constexpr int M = decltype(count)::value;
    in_parallel(rows, 16, rows * elements * M, threads, [&](int64_t from, int64_t to) {
      for (int64_t n = from; n < to; n++) {
        float sums[M];
        row(count, first, n, sums);
        const float b = bias ? one(bias, dtype, n) : 0.0f;
        for (int m = 0; m < M; m++) put(out, dtype, (first + m) * rows + n, sums[m] + b);
      }
    });
  };
  int64_t m = 0;
  if (eight)
    for (; m + 8 <= inputs; m += 8) run(std::integral_constant<int, 8>{}, m);
  for (; m + 4 <= inputs; m += 4) run(std::integral_constant<int, 4>{}, m);
  if (inputs - m >= 2) run(std::integral_constant<int, 2>{}, m), m += 2;
  if (inputs - m >= 1) run(std::integral_constant<int, 1>{}, m);
}

// The exact products: x in float32, its rows `stride` apart.
template <template <int> class Row, class Weight>
void linear_few(const float* x, int64_t stride, int64_t inputs, const Weight& weight, int64_t rows, int64_t columns,
                const void* bias, void* out, int dtype, int threads) {
  const bool eight = 8 * columns * (int64_t)sizeof(float) <= NEAR;
  few_rows(inputs, eight, rows, columns / 4, bias, out, dtype, threads, [&](auto count, int64_t first, int64_t n, float* sums) {
    Row<decltype(count)::value>::multiply(x + first * stride, stride, weight, n, columns, sums);
  });
}

}  // namespace
