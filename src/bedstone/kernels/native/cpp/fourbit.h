// NF4 and FP4. Quantizing is bitsandbytes' arithmetic: 1 / absmax, one product, as many codes as midpoints lie below.
#pragma once
#include "rounded.h"

namespace {

constexpr float SMALLEST = 1e-38f;

// The midpoints as four levels of a binary search, each a table that the codes so far index.
struct Search {
  V first;
  Table second, third, fourth;
  explicit Search(const float* m) {
    float t2[16] = {m[3], m[11], m[3], m[11], m[3], m[11], m[3], m[11]};
    float t3[16] = {m[1], m[5], m[9], m[13], m[1], m[5], m[9], m[13]};
    float t4[16] = {m[0], m[2], m[4], m[6], m[8], m[10], m[12], m[14]};
    first = all(m[7]);
    second = table(t2), third = table(t3), fourth = table(t4);
  }
  Codes rank(V x) const {
    Codes k = twice_plus_above(zero_codes(), x, first);
    k = twice_plus_above(k, x, lookup4(second, k));
    k = twice_plus_above(k, x, lookup4(third, k));
    return twice_plus_above(k, x, lookup8(fourth, k));
  }
};

inline int rank_of(float x, const float* midpoints) {
  int rank = 0;
  for (int i = 0; i < 15; i++) rank += x > midpoints[i];
  return rank;
}

inline float absmax_of(const float* w, int64_t count) {
  V most = all(0.0f);
  bool nan = false;
  int64_t i = 0;
  for (; i + W <= count; i += W) {
    V v = load(w + i);
    nan |= any_nan(v);
    most = max(most, magnitude(v));
  }
  float m = largest(most);
  for (; i < count; i++) {
    nan |= w[i] != w[i];
    m = std::max(m, std::fabs(w[i]));
  }
  return nan ? NAN : m;
}

void quantize_4bit(const void* weight, int dtype, int64_t count, int64_t block, const float* midpoints,
                   const int32_t* codes, uint8_t* packed, float* absmax, int threads) {
  const Search search(midpoints);
  float as_floats[16];
  std::memcpy(as_floats, codes, sizeof as_floats);
  const Table code_of = table(as_floats);
  bool sorted = true;  // then a rank is its code
  for (int i = 0; i < 16; i++) sorted = sorted && codes[i] == i;
  in_parallel((count + block - 1) / block, 64, count, threads, [&](int64_t from, int64_t to) {
    std::vector<float> wide(dtype == FLOAT32 ? 0 : std::min(block, count));
    std::vector<uint8_t> found(std::min(block, count) + W);
    for (int64_t b = from; b < to; b++) {
      int64_t start = b * block, size = std::min(block, count - start);
      const float* w = dtype == FLOAT32 ? (const float*)weight + start : wide.data();
      if (dtype != FLOAT32) widen(weight, dtype, start, size, wide.data());
      float most = absmax_of(w, size);
      bool whole = size == block;
      if (!whole && !(most >= SMALLEST) && most == most) most = SMALLEST;  // bitsandbytes' short block is never 0, and divides
      absmax[b] = most;
      float inverse = 1.0f / (most == most ? std::max(most, SMALLEST) : most);
      int64_t i = 0;
      if (whole)
        for (; i + 32 <= size; i += 32) {
          Codes k[32 / W];
          for (int j = 0; j < 32 / W; j++) {
            k[j] = search.rank(load(w + i + j * W) * all(inverse));
            if (!sorted) k[j] = lookup_bits(code_of, k[j]);
          }
          store_32_bytes(found.data() + i, k);
        }
      for (; i < size; i++) found[i] = (uint8_t)codes[rank_of(whole ? w[i] * inverse : w[i] / most, midpoints)];
      if (size & 1) found[size] = (uint8_t)codes[rank_of(0.0f, midpoints)];
      uint8_t* out = packed + start / 2;
      for (i = 0; i + 32 <= size / 2; i += 32) pack_64_nibbles(found.data() + 2 * i, out + i);
      for (; i < (size + 1) / 2; i++) out[i] = (uint8_t)(found[2 * i] << 4 | found[2 * i + 1]);
    }
  });
}

// The scales of double quantization: bytes that index a table of 256 values, in groups of 256 with a scale of their own.
void dequantize_absmax(const uint8_t* absmax, const float* nested, float offset, const float* table, int64_t count,
                       float* out, int threads) {
  in_parallel(count, 4096, count * 64, threads, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++) out[i] = table[absmax[i]] * nested[i / 256] + offset;
  });
}

// Elements [start, start + count) of the flat weight; start is even.
void dequantize_4bit(const BsFourBit* q, int64_t start, int64_t count, void* out, int dtype, int threads) {
  const Table values = table(q->table);
  const int64_t block = q->block, first = start / block, last = (start + count + block - 1) / block;
  in_parallel(count ? last - first : 0, 64, count, threads, [&](int64_t from, int64_t to) {
    for (int64_t b = first + from; b < first + to; b++) {
      int64_t lo = std::max(b * block, start), hi = std::min((b + 1) * block, start + count);
      const V scale = all(q->absmax[b]);
      int64_t i = lo;
      for (; i + 2 * W <= hi; i += 2 * W) {
        Codes two = bytes(q->packed + i / 2);
        V even = lookup(values, right<4>(two)) * scale, odd = lookup(values, two) * scale;
        if (dtype == FLOAT32) {
          store_pairs((float*)out + i - start, even, odd);
        } else {
          float pair[2 * W];
          store_pairs(pair, even, odd);
          put_all(out, dtype, i - start, load(pair));
          put_all(out, dtype, i - start + W, load(pair + W));
        }
      }
      for (; i < hi; i++) {
        int code = i & 1 ? q->packed[i / 2] & 15 : q->packed[i / 2] >> 4;
        put(out, dtype, i - start, q->table[code] * q->absmax[b]);
      }
    }
  });
}

