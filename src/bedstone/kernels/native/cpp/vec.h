// The vectors of one instruction set, under one name: V holds W floats, Codes W small integers.
//
// A file isa_*.cpp includes this once, compiled with the flags of its instruction set; everything is in an unnamed namespace, so
// that the variants do not meet in the linker. What a function does is the same in all of them, to the bit, unless it sums.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "half.h"

#if defined(BS_AVX512) || defined(BS_AVX2)
#include <immintrin.h>
#elif defined(BS_NEON)
#include <arm_neon.h>
#endif

namespace {

#if defined(BS_AVX512)
// --- AVX-512 F, BW, DQ, VL ---------------------------------------------------------------------------
constexpr int W = 16;
struct V { __m512 v; };
struct Codes { __m512i v; };
struct Table { __m512 v; };

inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
inline V all(float a) { return {_mm512_set1_ps(a)}; }
inline V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V magnitude(V a) { return {_mm512_abs_ps(a.v)}; }
inline V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V clamp(V a, float low, float high) { return {_mm512_min_ps(_mm512_max_ps(a.v, all(low).v), all(high).v)}; }
inline float sum(V a) { return _mm512_reduce_add_ps(a.v); }
inline float largest(V a) { return _mm512_reduce_max_ps(a.v); }
inline bool any_nan(V a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q) != 0; }

