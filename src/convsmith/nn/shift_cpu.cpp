// The shift operation (`shift.py`) on the CPU in one pass over the map, for maps in rows and for channels-last ones.
//
// Borders are never branched on: a mask clears what a tap has read outside of the map. Values are moved as bytes.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

using torch::stable::Tensor;

namespace {

constexpr int64_t kSmall = 4096;       // bytes of a plane up to which masks of whole planes stay in the cache
constexpr int64_t kGrain = 32 * 1024;  // bytes that are worth a thread
constexpr int64_t kFew = 3;            // taps in a block up to which each is joined by itself

typedef uint64_t Block __attribute__((vector_size(64)));
typedef uint64_t Half __attribute__((vector_size(32)));  // of planes, which begin anywhere in a line of the cache
typedef uint64_t Narrow __attribute__((vector_size(16)));
constexpr int64_t kBlock = sizeof(Block), kHalf = sizeof(Half);

template <typename T = Block>
inline T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
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
  // In rows: a mask of a plane for each tap. Channels-last: for each block of a pixel one for each of its parts, which
  // are its taps or, where these are many, first the k rows of taps and then their k columns.
  std::vector<Block> masks;
  int64_t each = 0;            // in rows: bytes of a mask, in whole halves; channels-last: parts of a block
  std::vector<int32_t> parts;  // channels-last: the tap of each part
  bool slides = false;
};

void add_masks(Table& table, const std::vector<char>& bytes) {
  table.masks.resize((bytes.size() + kBlock - 1) / kBlock);  // aligned: loads that cross lines of the cache are slow
  std::memcpy(table.masks.data(), bytes.data(), bytes.size());
}

void add_masks_of_planes(Table& table, const Size& s, int64_t item) {
  std::vector<char> masks;
  table.each = (s.height * s.width * item + kHalf - 1) / kHalf * kHalf;
  for (size_t t = 0; t < table.down.size(); ++t) {
    masks.resize(t * table.each);
    for (int64_t i = 0; i < s.height * s.width; ++i) {
      const int64_t y = i / s.width + table.down[t], x = i % s.width + table.right[t];
      masks.insert(masks.end(), item, y >= 0 && y < s.height && x >= 0 && x < s.width ? -1 : 0);
    }
  }
  masks.resize(table.down.size() * table.each);
  add_masks(table, masks);
}

void add_parts_of_pixels(Table& table, int64_t item, int64_t block, const Moves& m) {
  const int64_t pixel = table.taps.size() * item, blocks = (pixel + block - 1) / block, k = m.kernel_size;
  const auto tap = [&](int64_t b, int64_t i) { return table.taps[(std::min(b * block, pixel - block) + i) / item]; };
  std::vector<std::vector<int32_t>> read(blocks);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t i = 0; i < block; ++i) read[b].push_back(tap(b, i));
    std::sort(read[b].begin(), read[b].end());
    read[b].erase(std::unique(read[b].begin(), read[b].end()), read[b].end());
    table.each = std::max<int64_t>(table.each, read[b].size());
  }
  table.slides = table.each > kFew && block == kBlock && m.stride == 1 && m.dilation == 1 && (k == 3 || k == 5);
  std::vector<char> masks;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t part = 0; table.slides && part < 2 * k; ++part)
      for (int64_t i = 0; i < block; ++i)
        masks.push_back((part < k ? table.down[tap(b, i)] == part - k / 2 : table.right[tap(b, i)] == k + k / 2 - part) ? -1 : 0);
    if (table.slides) continue;
    read[b].resize(table.each, read[b].back());  // equally many parts for all blocks: the last one again does no harm
    for (const int32_t t : read[b]) {
      table.parts.push_back(t);
      for (int64_t i = 0; i < block; ++i) masks.push_back(tap(b, i) == t ? -1 : 0);
    }
  }
  add_masks(table, masks);
}

const Table& table_of(const Size& s, const Moves& m, bool last, int64_t item, int64_t block) {
  using Key = std::array<int64_t, 10>;
  static thread_local std::map<Key, Table> tables;
  const int64_t height = last ? 0 : s.height, width = last ? 0 : s.width;
  const Key key{s.channels, height, width, m.kernel_size, m.dilation, m.stride, m.sign, m.interleaved, last, item};
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
    add_parts_of_pixels(table, item, block, m);
  } else if (s.height * s.width * item <= kSmall) {
    add_masks_of_planes(table, s, item);
  }
  return table;
}

// Zeros to read where a tap leads outside of the map.
const char* zeros(int64_t bytes) {
  static thread_local std::vector<Block> blocks;
  if (int64_t(blocks.size()) * kBlock < bytes) blocks.resize(bytes / kBlock + 1);
  return reinterpret_cast<const char*>(blocks.data());
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
  for (int64_t i = 0; i < bytes; i += kHalf) {
    const Half half = load<Half>(from + i) & load<Half>(mask + i);
    std::memcpy(to + i, &half, kHalf);
  }
}

