// The shift of channels-last maps whose blocks read many taps where no column of them should be walked down: in tiles,
// what they read above and below, then left and right.

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

inline auto tiling(int64_t kernel_size, int64_t together) {
  if (kernel_size == 5) return &tile_rows<5, 4>;  // more do not fit into the registers
  switch (together) {
    case 8: return &tile_rows<3, 8>;
    case 7: return &tile_rows<3, 7>;
    default: return &tile_rows<3, 4>;
  }
}

}  // namespace
