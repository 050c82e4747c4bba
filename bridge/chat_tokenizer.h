// A model's tokenizer and chat template: conversations to token ids and back, equal to transformers.
//
// Equal to transformers 5.17, which the tests compare with. A model folder's vocabulary is one of:
//  - tokenizer.json. Where tokenizer_config.json names the class LlamaTokenizer and the vocabulary has byte fallback (Llama 2,
//    Yi; not the model types mistral, mixtral, phi3 and qwen2), spaces follow `legacy` and `add_prefix_space` instead of the
//    file's normalizer, as transformers 5 does.
//  - qwen.tiktoken (Qwen-1), read as Qwen-1's Python code does, with its chat format (ChatML, system message "You are a helpful
//    assistant." unless the conversation brings one) as the template that is used when the folder and the caller name none. A
//    conversation is tokenized as one text: line ends at the start of a content may join the one before it, as in Qwen2.
//  - Another kind alone (tokenizer.model, tekken.json, ...) is refused with the command that writes a tokenizer.json from it.
// The template is additional_chat_templates/default.jinja, else chat_template.jinja, else chat_template of
// tokenizer_config.json (a text, or the one named "default"). It is rendered as transformers renders it (trim_blocks,
// lstrip_blocks, loop controls, Python's tojson, indent, trim and string methods, raise_exception, strftime_now,
// {% generation %} left out), then encoded with add_special_tokens = false. A template may have 128 KiB and
// take 20 million steps. Padding and truncation stored in tokenizer.json are ignored.
// Thread-safe. Rust panics never cross: they come back as Internal.
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
  // template that does not parse, its line; FailedPrecondition for a vocabulary of another kind. A folder without a template
  // loads; rendering then is FailedPrecondition.
  static absl::StatusOr<std::unique_ptr<ChatTokenizer>> Load(const std::string& model_dir,
                                                             const std::string& template_file = "");
  ~ChatTokenizer();

  // The text of a conversation. InvalidArgument with the template's own message when it raises; ResourceExhausted when it takes
  // too many steps.
  absl::StatusOr<std::string> Render(absl::Span<const Message> messages, bool add_generation_prompt) const;

  // InvalidArgument naming the token for an id that is not below `vocab_size` of config.json (where that file is there).
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
