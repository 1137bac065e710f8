#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/result.h"
#include "libmigrate/pages/one_sided_link.h"
#include "libmigrate/proto/image.pb.h"
#include "pager/access_advice.h"
#include "pager/page_reader.h"
#include "pager/page_server.h"
#include "transport/channel.h"

namespace migrate {

/// Serves the pages of a frozen process with two threads of its own, one for each channel.
/// Created and used by the source's worker thread.
class PageFeed {
 public:
  /// Nothing runs yet. `memory`: /proc/PID/mem of the frozen process. Errors: as PageServer and
  /// ProcessPageReader.
  static Result<std::unique_ptr<PageFeed>> create(pid_t process, UniqueFd memory,
                                                  const wire::Image& image,
                                                  const PageServerOptions& options);
  /// Stops.
  ~PageFeed();

  /// Serves faults over `urgent` from now on.
  void serve(std::shared_ptr<Channel> urgent);
  /// Begins to let the destination read shared memory by itself, where `urgent` can
  /// (OneSidedChannel); once for each. A thread of its own pins it, which takes seconds where there
  /// is much.
  void expose_memory();
  /// Sends presence and pushes over `bulk`, `pause` from now on.
  void push(std::shared_ptr<Channel> bulk, std::chrono::microseconds pause);
  /// Another process holds the memory, too, and the first may end.
  void follow(pid_t process);
  /// Breaks the channels and ends the threads; serve() and push() may follow.
  void disconnect();
  /// disconnect() for good.
  void stop();

  /// A thread's link broke: disconnect(), then give new channels.
  bool broken() const { return broken_; }
  PageServer& server() { return *server_; }
  std::uint64_t wire_bytes() const;

 private:
  PageFeed() = default;
  void note_broken(const char* which, Channel& channel, const Error& error);

  std::unique_ptr<ProcessPageReader> reader_;
  std::unique_ptr<PageServer> server_;
  std::atomic<pid_t> process_ = 0;
  std::vector<ServedRegion> regions_;
  std::shared_ptr<Channel> urgent_;
  std::shared_ptr<OfferingLink> urgent_link_;
  bool exposed_ = false;  // over urgent_, or begun to be
  std::atomic<bool> ends_exposing_ = false;
  std::shared_ptr<Channel> bulk_;
  std::thread urgent_thread_;
  std::thread bulk_thread_;
  std::thread exposing_thread_;
  std::atomic<bool> broken_ = false;
  std::uint64_t earlier_bytes_ = 0;  // over channels that broke
};

/// The mappings of an image that a page server serves and a pager fills.
std::vector<ServedRegion> served_regions(const wire::Objects& objects,
                                         const wire::ProcessImage& image);
/// What an image says of how its pages come.
std::vector<PushedRange> pushed_ranges(const wire::ProcessImage& image);
/// How the process walks through memory, as it says.
std::vector<AccessAdvice> access_advice(const wire::ProcessImage& image);
std::vector<PagerRegion> pager_regions(const wire::Objects& objects,
                                       const wire::ProcessImage& image);

/// Pages that nearly every process touches at once when it goes on: small data segments and what
/// relocation wrote of its program and libraries. Addresses at the destination.
std::vector<PageRange> pages_touched_first(const wire::ProcessImage& image);

}  // namespace migrate
