#include "bridge/chat_tokenizer.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "bridge/call.h"
#include "bridge/include/bearing_bridge.h"

namespace bearing::bridge {
namespace {

const bearing_tokenizer* Tokenizer(const void* handle) { return static_cast<const bearing_tokenizer*>(handle); }

std::vector<int32_t> Take(bearing_owned_ids ids) {
  std::vector<int32_t> copy(ids.data, ids.data + ids.size);
  bearing_ids_free(ids);
  return copy;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTokenizer>> ChatTokenizer::Load(const std::string& model_dir,
                                                                   const std::string& template_file) {
  absl::StatusOr<bearing_tokenizer*> tokenizer =
      CallFor<bearing_tokenizer*>(bearing_tokenizer_load, View(model_dir), View(template_file));
  if (!tokenizer.ok()) return tokenizer.status();
  return std::unique_ptr<ChatTokenizer>(new ChatTokenizer(*tokenizer));
}

ChatTokenizer::~ChatTokenizer() { bearing_tokenizer_free(static_cast<bearing_tokenizer*>(handle_)); }

absl::StatusOr<std::string> ChatTokenizer::Render(absl::Span<const Message> messages, bool add_generation_prompt) const {
  std::vector<bearing_chat_message> views;
  views.reserve(messages.size());
  for (const Message& message : messages) views.push_back({View(message.role), View(message.content)});
  absl::StatusOr<bearing_owned_text> text = CallFor<bearing_owned_text>(bearing_tokenizer_render, Tokenizer(handle_),
                                                                        views.data(), views.size(), add_generation_prompt);
  if (!text.ok()) return text.status();
  return Take(*text);
}

absl::StatusOr<std::vector<int32_t>> ChatTokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  absl::StatusOr<bearing_owned_ids> ids =
      CallFor<bearing_owned_ids>(bearing_tokenizer_encode, Tokenizer(handle_), View(text), add_special_tokens);
  if (!ids.ok()) return ids.status();
  return Take(*ids);
}

absl::StatusOr<std::vector<std::vector<int32_t>>> ChatTokenizer::EncodeBatch(absl::Span<const std::string> texts,
                                                                             int threads) const {
  if (threads < 1) {
    return absl::InvalidArgumentError("tokenizing needs at least one thread: threads=" + std::to_string(threads));
  }
  std::vector<absl::StatusOr<std::vector<int32_t>>> results(texts.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < texts.size(); i = next++) results[i] = Encode(texts[i]);
  };
  std::vector<std::thread> helpers;
  const size_t num_helpers = std::min<size_t>(threads, std::max<size_t>(texts.size(), 1)) - 1;
  for (size_t i = 0; i < num_helpers; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();

  std::vector<std::vector<int32_t>> ids;
  ids.reserve(texts.size());
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].ok()) {
      return absl::Status(results[i].status().code(),
                          std::string(results[i].status().message()) + " text=" + std::to_string(i));
    }
    ids.push_back(*std::move(results[i]));
  }
  return ids;
}

absl::StatusOr<std::string> ChatTokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const {
  absl::StatusOr<bearing_owned_text> text =
      CallFor<bearing_owned_text>(bearing_tokenizer_decode, Tokenizer(handle_), ids.data(), ids.size(), skip_special_tokens);
  if (!text.ok()) return text.status();
  return Take(*text);
}

absl::StatusOr<std::string> ChatTokenizer::TokenText(int32_t id) const {
  absl::StatusOr<bearing_owned_text> text = CallFor<bearing_owned_text>(bearing_tokenizer_token_text, Tokenizer(handle_), id);
  if (!text.ok()) return text.status();
  return Take(*text);
}

int32_t ChatTokenizer::TokenId(std::string_view token) const {
  return CallFor<int32_t>(bearing_tokenizer_token_to_id, Tokenizer(handle_), View(token)).value_or(-1);
}

}  // namespace bearing::bridge
