// The shift of channels-last maps whose blocks read many taps, in one walk down the map.
//
// Each row is moved to the right as it is read, once, and kept until the rows that it moves down to are done. What is
// kept is a slice of the channels of a few columns and lies together, so that it stays in the first cache: the pixels
// themselves may lie multiples of 1024 bytes apart, and then share few of its sets.

#pragma once

#include "shift_last.h"

namespace {

// Bytes of the rows that are kept: a good third of a first cache; less beside wide pixels, which crowd a few of its sets.
constexpr int64_t kKept = 20 << 10, kKeptWide = 10 << 10;

// Where maps are: in a cache; beyond it, so that rows to come are asked for; or there and written past it.
enum class Memory { kNear, kFar, kStreamed };

// Of each byte: that of `a` where the mask has one, else that of `b`; by a register of bits where a processor has them.
inline Block pick(Block mask, Block a, Block b) {
  typedef uint8_t Bytes __attribute__((vector_size(kRegister)));
  return Block(Bytes(mask) != 0 ? Bytes(a) : Bytes(b));
}

// One row of a tile: where it is read, and where the result of the row kSize / 2 above is written.
template <int kSize>
struct Step {
  const char* from;        // the pixel kSize / 2 before the tile's first
  int64_t next;            // bytes from a pixel to the next one, 0 where the row lies outside of the map
  int64_t left, right;     // pixels that lie outside at either end
  char* to;
  Block* kept[kSize - 1];  // the rows above, from the oldest one on, whose place this one takes
};

// Inline: of narrow maps a row is so little work that a call of a function shows.
template <int kSize, int kPixels, Memory kMemory>
__attribute__((always_inline)) inline void walk_row(
    const Step<kSize>& step, const Block* mask, int64_t pixel, int64_t line, int64_t first, int64_t last) {
  constexpr int kReach = kSize / 2, kColumns = kPixels + kSize - 1;
  int64_t kept = 0;
  for (int64_t b = first; b < last; b += kRegister, mask += 2 * kSize, kept += kPixels) {
    const int64_t at = std::min(b, pixel - kRegister);  // the last block may overlap
    const char* from = step.from + at;  // moved on with the columns: places worked out beforehand fill the registers
    char* to = step.to + at;
    Block down[kSize], across[kSize], read[kColumns];
#pragma GCC unroll 8
    for (int i = 1; i < kSize; ++i) down[i] = mask[i], across[i] = mask[kSize + i];
#pragma GCC unroll 32
    for (int i = 0; i < kColumns; ++i, from += step.next) {
      const bool outside = (i < kReach && i < step.left) || (i >= kColumns - kReach && i >= kColumns - step.right);
      read[i] = outside ? Block{} : load<Block>(from);
      if (i + 1 < kSize) continue;
      if (kMemory == Memory::kFar) __builtin_prefetch(step.from + (i - kReach) * pixel + at + line);
      if (kMemory == Memory::kStreamed) __builtin_prefetch(step.from + (i - kReach) * pixel + at + 2 * line, 0, 2);
      const int p = i + 1 - kSize;
      Block rows[kSize], made = read[p];  // all that is kept is read before any of it is written: a store holds loads up
#pragma GCC unroll 8
      for (int j = 0; j + 1 < kSize; ++j) rows[j] = step.kept[j][kept + p];
#pragma GCC unroll 8
      for (int j = 1; j < kSize; ++j) made = pick(across[j], read[p + j], made);
      step.kept[0][kept + p] = rows[kSize - 1] = made;
      Block done = rows[0];
#pragma GCC unroll 8
      for (int j = 1; j < kSize; ++j) done = pick(down[j], rows[j], done);
      if (kMemory == Memory::kFar) __builtin_prefetch(to + line, 1);
      kMemory == Memory::kStreamed ? stream(to, done) : store(to, done);
      to += pixel;
    }
  }
}

// The rows from `begin` to `end` of an image: the tile that begins in column `w`, its bytes from `first` to `last`.
template <int kSize, int kPixels, Memory kMemory>
void walk(const Last& call, int64_t image, int64_t begin, int64_t end, int64_t w, int64_t first, int64_t last, Block* kept) {
  constexpr int64_t kReach = kSize / 2, kRows = kSize - 1;
  const Block* const masks = call.pixels.masks.data() + first / kRegister * 2 * kSize;
  const int64_t row = (last - first) / kRegister * kPixels, start = std::max<int64_t>(0, begin - kReach);
  std::fill(kept, kept + kRows * row, Block{});  // the rows above the map; of those further up nothing is read
  int64_t oldest = 0;                            // of the rows in `kept`
  Step<kSize> step{.left = kReach - w, .right = w + kPixels + kReach - call.s.width};
  for (int64_t h = start; h < end + kReach; ++h) {
    for (int i = 0; i < kRows; ++i) step.kept[i] = kept + (oldest + i) % kRows * row;
    oldest = (oldest + 1) % kRows;
    step.next = call.inside(h) ? call.pixel : 0;
    step.from = call.row(image, h) + (w - kReach) * step.next;
    const int64_t to = std::max(begin, h - kReach);  // what comes too early is written over
    step.to = call.out + (image * call.s.rows + to) * call.line + w * call.pixel;
    walk_row<kSize, kPixels, kMemory>(step, masks, call.pixel, call.line, first, last);
  }
}

template <int kSize, int kPixels>
void walk_rows(const Last& call, int64_t first, int64_t last) {
  static thread_local std::vector<Block> kept;
  const int64_t rows = call.s.rows, width = call.s.width, blocks = (call.pixel + kRegister - 1) / kRegister;
  const int64_t most = (call.pixel < kWide ? kKept : kKeptWide) / ((kSize - 1) * kPixels * kRegister);
  const int64_t slices = (blocks + most - 1) / most, slice = (blocks + slices - 1) / slices * kRegister;
  kept.resize(std::max<size_t>(kept.size(), (kSize - 1) * kPixels * slice / kRegister));
  auto run = walk<kSize, kPixels, Memory::kNear>;
  if (call.far()) run = walk<kSize, kPixels, Memory::kFar>;
  if (call.streams()) run = walk<kSize, kPixels, Memory::kStreamed>;
  for (int64_t row = first; row < last;) {
    const int64_t image = row / rows, begin = row % rows, end = std::min(rows, begin + last - row);
    for (int64_t b = 0; b < call.pixel; b += slice)
      for (int64_t w = 0; w < width; w += kPixels)
        run(call, image, begin, end, std::min(w, width - kPixels), b, std::min(b + slice, blocks * kRegister), kept.data());
    row += end - begin;
  }
}

// Wide tiles read few columns twice, but of wide pixels too many lines of the cache at once.
template <int kSize>
auto walking(const Last& call) {
  const bool wide = call.pixel >= kWide;
  switch (wide ? tile_of(call.s.width) : kSize > 3 ? tile_of(call.s.width, {14, 8, 7, 4}) : tile_of(call.s.width, {28, 14, 8, 7, 4})) {
    case 28: return &walk_rows<kSize, kSize == 3 ? 28 : 14>;
    case 14: return &walk_rows<kSize, 14>;
    case 8: return &walk_rows<kSize, 8>;
    case 7: return &walk_rows<kSize, 7>;
    default: return &walk_rows<kSize, 4>;
  }
}

}  // namespace
