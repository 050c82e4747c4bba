// The edit's arithmetic against fp64 sums written out, and the parts that it is cut into.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "sharding/safetensors.h"
#include "sharding/sha256.h"
#include "tests/sharding/status_testing.h"
#include "tests/sharding/temp_folder.h"
#include "tests/sharding/tiny_checkpoint.h"
#include "worker/edit/compensated_rounding.h"
#include "worker/edit/direction_input.h"
#include "worker/edit/edit_checkpoint.h"
#include "worker/edit/edit_plan.h"
#include "worker/edit/file_meter.h"
#include "worker/edit/float8.h"
#include "worker/edit/parts.h"
#include "worker/edit/projection.h"
#include "worker/edit/rank_group.h"
#include "worker/edit/stream_file.h"
#include "worker/edit/verify_files.h"
#include "worker/edit/write_parts.h"

namespace bearing::edit {
namespace {

namespace fs = std::filesystem;
using bearing::testing::Fails;
using bearing::testing::ReadText;
using bearing::testing::Succeeds;
using bearing::testing::TempFolder;
using bearing::testing::WriteText;
using bearing::testing::WriteTinyCheckpoint;
using sharding::DType;

std::vector<double> Random(int64_t n, int seed) {
  std::mt19937 engine(static_cast<unsigned>(seed));
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<size_t>(n));
  for (double& value : values) value = normal(engine);
  return values;
}

std::string Stored(DType dtype, const std::vector<double>& values) {
  const std::vector<float> narrow(values.begin(), values.end());
  std::string bytes(values.size() * static_cast<size_t>(sharding::DTypeSize(dtype)), '\0');
  Encode(dtype, narrow.data(), static_cast<int64_t>(values.size()), bytes.data());
  return bytes;
}

std::vector<double> Values(DType dtype, const std::string& bytes) {
  std::vector<float> values(bytes.size() / static_cast<size_t>(sharding::DTypeSize(dtype)));
  Decode(dtype, bytes.data(), static_cast<int64_t>(values.size()), values.data());
  return {values.begin(), values.end()};
}

Basis RandomBasis(int64_t d, int64_t count) {
  std::vector<std::vector<double>> directions;
  for (int64_t k = 0; k < count; ++k) directions.push_back(Random(d, 100 + static_cast<int>(k)));
  return *MakeBasis(directions, d);
}

// What a written vector becomes, as the definition says it.
std::vector<double> Changed(const Removal& removal, const std::vector<double>& w) {
  const Basis& basis = *removal.basis;
  std::vector<double> out = w;
  double before = 0;
  double after = 0;
  for (const double value : w) before += value * value;
  for (int64_t k = 0; k < basis.count; ++k) {
    double dot = 0;
    for (size_t i = 0; i < w.size(); ++i) dot += w[i] * basis.vector(k)[i];
    for (size_t i = 0; i < w.size(); ++i) out[i] -= removal.strength * dot * basis.vector(k)[i];
  }
  for (const double value : out) after += value * value;
  for (size_t i = 0; i < out.size(); ++i) {
    if (removal.preserve_norms) out[i] *= std::sqrt(before / after);
    if (removal.add != nullptr) out[i] += (*removal.add)[i];
  }
  return out;
}

struct Case {
  DType dtype;
  int64_t count;
  double strength;
  bool preserve;
};

class ProjectionTest : public ::testing::TestWithParam<Case> {
 protected:
  // Rounded once: half a place of the result, and the error of the arithmetic in front of it.
  double Tolerance(double value) const {
    const double place = GetParam().dtype == DType::kF32 ? 0x1p-24 : GetParam().dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
    return std::abs(value) * place * 1.01 + (GetParam().dtype == DType::kF32 ? 1e-12 : 3e-6);
  }
};

TEST_P(ProjectionTest, ColumnsAndRowsEqualTheDefinition) {
  constexpr int64_t kD = 77;
  constexpr int64_t kOther = 45;
  const Basis basis = RandomBasis(kD, GetParam().count);
  const Removal removal{&basis, GetParam().strength, GetParam().preserve};
  const std::string stored = Stored(GetParam().dtype, Random(kD * kOther, 5));
  const std::vector<double> source = Values(GetParam().dtype, stored);
  const size_t row_bytes = stored.size() / kD;

  std::string edited = stored;
  ColumnSums sums(basis.count, kOther);
  // In blocks, as a large matrix is.
  for (int64_t row = 0; row < kD; row += 30) {
    SumColumns(basis, GetParam().dtype, edited.data() + static_cast<size_t>(row) * row_bytes, row,
               std::min<int64_t>(30, kD - row), kOther, &sums);
  }
  for (int64_t row = 0; row < kD; row += 40) {
    RemoveFromColumns(removal, sums, GetParam().dtype, edited.data() + static_cast<size_t>(row) * row_bytes, row,
                      std::min<int64_t>(40, kD - row), kOther);
  }
  const std::vector<double> columns = Values(GetParam().dtype, edited);
  for (int64_t c = 0; c < kOther; ++c) {
    std::vector<double> column;
    for (int64_t i = 0; i < kD; ++i) column.push_back(source[static_cast<size_t>(i * kOther + c)]);
    const std::vector<double> want = Changed(removal, column);
    for (int64_t i = 0; i < kD; ++i) {
      const double value = want[static_cast<size_t>(i)];
      ASSERT_NEAR(columns[static_cast<size_t>(i * kOther + c)], value, Tolerance(value)) << "column " << c << " row " << i;
    }
  }

  const std::vector<double> added = Random(kD, 9);
  Removal with_addition = removal;
  with_addition.add = &added;
  edited = stored;
  RemoveFromRows(with_addition, GetParam().dtype, edited.data(), kOther);
  const std::vector<double> rows = Values(GetParam().dtype, edited);
  for (int64_t r = 0; r < kOther; ++r) {
    const auto begin = source.begin() + r * kD;
    const std::vector<double> want = Changed(with_addition, {begin, begin + kD});
    for (int64_t i = 0; i < kD; ++i) {
      const double value = want[static_cast<size_t>(i)];
      ASSERT_NEAR(rows[static_cast<size_t>(r * kD + i)], value, Tolerance(value)) << "row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ProjectionTest,
                         ::testing::Values(Case{DType::kF32, 1, 1.0, false}, Case{DType::kBF16, 1, 1.0, false},
                                           Case{DType::kF16, 1, 1.0, false}, Case{DType::kF32, 3, 0.7, false},
                                           Case{DType::kBF16, 2, 1.5, true}, Case{DType::kF16, 1, -0.5, true},
                                           Case{DType::kF32, 2, 1.0, true}));

TEST(ProjectionRoundingTest, EveryHalfAndBfloat16ComesBack) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (uint32_t code = 0; code < 65536; ++code) {
      const auto bits = static_cast<uint16_t>(code);
      char stored[2], again[2];
      std::memcpy(stored, &bits, 2);
      // A block of eight takes the vector path, the single value the other.
      float values[9];
      std::string block;
      for (int i = 0; i < 9; ++i) block.append(stored, 2);
      Decode(dtype, block.data(), 9, values);
      std::string back(18, '\0');
      Encode(dtype, values, 9, back.data());
      ASSERT_EQ(std::isnan(values[0]), std::isnan(values[8])) << code;
      if (std::isnan(values[0])) {
        float nan;
        Decode(dtype, back.data(), 1, &nan);
        ASSERT_TRUE(std::isnan(nan)) << code;
        continue;
      }
      std::memcpy(again, back.data(), 2);
      ASSERT_EQ(std::memcmp(stored, again, 2), 0) << code;
      ASSERT_EQ(back, block) << code;
      ASSERT_EQ(values[0], values[8]) << code;
    }
  }
  // To nearest, ties to even, on both paths; 1 + 2^-11 lies between 1 and 1 + 2^-10.
  const float ties[9] = {1.00048828125f, 1.00048828125f,         1.00146484375f,          65519.0f,      65520.0f,
                         2.98e-8f,       2.9802322387695312e-8f, 8.94069671630859375e-8f, 1.00048828125f};
  std::string half(18, '\0');
  Encode(DType::kF16, ties, 9, half.data());
  std::vector<double> got = Values(DType::kF16, half);
  EXPECT_THAT(got, ::testing::ElementsAre(1.0, 1.0, 1.001953125, 65504.0, HUGE_VAL, 0.0, 0.0, 0x1p-23, 1.0));
  for (const float value : {2.98e-8f, 2.9802322387695312e-8f, 8.94069671630859375e-8f, 65519.0f, 65520.0f}) {
    Encode(DType::kF16, &value, 1, half.data());
    const size_t i = static_cast<size_t>(std::find(ties, ties + 9, value) - ties);
    EXPECT_EQ(Values(DType::kF16, half.substr(0, 2))[0], got[i]) << value;
  }
}

TEST(Float8Test, RoundsToTheNearestOfAllCodes) {
  std::vector<float> all(256);
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<uint8_t>(code);
    DecodeE4M3(&byte, 1, 1.0f, &all[static_cast<size_t>(code)]);
  }
  EXPECT_EQ(all[0x08], 0x1p-6f);
  EXPECT_EQ(all[0x01], 0x1p-9f);
  EXPECT_EQ(all[0x7e], 448.0f);
  EXPECT_TRUE(std::isnan(all[0x7f]));
  std::vector<float> inputs = {0.0f, 1e-9f, 0x1p-10f, 0x1.8p-9f, 447.0f, 463.0f, 1e30f, 17.0f, 19.0f};
  for (const double value : Random(20000, 3)) inputs.push_back(static_cast<float>(value * std::exp(4 * value)));
  for (const float input : inputs) {
    uint8_t code = 0;
    EncodeE4M3(&input, 1, 1.0f, &code);
    float nearest = HUGE_VALF;
    int best = 0;
    for (int c = 0; c < 127; ++c) {
      const float distance = std::abs(all[static_cast<size_t>(c)] - std::min(std::abs(input), 448.0f));
      if (distance < nearest || (distance == nearest && c % 2 == 0)) best = c;
      nearest = std::min(nearest, distance);
    }
    ASSERT_EQ(code & 127, best) << input;
    ASSERT_EQ(code >> 7, std::signbit(input) ? 1 : 0) << input;
  }
  uint8_t bytes[2] = {0x71, 0xf8};
  float values[4];
  DecodeMxfp4(bytes, 2, 128, values);
  EXPECT_THAT(values, ::testing::ElementsAre(1.0f, 12.0f, -0.0f, -12.0f));
}

