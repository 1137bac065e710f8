#pragma once

#include <sys/types.h>

#include <functional>
#include <initializer_list>
#include <optional>
#include <string>

#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/carriers/memory_content.h"
#include "libmigrate/image/only_process.h"
#include "libmigrate/image/refusal.h"
#include "libmigrate/inspect/process_inspector.h"
#include "libmigrate/proto/image.pb.h"

namespace migrate::test {

/// ThreadSanitizer maps files that it has deleted, which is refused.
#ifdef __SANITIZE_THREAD__
inline constexpr bool kOfThreadSanitizer = true;
#elif defined(__has_feature)
inline constexpr bool kOfThreadSanitizer = __has_feature(thread_sanitizer);
#else
inline constexpr bool kOfThreadSanitizer = false;
#endif

/// A process as a source comes to see it: inspected, frozen, and captured into an image. The
/// calling thread becomes its tracer. At the end of its life the process runs on, unless it was
/// parked.
class CapturedProcess {
 public:
  /// Fails the test if the process cannot be moved, and is not valid then.
  explicit CapturedProcess(pid_t process, KnownObjects known = {});

  bool valid() const { return valid_; }
  FrozenProcess& frozen() { return *frozen_; }
  const wire::Image& draft() const { return draft_; }
  wire::Image& image() { return image_; }
  /// What is in memory files.
  const carriers::ContentFiles& content_files() const { return content_files_; }
  wire::ProcessImage& process() { return mutable_only_process(image_); }
  /// Of what only the process itself could tell: these do not fail the test.
  const Refusals& refusals() const { return refusals_; }

 private:
  Result<void> capture(pid_t process, KnownObjects known);

  wire::Image draft_;
  wire::Image image_;
  Refusals refusals_;
  carriers::ContentFiles content_files_;
  std::optional<FrozenProcess> frozen_;
  bool valid_ = false;
};

/// An image without what is another one each time that one looks: what is left of timers and waits,
/// and the pages of the program's own that were read.
wire::Image lasting(wire::Image image);

/// The first lines in which two images differ; empty if they are the same.
std::string difference(const wire::Image& one, const wire::Image& other);

/// In a process of a test: handles these signals by counting them.
void count(std::initializer_list<int> signals);
/// How often `process`, a copy of this one, has handled a signal.
int counted(pid_t process, int signal);
/// In a process of a test: the calling thread holds these signals back.
void hold_back(std::initializer_list<int> signals);

/// Whether `holds` comes to hold. Gives up after some seconds.
bool comes_true(const std::function<bool()>& holds);

}  // namespace migrate::test
