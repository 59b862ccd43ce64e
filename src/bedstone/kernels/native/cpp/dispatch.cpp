// Which variant runs is decided once, by what the CPU says of itself; bs_use names another one.
#include <cstring>

#include "api.h"

extern const Kernels bs_portable;
#if defined(BS_HAS_X86)
extern const Kernels bs_avx2, bs_avx512, bs_avx512_vnni;
#endif
#if defined(BS_HAS_NEON)
extern const Kernels bs_neon;
#endif

namespace {

// The variants that this CPU runs, best first; ends with null.
const Kernels* const* usable() {
  static const Kernels* found[5] = {};
  if (found[0]) return found;
  int n = 0;
#if defined(BS_HAS_X86)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512vnni")) found[n++] = &bs_avx512_vnni;
  if (avx512) found[n++] = &bs_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) found[n++] = &bs_avx2;
#endif
#if defined(BS_HAS_NEON)
  found[n++] = &bs_neon;
#endif
  found[n] = &bs_portable;
  return found;
}

const Kernels* named(const char* name) {
  for (const Kernels* const* k = usable(); *k; k++)
    if (!std::strcmp((*k)->name, name)) return *k;
  return nullptr;
}

const Kernels*& chosen() {
  static const Kernels* k = usable()[0];
  return k;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API int bs_abi() { return BS_ABI; }
API const char* bs_name() { return chosen()->name; }
// Every later call takes this variant; returns 0, and changes nothing, where the CPU or the build has none of this name.
API int bs_use(const char* name) {
  const Kernels* k = named(name);
  if (k) chosen() = k;
  return k != nullptr;
}

API void bs_quantize_4bit(const void* weight, int dtype, int64_t count, int64_t block, const float* midpoints,
                          const int32_t* codes, uint8_t* packed, float* absmax, int threads) {
  chosen()->quantize_4bit(weight, dtype, count, block, midpoints, codes, packed, absmax, threads);
}
API void bs_dequantize_4bit(const uint8_t* packed, const float* absmax, const float* table, int64_t block, int64_t start,
                            int64_t count, void* out, int dtype, int threads) {
  const BsFourBit q = {packed, absmax, table, block};
  chosen()->dequantize_4bit(&q, start, count, out, dtype, threads);
}
API void bs_linear_4bit(const void* x, int dtype, int64_t inputs, const uint8_t* packed, const float* absmax,
                        const float* table, int64_t block, int64_t rows, int64_t columns, const void* bias, void* out,
                        int threads) {
  const BsFourBit q = {packed, absmax, table, block};
  chosen()->linear_4bit(x, dtype, inputs, &q, rows, columns, bias, out, threads);
}
API void bs_dequantize_absmax(const uint8_t* absmax, const float* nested, float offset, const float* table, int64_t count,
                              float* out, int threads) {
  chosen()->dequantize_absmax(absmax, nested, offset, table, count, out, threads);
}
API void bs_quantize_8bit(const void* weight, int dtype, int64_t rows, int64_t columns, int64_t block, int kind, int per_tensor,
                          uint8_t* codes, float* absmax, int threads) {
  chosen()->quantize_8bit(weight, dtype, rows, columns, block, kind, per_tensor, codes, absmax, threads);
}
API void bs_dequantize_8bit(const uint8_t* codes, int kind, const float* absmax, int64_t row_stride, int64_t block_stride,
                            int64_t block, int64_t rows, int64_t columns, void* out, int dtype, int threads) {
  const BsEightBit q = {codes, absmax, row_stride, block_stride, block, kind};
  chosen()->dequantize_8bit(&q, rows, columns, out, dtype, threads);
}
API void bs_linear_8bit(const void* x, int dtype, int64_t inputs, const uint8_t* codes, int kind, const float* absmax,
                        int64_t row_stride, int64_t block_stride, int64_t block, int64_t rows, int64_t columns,
                        const void* bias, void* out, int threads) {
  const BsEightBit q = {codes, absmax, row_stride, block_stride, block, kind};
  chosen()->linear_8bit(x, dtype, inputs, &q, rows, columns, bias, out, threads);
}
API void bs_quantize_ternary(const void* weight, int dtype, int64_t rows, int64_t columns, const float* inverse,
                             int64_t row_stride, int64_t block_stride, int64_t block, uint8_t* packed, int threads) {
  chosen()->quantize_ternary(weight, dtype, rows, columns, inverse, row_stride, block_stride, block, packed, threads);
}
API void bs_dequantize_ternary(const uint8_t* packed, const float* scale, int64_t row_stride, int64_t block_stride,
                               int64_t block, int64_t rows, int64_t columns, void* out, int dtype, int threads) {
  const BsTernary q = {packed, scale, row_stride, block_stride, block};
  chosen()->dequantize_ternary(&q, rows, columns, out, dtype, threads);
}
API void bs_linear_ternary(const void* x, int dtype, int64_t inputs, const uint8_t* packed, const float* scale,
                           int64_t row_stride, int64_t rows, int64_t columns, const void* bias, void* out, int threads) {
  const BsTernary q = {packed, scale, row_stride, 0, columns};
  chosen()->linear_ternary(x, dtype, inputs, &q, rows, columns, bias, out, threads);
}
API void bs_linear_4bit_rounded(const void* x, int dtype, int64_t inputs, const uint8_t* packed, const float* absmax,
                                const float* table, int64_t block, int64_t rows, int64_t columns, const void* bias, void* out,
                                void* scratch, int threads) {
  const BsFourBit q = {packed, absmax, table, block};
  chosen()->linear_4bit_rounded(x, dtype, inputs, &q, rows, columns, bias, out, scratch, threads);
}
API void bs_linear_int8_rounded(const void* x, int dtype, int64_t inputs, const uint8_t* codes, const float* absmax,
                                int64_t row_stride, int64_t block_stride, int64_t block, int64_t rows, int64_t columns,
                                const void* bias, void* out, void* scratch, int threads) {
  const BsEightBit q = {codes, absmax, row_stride, block_stride, block, 0};
  chosen()->linear_int8_rounded(x, dtype, inputs, &q, rows, columns, bias, out, scratch, threads);
}
API void bs_input_grad_4bit_rounded(const void* grad, int dtype, int64_t inputs, const uint8_t* packed, const float* absmax,
                                    const float* table, int64_t block, int64_t rows, int64_t columns, void* out, void* scratch,
                                    int threads) {
  const BsFourBit q = {packed, absmax, table, block};
  chosen()->input_grad_4bit_rounded(grad, dtype, inputs, &q, rows, columns, out, scratch, threads);
}
API void bs_linear_ternary_rounded(const void* x, int dtype, int64_t inputs, const uint8_t* packed, const float* scale,
                                   int64_t row_stride, int64_t rows, int64_t columns, const void* bias, void* out, void* scratch, int threads) {
  const BsTernary q = {packed, scale, row_stride, 0, columns};
  chosen()->linear_ternary_rounded(x, dtype, inputs, &q, rows, columns, bias, out, scratch, threads);
}
API void bs_linear_ternary_int8(const void* x, int dtype, int64_t inputs, const uint8_t* packed, const float* scale,
                                   int64_t row_stride, int64_t rows, int64_t columns, const void* bias, void* out, int threads) {
  const BsTernary q = {packed, scale, row_stride, 0, columns};
  chosen()->linear_ternary_int8(x, dtype, inputs, &q, rows, columns, bias, out, threads);
}
API int64_t bs_rounded_scratch(int64_t inputs, int64_t columns, int threads) {
  return chosen()->rounded_scratch(inputs, columns, threads);
}
API void bs_linear_4bit_int8(const void* x, int dtype, int64_t inputs, const uint8_t* packed, const float* absmax,
                             const float* table, int64_t block, int64_t rows, int64_t columns, const void* bias, void* out,
                             int threads) {
  const BsFourBit q = {packed, absmax, table, block};
  chosen()->linear_4bit_int8(x, dtype, inputs, &q, rows, columns, bias, out, threads);
}
