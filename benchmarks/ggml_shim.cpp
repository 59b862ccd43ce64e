// ggml's quantizers and products on a CPU behind a C ABI, through its public headers only, and how fast this machine reads memory.
//
// Compiled by build_ggml.py; called from peer_ggml.py. A product is a graph of one node, built once: what is timed is its computation.
#include <omp.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Product {
  ggml_context* context;
  ggml_backend_buffer_t buffer;
  ggml_cgraph* graph;
  ggml_tensor *x, *y;
};

struct Weights {
  ggml_backend_t backend;
  ggml_context* context;
  ggml_backend_buffer_t buffer;
  std::vector<Product> products;
};

// Where this CPU wants weights of a type, in an order of its own, for a product with M rows; null where it has no such order.
ggml_backend_buffer_type_t repacked(ggml_backend_t backend, ggml_type type, int64_t rows, int64_t columns, int64_t inputs) {
  ggml_backend_dev_t device = ggml_backend_get_device(backend);
  void* address = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts");
  if (!address) return nullptr;
  auto* type_of_buffer = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(address)(device);
  for (; type_of_buffer && *type_of_buffer; type_of_buffer++) {
    ggml_context* context = ggml_init({ggml_tensor_overhead() * 4, nullptr, true});
    ggml_tensor* weight = ggml_new_tensor_2d(context, type, columns, rows);
    ggml_tensor* x = ggml_new_tensor_2d(context, GGML_TYPE_F32, columns, inputs);
    weight->buffer = ggml_backend_buft_alloc_buffer(*type_of_buffer, 0);
    bool takes = ggml_backend_dev_supports_op(device, ggml_mul_mat(context, weight, x));
    ggml_backend_buffer_free(weight->buffer);
    ggml_free(context);
    if (takes) return *type_of_buffer;
  }
  return nullptr;
}

Product product(ggml_backend_t backend, ggml_tensor* weight, int64_t columns, int64_t inputs) {
  Product made;
  made.context = ggml_init({ggml_tensor_overhead() * 4 + ggml_graph_overhead(), nullptr, true});
  made.x = ggml_new_tensor_2d(made.context, GGML_TYPE_F32, columns, inputs);
  made.y = ggml_mul_mat(made.context, weight, made.x);
  made.graph = ggml_new_graph(made.context);
  ggml_build_forward_expand(made.graph, made.y);
  made.buffer = ggml_backend_alloc_ctx_tensors(made.context, backend);
  return made;
}

}  // namespace

EXPORT const char* gs_version() { return ggml_version(); }

EXPORT void gs_quiet() {
  ggml_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
}

EXPORT int64_t gs_bytes(int type, int64_t rows, int64_t columns) {
  return static_cast<int64_t>(ggml_row_size(static_cast<ggml_type>(type), columns)) * rows;
}

EXPORT void gs_quantize(int type, const float* weight, void* out, int64_t rows, int64_t columns) {
  ggml_quantize_chunk(static_cast<ggml_type>(type), weight, out, 0, rows, columns, nullptr);
}

EXPORT void gs_dequantize(int type, const void* codes, float* out, int64_t count) {
  ggml_get_type_traits(static_cast<ggml_type>(type))->to_float(codes, out, count);
}

// Keeps `copies` of a quantized weight and a product with `inputs` rows for each; null where ggml has no order of its own for it.
EXPORT void* gs_weights(int type_number, const void* codes, int64_t rows, int64_t columns, int64_t inputs, int copies,
                        int threads, int in_own_order) {
  ggml_type type = static_cast<ggml_type>(type_number);
  Weights* made = new Weights;
  made->backend = ggml_backend_cpu_init();
  ggml_backend_cpu_set_n_threads(made->backend, threads);
  made->context = ggml_init({ggml_tensor_overhead() * (copies + 4), nullptr, true});
  std::vector<ggml_tensor*> weights;
  for (int i = 0; i < copies; i++) weights.push_back(ggml_new_tensor_2d(made->context, type, columns, rows));
  auto where = in_own_order ? repacked(made->backend, type, rows, columns, inputs) : ggml_backend_cpu_buffer_type();
  if (!where) {
    ggml_free(made->context);
    ggml_backend_free(made->backend);
    delete made;
    return nullptr;
  }
  made->buffer = ggml_backend_alloc_ctx_tensors_from_buft(made->context, where);
  ggml_backend_buffer_set_usage(made->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  for (ggml_tensor* weight : weights) {
    ggml_backend_tensor_set(weight, codes, 0, gs_bytes(type_number, rows, columns));
    made->products.push_back(product(made->backend, weight, columns, inputs));
  }
  return made;
}

EXPORT void gs_multiply(void* handle, int copy, const float* x, float* y) {
  Weights* weights = static_cast<Weights*>(handle);
  Product& product = weights->products[copy];
  product.x->data = const_cast<float*>(x);
  product.y->data = y;
  ggml_backend_graph_compute(weights->backend, product.graph);
}

EXPORT void gs_free(void* handle) {
  Weights* weights = static_cast<Weights*>(handle);
  for (Product& each : weights->products) {
    ggml_backend_buffer_free(each.buffer);
    ggml_free(each.context);
  }
  ggml_backend_buffer_free(weights->buffer);
  ggml_free(weights->context);
  ggml_backend_free(weights->backend);
  delete weights;
}

// Reads memory once, each thread a part of its own, and does so little with it that only memory can be in the way.
EXPORT uint64_t gs_read(const uint64_t* from, int64_t count, int threads) {
  uint64_t all = 0;
#pragma omp parallel num_threads(threads) reduction(^ : all)
  {
    int64_t part = count / omp_get_num_threads();
    const uint64_t* mine = from + part * omp_get_thread_num();
    uint64_t lanes[32] = {};
    for (int64_t i = 0; i + 32 <= part; i += 32)
      for (int lane = 0; lane < 32; lane++) lanes[lane] ^= mine[i + lane];
    for (uint64_t lane : lanes) all ^= lane;
  }
  return all;
}