template <typename T>
void shift_rows(const char* x, char* out, int64_t batch, const Size& s, const Moves& m) {
  const Table& table = table_of(s, m, false, sizeof(T), kBlock);
  const int64_t bytes = s.height * s.width * sizeof(T), out_bytes = s.rows * s.columns * sizeof(T);
  const int64_t planes = batch * s.channels, grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, bytes));
  torch::stable::parallel_for(0, planes, grain, [&table, s, m, x, out, bytes, out_bytes, planes](int64_t begin, int64_t end) {
    // Copies: what is written may, for all that the compiler knows, be the table.
    const bool masked = m.stride == 1 && !table.masks.empty();
    const int64_t each = table.each, width = s.width, channels = s.channels;
    const int32_t* const taps = table.taps.data();
    const int64_t *const down = table.down.data(), *const right = table.right.data();
    const char* const masks = reinterpret_cast<const char*>(table.masks.data());
    int64_t c = begin % channels;
    for (int64_t p = begin; p < end; ++p, c = c + 1 < channels ? c + 1 : 0) {
      const int64_t t = taps[c], dy = down[t], dx = right[t];
      const int64_t first = p * bytes + (dy * width + dx) * int64_t(sizeof(T));
      const char* const plane = x + p * bytes;
      char* const to = out + p * out_bytes;
      if (m.stride > 1) {
        move_strided_plane(reinterpret_cast<const T*>(plane), reinterpret_cast<T*>(to), s, m.stride, dy, dx);
      } else if (masked && first >= 0 && first + each <= planes * bytes && p * bytes + each <= end * bytes) {
        move_masked(x + first, masks + t * each, to, each);  // its last half reaches into the plane that comes next
      } else {
        move_plane(reinterpret_cast<const T*>(plane), reinterpret_cast<T*>(to), s, dy, dx);
      }
    }
  });
}

// Maps in channels-last order: where a call begins, and what is the same for all of its rows.
struct Last {
  const char* x;
  char* out;
  const Size s;
  const Moves m;
  const Table& table;
  const char* nothing;
  const int64_t batch, pixel;
  const int64_t line = s.width * pixel;

  // An image's row, from `right` on; zeros where there is none.
  const char* row(int64_t image, int64_t h, int64_t right) const {
    return h < 0 || h >= s.height ? nothing : x + (image * s.height + h) * line + right;
  }

  // What is fetched while `count` rows are made, so that memory is read in its order: the rows that come next.
  const char* ahead(int64_t image, int64_t h, int64_t count) const {
    const int64_t next = image * s.height + h + m.kernel_size / 2 * m.dilation + count;
    return x + std::clamp<int64_t>(next, 0, std::max<int64_t>(0, batch * s.height - count)) * line;
  }
};

// kPixels neighbouring pixels, each block from the kEach pixels that its taps read; 0 stands for any number.
template <typename T, int kPixels, int kEach>
inline void join(const char* const* from, int64_t step, char* to, int64_t pixel, const Table& table, const char* ahead) {
  const int64_t each = kEach ? kEach : table.each;
  const int32_t* tap = table.parts.data();
  const char* mask = reinterpret_cast<const char*>(table.masks.data());
  for (int64_t b = 0; b < pixel; b += sizeof(T)) {
    const int64_t at = std::min<int64_t>(b, pixel - sizeof(T));  // the last block may overlap
    T blocks[kPixels]{};
    for (int p = 0; p < kPixels; ++p) __builtin_prefetch(ahead + p * step + at);
    for (int64_t i = 0; i < each; ++i, mask += sizeof(T)) {
      const char* const source = from[*tap++] + at;
      for (int p = 0; p < kPixels; ++p) blocks[p] |= load<T>(source + p * step) & load<T>(mask);
    }
    for (int p = 0; p < kPixels; ++p) std::memcpy(to + p * pixel + at, &blocks[p], sizeof(T));
  }
}

