/* The C interface of the Rust library: tokenizers and chat templates.
 *
 * Every call returns BEARING_OK or another bearing_code; then `error`, if not null, holds one line of text that the caller
 * frees. Outputs are written only on BEARING_OK. Panics never cross: they come back as BEARING_INTERNAL. Texts are UTF-8, need
 * no end mark, and may be null when their size is 0. A tokenizer may be used from many threads at once, and freed when none
 * uses it.
 */
#ifndef BEARING_BRIDGE_INCLUDE_BEARING_BRIDGE_H_
#define BEARING_BRIDGE_INCLUDE_BEARING_BRIDGE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum bearing_code {
  BEARING_OK = 0,
  BEARING_INVALID_ARGUMENT = 1,
  BEARING_NOT_FOUND = 2,
  BEARING_FAILED_PRECONDITION = 3,
  BEARING_RESOURCE_EXHAUSTED = 4,
  BEARING_INTERNAL = 5,
  BEARING_ALREADY_EXISTS = 6,
  BEARING_PERMISSION_DENIED = 7,
  BEARING_UNAUTHENTICATED = 8,
  BEARING_UNAVAILABLE = 9,
  BEARING_DATA_LOSS = 10,
  BEARING_UNIMPLEMENTED = 11,
};

typedef struct bearing_tokenizer bearing_tokenizer;

/* Borrowed for the length of a call. */
typedef struct bearing_text {
  const char* data;
  size_t size;
} bearing_text;

/* Owned by the caller: bearing_text_free. */
typedef struct bearing_owned_text {
  char* data;
  size_t size;
} bearing_owned_text;

/* Owned by the caller: bearing_ids_free. */
typedef struct bearing_owned_ids {
  int32_t* data;
  size_t size;
} bearing_owned_ids;

typedef struct bearing_chat_message {
  bearing_text role;
  bearing_text content;
} bearing_chat_message;

/* Loads a model folder. `template_file` replaces the folder's template unless it is empty. */
int32_t bearing_tokenizer_load(bearing_text model_dir, bearing_text template_file, bearing_tokenizer** out,
                               bearing_owned_text* error);

/* Null is allowed. */
void bearing_tokenizer_free(bearing_tokenizer* tokenizer);

int32_t bearing_tokenizer_render(const bearing_tokenizer* tokenizer, const bearing_chat_message* messages, size_t num_messages,
                                 bool add_generation_prompt, bearing_owned_text* out, bearing_owned_text* error);

int32_t bearing_tokenizer_encode(const bearing_tokenizer* tokenizer, bearing_text text, bool add_special_tokens,
                                 bearing_owned_ids* out, bearing_owned_text* error);

int32_t bearing_tokenizer_decode(const bearing_tokenizer* tokenizer, const int32_t* ids, size_t num_ids,
                                 bool skip_special_tokens, bearing_owned_text* out, bearing_owned_text* error);

int32_t bearing_tokenizer_token_text(const bearing_tokenizer* tokenizer, int32_t id, bearing_owned_text* out,
                                     bearing_owned_text* error);

/* -1 if the vocabulary has no such token. */
int32_t bearing_tokenizer_token_to_id(const bearing_tokenizer* tokenizer, bearing_text token, int32_t* out,
                                      bearing_owned_text* error);

/* Panics inside with this message, so that a test can see what comes back. */
int32_t bearing_bridge_panic(bearing_text message, bearing_owned_text* error);

void bearing_text_free(bearing_owned_text text);
void bearing_ids_free(bearing_owned_ids ids);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* BEARING_BRIDGE_INCLUDE_BEARING_BRIDGE_H_ */
