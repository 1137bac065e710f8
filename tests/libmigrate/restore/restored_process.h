#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "libmigrate/cell/cell.h"
#include "libmigrate/restore/restorer.h"
#include "libmigrate/state/session_file.h"
#include "tests/libmigrate/capture/captured_process.h"
#include "tests/transport/temporary_directory.h"

namespace migrate::test {

/// A process that was captured here and made anew in a cell here, with all of its memory, while the
/// first one still stands frozen. It is as a worker leaves it that has let it go. What lives in the
/// cell is ended at the end of its life.
class RestoredProcess {
 public:
  struct Options {
    /// An earlier draft: the process has changed since.
    std::optional<wire::Image> draft = {};
    /// What is made of the images before they are used.
    std::function<void(wire::Image& image)> change = [](wire::Image&) {};
    std::function<void(wire::Image& draft)> change_draft = [](wire::Image&) {};
    /// How far it is brought: it is released from our life, it runs.
    bool release = true;
    bool run = true;
    /// As if a file of the process's were to be opened by a stranger's.
    bool trusted = true;
  };

  explicit RestoredProcess(pid_t process) : RestoredProcess(process, Options()) {}
  RestoredProcess(pid_t process, const Options& options);
  ~RestoredProcess();
  RestoredProcess(const RestoredProcess&) = delete;
  RestoredProcess& operator=(const RestoredProcess&) = delete;

  const Result<void>& outcome() const { return outcome_; }
  CapturedProcess& source() { return source_; }
  Cell& cell() { return *cell_; }
  /// As this host sees it.
  pid_t pid() const { return cell_->seed(); }
  std::string folder() const { return "/proc/" + std::to_string(pid()); }
  /// For who captures it again: its namespaces are its cell's.
  KnownObjects known() const;

 private:
  Result<void> restore(pid_t process, const Options& options);
  Result<void> copy_memory(pid_t process);

  CapturedProcess source_;
  TemporaryDirectory directory_;
  std::optional<SessionFile> file_;
  std::optional<Cell> cell_;
  std::optional<Restorer> restorer_;
  Result<void> outcome_;
};

/// lasting(), without what is another one in each copy: inodes of what was made anew, the session,
/// and of which file a page was that is private by now.
wire::Image portable(wire::Image image);

}  // namespace migrate::test
