// What `shuffle_cpu.cpp` makes and the operator (`shuffle_operator_cpu.cpp`) calls: apart, they compile side by side.

#pragma once

#include <cstdint>

namespace convsmith {

// A dense map of `batch` images of `rows` * `columns` channels with `area` pixels, and where its shuffle goes.
struct Shuffle {
  const char* from;
  char* to;
  int64_t batch, rows, columns, area, item;  // bytes of a value
};

void shuffle_rows(const Shuffle& s);
void shuffle_channels_last(const Shuffle& s);

}  // namespace convsmith
