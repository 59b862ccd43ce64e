// Products of packed trits with 8-bit integers: Bytes holds 32 of them, what a chunk of 128 trits takes.
#pragma once
#include "words.h"

namespace {

#if defined(BS_AVX512) || defined(BS_AVX2)
struct Bytes { __m256i v; };
struct Shorts { __m256i v; };
inline Bytes bytes32(const void* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
template <int N> inline Bytes two_bits(Bytes a) { return {_mm256_and_si256(_mm256_srli_epi16(a.v, 2 * N), _mm256_set1_epi8(3))}; }
inline Shorts no_shorts() { return {_mm256_setzero_si256()}; }
// Adds neighbours: unsigned codes of two bits times signed bytes.
inline Shorts add_codes(Shorts sum, Bytes codes, Bytes x) { return {_mm256_add_epi16(sum.v, _mm256_maddubs_epi16(codes.v, x.v))}; }
inline Ints add_shorts(Ints sum, Shorts a) { return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(a.v, _mm256_set1_epi16(1)))}; }
inline int32_t whole(Ints a) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

#elif defined(BS_NEON)
struct Bytes { int8x16_t a, b; };
struct Shorts { int16x8_t v; };
inline Bytes bytes32(const void* p) { return {vld1q_s8((const int8_t*)p), vld1q_s8((const int8_t*)p + 16)}; }
template <int N> inline int8x16_t two_bits_of(int8x16_t a) {
  const uint8x16_t u = vreinterpretq_u8_s8(a);
  return vreinterpretq_s8_u8(vandq_u8(N ? vshrq_n_u8(u, N ? 2 * N : 1) : u, vdupq_n_u8(3)));
}
template <int N> inline Bytes two_bits(Bytes a) { return {two_bits_of<N>(a.a), two_bits_of<N>(a.b)}; }
inline Shorts no_shorts() { return {vdupq_n_s16(0)}; }
inline int16x8_t add_half(int16x8_t sum, int8x16_t codes, int8x16_t x) {
  return vaddq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(x)), vmull_high_s8(codes, x)));
}
inline Shorts add_codes(Shorts sum, Bytes codes, Bytes x) { return {add_half(add_half(sum.v, codes.a, x.a), codes.b, x.b)}; }
inline Ints add_shorts(Ints sum, Shorts a) { return {vpadalq_s16(sum.v, a.v)}; }
inline int32_t whole(Ints a) { return vaddvq_s32(a.v); }

#else
struct Bytes { int8_t v[32]; };
struct Shorts { int16_t v[8]; };
inline Bytes bytes32(const void* p) {
  Bytes r;
  std::memcpy(r.v, p, 32);
  return r;
}
template <int N> inline Bytes two_bits(Bytes a) {
  for (int i = 0; i < 32; i++) a.v[i] = (int8_t)((uint8_t)a.v[i] >> (2 * N) & 3);
  return a;
}
inline Shorts no_shorts() { return {}; }
inline Shorts add_codes(Shorts sum, Bytes codes, Bytes x) {
  for (int i = 0; i < 32; i++) sum.v[i % 8] = (int16_t)(sum.v[i % 8] + codes.v[i] * x.v[i]);
  return sum;
}
inline Ints add_shorts(Ints sum, Shorts a) {
  for (int i = 0; i < 8; i++) sum.v[i % L] += a.v[i];
  return sum;
}
inline int32_t whole(Ints a) { return a.v[0] + a.v[1] + a.v[2] + a.v[3]; }
#endif

}  // namespace
