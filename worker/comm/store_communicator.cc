#include "worker/comm/store_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <numeric>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sharding/status_macros.h"
#include "worker/comm/watchdog.h"

namespace bearing::comm {
namespace {

constexpr char kAbortKey[] = "abort";
constexpr char kGoneKey[] = "gone";
constexpr size_t kPiece = size_t{4} << 20;  // The store refuses values of more than 8 MiB.
constexpr std::chrono::milliseconds kStoreLook{500};

// This rank's connection to the store, shared by its communicators.
class StoreProcess {
 public:
  StoreProcess(const StoreOptions& options, c10::intrusive_ptr<c10d::Store> store)
      : rank_(options.rank),
        size_(options.size),
        timeout_(options.timeout),
        store_(std::move(store)),
        for_abort_(store_->clone()),
        watchdog_(options.rank, options.timeout, [this](const std::string& what) { End(what, kExitTimedOut); }) {}

  ~StoreProcess() {
    // The store lives on rank 0, which therefore leaves last.
    try {
      store_->add(kGoneKey, 1);
      const auto limit = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout_);
      while (rank_ == 0 && store_->add(kGoneKey, 0) < size_ && std::chrono::steady_clock::now() < limit) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    } catch (const std::exception&) {
      // Rank 0 is gone: nothing to wait for.
    }
  }

  c10d::Store& store() { return *store_; }
  Watchdog& watchdog() { return watchdog_; }

  // Returns when `key` is there, or ends the process when the group was ended. Asks again and again: the store's own wait with
  // a limit writes warnings whenever the limit passes.
  void Await(const std::string& key) {
    constexpr std::chrono::microseconds kLongest{5000};
    auto pause = std::chrono::microseconds(100);
    auto next_look = std::chrono::steady_clock::now() + kStoreLook;
    while (!store_->check({key})) {
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongest);
      if (std::chrono::steady_clock::now() < next_look) continue;
      LeaveIfAborted();
      next_look = std::chrono::steady_clock::now() + kStoreLook;
    }
  }

  void LeaveIfAborted() {
    try {
      if (ending_ || !store_->check({kAbortKey})) return;
      std::fprintf(stderr, "bearing-worker: rank=%d: ended by another rank: %s\n", rank_,
                   store_->get_to_str(kAbortKey).c_str());
    } catch (const c10::Error& error) {
      Lost(error);
    }
    std::fflush(stderr);
    std::_Exit(kExitAborted);
  }

  [[noreturn]] void End(const std::string& message, int exit_code) {
    std::fprintf(stderr, "bearing-worker: %s; ending the group\n", message.c_str());
    std::fflush(stderr);
    ending_ = true;
    try {
      for_abort_->set(kAbortKey, std::vector<uint8_t>(message.begin(), message.end()));
    } catch (const std::exception&) {
      // The others will miss rank 0, or this rank at the time limit.
    }
    // Rank 0 takes the store with it: the others get a chance to read why.
    if (rank_ == 0) std::this_thread::sleep_for(2 * kStoreLook);
    std::_Exit(exit_code);
  }

  [[noreturn]] void Lost(const c10::Error& error) {
    std::fprintf(stderr, "bearing-worker: %s: lost the connection to rank 0: %s\n", watchdog_.Place().c_str(),
                 error.what_without_backtrace());
    std::fflush(stderr);
    std::_Exit(kExitAborted);
  }

 private:
  const int rank_;
  const int size_;
  const absl::Duration timeout_;
  const c10::intrusive_ptr<c10d::Store> store_;
  const c10::intrusive_ptr<c10d::Store> for_abort_;  // store_ may be waiting for an answer.
  std::atomic<bool> ending_ = false;                 // By End, on any thread: its exit code counts.
  Watchdog watchdog_;                                // Last: its thread uses the rest.
};

class StoreCounter final : public SharedCounter {
 public:
  StoreCounter(std::shared_ptr<StoreProcess> process, std::string key) : process_(std::move(process)), key_(std::move(key)) {}