// `a`, where |a| is above `limit` `other`.
inline V beyond(V a, float limit, V other) {
  return {_mm512_mask_mov_ps(a.v, _mm512_cmp_ps_mask(magnitude(a).v, all(limit).v, _CMP_GT_OQ), other.v)};
}
inline Codes bytes(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
inline Codes signed_bytes(const int8_t* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
inline Codes zero_codes() { return {_mm512_setzero_si512()}; }
template <int N> inline Codes right(Codes a) { return {_mm512_srli_epi32(a.v, N)}; }
inline V as_float(Codes a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Codes nearest(V a) { return {_mm512_cvtps_epi32(a.v)}; }
inline void store_bytes(uint8_t* p, Codes a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }
inline void store_ints(int32_t* p, Codes a) { _mm512_storeu_si512(p, a.v); }
inline Codes twice_plus_above(Codes k, V a, V threshold) {
  Codes two = {_mm512_add_epi32(k.v, k.v)};
  __mmask16 above = _mm512_cmp_ps_mask(a.v, threshold.v, _CMP_GT_OQ);
  return {_mm512_mask_add_epi32(two.v, above, two.v, _mm512_set1_epi32(1))};
}
inline Table table(const float* t) { return {_mm512_loadu_ps(t)}; }
inline V lookup(Table t, Codes k) { return {_mm512_permutexvar_ps(k.v, t.v)}; }
inline V lookup8(Table t, Codes k) { return lookup(t, k); }
inline Codes lookup_bits(Table t, Codes k) { return {_mm512_castps_si512(lookup(t, k).v)}; }
inline void store_pairs(float* p, V even, V odd) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_storeu_ps(p, _mm512_permutex2var_ps(even.v, low, odd.v));
  _mm512_storeu_ps(p + 16, _mm512_permutex2var_ps(even.v, high, odd.v));
}
inline void load_pairs(const float* p, V& even, V& odd) {
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
  even.v = _mm512_permutex2var_ps(a, evens, b);
  odd.v = _mm512_permutex2var_ps(a, odds, b);
}
inline V from_bits(Codes a) { return {_mm512_castsi512_ps(a.v)}; }
inline Codes left(Codes a, int n) { return {_mm512_sll_epi32(a.v, _mm_cvtsi32_si128(n))}; }
inline Codes both(Codes a, int mask) { return {_mm512_and_si512(a.v, _mm512_set1_epi32(mask))}; }
inline Codes either(Codes a, Codes b) { return {_mm512_or_si512(a.v, b.v)}; }
inline V load_bf16(const uint16_t* p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline V load_fp16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
inline void store_bf16(uint16_t* p, V a) {
  __m512i u = _mm512_castps_si512(a.v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  r = _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(r));
}
inline void store_fp16(uint16_t* p, V a) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#elif defined(BS_AVX2)
// --- AVX2, FMA, F16C ---------------------------------------------------------------------------------
constexpr int W = 8;
struct V { __m256 v; };
struct Codes { __m256i v; };
struct Table { __m256 low, high; };

inline V load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, V a) { _mm256_storeu_ps(p, a.v); }
inline V all(float a) { return {_mm256_set1_ps(a)}; }
inline V operator*(V a, V b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline V operator+(V a, V b) { return {_mm256_add_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline V magnitude(V a) { return {_mm256_and_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)))}; }
inline V max(V a, V b) { return {_mm256_max_ps(a.v, b.v)}; }
inline V clamp(V a, float low, float high) { return {_mm256_min_ps(_mm256_max_ps(a.v, all(low).v), all(high).v)}; }
inline float sum(V a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
inline float largest(V a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
inline bool any_nan(V a) { return _mm256_movemask_ps(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)) != 0; }

inline V beyond(V a, float limit, V other) {
  return {_mm256_blendv_ps(a.v, other.v, _mm256_cmp_ps(magnitude(a).v, all(limit).v, _CMP_GT_OQ))};
}
inline Codes bytes(const uint8_t* p) { return {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))}; }
inline Codes signed_bytes(const int8_t* p) { return {_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))}; }
inline Codes zero_codes() { return {_mm256_setzero_si256()}; }
template <int N> inline Codes right(Codes a) { return {_mm256_srli_epi32(a.v, N)}; }
inline V as_float(Codes a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Codes nearest(V a) { return {_mm256_cvtps_epi32(a.v)}; }
inline void store_ints(int32_t* p, Codes a) { _mm256_storeu_si256((__m256i*)p, a.v); }
inline void store_bytes(uint8_t* p, Codes a) {
  const __m256i first = _mm256_set1_epi32(0x0c080400), order = _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4);
  __m256i packed = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(a.v, first), order);
  _mm_storel_epi64((__m128i*)p, _mm256_castsi256_si128(packed));
}
inline Codes twice_plus_above(Codes k, V a, V threshold) {
  __m256i above = _mm256_castps_si256(_mm256_cmp_ps(a.v, threshold.v, _CMP_GT_OQ));
  return {_mm256_sub_epi32(_mm256_add_epi32(k.v, k.v), above)};
}
inline Table table(const float* t) { return {_mm256_loadu_ps(t), _mm256_loadu_ps(t + 8)}; }
inline V lookup8(Table t, Codes k) { return {_mm256_permutevar8x32_ps(t.low, k.v)}; }
inline V lookup(Table t, Codes k) {
  __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(k.v, 28));  // bit 3 of the code, as the sign that blendv reads
  return {_mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, k.v), _mm256_permutevar8x32_ps(t.high, k.v), upper)};
}
inline Codes lookup_bits(Table t, Codes k) { return {_mm256_castps_si256(lookup(t, k).v)}; }
inline void store_pairs(float* p, V even, V odd) {
  __m256 low = _mm256_unpacklo_ps(even.v, odd.v), high = _mm256_unpackhi_ps(even.v, odd.v);
  _mm256_storeu_ps(p, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(p + 8, _mm256_permute2f128_ps(low, high, 0x31));
}
inline void load_pairs(const float* p, V& even, V& odd) {
  __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8);
  even.v = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), 0xd8));
  odd.v = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd)), 0xd8));
}
inline V from_bits(Codes a) { return {_mm256_castsi256_ps(a.v)}; }
inline Codes left(Codes a, int n) { return {_mm256_sll_epi32(a.v, _mm_cvtsi32_si128(n))}; }
inline Codes both(Codes a, int mask) { return {_mm256_and_si256(a.v, _mm256_set1_epi32(mask))}; }
inline Codes either(Codes a, Codes b) { return {_mm256_or_si256(a.v, b.v)}; }
inline V load_bf16(const uint16_t* p) {
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
inline V load_fp16(const uint16_t* p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))}; }
inline void store_bf16(uint16_t* p, V a) {
  __m256i u = _mm256_castps_si256(a.v);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc0), nan);
  __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(packed));
}
inline void store_fp16(uint16_t* p, V a) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#elif defined(BS_NEON)
// --- AArch64 -----------------------------------------------------------------------------------------
constexpr int W = 4;
struct V { float32x4_t v; };
struct Codes { int32x4_t v; };
struct Table { uint8x16x4_t v; };  // 64 bytes: the 16 floats

