// Channel shuffle (`shuffle.py`) on the CPU for channels-last maps: each pixel is a small matrix that is transposed.
//
// With two, three or four rows, or columns, known to the compiler these are a few permutations of registers. Values are
// moved as bytes.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

using torch::stable::Tensor;

namespace {

constexpr int64_t kGrain = 32 * 1024;  // bytes that are worth a thread

// out[i * rows + j] = x[j * columns + i] of each pixel; kRows or kColumns are given, 0 stands for any number.
template <typename T, int kRows, int kColumns>
void transpose(const T* __restrict x, T* __restrict out, int64_t pixels, int64_t of_rows, int64_t of_columns) {
  const int64_t rows = kRows ? kRows : of_rows, columns = kColumns ? kColumns : of_columns;
  for (int64_t p = 0; p < pixels; ++p, x += rows * columns, out += rows * columns) {
    if constexpr (kColumns != 0) {
      for (int64_t j = 0; j < rows; ++j)
        for (int64_t i = 0; i < columns; ++i) out[i * rows + j] = x[j * columns + i];
    } else {
      for (int64_t i = 0; i < columns; ++i)
        for (int64_t j = 0; j < rows; ++j) out[i * rows + j] = x[j * columns + i];
    }
  }
}

template <typename T, int kNumber>
auto transposing(bool rows) {
  return rows ? &transpose<T, kNumber, 0> : &transpose<T, 0, kNumber>;
}

template <typename T>
auto transposing(int64_t rows, int64_t columns) {
  const bool by_rows = rows <= columns;
  switch (std::min(rows, columns)) {
    case 2: return transposing<T, 2>(by_rows);
    case 3: return transposing<T, 3>(by_rows);
    case 4: return transposing<T, 4>(by_rows);
    default: return transposing<T, 0>(by_rows);
  }
}

template <typename T>
void shuffle(const void* x, void* out, int64_t pixels, int64_t rows, int64_t columns) {
  const T* const from = static_cast<const T*>(x);
  T* const to = static_cast<T*>(out);
  const auto run = transposing<T>(rows, columns);
  const int64_t pixel = rows * columns, grain = std::max<int64_t>(1, kGrain / (pixel * int64_t(sizeof(T))));
  torch::stable::parallel_for(0, pixels, grain, [=](int64_t first, int64_t last) {
    run(from + first * pixel, to + first * pixel, last - first, rows, columns);
  });
}

// x is channels-last, and the result is.
Tensor channel_shuffle(const Tensor& x, int64_t groups) {
  Tensor out = torch::stable::empty_like(x);
  const int64_t pixels = x.size(0) * x.size(2) * x.size(3), columns = x.size(1) / groups;
  const void* const from = x.const_data_ptr();
  void* const to = out.mutable_data_ptr();
  switch (pixels ? x.element_size() : 0) {
    case 0: break;
    case 1: shuffle<uint8_t>(from, to, pixels, groups, columns); break;
    case 2: shuffle<uint16_t>(from, to, pixels, groups, columns); break;
    case 4: shuffle<uint32_t>(from, to, pixels, groups, columns); break;
    default: shuffle<uint64_t>(from, to, pixels, groups, columns);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(convsmith, CPU, library) { library.impl("channel_shuffle", TORCH_BOX(&channel_shuffle)); }