TEST(Float4Test, RoundsToTheNearestOfAllCodes) {
  const std::vector<float> all = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  std::vector<float> inputs = {0.0f, 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 5.01f, 7.0f, 1e30f, 1e-30f};
  for (const double value : Random(4000, 9)) inputs.push_back(static_cast<float>(3 * value));
  for (const float input : inputs) {
    const float pair[2] = {-2 * input, 2 * input};
    uint8_t byte = 0;
    EncodeE2M1(pair, 2, 0.5f, &byte);
    float nearest = HUGE_VALF;
    int best = 0;
    for (int c = 0; c < 8; ++c) {
      const float distance = std::abs(all[static_cast<size_t>(c)] - std::min(std::abs(input), 6.0f));
      if (distance < nearest || (distance == nearest && c % 2 == 0)) best = c;
      nearest = std::min(nearest, distance);
    }
    ASSERT_EQ(byte & 7, best) << input;
    ASSERT_EQ(byte >> 4 & 7, best) << input;
    ASSERT_NE(byte & 8, byte >> 4 & 8) << input;
  }
}

TEST(Float4Test, TheScaleIsTheBestOfTwo) {
  for (uint64_t seed = 1; seed < 400; ++seed) {
    std::vector<float> values;
    for (const double value : Random(32, seed)) {
      values.push_back(static_cast<float>(value * std::exp2(static_cast<double>(seed % 40) - 20)));
    }
    const auto error_of = [&](int exponent) {
      std::vector<uint8_t> codes(16);
      std::vector<float> back(32);
      EncodeE2M1(values.data(), 32, std::ldexp(1.0f, -exponent), codes.data());
      DecodeMxfp4(codes.data(), 16, static_cast<uint8_t>(exponent + 127), back.data());
      double sum = 0;
      for (size_t i = 0; i < 32; ++i) sum += std::pow(static_cast<double>(back[i]) - static_cast<double>(values[i]), 2);
      return sum;
    };
    double least = HUGE_VAL;
    for (int exponent = -40; exponent < 40; ++exponent) least = std::min(least, error_of(exponent));
    EXPECT_LE(error_of(ChooseMxfp4Scale(values.data(), 1) - 127), least * 1.0001) << seed;
  }
  const std::vector<float> zeros(32);
  EXPECT_EQ(ChooseMxfp4Scale(zeros.data(), 17), 17);
}

