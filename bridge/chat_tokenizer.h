// A model's tokenizer and chat template: conversations to token ids and back, equal to transformers.
//
// Reads tokenizer.json, tokenizer_config.json (chat_template, special tokens) and chat_template.jinja from a model folder. The
// template is rendered as transformers renders it (trim_blocks, lstrip_blocks, loop controls, Python-style tojson, pycompat
// methods, raise_exception, strftime_now, {% generation %} stripped), then encoded with add_special_tokens = false.
// Padding and truncation stored in tokenizer.json are ignored. Thread-safe. Rust panics never cross: they come back as
// Internal.
#ifndef BEARING_BRIDGE_CHAT_TOKENIZER_H_
#define BEARING_BRIDGE_CHAT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bearing::bridge {

struct Message {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

class ChatTokenizer {
 public:
  // `template_file`: optional file that replaces the model's template. NotFound / InvalidArgument naming the file and, for a
  // template that does not parse, its line. A folder without a template loads; rendering then is FailedPrecondition.
  static absl::StatusOr<std::unique_ptr<ChatTokenizer>> Load(const std::string& model_dir,
                                                             const std::string& template_file = "");
  ~ChatTokenizer();

  // The text of a conversation. InvalidArgument with the template's own message when it raises.
  absl::StatusOr<std::string> Render(absl::Span<const Message> messages, bool add_generation_prompt) const;

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens = false) const;

  // Encodes many texts on `threads` threads.
  absl::StatusOr<std::vector<std::vector<int32_t>>> EncodeBatch(absl::Span<const std::string> texts, int threads) const;

  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const;

  // The text of one token as it stands in the vocabulary decoded, for labels ("I", "\n", "<|im_start|>").
  absl::StatusOr<std::string> TokenText(int32_t id) const;

  // Id of an exact token of the vocabulary (added tokens included), -1 if there is none.
  int32_t TokenId(std::string_view token) const;

 private:
  explicit ChatTokenizer(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace bearing::bridge

#endif  // BEARING_BRIDGE_CHAT_TOKENIZER_H_
