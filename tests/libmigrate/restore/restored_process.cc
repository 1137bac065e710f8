#include "tests/libmigrate/restore/restored_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "base/clock.h"
#include "base/file.h"
#include "libmigrate/capture/timer_advance.h"
#include "libmigrate/image/address_space.h"
#include "libmigrate/restore/descriptors.h"

namespace migrate::test {

RestoredProcess::RestoredProcess(pid_t process, const Options& options) : source_(process) {
  if (source_.valid()) {
    outcome_ = restore(process, options);
  }
}

RestoredProcess::~RestoredProcess() {
  restorer_.reset();
  if (cell_) {
    EXPECT_TRUE(cell_->end_and_wait());
  }
  // Later children of this process live in its own time again, and not in that of a cell.
  const auto own = open_file("/proc/self/ns/time", O_RDONLY);
  EXPECT_TRUE(own && ::setns(own->get(), CLONE_NEWTIME) == 0);
}

Result<void> RestoredProcess::restore(pid_t process, const Options& options) {
  wire::Image draft = options.draft.value_or(source_.draft());
  options.change_draft(draft);
  wire::Image& image = source_.image();
  options.change(image);
  std::filesystem::create_directory(SessionFile::directory(directory_.path()));
  file_.emplace(MIGRATE_TRY(SessionFile::create(directory_.path(), "cell-1")));
  CellOptions cell;
  cell.process_id = only_process(image).process_id();
  cell.highest_descriptor = highest_descriptor(only_process(draft));
  cell.socket_path = directory_.file("cell");
  cell.session_file = file_->fd();
  cell_.emplace(MIGRATE_TRY(Cell::create(cell)));
  restorer_.emplace(MIGRATE_TRY(Restorer::create(*cell_, options.trusted)));
  MIGRATE_TRY(restorer_->prepare(draft));
  const MappingPlan plan = restorer_->plan(image);
  MIGRATE_TRY(restorer_->adapt(image, plan));
  carriers::ContentPlace from(image.objects());
  for (carriers::ContentPlace to(image.objects()); !to.at_end();) {
    MIGRATE_TRY(
        restorer_->fill(to, MIGRATE_TRY(carriers::read_content(from, source_.content_files()))));
  }
  MIGRATE_TRY(copy_memory(process));
  advance_timers(*image.mutable_objects(), mutable_only_process(image), clock_ns(CLOCK_MONOTONIC));
  MIGRATE_TRY(restorer_->finish(image, {}));
  if (options.release) {
    MIGRATE_TRY(restorer_->release());
  }
  return options.run ? restorer_->run() : Result<void>();
}

// Instead of a pager.
Result<void> RestoredProcess::copy_memory(pid_t process) {
  const auto memory_of = [](pid_t owner) {
    return open_file("/proc/" + std::to_string(owner) + "/mem", O_RDWR);
  };
  const UniqueFd from = MIGRATE_TRY(memory_of(process));
  const UniqueFd to = MIGRATE_TRY(memory_of(cell_->seed()));
  const wire::Image& image = source_.image();
  std::array<std::byte, kPageBytes> page;
  const std::array<std::byte, kPageBytes> zeros{};
  for (const wire::Mapping& mapping : only_process(image).mappings()) {
    const bool paged = is_paged(image.objects(), mapping);
    for (std::uint64_t at = mapping.start(); paged && at < mapping.end(); at += kPageBytes) {
      const auto place = static_cast<off_t>(at);
      const bool is_there = ::pread(from.get(), page.data(), page.size(), place) > 0;  // No guard.
      const bool is_zero = std::memcmp(page.data(), zeros.data(), page.size()) == 0;
      if (is_there && !is_zero && ::pwrite(to.get(), page.data(), page.size(), place) < 0) {
        return fail(system_error("copy", mapping.name()));
      }
    }
  }
  return {};
}

KnownObjects RestoredProcess::known() const {
  KnownObjects known;
  const std::vector<std::string> names = list_directory(folder() + "/ns").value();
  for (const std::string& name : names) {
    known.own_namespaces.insert(read_link(folder() + "/ns/" + name).value());
  }
  return known;
}

namespace {

/// Of private memory only the bytes count, whatever it once was of; neighbours are one.
void join_mappings(wire::ProcessImage& process, const wire::Objects& objects) {
  wire::ProcessImage joined;
  for (wire::Mapping mapping : process.mappings()) {
    if (mapping.kind() == wire::Mapping::FILE_COPY) {
      mapping.set_kind(wire::Mapping::ANONYMOUS);
      mapping.clear_name();
    } else if (mapping.kind() == wire::Mapping::FILE_LOCAL ||
               mapping.kind() == wire::Mapping::SHARED_FILE) {
      mapping.set_name(objects.mapped_files(static_cast<int>(mapping.file())).path());
    }
    mapping.clear_file();
    if (mapping.kind() == wire::Mapping::SHARED_MEMORY) {
      mapping.clear_name();  // What was nobody's is a memfd now.
    }
    if (mapping.kind() == wire::Mapping::ANONYMOUS) {
      mapping.clear_offset();
    }
    if (joined.mappings_size() > 0 && mapping.kind() == wire::Mapping::ANONYMOUS) {
      wire::Mapping& last = *joined.mutable_mappings(joined.mappings_size() - 1);
      wire::Mapping grown = last;
      grown.set_start(mapping.start());
      grown.set_end(mapping.end());
      if (last.end() == mapping.start() &&
          grown.SerializeAsString() == mapping.SerializeAsString()) {
        last.set_end(mapping.end());
        continue;
      }
    }
    *joined.add_mappings() = mapping;
  }
  process.mutable_mappings()->Swap(joined.mutable_mappings());
}

}  // namespace

wire::Image portable(wire::Image image) {
  image = lasting(std::move(image));
  wire::ProcessImage& process = mutable_only_process(image);
  // The kernel lists what was made last first.
  std::ranges::sort(*process.mutable_posix_timers(), {}, &wire::PosixTimer::id);
  join_mappings(process, image.objects());
  image.mutable_objects()->clear_mapped_files();
  for (wire::SharedMemory& memory : *image.mutable_objects()->mutable_shared_memories()) {
    memory.clear_inode();
    if (!memory.open_descriptor()) {
      memory.clear_seals();  // There is nobody who could look.
    }
  }
  for (wire::OpenFile& file : *image.mutable_objects()->mutable_files()) {
    constexpr std::uint32_t kLargeFile = 0100000;  // As who opened it was compiled.
    file.set_flags(file.flags() & ~kLargeFile);
  }
  for (wire::Pipe& pipe : *image.mutable_objects()->mutable_pipes()) {
    pipe.clear_inode();
  }
  for (wire::SocketPair& pair : *image.mutable_objects()->mutable_socket_pairs()) {
    pair.mutable_first()->clear_inode();
    pair.mutable_second()->clear_inode();
  }
  return image;
}

}  // namespace migrate::test
