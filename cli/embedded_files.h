// Files of the repository that the program carries with it; the sources are made by the build (cmake/EmbedFile.cmake).
#ifndef BEARING_CLI_EMBEDDED_FILES_H_
#define BEARING_CLI_EMBEDDED_FILES_H_

#include <string_view>

namespace bearing::cli {

// FileDescriptorSet of job.proto with its comments, which the compiled-in descriptors lack.
std::string_view JobProtoWithComments();

// examples/prompts/language: what `bearing init` starts with.
std::string_view FrenchTrain();
std::string_view FrenchValidation();
std::string_view FrenchTest();
std::string_view EnglishTrain();
std::string_view EnglishValidation();
std::string_view EnglishTest();

}  // namespace bearing::cli

#endif  // BEARING_CLI_EMBEDDED_FILES_H_
