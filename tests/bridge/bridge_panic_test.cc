// A Rust panic comes back as an error, prints nothing and leaves the library usable.
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "bridge/chat_tokenizer.h"
#include "bridge/include/bearing_bridge.h"
#include "tests/bridge/test_folder.h"

namespace bearing::bridge {
namespace {

std::string PanicText() {
  bearing_owned_text error{};
  EXPECT_EQ(bearing_bridge_panic({"on purpose", 10}, &error), BEARING_INTERNAL);
  std::string text(error.data, error.size);
  bearing_text_free(error);
  return text;
}

TEST(BridgePanicTest, ComesBackAsInternal) {
  testing::internal::CaptureStderr();
  EXPECT_NE(PanicText().find("panic=on purpose"), std::string::npos);
  std::thread([] { EXPECT_NE(PanicText().find("panic=on purpose"), std::string::npos); }).join();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_TRUE(ChatTokenizer::Load(DataFile("tiny")).ok());
}

TEST(BridgePanicTest, TheErrorTextIsOptional) {
  EXPECT_EQ(bearing_bridge_panic({"on purpose", 10}, nullptr), BEARING_INTERNAL);
  bearing_tokenizer_free(nullptr);
  bearing_text_free({nullptr, 0});
  bearing_ids_free({nullptr, 0});
}

}  // namespace
}  // namespace bearing::bridge
