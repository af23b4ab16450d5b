// The shift operation (`shift.py`) on the CPU in one pass over the map, for maps in rows and for channels-last ones.
//
// Borders are never branched on: a mask clears what a tap has read outside of the map. Values are moved as bytes.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

using torch::stable::Tensor;

namespace {

constexpr int64_t kBlock = 32;         // bytes moved at a time
constexpr int64_t kSmall = 4096;       // bytes of a plane up to which masks of whole planes stay in the cache
constexpr int64_t kGrain = 32 * 1024;  // bytes that are worth a thread

typedef uint64_t Block __attribute__((vector_size(kBlock)));

inline Block load(const char* from) {
  Block block;
  std::memcpy(&block, from, kBlock);
  return block;
}

struct Size {
  int64_t channels, height, width, rows, columns;
};

struct Moves {
  int64_t kernel_size, dilation, stride, sign;
  bool interleaved;

  int64_t taps() const { return kernel_size * kernel_size; }

  int64_t tap(int64_t channel, int64_t channels) const {
    const int64_t group = channels / taps();
    return channel >= group * taps() ? taps() / 2 : interleaved ? channel % taps() : channel / group;
  }

  int64_t distance(int64_t step) const { return sign * dilation * (step - kernel_size / 2); }
};

// What a call needs beside the map, made once for maps of a kind: to make it takes longer than to move a small map.
struct Table {
  std::vector<int32_t> taps;         // of each channel
  std::vector<int64_t> down, right;  // of each tap
  std::vector<char> masks;           // in rows: one of a plane for each tap; channels-last: one for each part
  int64_t each = 0;                  // in rows: bytes of a mask, in whole blocks; channels-last: parts of a block
  std::vector<int32_t> parts;        // channels-last: the tap of each part of each block of a pixel
};

void add_masks_of_planes(Table& table, const Size& s, int64_t item) {
  table.each = (s.height * s.width * item + kBlock - 1) / kBlock * kBlock;
  for (size_t t = 0; t < table.down.size(); ++t) {
    table.masks.resize(t * table.each);
    for (int64_t i = 0; i < s.height * s.width; ++i) {
      const int64_t y = i / s.width + table.down[t], x = i % s.width + table.right[t];
      table.masks.insert(table.masks.end(), item, y >= 0 && y < s.height && x >= 0 && x < s.width ? -1 : 0);
    }
  }
  table.masks.resize(table.down.size() * table.each);
}

void add_parts_of_pixels(Table& table, int64_t item) {
  const int64_t values = kBlock / item, blocks = table.taps.size() / values;
  std::vector<std::vector<int32_t>> read(blocks);
  for (int64_t b = 0; b < blocks; ++b) {
    read[b].assign(table.taps.begin() + b * values, table.taps.begin() + (b + 1) * values);
    std::sort(read[b].begin(), read[b].end());
    read[b].erase(std::unique(read[b].begin(), read[b].end()), read[b].end());
    table.each = std::max<int64_t>(table.each, read[b].size());
  }
  for (int64_t b = 0; b < blocks; ++b) {
    read[b].resize(table.each, read[b].back());  // equally many parts for all blocks: the last one again does no harm
    for (const int32_t t : read[b]) {
      table.parts.push_back(t);
      for (int64_t c = b * values; c < (b + 1) * values; ++c)
        table.masks.insert(table.masks.end(), item, table.taps[c] == t ? -1 : 0);
    }
  }
}

const Table& table_of(const Size& s, const Moves& m, bool last, int64_t item) {
  using Key = std::array<int64_t, 9>;
  static thread_local std::map<Key, Table> tables;
  const Key key{s.channels, last ? 0 : s.height, last ? 0 : s.width, m.kernel_size, m.dilation, m.sign, m.interleaved, last, item};
  const auto found = tables.find(key);
  if (found != tables.end()) return found->second;
  if (tables.size() >= 256) tables.clear();  // a bound on the memory of a program that meets maps of many sizes
  Table& table = tables[key];
  for (int64_t c = 0; c < s.channels; ++c) table.taps.push_back(m.tap(c, s.channels));
  for (int64_t t = 0; t < m.taps(); ++t) {
    table.down.push_back(m.distance(t / m.kernel_size));
    table.right.push_back(m.distance(t % m.kernel_size));
  }
  if (last) {
    add_parts_of_pixels(table, item);
  } else if (s.height * s.width * item <= kSmall) {
    add_masks_of_planes(table, s, item);
  }
  return table;
}

// A plane as one move of memory; then zeros where that has read another row or another plane.
template <typename T>
void move_plane(const T* x, T* out, const Size& s, int64_t dy, int64_t dx) {
  const int64_t all = s.height * s.width, step = dy * s.width + dx;
  if (std::abs(dy) >= s.height || std::abs(dx) >= s.width) {
    std::memset(out, 0, all * sizeof(T));
    return;
  }
  const int64_t first = std::max<int64_t>(0, -step), last = std::min(all, all - step);
  if (first < last) std::memcpy(out + first, x + first + step, (last - first) * sizeof(T));
  std::memset(out + (dy < 0 ? 0 : (s.height - dy) * s.width), 0, std::abs(dy) * s.width * sizeof(T));
  const int64_t left = dx < 0 ? 0 : s.width - dx;
  for (int64_t j = left; j < left + std::abs(dx); ++j)
    for (int64_t i = j; i < all; i += s.width) out[i] = 0;
}

template <typename T>
void move_strided_plane(const T* x, T* out, const Size& s, int64_t stride, int64_t dy, int64_t dx) {
  for (int64_t i = 0; i < s.rows; ++i) {
    for (int64_t j = 0; j < s.columns; ++j) {
      const int64_t h = i * stride + dy, w = j * stride + dx;
      *out++ = h >= 0 && h < s.height && w >= 0 && w < s.width ? x[h * s.width + w] : 0;
    }
  }
}

inline void move_masked(const char* from, const char* mask, char* to, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kBlock) {
    const Block block = load(from + i) & load(mask + i);
    std::memcpy(to + i, &block, kBlock);
  }
}

