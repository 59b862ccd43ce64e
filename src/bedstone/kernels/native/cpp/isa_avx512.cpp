// The kernels for avx512; compiled with its flags, called only where the CPU has it.
#define BS_AVX512
#include "fourbit_bytes.h"
#include "rounded_grad.h"
#include "ternary_dots.h"

extern const Kernels bs_avx512;
const Kernels bs_avx512 = {
    "avx512",
    quantize_4bit,
    dequantize_4bit,
    linear_4bit,
    dequantize_absmax,
    quantize_8bit,
    dequantize_8bit,
    linear_8bit,
    quantize_ternary,
    dequantize_ternary,
    linear_ternary,
    rounded_scratch,
    linear_4bit_rounded,
    linear_int8_rounded,
    input_grad_4bit_rounded,
    linear_4bit_int8,
    linear_ternary_rounded,
    linear_ternary_int8,
};
