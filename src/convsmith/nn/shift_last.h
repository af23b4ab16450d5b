// The shift of channels-last maps: each block of a pixel is joined from the blocks of the pixels that its channels read.
//
// Blocks of few taps are joined from these (`join_rows`). Where they are of many, the moves down and those to the right
// are made one after the other, k + k parts instead of k * k (`shift_walk.h`; `shift_grid.h`). No loop over channels asks
// whether a pixel is inside: pixels outside are read where zeros lie.

#pragma once

#include "shift_moves.h"

#include <array>
#include <map>

namespace {

// Bytes of a map and its shift from which on memory is asked for ahead of time; and of the shift alone from which on it
// will not be found in a cache anyway.
constexpr int64_t kFar = 6 << 20, kStreamed = 8 << 20;

// Bytes of a pixel from which on a few of them fill the sets of the first cache that they share.
constexpr int64_t kWide = 1024;

enum class Form { kJoin, kGrid };

// What a call needs beside the map, made once for maps of a kind.
struct Pixels {
  Form form = Form::kJoin;
  int64_t together = 1;             // pixels that are made at once
  std::vector<int64_t> columns;     // to join: those that a tile reads, from its first pixel on
  std::vector<int32_t> parts;       // to join: of each block
  std::vector<int32_t> reads;       // to join: of each part, the row and the column of its first pixel
  std::vector<Block> masks;         // of each part; of the first of a block only on the grid
};

// Pixels of a tile: those that leave the fewest to be made twice at the end of a row.
inline int64_t tile_of(int64_t columns, std::initializer_list<int64_t> sizes = {8, 7, 4}) {
  int64_t best = 1, least = 0;
  for (const int64_t pixels : sizes) {
    const int64_t made = (columns + pixels - 1) / pixels * pixels;
    if (pixels <= columns && (best == 1 || made < least)) best = pixels, least = made;
  }
  return best;
}

// Taps of the bytes of each block; the last block ends with the pixel.
inline std::vector<std::vector<int32_t>> taps_of_blocks(const Moves& m, int64_t channels, int64_t item, int64_t block) {
  const int64_t pixel = channels * item;
  std::vector<std::vector<int32_t>> taps;
  for (int64_t b = 0; b < pixel; b += block) {
    taps.emplace_back();
    for (int64_t i = 0; i < block; ++i) taps.back().push_back(m.tap((std::min(b, pixel - block) + i) / item, channels));
  }
  return taps;
}

template <typename Is>
void add_mask(std::vector<char>& masks, const std::vector<int32_t>& taps, Is is) {
  for (const int32_t tap : taps) masks.push_back(is(tap) ? -1 : 0);
}

inline std::vector<int32_t> distinct(std::vector<int32_t> taps) {
  std::sort(taps.begin(), taps.end());
  taps.erase(std::unique(taps.begin(), taps.end()), taps.end());
  return taps;
}

inline Pixels make_pixels(const Moves& m, int64_t channels, int64_t item, int64_t block, int64_t together) {
  Pixels pixels{.together = together};
  const auto blocks = taps_of_blocks(m, channels, item, block);
  const int64_t k = m.kernel_size;
  size_t most = 0;
  for (const auto& taps : blocks) most = std::max(most, distinct(taps).size());
  std::vector<char> masks;
  const bool grid = block == kRegister && m.stride == 1 && m.dilation == 1 && together > 1;
  if (grid && ((k == 3 && most > 4) || (k == 5 && most > 6))) {
    pixels.form = Form::kGrid;
    for (const auto& taps : blocks) {
      for (int64_t part = 0; part < k; ++part) add_mask(masks, taps, [=](int64_t tap) { return tap / k == part; });
      for (int64_t part = 0; part < k; ++part) add_mask(masks, taps, [=](int64_t tap) { return tap % k == part; });
    }
  } else {
    const bool dense = m.stride == 1;  // neighbouring pixels then share what they read
    for (int64_t i = 0; dense && i < together + 2 * m.reach(); ++i) pixels.columns.push_back(i - m.reach());
    for (int64_t q = 0; !dense && q < k; ++q)
      for (int64_t p = 0; p < together; ++p) pixels.columns.push_back(p * m.stride + m.distance(q));
    const int64_t width = pixels.columns.size(), step = dense ? m.dilation : together;
    for (const auto& taps : blocks) {
      const auto own = distinct(taps);
      pixels.parts.push_back(own.size());
      for (const int32_t tap : own) {
        pixels.reads.push_back(tap / k * width + tap % k * step);
        if (tap != own[0]) add_mask(masks, taps, [=](int32_t other) { return other == tap; });
      }
    }
  }
  append(pixels.masks, masks);
  return pixels;
}

inline const Pixels& pixels_of(const Size& s, const Moves& m, int64_t item, int64_t block) {
  using Key = std::array<int64_t, 8>;
  static thread_local std::map<Key, Pixels> known;
  const int64_t together = tile_of(s.columns);
  const Key key{s.channels, together, m.kernel_size, m.dilation, m.stride, m.sign, m.interleaved, item};
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  if (known.size() >= 256) known.clear();  // a bound on the memory of a program that meets maps of many sizes
  return known[key] = make_pixels(m, s.channels, item, block, together);
}

// Where a call begins, and what is the same for all of its rows.
struct Last {
  const char* x;
  char* out;
  const Size s;
  const Moves m;
  const Pixels& pixels;
  const char* nothing;
  const int64_t batch, pixel;
  const int64_t line = s.width * pixel, out_line = s.columns * pixel;

  bool far() const { return batch * (s.height * line + s.rows * out_line) >= kFar; }

  bool large() const { return batch * s.rows * out_line >= kStreamed; }

