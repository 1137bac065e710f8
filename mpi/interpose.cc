// The functions of MPI that this library puts in front of those of the MPI library, MPI_X and
// PMPI_X both: C calls the first, and the Fortran interfaces of Open MPI (mpif.h, mpi, mpi_f08)
// call the second.
//
// Each is an instance of one template, whose arguments mpi.h gives, and which the symbol leads to
// when it is bound (an indirect function).

#include <mpi.h>

#include <atomic>
#include <tuple>
#include <type_traits>

#include "mpi/library.h"
#include "mpi/meter.h"

namespace migrate::mpi {
namespace {

enum class Kind { kStarts, kWaits, kCollective, kOther };
/// What of its arguments a call sends.
enum class Sends {
  kNothing,
  kMessage,    ///< Buffer, count, type, destination.
  kOwn,        ///< Buffer, count, type.
  kOwnToEach,  ///< The same for each rank.
  kReduced,    ///< Buffer, result, count, type.
  kRoot,       ///< Buffer, count, type, of the root, whose number stands before the communicator.
  kRootToEach,
};

template <typename Wanted, typename... Arguments>
constexpr std::size_t index_of() {
  std::size_t index = 0;
  (void)((std::is_same_v<Wanted, Arguments> || (++index, false)) || ...);
  return index;
}

/// The measured call of a function, of which `Name` has the name.
template <typename Function, typename Name, Kind kKind, Sends kSends>
struct Measured;

template <typename... Arguments, typename Name, Kind kKind, Sends kSends>
struct Measured<int(Arguments...), Name, kKind, kSends> {
  using Function = int (*)(Arguments...);

  static constexpr std::size_t kCommunicator = index_of<MPI_Comm, Arguments...>();

  static int call(Arguments... arguments) {
    Function next = known.load(std::memory_order_relaxed);
    if (next == nullptr) {
      next = reinterpret_cast<Function>(find_function(Name::kText));
      known.store(next, std::memory_order_relaxed);
    }
    Meter& meter = Meter::get();
    if (!meter.is_on()) {
      return next(arguments...);
    }
    const std::tuple<Arguments...> all(arguments...);
    Site site{&known, __builtin_return_address(0), nullptr,
              kKind == Kind::kWaits || kKind == Kind::kCollective, kKind == Kind::kCollective};
    if constexpr (kCommunicator < sizeof...(Arguments)) {
      site.communicator = std::get<kCommunicator>(all);
    }
    const std::uint64_t begun_ns = meter.begin();
    count(meter, all);
    const int result = next(arguments...);
    meter.end(site, begun_ns);
    return result;
  }

 private:
  static void count(Meter& meter, const std::tuple<Arguments...>& all) {
    if constexpr (kSends == Sends::kMessage) {
      meter.sent(std::get<1>(all), std::get<2>(all), std::get<3>(all),
                 std::get<kCommunicator>(all));
    } else if constexpr (kSends == Sends::kReduced) {
      meter.gave(std::get<2>(all), std::get<3>(all), 1);
    } else if constexpr (kSends != Sends::kNothing) {
      if (std::get<0>(all) == MPI_IN_PLACE) {
        return;
      }
      const MPI_Comm communicator = std::get<kCommunicator>(all);
      if constexpr (kSends == Sends::kRoot || kSends == Sends::kRootToEach) {
        if (!meter.is_root(std::get<kCommunicator - 1>(all), communicator)) {
          return;
        }
      }
      const bool to_each = kSends == Sends::kOwnToEach || kSends == Sends::kRootToEach;
      meter.gave(std::get<1>(all), std::get<2>(all), to_each ? meter.size_of(communicator) : 1);
    }
  }

  // Found by the first call.
  static inline std::atomic<Function> known{nullptr};
};

}  // namespace
}  // namespace migrate::mpi

// NOLINTBEGIN(bugprone-macro-parentheses,bugprone-reserved-identifier): names are made here, no
// values.
#define MIGRATE_MEASURED(name, kind, sends)                                                  \
  namespace {                                                                                \
  struct Name##name {                                                                        \
    static constexpr const char* kText = "PMPI_" #name;                                      \
  };                                                                                         \
  }                                                                                          \
  extern "C" {                                                                               \
  static decltype(&PMPI_##name) migrate_find_##name() {                                      \
    using migrate::mpi::Kind;                                                                \
    using migrate::mpi::Sends;                                                               \
    return migrate::mpi::Measured<std::remove_pointer_t<decltype(&PMPI_##name)>, Name##name, \
                                  Kind::kind, Sends::sends>::call;                           \
  }                                                                                          \
  [[gnu::ifunc("migrate_find_" #name),                                                       \
    gnu::visibility("default")]] decltype(PMPI_##name) PMPI_##name;                          \
  [[gnu::ifunc("migrate_find_" #name),                                                       \
    gnu::visibility("default")]] decltype(MPI_##name) MPI_##name;                            \
  }
#include "mpi/calls.inc"
#undef MIGRATE_MEASURED
// NOLINTEND(bugprone-macro-parentheses,bugprone-reserved-identifier)

extern "C" {

#define MIGRATE_EXPORT [[gnu::visibility("default")]]

MIGRATE_EXPORT int PMPI_Init(int* argc, char*** argv) {
  const auto next =
      reinterpret_cast<decltype(&PMPI_Init)>(migrate::mpi::find_function("PMPI_Init"));
  const int result = next(argc, argv);
  if (result == MPI_SUCCESS) {
    migrate::mpi::Meter::get().start();
  }
  return result;
}

MIGRATE_EXPORT int PMPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  const auto next = reinterpret_cast<decltype(&PMPI_Init_thread)>(
      migrate::mpi::find_function("PMPI_Init_thread"));
  const int result = next(argc, argv, required, provided);
  if (result == MPI_SUCCESS) {
    migrate::mpi::Meter::get().start();
  }
  return result;
}

MIGRATE_EXPORT int PMPI_Finalize() {
  migrate::mpi::Meter::get().stop();
  return reinterpret_cast<decltype(&PMPI_Finalize)>(migrate::mpi::find_function("PMPI_Finalize"))();
}

// It is the measuring library's own: MPI does nothing in it.
MIGRATE_EXPORT int PMPI_Pcontrol(const int level, ...) {
  if (level == migrate::mpi::Meter::kStepLevel) {
    migrate::mpi::Meter::get().mark();
  }
  return MPI_SUCCESS;
}

MIGRATE_EXPORT int MPI_Init(int* argc, char*** argv) __attribute__((alias("PMPI_Init")));
MIGRATE_EXPORT int MPI_Init_thread(int* argc, char*** argv, int required, int* provided)
    __attribute__((alias("PMPI_Init_thread")));
MIGRATE_EXPORT int MPI_Finalize() __attribute__((alias("PMPI_Finalize")));
MIGRATE_EXPORT int MPI_Pcontrol(const int level, ...) __attribute__((alias("PMPI_Pcontrol")));
}
