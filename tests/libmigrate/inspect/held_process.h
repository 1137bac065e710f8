#pragma once

#include <sys/types.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "libmigrate/inspect/process_inspector.h"

namespace migrate::test {

/// A forked process that has run `prepare` and waits to be inspected; killed and reaped at the end
/// of its life.
class HeldProcess {
 public:
  /// Returns when `prepare` has been run. Standard streams of the process are /dev/null, and no
  /// other descriptor is open but those that `prepare` opens.
  explicit HeldProcess(const std::function<void()>& prepare);
  HeldProcess(const HeldProcess&) = delete;
  HeldProcess& operator=(const HeldProcess&) = delete;
  ~HeldProcess();

  pid_t pid() const { return pid_; }
  /// Seizes and interrupts every thread; the calling thread becomes the tracer.
  void freeze() const;

 private:
  pid_t pid_ = -1;
};

/// An inspection that must succeed.
Inspection inspect(pid_t pid, KnownObjects known = {});

/// The codes of refusals.
std::set<std::string> codes(const std::vector<wire::Refusal>& refusals);
/// The refusals as text for failures.
std::string text(const std::vector<wire::Refusal>& refusals);

/// The open file of a descriptor; fails the test if there is none.
wire::OpenFile open_file_of(const wire::Image& image, std::uint32_t number);

/// The mapping that holds an address; an empty one after failing the test if there is none.
wire::Mapping mapping_at(const wire::Image& image, const void* address);

}  // namespace migrate::test
