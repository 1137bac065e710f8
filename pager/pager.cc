#include "pager/pager.h"

#include <sys/eventfd.h>

#include <utility>

#include "pager/internal/pager_core.h"

namespace migrate {

Pager::Pager(std::unique_ptr<PagerCore> core) : core_(std::move(core)) {}

Pager::~Pager() = default;

Result<std::unique_ptr<Pager>> Pager::create(PagerOptions options, Userfault userfault,
                                             std::vector<PagerRegion> regions,
                                             std::vector<UniqueFd> local_files) {
  UniqueFd kick(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!kick.valid()) {
    return fail(system_error("eventfd"));
  }
  auto core =
      std::make_unique<PagerCore>(std::move(options), std::move(local_files), std::move(kick));
  core->add_first_space(std::move(userfault));
  MIGRATE_TRY(core->set_regions(regions));
  return std::unique_ptr<Pager>(new Pager(std::move(core)));
}

Result<std::unique_ptr<Pager>> Pager::adopt(PagerOptions options, std::vector<AdoptedSpace> spaces,
                                            std::vector<UniqueFd> local_files) {
  UniqueFd kick(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!kick.valid()) {
    return fail(system_error("eventfd"));
  }
  auto core =
      std::make_unique<PagerCore>(std::move(options), std::move(local_files), std::move(kick));
  MIGRATE_TRY(core->adopt(std::move(spaces)));
  return std::unique_ptr<Pager>(new Pager(std::move(core)));
}

std::vector<PagerSpace> Pager::spaces() const {
  return core_->spaces();
}

Result<void> Pager::update_regions(std::vector<PagerRegion> regions) {
  return core_->set_regions(regions);
}

Result<void> Pager::stage(const PushView& push, int memory, std::uint64_t most_pages) {
  return core_->stage(push, memory, most_pages);
}

Result<void> Pager::keep_staged(const PageSet& kept, const DiscardPages& discard) {
  return core_->keep_staged(kept, discard);
}

void Pager::launch() {
  core_->launch();
}

void Pager::ask_first(std::vector<PageRange> ranges) {
  core_->ask_first(std::move(ranges));
}

void Pager::advise(std::vector<AccessAdvice> advice) {
  core_->advise(std::move(advice));
}

void Pager::set_local_files(std::vector<UniqueFd> local_files) {
  core_->set_local_files(std::move(local_files));
}

Result<void> Pager::install_starter(std::uint64_t address, std::span<const std::byte> bytes) {
  return core_->install_starter(address, bytes);
}

Result<void> Pager::start(std::unique_ptr<PageLink> urgent, std::unique_ptr<PageLink> bulk) {
  started_ = true;
  return core_->start(std::move(urgent), std::move(bulk));
}

Result<void> Pager::resume(std::unique_ptr<PageLink> urgent, std::unique_ptr<PageLink> bulk) {
  return core_->resume(std::move(urgent), std::move(bulk));
}

Result<void> Pager::wait_all_present(int timeout_ms) {
  return core_->wait_all_present(timeout_ms);
}

std::uint64_t Pager::owed_pages() const {
  return core_->owed_pages();
}

bool Pager::done() const {
  return core_->done();
}

PagerStatistics Pager::statistics() const {
  return core_->statistics();
}

ArrivalTrace Pager::arrivals() const {
  return core_->arrivals();
}

void Pager::stop() {
  core_->stop();
}

}  // namespace migrate
