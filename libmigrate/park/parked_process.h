#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "libmigrate/capture/frozen_process.h"
#include "libmigrate/proto/image.pb.h"
#include "pager/page_range.h"
#include "transport/preamble.h"

namespace migrate {

/// What stands in the parking page of a parked process, after what its leader's loop uses.
struct ParkingNotes {
  std::uint32_t pipe[2] = {};      ///< Its descriptors of the pipe for signals.
  std::uint32_t signal_count = 0;  ///< Those that came between capture and parking, in the data.
};

/// What stands at the start of a parked process's record, before the serialised image.
struct ParkingRecord {
  static constexpr std::uint64_t kMagic = 0x323050'4b52414d4cULL;  // "LMARKP02", a mark to find it

  std::uint64_t magic = kMagic;
  SessionId session{};
  SessionId process{};
  std::uint64_t area_bytes = 0;  ///< Of the whole script area.
  std::uint64_t image_bytes = 0;
};

/// A process that has moved away, kept at the source: first as the store of its memory, at home
/// then also as the deputy, which keeps the pid. All its threads are in loops that touch nothing
/// but the script area, with every signal blocked: if the tracer dies, only the loops run. The
/// record in the script area (ParkingRecord, then the image) holds all that is needed to serve its
/// pages or to bring it back. Owned by the thread that froze it.
class ParkedProcess {
 public:
  /// Bytes of record to reserve for what `draft` may have become when it is parked.
  static std::uint64_t record_bytes(const wire::Image& draft);

  /// Writes the record, with `image` as Image::SerializeAsString() made it. It counts only once the
  /// process is parked: that is, its leader in the loop. Errors: kRetry (the image outgrew the
  /// place that record_bytes() reserved), kSystem.
  static Result<void> write_record(const FrozenProcess& frozen, std::string_view image,
                                   const SessionId& session, const SessionId& process);

  /// Parks, after write_record() of the same image: only then may another host be told to run the
  /// process. On error the process runs on, or has ended if it starts elsewhere. Signals that
  /// arrived since `image` was captured are in signals().
  static Result<ParkedProcess> park(FrozenProcess& frozen, const wire::ProcessImage& image);

  /// Takes over a process whose tracer died: becomes the tracer of every thread and reads the
  /// record at `area` into `image`. Errors: kNotFound (it is gone, or was not parked for
  /// this session and runs on; threads that the tracer left half-way are brought back), kSystem.
  static Result<ParkedProcess> adopt(pid_t process, std::uint64_t area, const SessionId& session,
                                     wire::Image& image);

  /// Takes over the keeper `process` (see make_keeper) of a worker that died. Errors: as adopt().
  static Result<ParkedProcess> adopt_keeper(pid_t process, std::uint64_t area,
                                            const SessionId& session, wire::Image& image);

  ParkedProcess(ParkedProcess&&) noexcept = default;

  pid_t process() const { return process_; }
  /// /proc/PID/mem of its address space, whatever the process is made to run. Errors: kSystem.
  Result<UniqueFd> memory() const { return area_.duplicate_memory(); }
  /// Where the parked leader writes the siginfo of each signal, 128 bytes each.
  int signal_pipe() const { return signal_pipe_.get(); }
  const std::vector<std::string>& signals() const { return signals_; }

  /// Brings it back, running and no longer traced, with the signals that came meanwhile: only
  /// before settle(), and if it is certain that the process runs nowhere else and never will.
  Result<void> unpark(const wire::ProcessImage& image);

