// Products of 8-bit integers: Bytes holds 32 of them, what a chunk of 128 trits or a group of 64 four-bit codes takes.
#pragma once
#include "words.h"

namespace {

#if defined(BS_AVX512) || defined(BS_AVX2)
struct Bytes { __m256i v; };
struct Shorts { __m256i v; };
inline Bytes bytes32(const void* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
template <int N> inline Bytes two_bits(Bytes a) { return {_mm256_and_si256(_mm256_srli_epi16(a.v, 2 * N), _mm256_set1_epi8(3))}; }
template <int N> inline Bytes two_bits_times_4(Bytes a) {  // of plane 2 N + 1, without moving them to the right
  return {_mm256_and_si256(N ? _mm256_srli_epi16(a.v, 4) : a.v, _mm256_set1_epi8(12))};
}
inline Shorts no_shorts() { return {_mm256_setzero_si256()}; }
// Adds neighbours: unsigned codes of two bits times signed bytes.
inline Shorts add_codes(Shorts sum, Bytes codes, Bytes x) { return {_mm256_add_epi16(sum.v, _mm256_maddubs_epi16(codes.v, x.v))}; }
// Keeps a sum in its register: a compiler that regroups the additions of several planes runs out of registers.
inline void settle(Shorts& a) { asm("" : "+x"(a.v)); }
inline Ints add_shorts(Ints sum, Shorts a) { return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(a.v, _mm256_set1_epi16(1)))}; }
struct ByteTable { __m256i v; };
inline ByteTable byte_table(const int8_t* t) { return {_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)t))}; }
inline Bytes lookup_high(const ByteTable& t, Bytes two) {
  return {_mm256_shuffle_epi8(t.v, _mm256_and_si256(_mm256_srli_epi16(two.v, 4), _mm256_set1_epi8(15)))};
}
inline Bytes lookup_low(const ByteTable& t, Bytes two) { return {_mm256_shuffle_epi8(t.v, _mm256_and_si256(two.v, _mm256_set1_epi8(15)))}; }
// Both signed, within +-127; adds four neighbours.
inline Ints add_bytes(Ints sum, Bytes a, Bytes b) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a.v), _mm256_sign_epi8(b.v, a.v));
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}
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
template <int N> inline int8x16_t two_bits_times_4_of(int8x16_t a) {
  const uint8x16_t u = vreinterpretq_u8_s8(a);
  return vreinterpretq_s8_u8(vandq_u8(N ? vshrq_n_u8(u, 4) : u, vdupq_n_u8(12)));
}
template <int N> inline Bytes two_bits_times_4(Bytes a) { return {two_bits_times_4_of<N>(a.a), two_bits_times_4_of<N>(a.b)}; }
inline Shorts no_shorts() { return {vdupq_n_s16(0)}; }
inline int16x8_t add_half(int16x8_t sum, int8x16_t codes, int8x16_t x) {
  return vaddq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(x)), vmull_high_s8(codes, x)));
}
inline Shorts add_codes(Shorts sum, Bytes codes, Bytes x) { return {add_half(add_half(sum.v, codes.a, x.a), codes.b, x.b)}; }
inline void settle(Shorts&) {}
inline Ints add_shorts(Ints sum, Shorts a) { return {vpadalq_s16(sum.v, a.v)}; }
struct ByteTable { int8x16_t v; };
inline ByteTable byte_table(const int8_t* t) { return {vld1q_s8(t)}; }
inline int8x16_t high_of(int8x16_t a) { return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(a), 4)); }
inline int8x16_t low_of(int8x16_t a) { return vandq_s8(a, vdupq_n_s8(15)); }
inline int8x16_t look(const ByteTable& t, int8x16_t k) { return vqtbl1q_s8(t.v, vreinterpretq_u8_s8(k)); }
inline Bytes lookup_high(const ByteTable& t, Bytes two) { return {look(t, high_of(two.a)), look(t, high_of(two.b))}; }
inline Bytes lookup_low(const ByteTable& t, Bytes two) { return {look(t, low_of(two.a)), look(t, low_of(two.b))}; }
inline int32x4_t add_bytes_half(int32x4_t sum, int8x16_t a, int8x16_t b) {
  return vpadalq_s16(vpadalq_s16(sum, vmull_s8(vget_low_s8(a), vget_low_s8(b))), vmull_high_s8(a, b));
}
inline Ints add_bytes(Ints sum, Bytes a, Bytes b) { return {add_bytes_half(add_bytes_half(sum.v, a.a, b.a), a.b, b.b)}; }
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
template <int N> inline Bytes two_bits_times_4(Bytes a) {
  for (int i = 0; i < 32; i++) a.v[i] = (int8_t)((uint8_t)a.v[i] >> (4 * N) & 12);
  return a;
}
inline Shorts no_shorts() { return {}; }
inline Shorts add_codes(Shorts sum, Bytes codes, Bytes x) {
  for (int i = 0; i < 32; i++) sum.v[i % 8] = (int16_t)(sum.v[i % 8] + codes.v[i] * x.v[i]);
  return sum;
}
inline void settle(Shorts&) {}
inline Ints add_shorts(Ints sum, Shorts a) {
  for (int i = 0; i < 8; i++) sum.v[i % L] += a.v[i];
  return sum;
}
struct ByteTable { int8_t v[16]; };
inline ByteTable byte_table(const int8_t* t) {
  ByteTable r;
  std::memcpy(r.v, t, 16);
  return r;
}
inline Bytes lookup_high(const ByteTable& t, Bytes two) {
  for (int i = 0; i < 32; i++) two.v[i] = t.v[(uint8_t)two.v[i] >> 4];
  return two;
}
inline Bytes lookup_low(const ByteTable& t, Bytes two) {
  for (int i = 0; i < 32; i++) two.v[i] = t.v[two.v[i] & 15];
  return two;
}
inline Ints add_bytes(Ints sum, Bytes a, Bytes b) {
  for (int i = 0; i < 32; i++) sum.v[i % L] += a.v[i] * b.v[i];
  return sum;
}
inline int32_t whole(Ints a) { return a.v[0] + a.v[1] + a.v[2] + a.v[3]; }
#endif

}  // namespace