// A matrix on the grid, its edit, and what rounding brings back.
class CompensatedRoundingTest : public ::testing::TestWithParam<std::tuple<Grid, int64_t>> {};

TEST_P(CompensatedRoundingTest, NothingComesBackAlongTheDirections) {
  const auto [grid, count] = GetParam();
  constexpr int64_t kRows = 1536;
  const Basis basis = RandomBasis(kRows, count);
  const auto round = [grid = grid](float value, float scale) {
    uint8_t codes[16];
    float pair[2] = {value, 0}, back[2];
    if (grid == Grid::kE4M3) {
      EncodeE4M3(pair, 1, 1.0f / scale, codes);
      DecodeE4M3(codes, 1, scale, back);
    } else {
      EncodeE2M1(pair, 2, 1.0f / scale, codes);
      DecodeMxfp4(codes, 1, static_cast<uint8_t>(std::ilogb(scale) + 127), back);
    }
    return back[0];
  };
  Strip strip(kRows);
  const std::vector<double> noise = Random(static_cast<size_t>(kRows * kStripColumns), 77);
  for (int64_t i = 0; i < kRows; ++i) {
    strip.scales[static_cast<size_t>(i)] = grid == Grid::kE4M3 ? 0.003f + 0.00001f * static_cast<float>(i % 100) : 0.5f;
    for (int64_t c = 0; c < kStripColumns; ++c) {
      strip.row(i)[c] =
          round(static_cast<float>(noise[static_cast<size_t>(i * kStripColumns + c)]), strip.scales[static_cast<size_t>(i)]);
    }
  }
  // Of 30 columns: the others are filling.
  std::vector<double> before(kStripColumns), all(kStripColumns);
  for (int64_t c = 0; c < kStripColumns; ++c) {
    for (int64_t i = 0; i < kRows; ++i) all[static_cast<size_t>(c)] += std::pow(static_cast<double>(strip.row(i)[c]), 2);
    for (int64_t k = 0; k < count; ++k) {
      double dot = 0;
      for (int64_t i = 0; i < kRows; ++i) dot += basis.vector(k)[i] * static_cast<double>(strip.row(i)[c]);
      for (int64_t i = 0; i < kRows; ++i) strip.row(i)[c] -= static_cast<float>(dot * basis.vector(k)[i]);
      before[static_cast<size_t>(c)] += dot * dot;
    }
    if (c >= 30) {
      for (int64_t i = 0; i < kRows; ++i) strip.row(i)[c] = 0;
    }
  }
  const std::vector<float> shift = FindShift(basis, grid, strip);
  double left = 0, plain_left = 0, had = 0, size = 0, error = 0, plain_error = 0;
  for (int64_t c = 0; c < kStripColumns; ++c) {
    std::vector<double> dots(static_cast<size_t>(count)), plain_dots(static_cast<size_t>(count));
    for (int64_t i = 0; i < kRows; ++i) {
      const float exact = strip.row(i)[c];
      const float scale = strip.scales[static_cast<size_t>(i)];
      float shifted = exact;
      for (int64_t k = 0; k < count; ++k) {
        shifted -= static_cast<float>(basis.vector(k)[i]) * shift[static_cast<size_t>(k * kStripColumns + c)];
      }
      const double got = static_cast<double>(round(shifted, scale));
      const double plain = static_cast<double>(round(exact, scale));
      error += std::pow(got - static_cast<double>(exact), 2);
      plain_error += std::pow(plain - static_cast<double>(exact), 2);
      for (int64_t k = 0; k < count; ++k) {
        dots[static_cast<size_t>(k)] += basis.vector(k)[i] * got;
        plain_dots[static_cast<size_t>(k)] += basis.vector(k)[i] * plain;
      }
    }
    for (const double dot : dots) left += dot * dot;
    for (const double dot : plain_dots) plain_left += dot * dot;
    if (c < 30) had += before[static_cast<size_t>(c)], size += all[static_cast<size_t>(c)];
    if (c >= 30) {
      EXPECT_EQ(dots, std::vector<double>(static_cast<size_t>(count)));
    }
  }
  // To nearest, most of it is back; compensated, little more than the search asks for, at a small price.
  EXPECT_GT(plain_left, 0.02 * had);
  EXPECT_LT(std::sqrt(left / size), 5e-4);
  EXPECT_LT(left, 1e-3 * had);
  EXPECT_LT(error, 4 * plain_error);
}