inline V load(const float* p) { return {vld1q_f32(p)}; }
inline void store(float* p, V a) { vst1q_f32(p, a.v); }
inline V all(float a) { return {vdupq_n_f32(a)}; }
inline V operator*(V a, V b) { return {vmulq_f32(a.v, b.v)}; }
inline V operator+(V a, V b) { return {vaddq_f32(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline V magnitude(V a) { return {vabsq_f32(a.v)}; }
inline V max(V a, V b) { return {vmaxq_f32(a.v, b.v)}; }
inline V clamp(V a, float low, float high) { return {vminq_f32(vmaxq_f32(a.v, vdupq_n_f32(low)), vdupq_n_f32(high))}; }
inline float sum(V a) { return vaddvq_f32(a.v); }
inline float largest(V a) { return vmaxvq_f32(a.v); }
inline bool any_nan(V a) { return vminvq_u32(vceqq_f32(a.v, a.v)) == 0; }

inline V beyond(V a, float limit, V other) {
  return {vbslq_f32(vcgtq_f32(vabsq_f32(a.v), vdupq_n_f32(limit)), other.v, a.v)};
}
inline Codes bytes(const uint8_t* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))))))};
}
inline Codes signed_bytes(const int8_t* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  return {vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)))))};
}
inline Codes zero_codes() { return {vdupq_n_s32(0)}; }
template <int N> inline Codes right(Codes a) { return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), N))}; }
template <> inline Codes right<0>(Codes a) { return a; }
inline V as_float(Codes a) { return {vcvtq_f32_s32(a.v)}; }
inline Codes nearest(V a) { return {vcvtnq_s32_f32(a.v)}; }
inline void store_ints(int32_t* p, Codes a) { vst1q_s32(p, a.v); }
inline void store_bytes(uint8_t* p, Codes a) {
  int32_t lanes[4];
  vst1q_s32(lanes, a.v);
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)lanes[i];
}
inline Codes twice_plus_above(Codes k, V a, V threshold) {
  int32x4_t above = vreinterpretq_s32_u32(vcgtq_f32(a.v, threshold.v));
  return {vsubq_s32(vaddq_s32(k.v, k.v), above)};
}
inline Table table(const float* t) {
  const uint8_t* b = (const uint8_t*)t;
  return {{{vld1q_u8(b), vld1q_u8(b + 16), vld1q_u8(b + 32), vld1q_u8(b + 48)}}};
}
inline V lookup(Table t, Codes k) {
  uint32x4_t index = vmulq_n_u32(vandq_u32(vreinterpretq_u32_s32(k.v), vdupq_n_u32(15)), 0x04040404u);
  index = vaddq_u32(index, vdupq_n_u32(0x03020100u));
  return {vreinterpretq_f32_u8(vqtbl4q_u8(t.v, vreinterpretq_u8_u32(index)))};
}
inline V lookup8(Table t, Codes k) { return lookup(t, k); }
inline Codes lookup_bits(Table t, Codes k) { return {vreinterpretq_s32_f32(lookup(t, k).v)}; }
inline void store_pairs(float* p, V even, V odd) { vst2q_f32(p, (float32x4x2_t{{even.v, odd.v}})); }
inline void load_pairs(const float* p, V& even, V& odd) {
  float32x4x2_t both_ = vld2q_f32(p);
  even.v = both_.val[0];
  odd.v = both_.val[1];
}
inline V from_bits(Codes a) { return {vreinterpretq_f32_s32(a.v)}; }
inline Codes left(Codes a, int n) { return {vshlq_s32(a.v, vdupq_n_s32(n))}; }
inline Codes both(Codes a, int mask) { return {vandq_s32(a.v, vdupq_n_s32(mask))}; }
inline Codes either(Codes a, Codes b) { return {vorrq_s32(a.v, b.v)}; }
inline V load_bf16(const uint16_t* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))}; }
inline V load_fp16(const uint16_t* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
inline void store_bf16(uint16_t* p, V a) {
  float lanes[4];
  vst1q_f32(lanes, a.v);
  for (int i = 0; i < 4; i++) p[i] = to_bf16(lanes[i]);
}
inline void store_fp16(uint16_t* p, V a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a.v))); }

#else
// --- any CPU: arrays, which a compiler may or may not make into vectors ------------------------------
constexpr int W = 8;
struct V { float v[W]; };
struct Codes { int32_t v[W]; };
struct Table { float v[16]; };
#define BS_EACH for (int i = 0; i < W; i++)

