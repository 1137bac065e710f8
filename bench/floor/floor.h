#pragma once
// What the floors share: time, sockets, ways to wait, processes that they start.
//
// A floor does only what cannot be avoided, in as many processes as the engine, between the same
// hosts and in the same direction, and takes the best of several arrangements.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace floors {

inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kRequestBytes = 24;

/// How who waits for bytes or for a fault does so.
enum class Way : std::uint8_t { kBlocking, kPolling, kYielding };
inline constexpr Way kWays[] = {Way::kBlocking, Way::kPolling, Way::kYielding};
const char* name_of(Way way);

/// What the first bytes of a connection ask of the server.
enum class Kind : std::uint8_t { kPages, kStream, kCopied, kFreeze };
struct Hello {
  std::uint64_t bytes = 0;  // to stream; of an image
  std::uint64_t offset = 0;
  std::uint64_t block = 0;
  std::int32_t processor = -1;  // on which the server runs; -1: on any
  std::uint32_t threads = 0;
  Kind kind = Kind::kPages;
  Way way = Way::kBlocking;
};

struct Server {
  const char* host;
  const char* port;
};

[[noreturn]] void die(const char* what);
std::int64_t now_ns();

/// Of how many processors this process was given, and one of them.
int processor_count();
void run_on(int processor);  // -1: on any of them
void give_way(Way way);      // between two looks

/// Receives exactly as many bytes; false at the end of the stream.
bool receive(int socket, void* bytes, std::size_t length, Way way = Way::kBlocking);
void send_all(int socket, const void* bytes, std::size_t length);
int connect_to(const Server& server, const Hello& hello);
[[noreturn]] void serve(const char* port);

/// A child that runs `body` and then ends; it dies with its parent.
pid_t start(const std::function<void()>& body);
void end(pid_t child);
void* map_private(std::size_t bytes, int more_flags = 0);
void* map_shared(std::size_t bytes);

/// A child whose `bytes` of memory at `start` are filled by whoever has its userfaultfd.
struct Filled {
  pid_t child = -1;
  int userfault = -1;
  std::uint64_t start = 0;
};
/// `body` runs in the child once `go()` was called.
class FilledChild {
 public:
  FilledChild(std::size_t bytes, const std::function<void(volatile char*)>& body);
  ~FilledChild();
  FilledChild(const FilledChild&) = delete;
  FilledChild& operator=(const FilledChild&) = delete;

  int userfault() const { return filled_.userfault; }
  std::uint64_t start() const { return filled_.start; }
  void go();

 private:
  Filled filled_;
  int to_child_ = -1;
};

/// Copies bytes to pages of a FilledChild; what is there already stays.
void copy_in(int userfault, std::uint64_t to, const void* from, std::size_t bytes);

double quantile_us(std::vector<std::int64_t>& times_ns, double share);

// The servers' parts.
void serve_pages(int socket, const Hello& hello);
void serve_stream(int socket, const Hello& hello);
void serve_freezes(int socket, const Hello& hello);

// The clients' parts; each prints one JSON object.
void measure_fault(const Server& server, std::size_t count);
void measure_local_fault(std::size_t count);
void measure_freeze(const Server& server, std::uint32_t threads, std::size_t image_bytes,
                    int rounds);
void measure_drain(const Server& server, std::size_t bytes);
void measure_memory(std::size_t bytes);

}  // namespace floors