template <typename T, int kEach>
void join_rows(const Last& call, int64_t first, int64_t last) {
  constexpr int64_t kPixels = 4;
  const auto& [x, out, s, m, table, nothing, batch, pixel, line] = call;
  const int64_t taps = m.taps(), step = m.stride * pixel, reach = m.kernel_size / 2 * m.dilation;
  const int64_t begin = (reach + m.stride - 1) / m.stride;  // from here to `end` all taps are inside
  const int64_t end = s.width > reach ? std::min(s.columns, (s.width - reach - 1) / m.stride + 1) : 0;
  std::vector<const char*> lines(taps), from(taps);
  for (int64_t row = first; row < last; ++row) {
    const int64_t image = row / s.rows, h = row % s.rows * m.stride;
    for (int64_t t = 0; t < taps; ++t) lines[t] = call.row(image, h + table.down[t], table.right[t] * pixel);
    const char* const ahead = call.ahead(image, h, 1);
    char* const to = out + row * s.columns * pixel;
    for (int64_t j = 0; j < s.columns;) {
      const bool inside = j >= begin && j < end && end - begin >= kPixels;
      if (inside) j = std::min(j, end - kPixels);
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t w = j * m.stride + table.right[t];
        from[t] = lines[t] == nothing || w < 0 || w >= s.width ? nothing : lines[t] + j * step;
      }
      if (inside) {
        join<T, kPixels, kEach>(from.data(), step, to + j * pixel, pixel, table, ahead + j * step);
      } else {
        join<T, 1, kEach>(from.data(), step, to + j * pixel, pixel, table, ahead + j * step);
      }
      j += inside ? kPixels : 1;
    }
  }
}

// One block of the pixels of kRows rows, from left to right. What its channels read above and below is joined (`down`)
// and added to the kSize blocks of the row that read here (`right`), of which one then is done: each tap's row and
// column are looked up by themselves, k + k parts instead of k * k. Where pixels lie multiples of 1024 bytes apart the
// reads share few sets of the first cache: 1024 channels take twice the time of 1040.
template <int kSize, int kRows>
void slide(const char* const* lines, const Block* masks, int64_t step, int64_t count, char* to, int64_t line, const char* ahead) {
  constexpr int64_t kReach = kSize / 2;
  Block down[kSize], right[kSize], coming[kRows][kSize]{};
  std::memcpy(down, masks, sizeof(down));
  std::memcpy(right, masks + kSize, sizeof(right));
  for (int64_t i = 0; i < count + kReach; ++i) {
    Block read[kRows]{};
    if (i < count) {
      for (int h = 0; h < kSize + kRows - 1; ++h) {
        const Block block = load(lines[h] + i * step);
        for (int r = std::max(0, h + 1 - kSize); r <= std::min(h, kRows - 1); ++r) read[r] |= block & down[h - r];
      }
      for (int r = 0; r < kRows; ++r) __builtin_prefetch(ahead + (i * kRows + r) * kBlock, 0, 2);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int q = 0; q < kSize; ++q) coming[r][q] |= read[r] & right[q];
      if (i >= kReach) std::memcpy(to + r * line + (i - kReach) * step, &coming[r][0], kBlock);
      for (int q = 0; q + 1 < kSize; ++q) coming[r][q] = coming[r][q + 1];
      coming[r][kSize - 1] = Block{};
    }
  }
}

template <int kSize, int kRows>
void slide_row(const Last& call, int64_t row) {
  const auto& [x, out, s, m, table, nothing, batch, pixel, line] = call;
  const int64_t image = row / s.rows, h = row % s.rows;
  const char* ahead = call.ahead(image, h, kRows);
  const Block* masks = table.masks.data();
  for (int64_t b = 0; b < pixel; b += kBlock, masks += 2 * kSize, ahead += s.width * kBlock * kRows) {
    const int64_t at = std::min(b, pixel - kBlock);
    const char* lines[kSize + kRows - 1];
    for (int i = 0; i < kSize + kRows - 1; ++i) lines[i] = call.row(image, h + i - kSize / 2, at);
    slide<kSize, kRows>(lines, masks, pixel, s.width, out + row * line + at, line, ahead);
  }
}
template <int kSize>
void slide_rows(const Last& call, int64_t first, int64_t last) {
  constexpr int kRows = 3;
  for (int64_t row = first; row < last;) {
    const bool together = row + kRows <= last && row % call.s.rows + kRows <= call.s.rows;
    together ? slide_row<kSize, kRows>(call, row) : slide_row<kSize, 1>(call, row);
    row += together ? kRows : 1;
  }
}

template <typename T>
void shift_last(const char* x, char* out, int64_t batch, const Size& s, const Moves& m, int64_t item) {
  const Table& table = table_of(s, m, true, item, sizeof(T));
  const int64_t pixel = s.channels * item, grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.columns * pixel));
  const Last call{x, out, s, m, table, zeros(std::max(s.width, 4 * m.stride) * pixel), batch, pixel};
  const std::array<decltype(&join_rows<T, 0>), kFew + 1> joining{join_rows<T, 0>, join_rows<T, 1>, join_rows<T, 2>, join_rows<T, 3>};
  const auto join_rows = joining[table.each <= kFew ? table.each : 0];
  torch::stable::parallel_for(0, batch * s.rows, grain, [&](int64_t first, int64_t last) {
    if (!table.slides) {
      join_rows(call, first, last);
    } else if (m.kernel_size == 3) {
      slide_rows<3>(call, first, last);
    } else {
      slide_rows<5>(call, first, last);
    }
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
  if (last && s.channels * item >= kBlock) {
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