  bool streams() const { return large() && pixel % kRegister == 0 && reinterpret_cast<uintptr_t>(out) % kRegister == 0; }

  bool inside(int64_t h) const { return h >= 0 && h < s.height; }

  const char* row(int64_t image, int64_t h) const { return inside(h) ? x + (image * s.height + h) * line : nothing; }

  // What is fetched while `count` rows are made, so that memory is read in its order: the rows that come next.
  const char* ahead(int64_t image, int64_t h, int64_t count) const {
    const int64_t next = image * s.height + h + m.reach() + count;
    return x + std::clamp<int64_t>(next, 0, std::max<int64_t>(0, batch * s.height - count)) * line;
  }
};

// What a loop over blocks needs of a call, as copies: what it writes may, for all that the compiler knows, be the call.
struct Steps {
  const int64_t pixel, line, out_line, read;
  const bool far, streams;

  explicit Steps(const Last& call)
      : pixel(call.pixel),
        line(call.line),
        out_line(call.out_line),
        read(call.m.stride * call.pixel),
        far(call.far()),
        streams(call.streams()) {}

  // Fetch a block of `kRows` rows of pixels, and of those of the result that follow the ones at `to`. Inline: a call
  // of a function that only fetches is one that a compiler leaves out.
  template <int kRows, int kPixels>
  __attribute__((always_inline)) void fetch(const char* ahead, const char* to, int64_t at) const {
    if (!far) return;
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kPixels; ++p) {
        __builtin_prefetch(ahead + r * line + p * read + at);
        if (kRows > 1 || !streams) __builtin_prefetch(to + r * out_line + (kPixels + p) * pixel + at, 1, 2);
      }
    }
  }
};

// Where the pixels of a tile are read: from each of the k rows in each of its columns.
struct Reads {
  const Last& call;
  std::vector<const char*> lines = std::vector<const char*>(call.m.kernel_size), from;
  std::vector<int64_t> steps = std::vector<int64_t>(call.m.kernel_size);  // from a pixel to the next one
  int64_t low = *std::min_element(call.pixels.columns.begin(), call.pixels.columns.end());
  int64_t high = *std::max_element(call.pixels.columns.begin(), call.pixels.columns.end());
  int64_t before = -1;  // where the last tile began if it was inside of the map

  explicit Reads(const Last& of) : call(of), from(of.m.kernel_size * of.pixels.columns.size()) {}

  void begin(int64_t image, int64_t h) {
    for (int64_t i = 0; i < call.m.kernel_size; ++i) {
      lines[i] = call.row(image, h + call.m.distance(i));
      steps[i] = call.inside(h + call.m.distance(i)) ? call.pixel : 0;
    }
    before = -1;
  }

  const char* const* at(int64_t w) {
    const int64_t rows = lines.size(), columns = call.pixels.columns.size();
    const bool inside = w + low >= 0 && w + high < call.s.width;
    if (inside && before >= 0) {
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t step = (w - before) * steps[i];
        for (int64_t j = 0; j < columns; ++j) from[i * columns + j] += step;
      }
    } else {
      for (int64_t j = 0; j < columns; ++j) {
        const int64_t column = w + call.pixels.columns[j];
        const bool is_inside = column >= 0 && column < call.s.width;
        for (int64_t i = 0; i < rows; ++i) from[i * columns + j] = is_inside ? lines[i] + column * steps[i] : call.nothing;
      }
    }
    before = inside ? w : -1;
    return from.data();
  }
};

template <typename T, int kPixels>
inline void join(const Last& given, const char* const* from, char* to, const char* ahead) {
  const Steps call(given);
  const int64_t pixel = call.pixel;
  const int32_t *parts = given.pixels.parts.data(), *read = given.pixels.reads.data();
  const char* mask = reinterpret_cast<const char*>(given.pixels.masks.data());
  for (int64_t b = 0; b < pixel; b += sizeof(T)) {
    const int64_t at = std::min<int64_t>(b, pixel - sizeof(T));  // the last block may overlap
    call.fetch<1, kPixels>(ahead, to, at);
    T blocks[kPixels];
    const char* const* sources = from + *read++;
    for (int p = 0; p < kPixels; ++p) blocks[p] = load<T>(sources[p] + at);
    for (int left = *parts++; left > 1; --left, mask += sizeof(T)) {
      sources = from + *read++;
      const T own = load<T>(mask);
      for (int p = 0; p < kPixels; ++p) blocks[p] = select<T>(own, load<T>(sources[p] + at), blocks[p]);
    }
    for (int p = 0; p < kPixels; ++p) {
      char* const done = to + p * pixel + at;
      call.streams ? stream(done, blocks[p]) : store(done, blocks[p]);
    }
  }
}

template <typename T, int kPixels>
void join_rows(const Last& call, int64_t first, int64_t last) {
  const Size& s = call.s;
  Reads reads(call);
  for (int64_t row = first; row < last; ++row) {
    const int64_t image = row / s.rows, h = row % s.rows * call.m.stride;
    reads.begin(image, h);
    const char* const ahead = call.ahead(image, h, 1);
    for (int64_t j = 0; j < s.columns; j += kPixels) {
      const int64_t w = std::min(j, s.columns - kPixels), read = w * call.m.stride;  // the last tile may overlap
      join<T, kPixels>(call, reads.at(read), call.out + row * call.out_line + w * call.pixel, ahead + read * call.pixel);
    }
  }
}

template <typename T>
auto joining(int64_t together) {
  switch (together) {
    case 8: return &join_rows<T, 8>;
    case 7: return &join_rows<T, 7>;
    case 4: return &join_rows<T, 4>;
    default: return &join_rows<T, 1>;
  }
}

}  // namespace
