// Channel shuffle (`shuffle.py`) on the CPU, for maps in rows and for channels-last ones. Values are moved as bytes.

#include "shuffle_cpu.h"

#include "shuffle_last.h"
#include "streamed.h"

#include <torch/csrc/stable/ops.h>

namespace {

struct Item16 {  // a complex number of two doubles
  uint64_t halves[2];
};

template <typename T>
void shuffle_last(const char* x, char* out, int64_t pixels, int64_t rows, int64_t columns) {
  const int64_t pixel = rows * columns * int64_t(sizeof(T)), grain = std::max<int64_t>(1, kGrain / pixel);
  const bool streamed = is_streamed(pixels * pixel) && pixel <= kBuffer;
  torch::stable::parallel_for(0, pixels, grain, [=](int64_t first, int64_t last) {
    const auto transpose = [=](int64_t p, char* to, int64_t count) {
      transpose_pixels<T>(reinterpret_cast<const T*>(x + p * pixel), reinterpret_cast<T*>(to), count, rows, columns);
    };
    if (!streamed) return transpose(first, out + first * pixel, last - first);
    Streamed to(out + first * pixel);
    for (int64_t p = first, count = 0; p < last; p += count) {
      count = std::min(kBuffer / pixel, last - p);
      transpose(p, to.room(), count);
      to.add(count * pixel, x + p * pixel + kAhead);
    }
  });
}

// In place of memcpy, which starts anew for every plane.
inline void copy_plane(const char* from, char* to, int64_t bytes) {
  if (bytes < kRegister) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (int64_t i = 0; i < bytes; i += kRegister) {
    const int64_t at = std::min(i, bytes - kRegister);  // the last block may overlap
    store(to + at, load<Block>(from + at));
  }
}

void shuffle_planes(const char* x, char* out, int64_t batch, int64_t rows, int64_t columns, int64_t plane) {
  const int64_t channels = rows * columns, planes = batch * channels, grain = std::max<int64_t>(1, kGrain / plane);
  const bool streamed = is_streamed(planes * plane);
  torch::stable::parallel_for(0, planes, grain, [=](int64_t first, int64_t last) {
    const auto source = [=](int64_t p) { return x + (p - p % channels + p % channels % rows * columns + p % channels / rows) * plane; };
    if (!streamed) {
      for (int64_t p = first; p < last; ++p) copy_plane(source(p), out + p * plane, plane);
      return;
    }
    Streamed to(out + first * plane);
    for (int64_t p = first; p < last; ++p) {
      const char *const from = source(p), *const next = source(std::min(p + 1 + kAhead / 4 / plane, last - 1));
      for (int64_t at = 0, bytes = 0; at < plane; at += bytes) {
        bytes = std::min(kBuffer, plane - at);
        copy_plane(from + at, to.room(), bytes);
        to.add(bytes, next + at);
      }
    }
  });
}

}  // namespace

namespace convsmith {

void shuffle_rows(const Shuffle& s) {
  shuffle_planes(s.from, s.to, s.batch, s.rows, s.columns, s.area * s.item);
}

void shuffle_channels_last(const Shuffle& s) {
  switch (s.item) {
    case 1: return shuffle_last<uint8_t>(s.from, s.to, s.batch * s.area, s.rows, s.columns);
    case 2: return shuffle_last<uint16_t>(s.from, s.to, s.batch * s.area, s.rows, s.columns);
    case 4: return shuffle_last<uint32_t>(s.from, s.to, s.batch * s.area, s.rows, s.columns);
    case 8: return shuffle_last<uint64_t>(s.from, s.to, s.batch * s.area, s.rows, s.columns);
    default: return shuffle_last<Item16>(s.from, s.to, s.batch * s.area, s.rows, s.columns);
  }
}

}  // namespace convsmith
