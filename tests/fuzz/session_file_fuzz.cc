// A session file as a new worker reads it back: the words of its mark, and its text.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/file.h"
#include "base/log.h"
#include "libmigrate/proto/session.pb.h"
#include "libmigrate/state/phase.h"
#include "libmigrate/state/session_file.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

constexpr const char* kName = "cell-00000000000000000000000000000000";
constexpr std::size_t kTextAt = 4096;

const std::string& directory() {
  static const test::TemporaryDirectory folder;
  static const bool ready = [] {
    ::setenv("MIGRATE_LOG", "off", 1);  // Each damaged file would be told of.
    start_logging("fuzz");
    return ::mkdir(folder.file("sessions").c_str(), 0700) == 0;
  }();
  if (!ready) {
    std::abort();
  }
  return folder.path();
}

// Of this machine's present boot, or it would not be looked at.
std::string whole_file(const std::string& input) {
  std::string bytes(kTextAt, '\0');
  SessionMark mark;
  const std::string boot = boot_id();
  std::copy_n(boot.data(), std::min(boot.size(), sizeof(mark.boot) - 1), mark.boot);
  mark.magic = 0x32304e53'5347494dULL;
  std::memcpy(bytes.data(), static_cast<const void*>(&mark), sizeof(mark));
  constexpr std::size_t kWorker = offsetof(SessionMark, worker);
  std::copy_n(input.data(), std::min(input.size(), sizeof(mark) - kWorker), &bytes[kWorker]);
  return input.size() > sizeof(mark) ? bytes + input.substr(sizeof(mark)) : bytes;
}

void read_back(const std::string& bytes) {
  const std::string path = SessionFile::directory(directory()) + "/" + kName + ".session";
  const auto file = open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (!file || !write_all(file->get(), std::as_bytes(std::span(bytes)))) {
    std::abort();
  }
  for (const std::string& name : SessionFile::list(directory())) {
    const auto session = SessionFile::open(directory(), name);
    if (!session) {
      continue;
    }
    static_cast<void>(verdict(session->mark().phase.guest(), session->worker_gone(), false));
    static_cast<void>(session->worker_gone());
    wire::CellSession noted;
    if (const auto text = session->load()) {
      static_cast<void>(noted.ParseFromString(*text));
    }
  }
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const bool raw = size > 0 && data[0] == 0xff;
  migrate::read_back(raw ? input.substr(1) : migrate::whole_file(input));
  return 0;
}