INSTANTIATE_TEST_SUITE_P(Grids, CompensatedRoundingTest,
                         ::testing::Combine(::testing::Values(Grid::kE4M3, Grid::kE2M1), ::testing::Values(1, 3)));

// A matrix of 8-bit floats too large to be made at once must come out as if it were not.
TEST(TensorEditorTest, PiecesOfAnFp8MatrixAreTheWhole) {
  constexpr int64_t kMatrices = 2, kRows = 70, kColumns = 117, kBlockRows = 16, kBlockColumns = 24, kBlocks = 5 * 5;
  TempFolder folder;
  const std::vector<double> noise = Random(kMatrices * kRows * kColumns, 5);
  std::vector<uint8_t> codes(noise.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto value = static_cast<float>(100 * noise[i]);
    EncodeE4M3(&value, 1, 1.0f, &codes[i]);
  }
  std::vector<float> scales(kMatrices * kBlocks);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = 0.01f * static_cast<float>(1 + i % 7);
  const std::vector<sharding::SafetensorsTensor> tensors = {{"w", DType::kF8E4M3, {kMatrices, kRows, kColumns}, codes.data()},
                                                            {"w_scale_inv", DType::kF32, {kMatrices, 5, 5}, scales.data()}};
  ASSERT_TRUE(Succeeds(sharding::WriteSafetensors(folder.path() + "/model.safetensors", tensors, {})));
  WriteText(folder.path() + "/config.json", "{}");
  const auto source = sharding::WeightFiles::Open(folder.path());
  ASSERT_TRUE(Succeeds(source));
  TensorEdit edit;
  edit.kind = TensorEdit::Kind::kFp8Values;
  edit.weight = "w";
  edit.matrices = kMatrices;
  edit.rows = kRows;
  edit.columns = kColumns;
  edit.dtype = DType::kF8E4M3;
  edit.by_columns = true;
  edit.strength = 1;
  edit.basis = std::make_shared<const Basis>(RandomBasis(kRows, 1));
  edit.quantized = {.values = "w", .scales = "w_scale_inv", .block_rows = kBlockRows, .block_columns = kBlockColumns};
  const auto num_bytes = static_cast<int64_t>(codes.size());
  ASSERT_EQ(PiecesOf(edit, num_bytes).size(), static_cast<size_t>(kMatrices));
  TensorEditor whole(source->get());
  std::string want(codes.size(), '\0');
  for (const ByteRange& piece : PiecesOf(edit, num_bytes)) {
    const absl::Span<char> out(want.data() + piece.begin, static_cast<size_t>(piece.end - piece.begin));
    ASSERT_TRUE(Succeeds(whole.Make(edit, piece.begin, out)));
  }
  EXPECT_NE(want, std::string(reinterpret_cast<const char*>(codes.data()), codes.size()));
  // In bands of 50 columns, which neither strips nor blocks divide.
  TensorEditor in_pieces(source->get(), /*matrix_bytes=*/50 * kRows);
  std::string got(codes.size(), '\0');
  for (int64_t matrix = 0; matrix < kMatrices; ++matrix) {
    for (int64_t row = 0; row < kRows; row += 19) {
      const int64_t begin = (matrix * kRows + row) * kColumns;
      const absl::Span<char> out(got.data() + begin, static_cast<size_t>(std::min<int64_t>(19, kRows - row) * kColumns));
      ASSERT_TRUE(Succeeds(in_pieces.Make(edit, begin, out)));
    }
  }
  EXPECT_EQ(got, want);
  const QuantizationError a = whole.quantization_errors().at("w"), b = in_pieces.quantization_errors().at("w");
  EXPECT_NEAR(b.error / a.error, 1, 1e-9);
  EXPECT_NEAR(b.all / a.all, 1, 1e-9);
}

