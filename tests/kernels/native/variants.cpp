// Compares another variant of the CPU library with the portable one, on random weights of odd sizes: the same bits where nothing is summed,
// the same sums up to rounding. Prints how many comparisons were made; returns 1 at the first difference.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "api.h"
#include "half.h"

extern const Kernels bs_portable, bs_neon;

namespace {

std::mt19937 generator(0);
int compared = 0;

std::vector<uint8_t> normal(int64_t count, int dtype, float scale) {
  std::normal_distribution<float> draw;
  std::vector<uint8_t> bytes(count * (dtype ? 2 : 4));
  for (int64_t i = 0; i < count; i++) {
    const float value = draw(generator) * scale;
    const uint16_t half = dtype == 1 ? to_bf16(value) : to_fp16(value);
    if (dtype) std::memcpy(&bytes[2 * i], &half, 2);
    else std::memcpy(&bytes[4 * i], &value, 4);
  }
  return bytes;
}

float read(const std::vector<uint8_t>& bytes, int64_t i, int dtype) {
  if (!dtype) {
    float value;
    std::memcpy(&value, &bytes[4 * i], 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, &bytes[2 * i], 2);
  return dtype == 1 ? from_bf16(half) : from_fp16(half);
}

template <class T>
void same(const char* what, const std::vector<T>& a, const std::vector<T>& b) {
  compared++;
  if (std::memcmp(a.data(), b.data(), a.size() * sizeof(T))) std::printf("%s: other bits\n", what), std::exit(1);
}

void near(const char* what, const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, int64_t count, int dtype, float size) {
  compared++;
  const float limit = size * (dtype == 0 ? 1e-5f : dtype == 1 ? 2e-2f : 3e-3f);
  for (int64_t i = 0; i < count; i++)
    if (!(std::fabs(read(a, i, dtype) - read(b, i, dtype)) <= limit)) std::printf("%s: other sums\n", what), std::exit(1);
}

const float MIDPOINTS[15] = {-0.85f, -0.61f, -0.46f, -0.34f, -0.23f, -0.14f, -0.05f, 0.04f, 0.12f, 0.2f, 0.29f, 0.39f, 0.5f, 0.64f, 0.86f};
const float TABLE[16] = {-1, -0.7f, -0.53f, -0.39f, -0.28f, -0.18f, -0.09f, 0, 0.08f, 0.16f, 0.25f, 0.34f, 0.44f, 0.56f, 0.72f, 1};
const int32_t CODES[16] = {3, 1, 2, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 14, 13};

// Calls f with the portable variant and with the other one, and returns what each wrote.
template <class F>
auto both(F f) {
  return std::make_pair(f(bs_portable), f(bs_neon));
}

int64_t k_scratch(int64_t inputs, int64_t columns) {
  return std::max(bs_portable.rounded_scratch(inputs, columns, 2), bs_neon.rounded_scratch(inputs, columns, 2));
}

void check(int64_t rows, int64_t columns, int64_t block, int64_t inputs, int dtype, float scale) {
  const auto weight = normal(rows * columns, dtype, scale), x = normal(inputs * columns, dtype, 1), bias = normal(rows, dtype, 1);
  const int64_t count = rows * columns, blocks = (count + block - 1) / block, per_row = (columns + block - 1) / block;
  const int item = dtype ? 2 : 4;
  const float size = 40 * std::sqrt((float)columns) * scale + 8;
  std::vector<float> absmax(blocks), scales(rows * per_row), inverse(rows * per_row, 1 / scale);
  std::vector<uint8_t> four((count + 1) / 2), eight(count), three;

  auto [q4, r4] = both([&](const Kernels& k) {
    std::vector<uint8_t> packed((count + 1) / 2);
    k.quantize_4bit(weight.data(), dtype, count, block, MIDPOINTS, CODES, packed.data(), absmax.data(), 2);
    return packed;
  });
  same("quantize_4bit", q4, r4);
  const BsFourBit w4 = {q4.data(), absmax.data(), TABLE, block};
  auto [d4, e4] = both([&](const Kernels& k) {
    std::vector<uint8_t> out(count * item);
    k.dequantize_4bit(&w4, 0, count, out.data(), dtype, 2);
    return out;
  });
  same("dequantize_4bit", d4, e4);
  if (columns % 2 == 0) {
    auto [a, b] = both([&](const Kernels& k) {
      std::vector<uint8_t> out(inputs * rows * item);
      k.linear_4bit(x.data(), dtype, inputs, &w4, rows, columns, bias.data(), out.data(), 2);
      return out;
    });
    near("linear_4bit", a, b, inputs * rows, dtype, size);
  }
  for (int per_tensor : {1, 0})
    for (int kind : {1, 2}) {
      auto [qf, rf] = both([&](const Kernels& k) {
        std::vector<uint8_t> codes(count);
        k.quantize_8bit(weight.data(), dtype, rows, columns, per_tensor ? columns : block, kind, per_tensor, codes.data(), scales.data(), 2);
        return codes;
      });
      same("quantize_8bit to float8", qf, rf);
    }
  auto [q8, r8] = both([&](const Kernels& k) {
    std::vector<uint8_t> codes(count);
    k.quantize_8bit(weight.data(), dtype, rows, columns, block, 0, 0, codes.data(), scales.data(), 2);
    return codes;
  });
  same("quantize_8bit", q8, r8);
  for (int kind = 0; kind < 3; kind++) {
    const BsEightBit w8 = {q8.data(), scales.data(), per_row, 1, block, kind};
    auto [d, e] = both([&](const Kernels& k) {
      std::vector<uint8_t> out(count * item);
      k.dequantize_8bit(&w8, rows, columns, out.data(), dtype, 2);
      return out;
    });
    for (int64_t i = 0; i < count; i++) {  // codes of int8 read as float8 may be NaN, whose bits are free
      const float p = read(d, i, dtype), q = read(e, i, dtype);
      if (p != q && !(p != p && q != q)) std::printf("dequantize_8bit: other values\n"), std::exit(1);
    }
    compared++;
    if (kind) continue;
    auto [a, b] = both([&](const Kernels& k) {
      std::vector<uint8_t> out(inputs * rows * item);
      k.linear_8bit(x.data(), dtype, inputs, &w8, rows, columns, bias.data(), out.data(), 2);
      return out;
    });
    near("linear_8bit", a, b, inputs * rows, dtype, size);
  }
  auto [q3, r3] = both([&](const Kernels& k) {
    std::vector<uint8_t> packed(rows * ((columns / 128) * 32 + (columns % 128 + 3) / 4));
    k.quantize_ternary(weight.data(), dtype, rows, columns, inverse.data(), per_row, 1, block, packed.data(), 2);
    return packed;
  });
  same("quantize_ternary", q3, r3);
  for (float& s : scales) s = scale;
  const BsTernary w3 = {q3.data(), scales.data(), per_row, 1, block}, by_row = {q3.data(), scales.data(), 1, 0, columns};
  auto [d3, e3] = both([&](const Kernels& k) {
    std::vector<uint8_t> out(count * item);
    k.dequantize_ternary(&w3, rows, columns, out.data(), dtype, 2);
    return out;
  });
  same("dequantize_ternary", d3, e3);
  auto [a, b] = both([&](const Kernels& k) {
    std::vector<uint8_t> out(inputs * rows * item);
    k.linear_ternary(x.data(), dtype, inputs, &by_row, rows, columns, bias.data(), out.data(), 2);
    return out;
  });
  near("linear_ternary", a, b, inputs * rows, dtype, size);
  auto [c, d] = both([&](const Kernels& k) {  // whole numbers: not even the last bit differs
    std::vector<uint8_t> out(inputs * rows * item);
    k.linear_ternary_int8(x.data(), dtype, inputs, &by_row, rows, columns, bias.data(), out.data(), 2);
    return out;
  });
  same("linear_ternary_int8", c, d);
  if (columns % 64 || block % 64) return;
  std::vector<uint8_t> scratch(k_scratch(inputs, columns));
  const BsEightBit w8 = {q8.data(), scales.data(), per_row, 1, block, 0};
  const auto rounded = [&](const char* what, auto multiply) {
    auto [e, f] = both([&](const Kernels& k) {
      std::vector<uint8_t> out(inputs * rows * item);
      multiply(k, out.data());
      return out;
    });
    near(what, e, f, inputs * rows, dtype, size);
  };
  rounded("linear_4bit_rounded", [&](const Kernels& k, void* out) {
    k.linear_4bit_rounded(x.data(), dtype, inputs, &w4, rows, columns, bias.data(), out, scratch.data(), 2);
  });
  if (rows % 64 == 0) {
    const auto grad = normal(inputs * rows, dtype, 1);
    std::vector<uint8_t> panels(k_scratch(inputs, rows));
    auto [e, f] = both([&](const Kernels& k) {
      std::vector<uint8_t> out(inputs * columns * item);
      k.input_grad_4bit_rounded(grad.data(), dtype, inputs, &w4, rows, columns, out.data(), panels.data(), 2);
      return out;
    });
    near("input_grad_4bit_rounded", e, f, inputs * columns, dtype, 40 * std::sqrt((float)rows) * scale + 8);
  }
  rounded("linear_4bit_int8", [&](const Kernels& k, void* out) {
    k.linear_4bit_int8(x.data(), dtype, inputs, &w4, rows, columns, bias.data(), out, 2);
  });
  rounded("linear_int8_rounded", [&](const Kernels& k, void* out) {
    k.linear_int8_rounded(x.data(), dtype, inputs, &w8, rows, columns, bias.data(), out, scratch.data(), 2);
  });
  rounded("linear_ternary_rounded", [&](const Kernels& k, void* out) {
    k.linear_ternary_rounded(x.data(), dtype, inputs, &by_row, rows, columns, bias.data(), out, scratch.data(), 2);
  });
}

}  // namespace

int main() {
  for (int64_t rows : {1, 3, 16, 64})
    for (int64_t columns : {1, 2, 63, 64, 130, 257, 384})
      for (int64_t block : {32, 64, 4096})
        for (int64_t inputs : {1, 5, 9})
          for (int dtype : {0, 1, 2})
            for (float scale : {1.0f, 0.02f}) check(rows, columns, block, inputs, dtype, scale);
  std::printf("%d comparisons\n", compared);
  return 0;
}