template <typename T>
void shift_rows(const char* x, char* out, int64_t batch, const Size& s, const Moves& m) {
  const Table& table = table_of(s, m, false, sizeof(T));
  const int64_t bytes = s.height * s.width * sizeof(T), out_bytes = s.rows * s.columns * sizeof(T);
  const int64_t planes = batch * s.channels, grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, bytes));
  torch::stable::parallel_for(0, planes, grain, [&table, s, m, x, out, bytes, out_bytes, planes](int64_t begin, int64_t end) {
    // Copies: what is written may, for all that the compiler knows, be the table.
    const bool masked = m.stride == 1 && !table.masks.empty();
    const int64_t each = table.each, width = s.width, channels = s.channels;
    const int32_t* const taps = table.taps.data();
    const int64_t *const down = table.down.data(), *const right = table.right.data();
    const char* const masks = table.masks.data();
    int64_t c = begin % channels;
    for (int64_t p = begin; p < end; ++p, c = c + 1 < channels ? c + 1 : 0) {
      const int64_t t = taps[c], dy = down[t], dx = right[t];
      const int64_t first = p * bytes + (dy * width + dx) * int64_t(sizeof(T));
      const char* const plane = x + p * bytes;
      char* const to = out + p * out_bytes;
      if (m.stride > 1) {
        move_strided_plane(reinterpret_cast<const T*>(plane), reinterpret_cast<T*>(to), s, m.stride, dy, dx);
      } else if (masked && first >= 0 && first + each <= planes * bytes && p * bytes + each <= end * bytes) {
        move_masked(x + first, masks + t * each, to, each);  // its last block reaches into the plane that comes next
      } else {
        move_plane(reinterpret_cast<const T*>(plane), reinterpret_cast<T*>(to), s, dy, dx);
      }
    }
  });
}