TEST(MakeBasisTest, IsOrthonormalAndRefusesWhatSpansNothing) {
  const Basis basis = RandomBasis(40, 5);
  for (int64_t a = 0; a < 5; ++a) {
    for (int64_t b = 0; b < 5; ++b) {
      double dot = 0;
      for (int64_t i = 0; i < 40; ++i) dot += basis.vector(a)[i] * basis.vector(b)[i];
      EXPECT_NEAR(dot, a == b ? 1.0 : 0.0, 1e-14);
    }
  }
  const std::vector<double> r = Random(8, 1);
  std::vector<double> twice = r;
  for (double& value : twice) value *= -2;
  EXPECT_TRUE(Fails(MakeBasis({r, twice}, 8), absl::StatusCode::kInvalidArgument, "number=2"));
  EXPECT_TRUE(Fails(MakeBasis({r}, 9), absl::StatusCode::kInvalidArgument, "want=9"));
  EXPECT_TRUE(Fails(MakeBasis({std::vector<double>(8, 0.0)}, 8), absl::StatusCode::kInvalidArgument, "zero"));
  EXPECT_TRUE(Fails(MakeBasis({std::vector<double>(8, NAN)}, 8), absl::StatusCode::kInvalidArgument, "finite"));
}

TEST(WithoutSharedPartTest, LeavesWhatIsOrthogonalToTheMean) {
  const auto rest = WithoutSharedPart({3.0, 4.0}, {2.0, 0.0});
  ASSERT_TRUE(Succeeds(rest));
  EXPECT_THAT(*rest, ::testing::ElementsAre(0.0, 4.0));
  EXPECT_TRUE(Fails(WithoutSharedPart({3.0, 0.0}, {1.0, 1e-9}), absl::StatusCode::kInvalidArgument, "parallel"));
}

TEST(ChecksumTest, DoesNotDependOnTheCutAndSeesEveryBit) {
  std::string bytes(1000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  const auto sum = [](const std::string& text, size_t step) {
    Checksum checksum;
    for (size_t at = 0; at < text.size(); at += step) checksum.Update(absl::MakeConstSpan(text).subspan(at, step));
    return checksum.Finish();
  };
  const uint64_t want = sum(bytes, 1000);
  for (const size_t step : {1u, 3u, 31u, 32u, 33u, 999u}) EXPECT_EQ(sum(bytes, step), want) << step;
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string other = bytes;
    other[i] = static_cast<char>(other[i] ^ 4);
    EXPECT_NE(sum(other, 1000), want) << i;
  }
  EXPECT_NE(sum(bytes + '\0', 2000), want);
}

// A matrix above the limit of one piece, in a plan that has no files behind it.
TEST(PartsTest, TileEveryFileAndShareBytesEvenly) {
  EditPlan plan;
  auto basis = std::make_shared<const Basis>(RandomBasis(8192, 1));
  const auto add = [&](size_t file, std::vector<int64_t> shape, int kind) {
    sharding::OutputTensor tensor{.name = "t", .dtype = DType::kBF16, .shape = shape, .file = file, .source = {}};
    tensor.num_bytes = 2;
    for (const int64_t n : shape) tensor.num_bytes *= n;
    tensor.offset = plan.copy.files[file].size;
    plan.copy.files[file].size += tensor.num_bytes;
    if (kind > 0) {
      TensorEdit edit;
      edit.basis = basis;
      edit.strength = 1;
      edit.by_columns = kind == 2;
      edit.columns = shape.back();
      edit.rows = shape[shape.size() - 2];
      if (shape.size() == 3) edit.matrices = shape[0];
      plan.edits.emplace(plan.copy.tensors.size(), edit);
    }
    plan.copy.tensors.push_back(tensor);
  };
  for (int file = 0; file < 3; ++file) {
    plan.copy.files.push_back({.name = "f", .framed_header = std::string(1000, 'h'), .size = 1000, .same_as = {}});
    add(static_cast<size_t>(file), {128256, 8192}, file == 0 ? 1 : 0);
    add(static_cast<size_t>(file), {8192, 28672}, 2);  // 470 MB: read twice.
    add(static_cast<size_t>(file), {8192, 4000}, 2);
    add(static_cast<size_t>(file), {5, 8192, 3000}, 2);
    add(static_cast<size_t>(file), {0, 8192}, 1);
    add(static_cast<size_t>(file), {8192}, 0);
  }
  const std::vector<Part> parts = CutParts(plan, {1});
  std::map<size_t, int64_t> end;
  int64_t total = 0;
  for (const Part& part : parts) {
    EXPECT_EQ(part.offset, end[part.file]);
    EXPECT_LE(part.num_bytes, kWholeMatrixBytes + kPieceBytes);
    int64_t pieces = 0;
    for (const Piece& piece : part.pieces) pieces += piece.end - piece.begin;
    EXPECT_EQ(pieces, part.num_bytes);
    end[part.file] += part.num_bytes;
    total += part.num_bytes;
  }
  EXPECT_EQ(end.size(), 2u);
  for (const auto& [file, size] : end) EXPECT_EQ(size, plan.copy.files[file].size);
  for (const int ranks : {1, 2, 3, 7, 1000}) {
    size_t next = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const PartRange range = PartsOfRank(parts, rank, ranks);
      ASSERT_LE(range.begin, range.end);
      if (range.begin == range.end) continue;
      ASSERT_EQ(range.begin, next);
      next = range.end;
      int64_t bytes = 0;
      for (size_t i = range.begin; i < range.end; ++i) bytes += parts[i].num_bytes;
      EXPECT_LE(bytes, total / ranks + kWholeMatrixBytes + kPieceBytes);
    }
    EXPECT_EQ(next, parts.size());
  }
}

