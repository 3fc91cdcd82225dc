// Ternary gradient codec: lists of gradients to one payload of int64 words and
// back. Plain C interface, no TensorFlow.
//
// Wen et al. "TernGrad: Ternary Gradients to Reduce Communication in
// Distributed Deep Learning". NIPS 2017.
//
// A gradient element g becomes sign(g) with probability |g| / s and 0
// otherwise; s, the scaler, is shared by all elements of a bucket and by all
// workers. A worker's element travels as the digit sign + 1 in {0, 1, 2}. Two
// payloads:
//
// Words, to be added. The sum of N workers' digits is in [0, 2N], so D digits
// of base 2N + 1 travel in one 64-bit word, (2N + 1)^D <= 2^64, and an ordinary
// wrapping integer sum adds all of them at once. For each tensor in turn
// ceil(size / D) words, the first element in the least significant digit,
// unused digits 0; then one guard word, 1 on each worker, so that its sum says
// how many workers were added.
//
// Trits, to be gathered. Five digits of base 3 in a byte, in groups of 160
// elements and 32 bytes: byte j of a group holds its elements j, 32 + j, ...,
// 128 + j, the first in the least significant digit. Each tensor begins a new
// group; missing elements are zeros. ternary_sum_trits turns groups of all
// workers into the words of their exact sum, in the order of the elements.
//
// Results depend on the arguments only: not on threads, not on the
// instruction set.

#ifndef CUSTOM_OPS_CORE_TERNARY_TERNARY_H_
#define CUSTOM_OPS_CORE_TERNARY_TERNARY_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  kTernaryFloat32 = 0,
  kTernaryFloat64 = 1,
  kTernaryFloat16 = 2,
  kTernaryBfloat16 = 3,
} TernaryDtype;

typedef struct {
  void* data;    // `size` elements; read by scalers/encode, written by
                 // decode
  int64_t size;  // elements
  TernaryDtype dtype;
  uint32_t id;  // position in the variable list; 24 bits
  // Elements at the front and at the back that encode and decode leave out:
  // what is encoded of an element does not change. `before` is a multiple of
  // kTernaryGroup. 0 and 0: the whole tensor.
  int64_t before;
  int64_t after;
} TernaryTensor;

// Runs body(context, begin, end) over [0, items) in any split and order, and
// returns when all are done. `cost` is nanoseconds per item, roughly.
typedef struct {
  void (*run)(void* pool, int64_t items, int64_t cost,
              void (*body)(void* context, int64_t begin, int64_t end),
              void* context);
  void* pool;
} TernaryPool;

// Elements and bytes of a group of trits.
enum { kTernaryGroup = 160, kTernaryGroupBytes = 32 };

// Digits of base 2 * num_workers + 1 in one word.
int ternary_digits_per_word(int64_t num_workers);

// Words of one tensor of `size` elements.
int64_t ternary_num_words(int64_t size, int64_t num_workers);

// Groups of trits of one tensor of `size` elements.
int64_t ternary_num_groups(int64_t size);

// Cuts a list of whole tensors: leaves of each what lies in part `part` of
// num_parts, which differ by at most one group of trits. The parts of one
// exchange may be encoded, sent and decoded one by one.
void ternary_cut(TernaryTensor* tensors, int num_tensors, int64_t part,
                 int64_t num_parts);

// Scalers of one tensor: one if bucket_size is 0, else one per bucket_size
// elements (the last bucket may be shorter).
int64_t ternary_num_buckets(int64_t size, int64_t bucket_size);

// Scalers of all tensors, whole ones, in turn: min(max|g|, clip_factor * sigma)
// per bucket, sigma being the standard deviation of the whole tensor about its
// mean. clip_factor <= 0: max|g|. No clipping either for tensors below 32
// elements or with sigma < max|g| / 2^20. A bucket with a non-finite element
// has the scaler +infinity; of an empty or all-zero bucket it is 0. Scalers are
// rounded up to float, except those of kTernaryFloat64 tensors.
void ternary_scalers(const TernaryTensor* tensors, int num_tensors,
                     double clip_factor, int64_t bucket_size, double* scalers,
                     const TernaryPool* pool);

typedef enum { kTernaryWords = 0, kTernaryTrits = 1 } TernaryFormat;

typedef struct {
  int64_t bucket_size;
  int64_t num_workers;  // that kTernaryWords are for
  uint64_t seed;
  uint64_t step;  // 40 bits
  uint32_t rank;  // 24 bits
  TernaryFormat format;
} TernaryEncodeOptions;

// Clips at clip_levels (this worker's own scalers, or the shared ones),
// ternarizes by scalers (shared), and writes the payload: all words and the
// guard, or all groups of trits. Adds to counts [2, num_tensors] the elements
// that are not sent as zeros, and those above their clip level. Buckets whose
// scaler is infinite or below 2^-100 are all zero.
void ternary_encode(const TernaryTensor* tensors, int num_tensors,
                    const TernaryEncodeOptions* options,
                    const double* clip_levels, const double* scalers,
                    void* payload, int64_t* counts, const TernaryPool* pool);

// The words of the sum of num_workers times `groups` groups of trits, which lie
// one worker's after the other's: ternary_num_words(160 * groups) words.
void ternary_sum_trits(const uint8_t* parts, int64_t groups,
                       int64_t num_workers, int64_t* words,
                       const TernaryPool* pool);

typedef enum {
  // The sum of words over workers: each tensor begins a word, a guard ends all.
  kTernarySum = 0,
  // What ternary_sum_trits makes of groups: each tensor begins a group, no
  // guard.
  kTernarySumOfTrits = 1,
  // Groups of trits, one worker's after the other's.
  kTernaryGathered = 2,
} TernaryLayout;

// Writes sum * ratio to every tensor, ratio = scaler / num_workers: one
// division per bucket, rounded to float (to double for kTernaryFloat64), one
// multiplication, one rounding to the tensor's dtype. An infinite
// scaler gives NaN. Returns the number of workers in the payload: its guard
// word under kTernarySum; the tensors are untouched unless that equals
// num_workers.
int64_t ternary_decode(const void* payload, TernaryLayout layout,
                       const TernaryTensor* tensors, int num_tensors,
                       int64_t bucket_size, int64_t num_workers,
                       const double* scalers, const TernaryPool* pool);

// Instruction set in use: "scalar", "avx2" or "avx512". Chosen once, by cpuid;
// the environment variable TERNARY_ISA overrides it.
const char* ternary_isa(void);

// For tests: uses the named instruction set from now on; returns 0 if this
// machine lacks it.
int ternary_set_isa(const char* name);

#ifdef __cplusplus
}
#endif

#endif  // CUSTOM_OPS_CORE_TERNARY_TERNARY_H_
