// The gradient of x, rounded: a product with the transposed 4-bit weight, in the panels of rounded.h.
//
// Rows of the weight are what is summed over, so 64 rows by 64 columns of it get one scale, the largest of their absmax, and are rounded with
// it to as many bits as the gradient is; the sums are exact, as they are forwards. Rows, columns and block are multiples of 64.
#pragma once
#include "fourbit.h"

namespace {

struct FourBitColumns : GroupScales {
  static constexpr float x_limit = 5792.0f, panel = 5792.0f;  // 64 products stay below 2^31
  static constexpr int position(int i) { return i; }

  FourBitColumns(const BsFourBit& weight, int64_t columns)
      : GroupScales(weight, columns), packed(weight.packed), values(table(weight.table)), width(columns) {}

  // GROUP columns from `first` on, for `deep` groups of rows.
  void fill(int64_t first, int64_t, int64_t g0, int64_t deep, int32_t* panel_out, float* scales) const {
    static_assert(STRIP == GROUP, "columns of a strip share the scales of their rows");
    for (int64_t g = 0; g < deep; g++) {
      const int64_t row = (g0 + g) * GROUP;
      const float most = largest_scale(row, first / GROUP), unit = most > X_SMALLEST ? panel / most : 0.0f;
      for (int64_t part = 0; part < STRIP / WIDE; part++)
        std::fill_n(scales + (part * DEEP + g) * WIDE, WIDE, most);
      for (int64_t pair = 0; pair < PAIRS; pair++) {
        int32_t one[GROUP], other[GROUP], both[GROUP];
        round_columns(row + 2 * pair, first, unit, one), round_columns(row + 2 * pair + 1, first, unit, other);
        for (int i = 0; i < GROUP; i++) both[i] = (int32_t)((uint32_t)(one[i] & 0xffff) | (uint32_t)other[i] << 16);
        for (int64_t part = 0; part < STRIP / WIDE; part++)
          std::memcpy(panel_out + ((part * DEEP + g) * PAIRS + pair) * WIDE, both + part * WIDE, WIDE * sizeof(int32_t));
      }
    }
  }

  // Of 64 rows; NaN if one of them is not finite.
  float largest_scale(int64_t row, int64_t g) const {
    float most = 0.0f, sum = 0.0f;
    for (int64_t r = row; r < row + GROUP; r++) {
      most = std::max(most, std::fabs(scale(r, g))), sum += scale(r, g) * 0.0f;
    }
    return sum == sum ? most : NAN;
  }
  void round_columns(int64_t row, int64_t first, float unit, int32_t* out) const {
    const uint8_t* p = packed + (row * width + first) / 2;
    __builtin_prefetch(p + 8 * width);
    const V each = all(scale(row, first / GROUP) * unit);
    float wide[GROUP];
    for (int i = 0; i < GROUP; i += 2 * W) {
      const Codes two = bytes(p + i / 2);
      store_pairs(wide + i, lookup(values, right<4>(two)) * each, lookup(values, two) * each);
    }
    for (int i = 0; i < GROUP; i += W) store_ints(out + i, nearest(load(wide + i)));
  }

  const uint8_t* packed;
  Table values;
  int64_t width;
};

void input_grad_4bit_rounded(const void* grad, int dtype, int64_t inputs, const BsFourBit* weight, int64_t rows, int64_t columns, void* out,
                             void* scratch, int threads) {
  linear_rounded_many(grad, dtype, inputs, FourBitColumns(*weight, columns), columns, rows, nullptr, out, scratch, threads);
}

}  // namespace