// Runs `work` on so many ranks, as threads.
absl::Status RunRanks(int ranks, const std::function<absl::Status(const RankGroup&)>& work) {
  std::vector<absl::Status> said(static_cast<size_t>(ranks));
  std::vector<absl::Status> results(static_cast<size_t>(ranks));
  std::barrier<> barrier(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      RankGroup group{.rank = rank, .ranks = ranks, .agree = {}};
      group.agree = [&, rank](const absl::Status& mine) {
        said[static_cast<size_t>(rank)] = mine;
        barrier.arrive_and_wait();
        const auto failed = std::find_if(said.begin(), said.end(), [](const absl::Status& status) { return !status.ok(); });
        absl::Status agreed = failed == said.end() ? absl::OkStatus() : *failed;
        barrier.arrive_and_wait();
        return agreed;
      };
      results[static_cast<size_t>(rank)] = work(group);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) EXPECT_EQ(result, results.front()) << "ranks left with different errors";
  return results.front();
}

std::map<std::string, std::string> FilesOf(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& file : fs::recursive_directory_iterator(folder)) {
    if (file.is_regular_file()) files[fs::relative(file.path(), folder).string()] = ReadText(file.path().string());
  }
  return files;
}

class EditCheckpointTest : public ::testing::Test {
 protected:
  // The tiny checkpoint holds random bytes; here they are numbers, below 2.
  void WriteNumbers(const bearing::testing::TinyModel& model) const {
    WriteTinyCheckpoint(in_, model);
    const auto source = sharding::WeightFiles::Open(in_);
    ASSERT_TRUE(Succeeds(source));
    for (const auto& shard : (*source)->shards()) {
      std::string bytes = ReadText(in_ + "/" + shard.file_name);
      for (auto i = static_cast<size_t>(shard.header.data_begin) + 1; i < bytes.size(); i += 2) {
        bytes[i] = static_cast<char>(bytes[i] & (i % 5 == 0 ? 0xbf : 0x3f));
      }
      WriteText(in_ + "/" + shard.file_name, bytes);
    }
  }

  absl::StatusOr<EditOutcome> Edit(const std::string& out, const EditSpec& spec) const {
    auto source = sharding::WeightFiles::Open(in_);
    if (!source.ok()) return source.status();
    const auto plan = MakeEditPlan(**source, spec);
    if (!plan.ok()) return plan.status();
    return EditCheckpoint(**source, *plan, out, {}, {}, {});
  }
  // The same on one of several ranks; it stops itself after so many progress reports.
  absl::StatusOr<EditOutcome> EditOn(const RankGroup& group, const EditSpec& spec, int reports) const {
    auto source = sharding::WeightFiles::Open(in_);
    if (!source.ok()) return source.status();
    const auto plan = MakeEditPlan(**source, spec);
    if (!plan.ok()) return plan.status();
    EditOptions options;
    options.threads = 1;
    options.progress = [&reports](const char*, int64_t, int64_t) {
      return reports-- > 0 ? absl::OkStatus() : absl::CancelledError("stopped by the test");
    };
    return EditCheckpoint(**source, *plan, out_, group, options, {});
  }

  static EditSpec Plain() {
    EditSpec spec;
    spec.directions = {Random(16, 1)};
    return spec;
  }

  const TempFolder folder_;
  const std::string in_ = folder_ / "in";
  const std::string out_ = folder_ / "out";
};

TEST_F(EditCheckpointTest, WritesAndReadsBack) {
  WriteNumbers({.tied = true, .shards = 3});
  const auto outcome = Edit(out_, Plain());
  ASSERT_TRUE(Succeeds(outcome));
  EXPECT_EQ(outcome->checked.size(), 4u);  // The untied unembedding has a file of its own.
  for (const FileCheck& file : outcome->checked) {
    EXPECT_EQ(file.sha256, *sharding::Sha256OfFile(out_ + "/" + file.name));
  }
  std::set<std::string> names;
  for (const auto& file : fs::directory_iterator(out_)) names.insert(file.path().filename().string());
  EXPECT_EQ(names, std::set<std::string>(outcome->files.begin(), outcome->files.end())) << "a note was left behind";
}

TEST_F(EditCheckpointTest, AnInterruptedEditIsContinuedAndEndsWithTheSameBytes) {
  WriteNumbers({.tied = true, .shards = 5});
  const auto whole = Edit(out_ + "-whole", Plain());
  ASSERT_TRUE(Succeeds(whole));
  const int64_t files = static_cast<int64_t>(whole->checked.size());
  for (const int ranks_before : {1, 3}) {
    for (const int ranks : {1, 2, 4}) {
      // A file is one part here: three are written.
      const int reports = ranks_before == 1 ? 2 : 0;
      ASSERT_FALSE(
          RunRanks(ranks_before, [&](const RankGroup& group) { return EditOn(group, Plain(), reports).status(); }).ok());
      EXPECT_FALSE(fs::exists(out_));
      EditOutcome outcome;
      const absl::Status again = RunRanks(ranks, [&](const RankGroup& group) -> absl::Status {
        auto found = EditOn(group, Plain(), 1 << 20);
        if (group.rank == 0 && found.ok()) outcome = *std::move(found);
        return found.status();
      });
      ASSERT_TRUE(Succeeds(again));
      EXPECT_GE(outcome.files_kept, 2);
      EXPECT_LT(outcome.files_kept, files);
      EXPECT_GT(outcome.bytes_kept, 0);
      EXPECT_EQ(FilesOf(out_), FilesOf(out_ + "-whole"));
      fs::remove_all(out_);
    }
  }
}