// A pixel from the pixels that its taps read, block by block, each of kParts parts; 0 stands for any number.
template <int kParts>
inline void join(const char* const* from, char* to, int64_t bytes, int64_t each, const int32_t* tap, const char* mask) {
  const int64_t parts = kParts ? kParts : each;
  for (int64_t b = 0; b < bytes; b += kBlock) {
    Block block{};
    for (int64_t i = 0; i < parts; ++i, mask += kBlock) block |= load(from[*tap++] + b) & load(mask);
    std::memcpy(to + b, &block, kBlock);
  }
}

template <int kParts>
void join_row(const char* const* lines, const char* zeros, char* out, const Size& s, int64_t stride, int64_t item, const Table& table) {
  const int64_t pixel = s.channels * item, blocks = pixel / kBlock * kBlock, taps = table.right.size();
  const auto [leftmost, rightmost] = std::minmax_element(table.right.begin(), table.right.end());
  const bool whole = std::all_of(lines, lines + taps, [](const char* line) { return line != nullptr; });
  std::vector<const char*> sources(taps);
  const char** const from = sources.data();
  bool inside = false;
  for (int64_t j = 0; j < s.columns; ++j, out += pixel) {
    const bool was_inside = inside;
    inside = whole && j * stride + *leftmost >= 0 && j * stride + *rightmost < s.width;
    for (int64_t t = 0; t < taps; ++t) {
      if (inside && was_inside) {
        from[t] += stride * pixel;
      } else {
        const int64_t w = j * stride + table.right[t];
        from[t] = lines[t] && w >= 0 && w < s.width ? lines[t] + w * pixel : zeros;
      }
    }
    join<kParts>(from, out, blocks, table.each, table.parts.data(), table.masks.data());
    for (int64_t i = blocks; i < pixel; i += item) std::memcpy(out + i, from[table.taps[i / item]] + i, item);
  }
}

void shift_last(const char* x, char* out, int64_t batch, const Size& s, const Moves& m, int64_t item) {
  const Table& table = table_of(s, m, true, item);
  const int64_t pixel = s.channels * item, taps = m.taps();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.columns * pixel));
  const std::vector<char> zeros(pixel, 0);
  const std::array<decltype(&join_row<0>), 4> joining{join_row<0>, join_row<1>, join_row<2>, join_row<3>};
  const auto join = joining[table.each < 4 ? table.each : 0];
  torch::stable::parallel_for(0, batch * s.rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<const char*> lines(taps);
    for (int64_t row = begin; row < end; ++row) {
      const char* image = x + row / s.rows * s.height * s.width * pixel;
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t h = row % s.rows * m.stride + table.down[t];
        lines[t] = h >= 0 && h < s.height ? image + h * s.width * pixel : nullptr;
      }
      join(lines.data(), zeros.data(), out + row * s.columns * pixel, s, m.stride, item, table);
    }
  });
}

Tensor empty(const Tensor& like, int64_t batch, const Size& s, bool last) {
  const int64_t area = s.rows * s.columns, size[] = {batch, s.channels, s.rows, s.columns};
  const int64_t in_rows[] = {s.channels * area, area, s.columns, 1};
  const int64_t channels_last[] = {s.channels * area, 1, s.columns * s.channels, s.channels};
  int32_t type, device;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4, size, last ? channels_last : in_rows, type, device, 0, &handle));
  return Tensor(handle);
}

Tensor shift(const Tensor& x, int64_t kernel_size, int64_t dilation, int64_t stride, bool interleaved, int64_t sign, bool last) {
  const int64_t batch = x.size(0), height = x.size(2), width = x.size(3), item = x.element_size();
  const Size s{x.size(1), height, width, (height + stride - 1) / stride, (width + stride - 1) / stride};
  const Moves m{kernel_size, dilation, stride, sign, interleaved};
  Tensor out = empty(x, batch, s, last);
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  if (last) {
    shift_last(from, to, batch, s, m, item);
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
