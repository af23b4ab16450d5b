// The shift of channels-last maps whose blocks read many taps: what they read above and below, then left and right.

#pragma once

#include "shift_last.h"

namespace {

// A tile of kRows * kPixels pixels, block by block; all of it stays in registers. `left` and `right` columns of what is
// read lie outside of the map.
template <int kSize, int kRows, int kPixels>
inline void make_tile(const Last& given, const char* const* rows, int64_t left, int64_t right, char* to, const char* ahead) {
  constexpr int kReads = kSize + kRows - 1, kColumns = kPixels + kSize - 1;
  const Steps call(given);
  const int64_t pixel = call.pixel, line = call.line;
  const Block* mask = given.pixels.masks.data();
  const char* from[kReads];
  std::copy(rows, rows + kReads, from);
  for (int64_t b = 0; b < pixel; b += kRegister, mask += 2 * kSize) {
    const int64_t at = std::min(b, pixel - kRegister);
    call.fetch<kRows, kPixels>(ahead, to, at);
    Block down[kSize], across[kSize], made[kRows][kPixels];
#pragma GCC unroll 8
    for (int i = 1; i < kSize; ++i) down[i] = mask[i], across[i] = mask[kSize + i];
    int64_t place = at;
#pragma GCC unroll 16
    for (int i = 0; i < kColumns; ++i, place += pixel) {
      Block read[kRows]{};
      if (!(i < kSize / 2 && i < left) && !(i >= kColumns - kSize / 2 && i >= kColumns - right)) {
#pragma GCC unroll 16
        for (int h = 0; h < kReads; ++h) {
          const Block block = load<Block>(from[h] + place);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r)
            if (h >= r && h < r + kSize) read[r] = h == r ? block : select(down[h - r], block, read[r]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p) {
          if (i >= p && i < p + kSize) made[r][p] = i == p ? read[r] : select(across[i - p], read[r], made[r][p]);
          if (i == p + kSize - 1) store(to + r * line + p * pixel + at, made[r][p]);
        }
      }
    }
  }
}

template <int kSize, int kRows, int kPixels>
void make_tiles(const Last& call, int64_t row) {
  constexpr int kReads = kSize + kRows - 1, kReach = kSize / 2;
  const int64_t image = row / call.s.rows, h = row % call.s.rows, width = call.s.width;
  const char* const ahead = call.ahead(image, h, kRows);
  for (int64_t j = 0; j < width; j += kPixels) {
    const int64_t w = std::min(j, width - kPixels);
    const char* rows[kReads];
    for (int i = 0; i < kReads; ++i) {
      const int64_t from = h + i - kReach;
      rows[i] = call.row(image, from) + (call.inside(from) ? (w - kReach) * call.pixel : 0);
    }
    char* const to = call.out + row * call.line + w * call.pixel;
    make_tile<kSize, kRows, kPixels>(call, rows, kReach - w, w + kPixels + kReach - width, to, ahead + w * call.pixel);
  }
}

// One block of the pixels of kRows rows, from left to right. What its channels read above and below is joined (`down`)
// and added to the kSize blocks of the row that read here (`right`), of which one then is done. For kernels too large
// for tiles: each pixel is read once. Where pixels lie multiples of 1024 bytes apart the reads share few sets of the
// first cache: 1024 channels take twice the time of 1040.
template <int kSize, int kRows>
void slide(const char* const* lines, const Block* masks, const Steps call, int64_t count, char* to, const char* ahead) {
  constexpr int64_t kReach = kSize / 2;
  Block down[kSize], right[kSize], coming[kRows][kSize]{};
  std::copy(masks, masks + kSize, down);
  std::reverse_copy(masks + kSize, masks + 2 * kSize, right);
  for (int64_t i = 0; i < count + kReach; ++i) {
    Block read[kRows]{};
    if (i < count) {
      for (int h = 0; h < kSize + kRows - 1; ++h) {
        const Block block = load<Block>(lines[h] + i * call.pixel);
        for (int r = std::max(0, h + 1 - kSize); r <= std::min(h, kRows - 1); ++r) read[r] |= block & down[h - r];
      }
      for (int r = 0; r < kRows; ++r) __builtin_prefetch(ahead + (i * kRows + r) * kRegister, 0, 2);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int q = 0; q < kSize; ++q) coming[r][q] |= read[r] & right[q];
      char* const done = to + r * call.line + (i - kReach) * call.pixel;
      if (i >= kReach) call.streams ? stream(done, coming[r][0]) : store(done, coming[r][0]);
      for (int q = 0; q + 1 < kSize; ++q) coming[r][q] = coming[r][q + 1];
      coming[r][kSize - 1] = Block{};
    }
  }
}

template <int kSize, int kRows>
void slide_along(const Last& call, int64_t row) {
  const int64_t image = row / call.s.rows, h = row % call.s.rows, pixel = call.pixel, width = call.s.width;
  const char* ahead = call.ahead(image, h, kRows);
  const Block* masks = call.pixels.masks.data();
  for (int64_t b = 0; b < pixel; b += kRegister, masks += 2 * kSize, ahead += width * kRegister * kRows) {
    const int64_t at = std::min(b, pixel - kRegister);
    const char* lines[kSize + kRows - 1];
    for (int i = 0; i < kSize + kRows - 1; ++i) lines[i] = call.row(image, h + i - kSize / 2) + at;
    slide<kSize, kRows>(lines, masks, Steps(call), width, call.out + row * call.line + at, ahead);
  }
}

// kRows rows at a time, and one by one those that are left of an image or of a thread's share.
template <int kRows, typename Many, typename One>
void by_rows(const Last& call, int64_t first, int64_t last, Many many, One one) {
  for (int64_t row = first; row < last;) {
    const bool together = row + kRows <= last && row % call.s.rows + kRows <= call.s.rows;
    together ? many(call, row) : one(call, row);
    row += together ? kRows : 1;
  }
}

template <int kSize, int kPixels>
void tile_rows(const Last& call, int64_t first, int64_t last) {
  by_rows<2>(call, first, last, make_tiles<kSize, 2, kPixels>, make_tiles<kSize, 1, kPixels>);
}

inline void slide_rows(const Last& call, int64_t first, int64_t last) {
  by_rows<3>(call, first, last, slide_along<5, 3>, slide_along<5, 1>);
}

inline auto on_grid(Form form, int64_t kernel_size, int64_t together) {
  if (form == Form::kSlide) return &slide_rows;
  if (kernel_size == 5) return &tile_rows<5, 4>;  // more do not fit into the registers
  switch (together) {
    case 8: return &tile_rows<3, 8>;
    case 7: return &tile_rows<3, 7>;
    default: return &tile_rows<3, 4>;
  }
}

}  // namespace
