// The C ABI of the library, and the table of functions that each instruction set fills.
//
// Sizes are in elements, matrices in row-major order without padding, `threads` is the most to use. A dtype is 0 for float32, 1 for
// bfloat16, 2 for float16. No function allocates what it returns, keeps a pointer, or fails: the caller checks the arguments.
#pragma once
#include <cstdint>

#define BS_ABI 3

extern "C" {

// A weight of four bits a code, element 2i in the high nibble of byte i, one absmax for `block` (even) consecutive elements.
struct BsFourBit {
  const uint8_t* packed;
  const float* absmax;
  const float* table;  // 16 values, by code
  int64_t block;
};

// One byte a code and one absmax for `block` columns of a row; kind 0 is int8, 1 float8_e4m3fn, 2 float8_e5m2.
struct BsEightBit {
  const uint8_t* codes;
  const float* absmax;  // of block b of row r: absmax[r * row_stride + b * block_stride]
  int64_t row_stride, block_stride, block;
  int32_t kind;
};

// Two bits a code, trit + 1, in chunks of 128 columns (see kernels/layouts.py), scales placed as the absmax above.
struct BsTernary {
  const uint8_t* packed;
  const float* scale;
  int64_t row_stride, block_stride, block;
};
}

struct Kernels {
  const char* name;
  void (*quantize_4bit)(const void* weight, int dtype, int64_t count, int64_t block, const float* midpoints,
                        const int32_t* codes, uint8_t* packed, float* absmax, int threads);
  void (*dequantize_4bit)(const BsFourBit* weight, int64_t start, int64_t count, void* out, int dtype, int threads);
  void (*linear_4bit)(const void* x, int dtype, int64_t inputs, const BsFourBit* weight, int64_t rows, int64_t columns,
                      const void* bias, void* out, int threads);
  void (*dequantize_absmax)(const uint8_t* absmax, const float* nested, float offset, const float* table, int64_t count,
                            float* out, int threads);
  // kind as of BsEightBit; per_tensor: one absmax for all, block is the number of columns.
  void (*quantize_8bit)(const void* weight, int dtype, int64_t rows, int64_t columns, int64_t block, int kind, int per_tensor,
                        uint8_t* codes, float* absmax, int threads);
  void (*dequantize_8bit)(const BsEightBit* weight, int64_t rows, int64_t columns, void* out, int dtype, int threads);
  void (*linear_8bit)(const void* x, int dtype, int64_t inputs, const BsEightBit* weight, int64_t rows, int64_t columns,
                      const void* bias, void* out, int threads);
  void (*quantize_ternary)(const void* weight, int dtype, int64_t rows, int64_t columns, const float* inverse,
                           int64_t row_stride, int64_t block_stride, int64_t block, uint8_t* packed, int threads);
  void (*dequantize_ternary)(const BsTernary* weight, int64_t rows, int64_t columns, void* out, int dtype, int threads);
  void (*linear_ternary)(const void* x, int dtype, int64_t inputs, const BsTernary* weight, int64_t rows, int64_t columns,
                         const void* bias, void* out, int threads);
  // Inputs rounded to 16 bits a group of 64 columns; columns and block are multiples of 64, of int8 the kind is 0. More than 16 inputs need
  // scratch memory of as many bytes as the next function says.
  int64_t (*rounded_scratch)(int64_t inputs, int64_t columns, int threads);
  void (*linear_4bit_rounded)(const void* x, int dtype, int64_t inputs, const BsFourBit* weight, int64_t rows, int64_t columns,
                              const void* bias, void* out, void* scratch, int threads);
  void (*linear_int8_rounded)(const void* x, int dtype, int64_t inputs, const BsEightBit* weight, int64_t rows, int64_t columns,
                              const void* bias, void* out, void* scratch, int threads);
  // Of a weight whose rows are a multiple of 64 too; for the scratch memory, rows count as columns, at any number of inputs.
  void (*input_grad_4bit_rounded)(const void* grad, int dtype, int64_t inputs, const BsFourBit* weight, int64_t rows, int64_t columns,
                                  void* out, void* scratch, int threads);
  // The approximate product: inputs and code book rounded to 8 bits; columns and block are multiples of 64.
  void (*linear_4bit_int8)(const void* x, int dtype, int64_t inputs, const BsFourBit* weight, int64_t rows, int64_t columns,
                           const void* bias, void* out, int threads);
  // Inputs rounded to two digits, or to 8 bits, a row of x; one scale a row of the weight, or one for all.
  void (*linear_ternary_rounded)(const void* x, int dtype, int64_t inputs, const BsTernary* weight, int64_t rows, int64_t columns,
                                 const void* bias, void* out, void* scratch, int threads);
  void (*linear_ternary_int8)(const void* x, int dtype, int64_t inputs, const BsTernary* weight, int64_t rows, int64_t columns,
                              const void* bias, void* out, int threads);
};