inline V load(const float* p) { V r; std::memcpy(r.v, p, sizeof r.v); return r; }
inline void store(float* p, V a) { std::memcpy(p, a.v, sizeof a.v); }
inline V all(float a) { V r; BS_EACH r.v[i] = a; return r; }
inline V operator*(V a, V b) { BS_EACH a.v[i] *= b.v[i]; return a; }
inline V operator+(V a, V b) { BS_EACH a.v[i] += b.v[i]; return a; }
inline V fma(V a, V b, V c) { BS_EACH c.v[i] += a.v[i] * b.v[i]; return c; }
inline V magnitude(V a) { BS_EACH a.v[i] = std::fabs(a.v[i]); return a; }
inline V max(V a, V b) { BS_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
inline V clamp(V a, float low, float high) {
  BS_EACH a.v[i] = a.v[i] > low ? (a.v[i] < high ? a.v[i] : high) : low;
  return a;
}
inline float sum(V a) { float s = 0; BS_EACH s += a.v[i]; return s; }
inline float largest(V a) { float m = a.v[0]; BS_EACH m = a.v[i] > m ? a.v[i] : m; return m; }
inline bool any_nan(V a) { bool found = false; BS_EACH found |= a.v[i] != a.v[i]; return found; }

inline V beyond(V a, float limit, V other) { BS_EACH a.v[i] = std::fabs(a.v[i]) > limit ? other.v[i] : a.v[i]; return a; }
inline Codes bytes(const uint8_t* p) { Codes r; BS_EACH r.v[i] = p[i]; return r; }
inline Codes signed_bytes(const int8_t* p) { Codes r; BS_EACH r.v[i] = p[i]; return r; }
inline Codes zero_codes() { return Codes{}; }
template <int N> inline Codes right(Codes a) { BS_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> N); return a; }
inline V as_float(Codes a) { V r; BS_EACH r.v[i] = (float)a.v[i]; return r; }
inline Codes nearest(V a) { Codes r; BS_EACH r.v[i] = (int32_t)std::nearbyint(a.v[i]); return r; }
inline void store_bytes(uint8_t* p, Codes a) { BS_EACH p[i] = (uint8_t)a.v[i]; }
inline void store_ints(int32_t* p, Codes a) { std::memcpy(p, a.v, sizeof a.v); }
inline Codes twice_plus_above(Codes k, V a, V threshold) {
  BS_EACH k.v[i] = 2 * k.v[i] + (a.v[i] > threshold.v[i]);
  return k;
}
inline Table table(const float* t) { Table r; std::memcpy(r.v, t, sizeof r.v); return r; }
inline V lookup(Table t, Codes k) { V r; BS_EACH r.v[i] = t.v[k.v[i] & 15]; return r; }
inline V lookup8(Table t, Codes k) { return lookup(t, k); }
inline Codes lookup_bits(Table t, Codes k) { V f = lookup(t, k); Codes r; std::memcpy(r.v, f.v, sizeof r.v); return r; }
inline void store_pairs(float* p, V even, V odd) { BS_EACH { p[2 * i] = even.v[i]; p[2 * i + 1] = odd.v[i]; } }
inline void load_pairs(const float* p, V& even, V& odd) { BS_EACH { even.v[i] = p[2 * i]; odd.v[i] = p[2 * i + 1]; } }
inline V from_bits(Codes a) { V r; std::memcpy(r.v, a.v, sizeof r.v); return r; }
inline Codes left(Codes a, int n) { BS_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] << n); return a; }
inline Codes both(Codes a, int mask) { BS_EACH a.v[i] &= mask; return a; }
inline Codes either(Codes a, Codes b) { BS_EACH a.v[i] |= b.v[i]; return a; }
inline V load_bf16(const uint16_t* p) { V r; BS_EACH r.v[i] = from_bf16(p[i]); return r; }
inline V load_fp16(const uint16_t* p) { V r; BS_EACH r.v[i] = from_fp16(p[i]); return r; }
inline void store_bf16(uint16_t* p, V a) { BS_EACH p[i] = to_bf16(a.v[i]); }
inline void store_fp16(uint16_t* p, V a) { BS_EACH p[i] = to_fp16(a.v[i]); }
#undef BS_EACH
#endif

}  // namespace
