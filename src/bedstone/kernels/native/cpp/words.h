// Products of 16-bit integers, for the rounded kernels: Words holds 2 L of them, Ints L sums, Floats L floats.
//
// `dot` multiplies word by word and adds neighbours, as pmaddwd does. L is 8 on x86, also in the AVX-512 variant, where the registers are
// used half: what is summed in which lane is then the same as with AVX2.
#pragma once
#include "vec.h"

namespace {

#if defined(BS_AVX512) || defined(BS_AVX2)
constexpr int L = 8;
struct Words { __m256i v; };
struct Ints { __m256i v; };
struct Floats { __m256 v; };

inline Words words(const int16_t* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
inline Words widened(const uint8_t* p) { return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p))}; }
inline Words pair_everywhere(int32_t pair) { return {_mm256_set1_epi32(pair)}; }
inline void keep(int32_t* p, Words a) { _mm256_storeu_si256((__m256i*)p, a.v); }
inline Ints no_ints() { return {_mm256_setzero_si256()}; }
inline Ints dot(Ints sum, Words a, Words b) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return {_mm256_dpwssd_epi32(sum.v, a.v, b.v)};
#else
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(a.v, b.v))};
#endif
}
inline Floats no_floats() { return {_mm256_setzero_ps()}; }
inline Floats every(float a) { return {_mm256_set1_ps(a)}; }
inline Floats floats(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void keep(float* p, Floats a) { _mm256_storeu_ps(p, a.v); }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats add_product(Floats sum, Ints a, Floats b) { return {_mm256_fmadd_ps(_mm256_cvtepi32_ps(a.v), b.v, sum.v)}; }
inline float total(Floats a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}

// 64 codes of four bits as 4 Words; which element stands where is told by `position4`.
struct WordTable { __m256i low, high; };
inline WordTable word_table(const int16_t* t) {
  alignas(32) uint8_t low[32], high[32];
  for (int i = 0; i < 32; i++) low[i] = (uint8_t)t[i & 15], high[i] = (uint8_t)((uint16_t)t[i & 15] >> 8);
  return {_mm256_load_si256((const __m256i*)low), _mm256_load_si256((const __m256i*)high)};
}
inline void unpack64(const uint8_t* p, const WordTable& t, Words* out) {
  const __m256i two = _mm256_loadu_si256((const __m256i*)p), mask = _mm256_set1_epi8(15);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi16(two, 4), mask), odd = _mm256_and_si256(two, mask);
  const __m256i a = _mm256_shuffle_epi8(t.low, even), b = _mm256_shuffle_epi8(t.high, even);
  const __m256i c = _mm256_shuffle_epi8(t.low, odd), d = _mm256_shuffle_epi8(t.high, odd);
  out[0].v = _mm256_unpacklo_epi8(a, b), out[1].v = _mm256_unpackhi_epi8(a, b);
  out[2].v = _mm256_unpacklo_epi8(c, d), out[3].v = _mm256_unpackhi_epi8(c, d);
}
constexpr int position4(int i) {
  const int word = i / 16, lane = i % 16, byte = (lane < 8 ? lane : lane + 8) + 8 * (word & 1);
  return 2 * byte + (word >> 1);
}
// Rows of L pairs become columns.
inline void transpose(Words* r) {
  __m256i t[8], u[8];
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_epi32(r[2 * i].v, r[2 * i + 1].v);
    t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i].v, r[2 * i + 1].v);
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) {
      u[4 * i + 2 * j] = _mm256_unpacklo_epi64(t[4 * i + j], t[4 * i + j + 2]);
      u[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(t[4 * i + j], t[4 * i + j + 2]);
    }
  for (int i = 0; i < 4; i++) {
    r[i].v = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
    r[i + 4].v = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
  }
}

#else
constexpr int L = 4;
struct Words { int16_t v[2 * L]; };
struct Floats { float v[L]; };

inline Words words(const int16_t* p) {
  Words r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline Words widened(const uint8_t* p) {
  Words r;
  for (int i = 0; i < 2 * L; i++) r.v[i] = (int8_t)p[i];
  return r;
}
inline Words pair_everywhere(int32_t pair) {
  Words r;
  for (int i = 0; i < L; i++) std::memcpy(r.v + 2 * i, &pair, 4);
  return r;
}
inline void keep(int32_t* p, Words a) { std::memcpy(p, a.v, sizeof a.v); }
#if defined(BS_NEON)
struct Ints { int32x4_t v; };
inline Ints no_ints() { return {vdupq_n_s32(0)}; }
inline Ints dot(Ints sum, Words a, Words b) {
  const int16x8_t x = vld1q_s16(a.v), y = vld1q_s16(b.v);
  return {vaddq_s32(sum.v, vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)))};
}
inline Floats add_product(Floats sum, Ints a, Floats b) {
  Floats r;
  vst1q_f32(r.v, vfmaq_f32(vld1q_f32(sum.v), vcvtq_f32_s32(a.v), vld1q_f32(b.v)));
  return r;
}
#else
struct Ints { int32_t v[L]; };
inline Ints no_ints() { return {}; }
inline Ints dot(Ints sum, Words a, Words b) {
  for (int i = 0; i < L; i++) sum.v[i] += (int32_t)a.v[2 * i] * b.v[2 * i] + (int32_t)a.v[2 * i + 1] * b.v[2 * i + 1];
  return sum;
}
inline Floats add_product(Floats sum, Ints a, Floats b) {
  for (int i = 0; i < L; i++) sum.v[i] += (float)a.v[i] * b.v[i];
  return sum;
}
#endif
inline Floats no_floats() { return {}; }
inline Floats every(float a) { return {{a, a, a, a}}; }
inline Floats floats(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline void keep(float* p, Floats a) { std::memcpy(p, a.v, sizeof a.v); }
inline Floats operator*(Floats a, Floats b) { return {{a.v[0] * b.v[0], a.v[1] * b.v[1], a.v[2] * b.v[2], a.v[3] * b.v[3]}}; }
inline float total(Floats a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }

struct WordTable { int16_t v[16]; };
inline WordTable word_table(const int16_t* t) {
  WordTable r;
  std::memcpy(r.v, t, sizeof r.v);
  return r;
}
inline void unpack64(const uint8_t* p, const WordTable& t, Words* out) {
  for (int i = 0; i < 32; i++) out[i / L].v[2 * (i % L)] = t.v[p[i] >> 4], out[i / L].v[2 * (i % L) + 1] = t.v[p[i] & 15];
}
constexpr int position4(int i) { return i; }
inline void transpose(Words* r) {
  Words s[L];
  for (int i = 0; i < L; i++)
    for (int j = 0; j < L; j++) std::memcpy(s[j].v + 2 * i, r[i].v + 2 * j, 4);
  std::memcpy(r, s, sizeof s);
}
#endif

}  // namespace
