// How much of a rank's memory a job takes for what: the worker's rules, which the planner must follow to the byte.
//
// Pure functions; thread-safe.
#ifndef BEARING_SHARDING_MEMORY_RULES_H_
#define BEARING_SHARDING_MEMORY_RULES_H_

#include <cstdint>

#include "sharding/model_config.h"

namespace bearing::sharding {

// Part of the free memory that activations may take, and that tokens waiting between streamed layers may.
constexpr int64_t ActivationMemory(int64_t free_bytes) { return free_bytes / 4; }

// Tokens that a forward pass should take at once: enough to fill the products (several thousand), no more than `memory_bytes`
// of activations allow. 64 to 4096.
int64_t TokenBudget(const ModelConfig& config, int64_t memory_bytes);

// Tokens that go through a streamed layer together: of each that waits, the residual stream is kept, in fp32 at the most. 4096
// to 2^22.
int64_t StreamTokens(const ModelConfig& config, int64_t memory_bytes);

// Where the job names no tokens of the concept, they are derived from the first so many training prompts of each side, whose
// residuals wait until the tokens are known: collect's memory and time do not grow with longer sets.
inline constexpr int64_t kTokenPrompts = 256;

// Validation prompts of a side that select scores together: the baseline's probabilities are held of so many rows.
inline constexpr int64_t kSlabRows = 512;

// Completions that a judge's model reads together.
inline constexpr int64_t kJudgeRows = 512;

// Elements of logits that a rank holds at a time where every token of a text is scored.
inline constexpr int64_t kLogitElements = int64_t{1} << 25;

// Are weights of so many bytes held in memory where the job leaves the choice? A fifth is left for activations and the
// operating system.
constexpr bool FitsResident(int64_t weight_bytes, int64_t free_bytes) { return weight_bytes <= free_bytes / 5 * 4; }

// Elements of a weight that are widened at once where streamed bf16 weights stay as stored: 64 MiB of fp32. Widening costs 6
// bytes an element, once a product of up to thousands of tokens.
inline constexpr int64_t kWidenedBlockElements = int64_t{1} << 24;

// The edit makes a file in parts of about kEditPieceBytes; a matrix of up to kEditMatrixBytes whose columns are summed is made
// at once. Parts in hand on one rank take at most kEditMemoryBytes together.
inline constexpr int64_t kEditPieceBytes = 32 << 20;
inline constexpr int64_t kEditMatrixBytes = 160 << 20;
inline constexpr int64_t kEditMemoryBytes = 448 << 20;

// Threads of a rank that make parts, where it may use `processors` of its host.
constexpr int64_t EditThreads(int64_t processors) { return processors < 1 ? 2 : processors > 3 ? 4 : processors + 1; }

}  // namespace bearing::sharding

#endif  // BEARING_SHARDING_MEMORY_RULES_H_
