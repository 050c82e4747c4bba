# Writes a C++ source with a function that returns a file's bytes:
#   cmake -DIN=file -DOUT=source.cc -DHEADER=cli/embedded_files.h -DFUNCTION=StarterPrompts -P EmbedFile.cmake
file(READ ${IN} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes "${bytes}")
get_filename_component(name ${IN} NAME)
file(WRITE ${OUT} "// From ${name}.
#include \"${HEADER}\"

namespace bearing::cli {

std::string_view ${FUNCTION}() {
  static constexpr unsigned char kBytes[] = {
${bytes}};
  return {reinterpret_cast<const char*>(kBytes), sizeof(kBytes)};
}

}  // namespace bearing::cli
")