// The elements of one row, block after block; x comes as its even columns, then its odd ones.
template <int M>
struct FourBitRow {
  static void multiply(const float* x, int64_t stride, const BsFourBit& q, int64_t row, int64_t columns, float* sums) {
    const Table values = table(q.table);
    const int64_t half = columns / 2;
    V total[M];
    float rest[M];
    for (int m = 0; m < M; m++) total[m] = all(0.0f), rest[m] = 0.0f;
    const float* absmax = q.absmax + row * columns / q.block;
    int64_t size = q.block - row * columns % q.block;  // up to where the first block ends
    for (int64_t k = 0; k < columns; k += size, size = q.block) {
      size = std::min(columns - k, size);
      const int64_t pairs = size / 2;
      int64_t i = 0;
      const uint8_t* p = q.packed + (row * columns + k) / 2;
      const float scale = *absmax++;
      V even[M], odd[M];
      for (int m = 0; m < M; m++) even[m] = odd[m] = all(0.0f);
      for (; i + W <= pairs; i += W) {
        Codes two = bytes(p + i);
        V high = lookup(values, right<4>(two)), low = lookup(values, two);
        for (int m = 0; m < M; m++) {
          even[m] = fma(high, load(x + m * stride + k / 2 + i), even[m]);
          odd[m] = fma(low, load(x + m * stride + half + k / 2 + i), odd[m]);
        }
      }
      for (int m = 0; m < M; m++) total[m] = fma(even[m] + odd[m], all(scale), total[m]);
      for (; i < pairs; i++)
        for (int m = 0; m < M; m++) {
          const float* xm = x + m * stride + k / 2 + i;
          rest[m] += scale * (q.table[p[i] >> 4] * xm[0] + q.table[p[i] & 15] * xm[half]);
        }
    }
    for (int m = 0; m < M; m++) sums[m] = sum(total[m]) + rest[m];
  }
};

// columns is even. x is sorted into even and odd columns, as the nibbles come.
void linear_4bit(const void* x, int dtype, int64_t inputs, const BsFourBit* weight, int64_t rows, int64_t columns,
                 const void* bias, void* out, int threads) {
  const int64_t half = columns / 2;
  float* parted = kept((size_t)(inputs * columns + columns));
  float* wide = parted + inputs * columns;
  for (int64_t m = 0; m < inputs; m++) {
    const float* xm = (const float*)x + m * columns;
    if (dtype != FLOAT32) widen(x, dtype, m * columns, columns, wide), xm = wide;
    float *even = parted + m * columns, *odd = even + half;
    int64_t i = 0;
    for (; i + W <= half; i += W) {
      V e, o;
      load_pairs(xm + 2 * i, e, o);
      store(even + i, e), store(odd + i, o);
    }
    for (; i < half; i++) even[i] = xm[2 * i], odd[i] = xm[2 * i + 1];
  }
  linear_few<FourBitRow>(parted, columns, inputs, *weight, rows, columns, bias, out, dtype, threads);
}

// The absmax of a group of 64 columns; columns and block are multiples of 64.
struct GroupScales {
  GroupScales(const BsFourBit& q, int64_t columns) : absmax(q.absmax), groups(columns / GROUP), in_block(q.block / GROUP) {}
  float scale(int64_t row, int64_t g) const {
    const int64_t at = row * groups + g;
    return absmax[in_block == 1 ? at : at / in_block];
  }
  const float* absmax;
  int64_t groups, in_block;
};

// For rounded products.
struct FourBitWords : ByRows<FourBitWords>, GroupScales {
  static constexpr float x_limit = 16383.0f, few = 8191.0f, panel = 2047.0f;
  static constexpr int position(int i) { return position4(i); }

  FourBitWords(const BsFourBit& q, int64_t columns, float unit)
      : GroupScales(q, columns), packed(q.packed) {
    int16_t codes[16];
    for (int i = 0; i < 16; i++) codes[i] = (int16_t)std::nearbyint(q.table[i] * unit);
    values = word_table(codes);
  }
  void group(int64_t row, int64_t g, Words* out) const {
    const uint8_t* p = packed + (row * groups + g) * (GROUP / 2);
    __builtin_prefetch(p + 1024);
    unpack64(p, values, out);
  }

  const uint8_t* packed;
  WordTable values;
};

void linear_4bit_rounded(const void* x, int dtype, int64_t inputs, const BsFourBit* weight, int64_t rows, int64_t columns,
                         const void* bias, void* out, void* scratch, int threads) {
  linear_rounded<FourBitWords>(x, dtype, inputs, *weight, rows, columns, bias, out, scratch, threads);
}

}  // namespace
