// bfloat16 and float16 one at a time, to the nearest, ties to even; NaN stays NaN.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

inline float bits_to_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline uint32_t float_to_bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}

inline float from_bf16(uint16_t h) { return bits_to_float((uint32_t)h << 16); }
inline uint16_t to_bf16(float f) {
  uint32_t u = float_to_bits(f);
  if (f != f) return 0x7fc0;
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

inline float from_fp16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
  if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  // As if the exponent were that of float32, then scaled: subnormals come out right.
  return bits_to_float(sign | float_to_bits(bits_to_float(rest << 13) * 0x1p112f));
}
inline uint16_t to_fp16(float f) {
  uint32_t u = float_to_bits(f), sign = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (u >= 0x477ff000) return (uint16_t)(sign | 0x7c00);  // from 65,520 on, infinity
  if (u < 0x38800000) {  // subnormal: the addition rounds at the right place
    float shifted = bits_to_float(u) + 0.5f;
    return (uint16_t)(sign | (float_to_bits(shifted) - 0x3f000000));
  }
  uint32_t rounded = u + 0xfff + (u >> 13 & 1);
  return (uint16_t)(sign | (rounded - 0x38000000) >> 13);
}

}  // namespace