  absl::StatusOr<int64_t> FetchAdd(int64_t amount) override {
    Watched watched(process_->watchdog(), {.name = "FetchAdd", .bytes = sizeof(int64_t)});
    try {
      return process_->store().add(key_, amount) - amount;
    } catch (const c10::Error& error) {
      process_->Lost(error);
    }
  }

 private:
  const std::shared_ptr<StoreProcess> process_;
  const std::string key_;
};

class StoreCommunicator final : public Communicator {
 public:
  // `group` is empty for the group of all ranks; `prefix` begins the keys of this group alone.
  StoreCommunicator(std::shared_ptr<StoreProcess> process, std::string prefix, std::string group, int rank, int size)
      : process_(std::move(process)), prefix_(std::move(prefix)), group_(std::move(group)), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status AllReduce(at::Tensor& tensor, ReduceOp op) override {
    if (size_ == 1) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> all, Exchange("AllReduce", BytesOf(tensor)));
    const bool widen = tensor.scalar_type() == at::kBFloat16;
    at::Tensor result;
    for (const std::string& bytes : all) {  // In rank order: all ranks get the same bits.
      if (bytes.size() != tensor.nbytes()) return absl::InternalError("AllReduce: ranks disagree on the shape");
      at::Tensor other = at::empty_like(tensor);
      std::memcpy(other.data_ptr(), bytes.data(), bytes.size());
      if (widen) other = other.to(at::kFloat);
      result = !result.defined() ? other : op == ReduceOp::kSum ? result.add_(other) : at::maximum(result, other);
    }
    tensor.copy_(result);
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> AllGather(const at::Tensor& tensor) override {
    if (size_ == 1) return tensor;
    BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> all, Exchange("AllGather", BytesOf(tensor)));
    std::vector<int64_t> shape = tensor.sizes().vec();
    const int64_t row =
        std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>()) * tensor.element_size();
    size_t total = 0;
    for (const std::string& bytes : all) total += bytes.size();
    shape[0] = row == 0 ? 0 : static_cast<int64_t>(total) / row;
    at::Tensor result = at::empty(shape, tensor.options());
    char* out = static_cast<char*>(result.data_ptr());
    for (const std::string& bytes : all) out = std::copy(bytes.begin(), bytes.end(), out);
    return result;
  }

  absl::Status Broadcast(at::Tensor& tensor, int root) override {
    if (size_ == 1) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(const std::vector<std::string> all, Exchange("Broadcast", rank_ == root ? BytesOf(tensor) : ""));
    if (all[root].size() != tensor.nbytes()) return absl::InternalError("Broadcast: ranks disagree on the shape");
    std::memcpy(tensor.data_ptr(), all[root].data(), all[root].size());
    return absl::OkStatus();
  }

  absl::Status BroadcastBytes(std::string& bytes, int root) override {
    if (size_ == 1) return absl::OkStatus();
    BEARING_ASSIGN_OR_RETURN(std::vector<std::string> all, Exchange("Broadcast", rank_ == root ? bytes : ""));
    bytes = std::move(all[root]);
    return absl::OkStatus();
  }

  absl::Status IdleWait(std::string& bytes, int root) override {
    if (size_ == 1) return absl::OkStatus();
    const std::string go = absl::StrCat(prefix_, round_, "/go");
    try {
      if (rank_ == root) {
        process_->store().set(go, std::vector<uint8_t>{1});
      } else {
        while (!process_->store().check({go})) {
          process_->LeaveIfAborted();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      }
      BEARING_RETURN_IF_ERROR(BroadcastBytes(bytes, root));
      if (rank_ == root) process_->store().deleteKey(go);  // All have seen it.
    } catch (const c10::Error& error) {
      process_->Lost(error);
    }
    return absl::OkStatus();
  }

  absl::Status Barrier() override { return Exchange("Barrier", "").status(); }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) override {
    const std::string prefix = absl::StrCat(prefix_, "split", round_, ".", color, "/");
    BEARING_ASSIGN_OR_RETURN(const at::Tensor choices, AllGather(at::tensor({color, key}, at::kLong).view({1, 2})));
    const int64_t* choice = choices.data_ptr<int64_t>();
    int before = 0;
    int members = 0;
    for (int r = 0; r < size_; ++r) {
      if (choice[2 * r] != color) continue;
      ++members;
      if (choice[2 * r + 1] < key || (choice[2 * r + 1] == key && r < rank_)) ++before;
    }
    return std::make_unique<StoreCommunicator>(process_, prefix, name, before, members);
  }

  absl::StatusOr<std::unique_ptr<SharedCounter>> MakeCounter() override {
    const std::string key = absl::StrCat(prefix_, "counter", round_);
    BEARING_RETURN_IF_ERROR(Barrier());  // The next counter of this group gets another key.
    return std::make_unique<StoreCounter>(process_, key);
  }

  void SetStage(const std::string& stage) override { process_->watchdog().SetStage(stage); }

  void Abort(const std::string& why, int exit_code) override {
    process_->End(absl::StrCat(process_->watchdog().Place(), ": ", why), exit_code);
  }

 private:
  static std::string BytesOf(const at::Tensor& tensor) {
    return std::string(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
  }

  std::string Key(int64_t round, int rank, size_t piece) const { return absl::StrCat(prefix_, round, "/", rank, "/", piece); }

  // The bytes of every rank, in rank order. Sizes may differ. Everything else is built of this: a rank that has it knows that
  // all others are done with the round before, so it removes its part of that.
  absl::StatusOr<std::vector<std::string>> Exchange(const char* name, const std::string& mine) {
    Watched watched(process_->watchdog(), {.name = name, .group = &group_, .bytes = static_cast<int64_t>(mine.size())});
    c10d::Store& store = process_->store();
    std::vector<std::string> all(size_);
    try {
      const size_t pieces = mine.size() / kPiece + 1;  // The last one is shorter than the others: it marks the end.
      for (size_t i = 0; i < pieces; ++i) {
        const auto begin = mine.begin() + i * kPiece;
        store.set(Key(round_, rank_, i), std::vector<uint8_t>(begin, begin + std::min(kPiece, mine.size() - i * kPiece)));
      }
      for (int r = 0; r < size_; ++r) {
        for (size_t i = 0;; ++i) {
          process_->Await(Key(round_, r, i));
          const std::vector<uint8_t> piece = store.get(Key(round_, r, i));
          all[r].append(piece.begin(), piece.end());
          if (piece.size() < kPiece) break;
        }
      }
      for (size_t i = 0; i < last_pieces_; ++i) store.deleteKey(Key(round_ - 1, rank_, i));
      last_pieces_ = pieces;
    } catch (const c10::Error& error) {
      process_->Lost(error);
    }
    ++round_;
    return all;
  }

  const std::shared_ptr<StoreProcess> process_;
  const std::string prefix_;
  const std::string group_;
  const int rank_;
  const int size_;
  int64_t round_ = 0;
  size_t last_pieces_ = 0;  // This rank's keys of the round before.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeStoreCommunicator(const StoreOptions& options) {
  c10d::TCPStoreOptions store_options;
  store_options.port = static_cast<uint16_t>(options.port);
  store_options.isServer = options.rank == 0 && !options.served_elsewhere;
  // A store of others counts their connections too.
  store_options.waitWorkers = !options.served_elsewhere;
  if (!options.served_elsewhere) store_options.numWorkers = options.size;
  if (options.timeout > absl::ZeroDuration()) store_options.timeout = absl::ToChronoMilliseconds(options.timeout);
  try {
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(options.host, store_options);
    if (!options.prefix.empty()) store = c10::make_intrusive<c10d::PrefixStore>(options.prefix, std::move(store));
    auto process = std::make_shared<StoreProcess>(options, std::move(store));
    return std::make_unique<StoreCommunicator>(std::move(process), "", "", options.rank, options.size);
  } catch (const c10::Error& error) {
    return absl::UnavailableError(absl::StrCat("the ranks did not meet: store=", options.host, ":", options.port, " rank=",
                                               options.rank, " size=", options.size, ": ", error.what_without_backtrace()));
  }
}

}  // namespace bearing::comm
