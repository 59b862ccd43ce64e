// Trits, two bits each, in chunks: bits 2p of byte i of a chunk are its column i + p * stride; stride is 32, in a last chunk of r
// columns ceil(r / 4). A code is trit + 1; the fourth code means 2, as in the torch path, so that damaged bytes are no secret.
#pragma once
#include "eightbit.h"

namespace {

const float TRITS[16] = {-1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2, -1, 0, 1, 2};  // the upper bits are those of the next plane
constexpr int64_t CHUNK = 128;

inline int64_t trit_bytes(int64_t columns) { return (columns / CHUNK) * (CHUNK / 4) + (columns % CHUNK + 3) / 4; }

inline Codes plane(const uint8_t* p, int n) {
  Codes four = bytes(p);
  return n == 0 ? four : n == 1 ? right<2>(four) : n == 2 ? right<4>(four) : right<6>(four);
}

void quantize_ternary(const void* weight, int dtype, int64_t rows, int64_t columns, const float* inverse,
                      int64_t row_stride, int64_t block_stride, int64_t block, uint8_t* packed, int threads) {
  const int64_t width = trit_bytes(columns);
  in_parallel(rows, 1, rows * columns, threads, [&](int64_t from, int64_t to) {
    std::vector<float> wide(columns);
    std::vector<uint8_t> codes(columns + CHUNK + W);
    for (int64_t r = from; r < to; r++) {
      widen(weight, dtype, r * columns, columns, wide.data());
      std::fill(codes.begin() + columns, codes.end(), (uint8_t)-1);  // a trit of -1 has the code 0
      for (int64_t k = 0, b = 0; k < columns; k += block, b++) {
        const float s = inverse[r * row_stride + b * block_stride];
        const int64_t size = std::min(block, columns - k);
        int64_t i = 0;
        for (; i + W <= size; i += W)
          store_bytes(codes.data() + k + i, nearest(clamp(load(wide.data() + k + i) * all(s), -1.0f, 1.0f)));
        for (; i < size; i++)
          codes[k + i] = (uint8_t)(int)std::nearbyint(std::min(std::max(wide[k + i] * s, -1.0f), 1.0f));
      }
      uint8_t* out = packed + r * width;
      for (int64_t k = 0; k < columns; k += CHUNK) {
        const int64_t stride = std::min(CHUNK / 4, (columns - k + 3) / 4);
        uint8_t* c = codes.data() + k;
        for (int64_t i = 0; i < 4 * stride; i++) c[i]++;
        for (int64_t i = 0; i < stride; i++)
          *out++ = (uint8_t)(c[i] | c[i + stride] << 2 | c[i + 2 * stride] << 4 | c[i + 3 * stride] << 6);
      }
    }
  });
}

// Trits of one row from a table of their values, which may hold the scale already.
inline void unpack_row(const uint8_t* p, int64_t columns, const float* values, void* out, int dtype, int64_t start) {
  const Table trits = table(values);
  for (int64_t k = 0; k < columns; k += CHUNK) {
    const int64_t stride = std::min(CHUNK / 4, (columns - k + 3) / 4);
    int64_t i = 0;
    if (k + CHUNK <= columns)
      for (; i + W <= stride; i += W) {
        const Codes four = bytes(p + i);
        put_all(out, dtype, start + k + i, lookup4(trits, four));
        put_all(out, dtype, start + k + i + stride, lookup4(trits, right<2>(four)));
        put_all(out, dtype, start + k + i + 2 * stride, lookup4(trits, right<4>(four)));
        put_all(out, dtype, start + k + i + 3 * stride, lookup4(trits, right<6>(four)));
      }
    for (; i < stride; i++)
      for (int n = 0; n < 4; n++)
        if (k + n * stride + i < columns) put(out, dtype, start + k + n * stride + i, values[p[i] >> (2 * n) & 3]);
    p += stride;
  }
}

void dequantize_ternary(const BsTernary* q, int64_t rows, int64_t columns, void* out, int dtype, int threads) {
  if (!columns) return;  // nor is there a scale then
  const int64_t width = trit_bytes(columns);
  in_parallel(rows, 1, rows * columns, threads, [&](int64_t from, int64_t to) {
    std::vector<float> wide(q->block < columns ? columns : 0);
    float values[16];
    for (int64_t r = from; r < to; r++) {
      const uint8_t* p = q->packed + r * width;
      if (q->block >= columns) {  // one scale: it is multiplied into the table
        for (int i = 0; i < 16; i++) values[i] = TRITS[i] * q->scale[r * q->row_stride];
        unpack_row(p, columns, values, out, dtype, r * columns);
        continue;
      }
      unpack_row(p, columns, TRITS, wide.data(), FLOAT32, 0);
      for (int64_t k = 0, b = 0; k < columns; k += q->block, b++) {
        const float s = q->scale[r * q->row_stride + b * q->block_stride];
        const int64_t size = std::min(q->block, columns - k);
        int64_t i = 0;
        for (; i + W <= size; i += W) put_all(out, dtype, r * columns + k + i, load(wide.data() + k + i) * all(s));
        for (; i < size; i++) put(out, dtype, r * columns + k + i, wide[k + i] * s);
      }
    }
  });
}

// One scale a row, or one for all: the scale of a block could not be told apart within a chunk.
template <int M>
struct TernaryRow {
  static void multiply(const float* x, int64_t stride, const BsTernary& q, int64_t row, int64_t columns, float* sums) {
    const Table trits = table(TRITS);
    const uint8_t* p = q.packed + row * trit_bytes(columns);
    V total[M], second[M];
    float rest[M];
    for (int m = 0; m < M; m++) total[m] = second[m] = all(0.0f), rest[m] = 0.0f;
    int64_t k = 0;
    for (; k + CHUNK <= columns; k += CHUNK, p += CHUNK / 4)
      for (int64_t i = 0; i < CHUNK / 4; i += W) {
        const Codes four = bytes(p + i);
        V a = lookup(trits, four), b = lookup(trits, right<2>(four)), c = lookup(trits, right<4>(four)),
          d = lookup(trits, right<6>(four));
        for (int m = 0; m < M; m++) {
          const float* xm = x + m * stride + k + i;
          total[m] = fma(b, load(xm + CHUNK / 4), fma(a, load(xm), total[m]));
          second[m] = fma(d, load(xm + 3 * CHUNK / 4), fma(c, load(xm + CHUNK / 2), second[m]));
        }
      }
    const int64_t last = (columns - k + 3) / 4;
    for (int n = 0; n < 4; n++)
      for (int64_t i = 0; i < std::min(last, columns - k - n * last); i++)
        for (int m = 0; m < M; m++) rest[m] += TRITS[p[i] >> (2 * n) & 3] * x[m * stride + k + n * last + i];
    const float scale = q.scale[row * q.row_stride];
    for (int m = 0; m < M; m++) sums[m] = (sum(total[m] + second[m]) + rest[m]) * scale;
  }
};

void linear_ternary(const void* x, int dtype, int64_t inputs, const BsTernary* weight, int64_t rows, int64_t columns,
                    const void* bias, void* out, int threads) {
  const float* wide = as_floats(x, dtype, inputs * columns);
  linear_few<TernaryRow>(wide, columns, inputs, *weight, rows, columns, bias, out, dtype, threads);
}

}  // namespace