TEST_F(EditCheckpointTest, WhatIsKeptIsCheckedAndOfThisEdit) {
  WriteNumbers({.shards = 5});
  ASSERT_TRUE(Succeeds(Edit(out_ + "-whole", Plain())));
  const auto interrupt = [&] {
    ASSERT_FALSE(EditOn({}, Plain(), 2).ok());  // Behind the third file.
  };
  const auto finish = [&](const EditSpec& spec) {
    const auto outcome = EditOn({}, spec, 1 << 20);
    EXPECT_TRUE(Succeeds(outcome));
    const int64_t kept = outcome.ok() ? outcome->files_kept : -1;
    const auto files = FilesOf(out_);
    fs::remove_all(out_);
    return std::pair(kept, files);
  };
  const auto whole = FilesOf(out_ + "-whole");
  interrupt();
  EXPECT_EQ(finish(Plain()), std::pair(int64_t{3}, whole));
  // A byte that changed meanwhile, a line that was not written to its end.
  interrupt();
  const std::string shard = out_ + ".partial/model-00002-of-00005.safetensors";
  std::string bytes = ReadText(shard);
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 4);
  WriteText(shard, bytes);
  EXPECT_EQ(finish(Plain()), std::pair(int64_t{2}, whole));
  interrupt();
  const std::string journal = out_ + ".partial/.note-written-0";
  WriteText(journal, ReadText(journal).substr(0, 2 * 34 + 30));
  EXPECT_EQ(finish(Plain()), std::pair(int64_t{2}, whole));
  // Another strength, another direction, a source that was written anew.
  interrupt();
  EditSpec other = Plain();
  other.strength = 0.5;
  EXPECT_EQ(finish(other).first, 0);
  interrupt();
  other = Plain();
  other.directions = {Random(16, 2)};
  EXPECT_EQ(finish(other).first, 0);
  interrupt();
  WriteNumbers({.shards = 5});
  EXPECT_EQ(finish(Plain()), std::pair(int64_t{0}, whole));
}

