// The state database as it is read back: the file's bytes, or rows with anything in their columns.
#include <fcntl.h>
#include <sqlite3.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "libmigrate/state/registry.h"
#include "tests/transport/temporary_directory.h"

namespace migrate {
namespace {

const std::string& directory() {
  static const test::TemporaryDirectory folder;
  return folder.path();
}

void read_all() {
  const auto registry = Registry::open(directory());
  if (!registry) {
    return;
  }
  auto& opened = const_cast<Registry&>(*registry);  // NOLINT: Result of a move-only value.
  if (const auto rows = opened.list()) {
    for (const ProcessRecord& row : *rows) {
      static_cast<void>(opened.find_process(row.process));
      static_cast<void>(opened.find_pid(row.pid));
      static_cast<void>(to_string(row.role));
      static_cast<void>(to_string(row.state));
      static_cast<void>(is_live(row.state));
    }
  }
}

void fuzz_file(std::span<const std::byte> bytes) {
  const std::string path = directory() + "/registry.sqlite";
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::filesystem::remove(path + suffix);
  }
  {
    const auto file = open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!file || !write_all(file->get(), bytes)) {
      std::abort();
    }
  }
  read_all();
}

int columns_of(sqlite3* database) {
  sqlite3_stmt* all = nullptr;
  sqlite3_prepare_v2(database, "SELECT * FROM processes", -1, &all, nullptr);
  const int columns = sqlite3_column_count(all);
  sqlite3_finalize(all);
  return columns;
}

void fuzz_row(std::span<const std::byte> bytes) {
  const std::string path = directory() + "/registry.sqlite";
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::filesystem::remove(path + suffix);
  }
  if (!Registry::open(directory())) {
    std::abort();
  }
  sqlite3* database = nullptr;
  sqlite3_open(path.c_str(), &database);
  const int columns = columns_of(database);
  std::string marks = "?";
  for (int i = 1; i < columns; ++i) {
    marks += ",?";
  }
  sqlite3_stmt* insert = nullptr;
  sqlite3_prepare_v2(database, ("INSERT OR REPLACE INTO processes VALUES (" + marks + ")").c_str(),
                     -1, &insert, nullptr);
  if (insert == nullptr) {
    std::abort();
  }
  for (int column = 1; column <= columns && bytes.size() > 1; ++column) {
    const auto kind = std::to_integer<unsigned>(bytes[0]);
    const std::size_t length = std::min<std::size_t>(kind / 4, bytes.size() - 1);
    const void* value = bytes.data() + 1;
    if (kind % 4 == 0) {
      std::int64_t number = 0;
      std::copy_n(bytes.data() + 1, std::min<std::size_t>(8, bytes.size() - 1),
                  reinterpret_cast<std::byte*>(&number));
      sqlite3_bind_int64(insert, column, number);
    } else if (kind % 4 == 1) {
      sqlite3_bind_text(insert, column, static_cast<const char*>(value), static_cast<int>(length),
                        nullptr);
    } else if (kind % 4 == 2) {
      sqlite3_bind_blob(insert, column, value, static_cast<int>(length), nullptr);
    } else {
      sqlite3_bind_double(insert, column, 1e300);
    }
    bytes = bytes.subspan(1 + length);
  }
  sqlite3_step(insert);
  sqlite3_finalize(insert);
  sqlite3_close(database);
  read_all();
}

}  // namespace
}  // namespace migrate

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 1) {
    const auto rest = std::as_bytes(std::span(data + 1, size - 1));
    if (data[0] % 2 == 0) {
      migrate::fuzz_file(rest);
    } else {
      migrate::fuzz_row(rest);
    }
  }
  return 0;
}
