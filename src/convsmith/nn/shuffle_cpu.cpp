// Channel shuffle (`shuffle.py`) on the CPU, for maps in rows and for channels-last ones. Values are moved as bytes.

#include "shuffle_last.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

using torch::stable::Tensor;

namespace {

template <typename T>
void shuffle_last(const void* x, void* out, int64_t pixels, int64_t rows, int64_t columns) {
  const T* const from = static_cast<const T*>(x);
  T* const to = static_cast<T*>(out);
  const int64_t pixel = rows * columns, grain = std::max<int64_t>(1, kGrain / (pixel * int64_t(sizeof(T))));
  torch::stable::parallel_for(0, pixels, grain, [=](int64_t first, int64_t last) {
    transpose_pixels<T>(from + first * pixel, to + first * pixel, last - first, rows, columns);
  });
}

// In place of memcpy, which starts anew for every plane: the next one is fetched meanwhile.
inline void copy_plane(const char* from, char* to, int64_t bytes, const char* next) {
  if (bytes < kRegister) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (int64_t i = 0; i < bytes; i += kRegister) {
    const int64_t at = std::min(i, bytes - kRegister);
    __builtin_prefetch(next + at);
    const auto block = load<Lanes<uint8_t>::Vector>(from + at);
    std::memcpy(to + at, &block, kRegister);
  }
}

void shuffle_rows(const char* x, char* out, int64_t batch, int64_t rows, int64_t columns, int64_t plane) {
  const int64_t channels = rows * columns, grain = std::max<int64_t>(1, kGrain / plane);
  torch::stable::parallel_for(0, batch * channels, grain, [=](int64_t first, int64_t last) {
    const auto source = [=](int64_t p) { return x + (p - p % channels + p % channels % rows * columns + p % channels / rows) * plane; };
    const char* from = source(first);
    for (int64_t p = first; p < last; ++p) {
      const char* const next = source(std::min(p + 1, last - 1));
      copy_plane(from, out + p * plane, plane, next);
      from = next;
    }
  });
}

// x is dense, in rows or channels-last, and so is the result.
Tensor channel_shuffle(const Tensor& x, int64_t groups) {
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() == 0) return out;
  const int64_t batch = x.size(0), columns = x.size(1) / groups, area = x.size(2) * x.size(3), item = x.element_size();
  const void* const from = x.const_data_ptr();
  void* const to = out.mutable_data_ptr();
  if (area > 1 && x.is_contiguous()) {
    shuffle_rows(static_cast<const char*>(from), static_cast<char*>(to), batch, groups, columns, area * item);
    return out;
  }
  switch (item) {
    case 1: shuffle_last<uint8_t>(from, to, batch * area, groups, columns); break;
    case 2: shuffle_last<uint16_t>(from, to, batch * area, groups, columns); break;
    case 4: shuffle_last<uint32_t>(from, to, batch * area, groups, columns); break;
    default: shuffle_last<uint64_t>(from, to, batch * area, groups, columns);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(convsmith, CPU, library) { library.impl("channel_shuffle", TORCH_BOX(&channel_shuffle)); }