TEST_F(EditCheckpointTest, AFailureOfOneRankStopsAll) {
  WriteNumbers({.shards = 5});
  const absl::Status status =
      RunRanks(3, [&](const RankGroup& group) { return EditOn(group, Plain(), group.rank == 1 ? 0 : 1 << 20).status(); });
  EXPECT_TRUE(Fails(status, absl::StatusCode::kCancelled, "stopped by the test"));
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(EditCheckpointTest, AStreamedFileIsTheFileThatIsWritten) {
  WriteNumbers({.tied = true, .shards = 3});
  ASSERT_TRUE(Succeeds(Edit(out_, Plain())));
  auto source = sharding::WeightFiles::Open(in_);
  ASSERT_TRUE(Succeeds(source));
  const auto plan = MakeEditPlan(**source, Plain());
  ASSERT_TRUE(Succeeds(plan));
  const std::vector<Part> parts = CutParts(*plan, {});
  for (const int64_t memory : {int64_t{1}, int64_t{1} << 30}) {
    for (size_t file = 0; file < plan->copy.files.size(); ++file) {
      const std::string& name = plan->copy.files[file].name;
      TensorEditor editor(source->get());
      TensorEditor scales_editor(source->get());
      FileMeter meter(name, *plan, file, [&](size_t tensor) { return MakeTensor(**source, *plan, tensor, scales_editor); });
      StreamOptions options;
      options.memory_bytes = memory;
      options.meter = &meter;
      std::string bytes;
      ASSERT_TRUE(Succeeds(StreamFile(
          **source, *plan, parts, PartsOfFile(parts, file), editor,
          [&](absl::Span<const char> more) {
            bytes.append(more.data(), more.size());
            return absl::OkStatus();
          },
          options)));
      EXPECT_EQ(bytes, ReadText(out_ + "/" + name)) << name;
      const auto measured = meter.Finish();
      ASSERT_TRUE(Succeeds(measured));
      const auto verified = VerifyFile(out_, *plan, file, parts, {});
      ASSERT_TRUE(Succeeds(verified));
      ASSERT_EQ(measured->size(), verified->tensors.size());
      for (size_t i = 0; i < measured->size(); ++i) {
        EXPECT_EQ((*measured)[i].tensor, verified->tensors[i].tensor);
        EXPECT_EQ((*measured)[i].residue, verified->tensors[i].residue);
      }
    }
  }
  // Errors of the sink stop the makers.
  TensorEditor editor(source->get());
  const auto full = [](absl::Span<const char>) { return absl::UnavailableError("upload failed"); };
  EXPECT_TRUE(Fails(StreamFile(**source, *plan, parts, PartsOfFile(parts, 0), editor, full, {}), absl::StatusCode::kUnavailable,
                    "upload failed"));
}

TEST_F(EditCheckpointTest, TruncatedAndForeignFilesAreNamed) {
  WriteNumbers({.shards = 2});
  const std::string shard = in_ + "/model-00002-of-00002.safetensors";
  const std::string bytes = ReadText(shard);
  WriteText(shard, bytes.substr(0, bytes.size() - 8));
  EXPECT_TRUE(Fails(Edit(out_, Plain()), absl::StatusCode::kDataLoss, shard));
  // The tensors of another shard.
  WriteText(shard, ReadText(in_ + "/model-00001-of-00002.safetensors"));
  EXPECT_TRUE(Fails(Edit(out_, Plain()), absl::StatusCode::kDataLoss, "tensor"));
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_FALSE(fs::exists(out_ + ".partial"));
}

TEST_F(EditCheckpointTest, NotANumberIsFoundBeforeTheFolderAppears) {
  WriteNumbers({.dtype = DType::kF32});
  auto source = sharding::WeightFiles::Open(in_);
  ASSERT_TRUE(Succeeds(source));
  const auto at = *(*source)->Find("model.layers.1.mlp.down_proj.weight");
  std::string bytes = ReadText(in_ + "/model.safetensors");
  const float nan = NAN;
  std::memcpy(bytes.data() + (*source)->entry(at).file_offset, &nan, 4);
  WriteText(in_ + "/model.safetensors", bytes);
  EXPECT_TRUE(
      Fails(Edit(out_, Plain()), absl::StatusCode::kDataLoss, "model.layers.1.mlp.down_proj.weight", "model.safetensors"));
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(EditCheckpointTest, StoredBytesAreComparedWithThoseWritten) {
  WriteNumbers({});
  auto source = sharding::WeightFiles::Open(in_);
  ASSERT_TRUE(Succeeds(source));
  const auto plan = MakeEditPlan(**source, Plain());
  ASSERT_TRUE(Succeeds(plan));
  const std::vector<Part> parts = CutParts(*plan, {});
  TensorEditor editor(source->get());
  std::string file(static_cast<size_t>(plan->copy.files[0].size), '\0');
  const auto sums = WriteParts(**source, *plan, parts, {0, parts.size()}, editor,
                               [&](size_t part, absl::Span<const char> bytes, uint64_t) {
                                 std::copy(bytes.begin(), bytes.end(), file.begin() + parts[part].offset);
                                 return absl::OkStatus();
                               },
                               {});
  ASSERT_TRUE(Succeeds(sums));
  std::map<size_t, uint64_t> checksums;
  for (size_t i = 0; i < sums->size(); ++i) checksums[i] = (*sums)[i];
  fs::create_directories(out_);
  WriteText(out_ + "/model.safetensors", file);
  EXPECT_TRUE(Succeeds(VerifyFile(out_, *plan, 0, parts, checksums)));
  file[file.size() / 2] = static_cast<char>(file[file.size() / 2] ^ 1);
  WriteText(out_ + "/model.safetensors", file);
  EXPECT_TRUE(Fails(VerifyFile(out_, *plan, 0, parts, checksums), absl::StatusCode::kDataLoss, "model.safetensors"));
  WriteText(out_ + "/model.safetensors", file.substr(0, 2000));
  EXPECT_TRUE(Fails(VerifyFile(out_, *plan, 0, parts, checksums), absl::StatusCode::kDataLoss, "size"));
}

TEST_F(EditCheckpointTest, FailureOfTheSinkStopsAndIsPassedOn) {
  WriteNumbers({.shards = 3});
  auto source = sharding::WeightFiles::Open(in_);
  ASSERT_TRUE(Succeeds(source));
  const auto plan = MakeEditPlan(**source, Plain());
  ASSERT_TRUE(Succeeds(plan));
  const std::vector<Part> parts = CutParts(*plan, {});
  TensorEditor editor(source->get());
  const auto full = [](size_t, absl::Span<const char>, uint64_t) {
    return absl::ResourceExhaustedError("disk is full file=x");
  };
  EXPECT_TRUE(Fails(WriteParts(**source, *plan, parts, {0, parts.size()}, editor, full, {}),
                    absl::StatusCode::kResourceExhausted, "disk is full"));
}

TEST_F(EditCheckpointTest, SpecsThatDoNotFitAreNamed) {
  WriteNumbers({});
  EditSpec spec = Plain();
  spec.first_layer = 2;
  EXPECT_TRUE(Fails(Edit(out_, spec), absl::StatusCode::kInvalidArgument, "layer=2", "layers=2"));
  spec = Plain();
  spec.layers[5] = 0.5;
  EXPECT_TRUE(Fails(Edit(out_, spec), absl::StatusCode::kInvalidArgument, "layer=5"));
  spec = Plain();
  spec.strength = 0;
  EXPECT_TRUE(Fails(Edit(out_, spec), absl::StatusCode::kInvalidArgument, "every strength is 0"));
  spec = Plain();
  spec.directions[0].pop_back();
  EXPECT_TRUE(Fails(Edit(out_, spec), absl::StatusCode::kInvalidArgument, "want=16"));
  EXPECT_TRUE(Fails(Edit(out_, {}), absl::StatusCode::kInvalidArgument, "no direction"));
}

}  // namespace
}  // namespace bearing::edit
