// A non-zero of one output channel.

#ifndef CUSTOM_OPS_CORE_SPARSE_CONV_NONZERO_H_
#define CUSTOM_OPS_CORE_SPARSE_CONV_NONZERO_H_

#include <cstdint>

namespace sparse_conv {

struct Nonzero {
  int32_t i;  // tap
  int32_t j;
  int32_t channel;  // of the input, over all groups
  int32_t index;    // among the positions
};

}  // namespace sparse_conv

#endif  // CUSTOM_OPS_CORE_SPARSE_CONV_NONZERO_H_
