// The shift operation (`shift.py`) on the CPU in one pass over the map, for maps in rows and for channels-last ones.
//
// Values are moved as bytes.

#include "shift_grid.h"
#include "shift_last.h"
#include "shift_rows.h"
#include "shift_walk.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

using torch::stable::Tensor;

namespace {

int64_t grain_of(int64_t bytes) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, bytes)); }

template <typename T>
void shift_rows(const char* x, char* out, int64_t batch, const Size& s, const Moves& m) {
  const Planes& table = planes_of(s, m, sizeof(T));
  const int64_t planes = batch * s.channels;
  torch::stable::parallel_for(0, planes, grain_of(s.height * s.width * sizeof(T)), [&](int64_t begin, int64_t end) {
    shift_planes<T>(x, out, table, s, m, planes, begin, end);
  });
}

// Down the map, but not where it is large and cannot be streamed: its columns would be read before they are written.
auto on_grid(const Last& call) {
  if (call.large() && !call.streams()) return tiling(call.m.kernel_size, call.pixels.together);
  return call.m.kernel_size == 3 ? walking<3>(call) : walking<5>(call);
}

template <typename T>
void shift_last(const char* x, char* out, int64_t batch, const Size& s, const Moves& m, int64_t item) {
  const Pixels& pixels = pixels_of(s, m, item, sizeof(T));
  const int64_t pixel = s.channels * item;
  const char* const nothing = zeros(std::max<int64_t>(s.width, 16) * pixel);
  const Last call{x, out, s, m, pixels, nothing, batch, pixel};
  const auto run = pixels.form == Form::kJoin ? joining<T>(pixels.together) : on_grid(call);
  torch::stable::parallel_for(0, batch * s.rows, grain_of(s.columns * pixel), [&](int64_t first, int64_t last) {
    run(call, first, last);
    finish_streams();
  });
}

Tensor empty(const Tensor& like, int64_t batch, const Size& s, bool last) {
  const int64_t area = s.rows * s.columns, size[] = {batch, s.channels, s.rows, s.columns};
  const int64_t in_rows[] = {s.channels * area, area, s.columns, 1};
  const int64_t channels_last[] = {s.channels * area, 1, s.columns * s.channels, s.channels};
  int32_t type, device;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4, size, last ? channels_last : in_rows, type, device, 0, &handle));
  return Tensor(handle);
}

Tensor shift(const Tensor& x, int64_t kernel_size, int64_t dilation, int64_t stride, bool interleaved, int64_t sign, bool last) {
  const int64_t batch = x.size(0), height = x.size(2), width = x.size(3), item = x.element_size();
  const Size s{x.size(1), height, width, (height + stride - 1) / stride, (width + stride - 1) / stride};
  const Moves m{kernel_size, dilation, stride, sign, interleaved};
  Tensor out = empty(x, batch, s, last);
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  if (last && s.channels * item >= kRegister) {
    shift_last<Block>(from, to, batch, s, m, item);
  } else if (last && s.channels * item >= int64_t(sizeof(Narrow))) {
    shift_last<Narrow>(from, to, batch, s, m, item);
  } else if (last) {
    shift_last<char>(from, to, batch, s, m, item);
  } else if (item == 1) {
    shift_rows<uint8_t>(from, to, batch, s, m);
  } else if (item == 2) {
    shift_rows<uint16_t>(from, to, batch, s, m);
  } else if (item == 4) {
    shift_rows<uint32_t>(from, to, batch, s, m);
  } else {
    shift_rows<uint64_t>(from, to, batch, s, m);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(convsmith, CPU, library) { library.impl("shift", TORCH_BOX(&shift)); }
