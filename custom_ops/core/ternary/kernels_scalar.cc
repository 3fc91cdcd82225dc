// The portable kernels as they are: the reference for the other sets.

#include "custom_ops/core/ternary/kernels.h"
#include "custom_ops/core/ternary/kernels_inl.h"

namespace ternary {

const Kernels kScalarKernels = {
    "scalar",
    BlockStatistics<float, uint32_t>,
    BlockStatistics<double, uint64_t>,
    AbsMax<float, uint32_t>,
    AbsMax<double, uint64_t>,
    Ternarize<float>,
    Ternarize<double>,
    WidenF16,
    WidenBf16,
    PackTrits,
    AddTrits,
    nullptr,
    ScaleU8,
};

}  // namespace ternary