  /// After the destination runs: ends all threads but the leader, closes every descriptor but
  /// `kept`, and lets the leader wait for signals.
  Result<void> settle(const std::set<std::uint32_t>& kept);
  /// Keeps the process's user out of its memory, as settle() does: only once it will never be
  /// brought back. Closes `descriptors`, as no other may have what is locked by them.
  Result<void> hide(const std::vector<std::uint32_t>& descriptors = {});
  /// Gives memory back that the destination has.
  Result<void> free(const std::vector<PageRange>& ranges);
  /// Gives all memory back but the script area and a small stack, where ps finds the command line.
  Result<void> free_all();
  /// Closes descriptors of the deputy.
  Result<void> close(const std::vector<std::uint32_t>& descriptors);
  /// Accepts a connection that waits at `listener`, as a descriptor that is `from` or above it,
  /// where it has `others`. Errors: kRetry (its limit is reached: nothing was accepted), kSystem.
  Result<std::uint32_t> accept(std::uint32_t listener, std::uint32_t from, std::size_t others);
  /// Makes a socket of `type` as the process would, with the name `local` (a sockaddr) or, where
  /// that is taken, another of the same address, and connects it to `peer` if that is not empty,
  /// without waiting. The descriptor is as that of accept(); of an error of connect(2) the number
  /// is told. Errors: as accept().
  struct MadeSocket {
    std::uint32_t descriptor = 0;
    int error = 0;
  };
  Result<MadeSocket> make_socket(int type, const std::string& local, const std::string& peer,
                                 std::uint32_t from, std::size_t others);
  /// Makes a socket of TCP that listens, as the process would, at `name` (a sockaddr) and at no
  /// other. The descriptor is as that of accept(). Errors: the same.
  Result<std::uint32_t> listen(const std::string& name, bool only_ipv6, int backlog,
                               std::uint32_t from, std::size_t others);
  /// Makes a pipe, of which it keeps the end for reading. The descriptor is as that of accept().
  /// Errors: the same.
  Result<std::uint32_t> make_pipe(std::uint32_t from, std::size_t others);
  /// Makes a second process that shares the memory and outlives this one: the keeper. It is a child
  /// of the deputy (when that has ended, its init's), holds no descriptors but `kept`, waits with
  /// all signals blocked, and is to be given to nobody but end(). After settle(). Errors: kSystem.
  Result<ParkedProcess> make_keeper(const std::set<std::uint32_t>& kept);
  /// Ends the children of a parked process that share its memory: keepers of which nobody took
  /// note.
  static void end_children(pid_t process);
  /// Kills it, and waits for its end as its tracer.
  void end();
  /// Ends the process the way that `wait_status` tells, and reaps it as its tracer.
  Result<void> end_as(int wait_status);

  /// Handles a change of state of the leader that wait(2) has to tell. Returns the number of a
  /// signal that stopped it, 0 if nothing did, -1 if the process has ended.
  Result<int> check_state();

 private:
  struct ParkedThread {
    pid_t host_id = 0;
    std::uint32_t id = 0;  // as the process itself sees it
  };

  ParkedProcess(pid_t process, const ScriptArea& area) : process_(process), area_(area) {}

  Result<void> park_threads(FrozenProcess& frozen, const wire::ProcessImage& image);
  Result<void> outlive_tracer() const;
  Result<void> park_leader(const FrozenProcess& frozen, const wire::ProcessImage& image);
  Result<void> keep_signals_of(pid_t thread, const wire::Thread& known,
                               std::vector<std::string> taken, const wire::ProcessImage& image);
  void keep_signals(std::vector<std::string> taken, const wire::ProcessImage& image);
  Result<void> fetch_pipe(const ParkingNotes& notes);
  Result<void> read_record(const SessionId& session, wire::Image& image);
  Result<void> seize_threads();
  Result<bool> stop_seized(pid_t thread);
  bool stands_in_area() const;
  Result<bool> read_state();
  Result<void> bring_back(const wire::ProcessImage& image);
  Result<void> bring_back_strays(const wire::ProcessImage& image);
  Result<void> resume_loop();
  Result<void> prepare_keeper(const arch::GeneralRegisters& registers,
                              const std::set<std::uint32_t>& kept);
  Result<void> await_idle();
  Result<std::vector<std::string>> signals_to_give_back(const wire::ProcessImage& image);
  Result<void> unpark_thread(const ParkedThread& thread, const wire::ProcessImage& image);
  Result<void> put_back(const wire::ProcessImage& image);
  Result<arch::GeneralRegisters> stop_leader();
  Result<void> take_carried(const arch::GeneralRegisters& registers);
  Result<void> run_in_leader(Script& script);
  Result<std::uint64_t> number_for_another(std::uint32_t from, std::size_t others) const;

  pid_t process_;
  ScriptArea area_;
  std::vector<ParkedThread> threads_;  // the leader first
  UniqueFd signal_pipe_;
  std::set<std::uint32_t> pipe_descriptors_;  // in the process
  std::vector<std::string> signals_;
  bool looping_ = false;
  bool listening_ = false;   // in a job control stop
  bool stop_again_ = false;  // a job control stop came while a script was to run
};

}  // namespace migrate
