#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libmigrate/arch/arch.h"
#include "libmigrate/park/parked_process.h"
#include "libmigrate/proto/image.pb.h"
#include "libmigrate/trace/script.h"

namespace migrate {

/// The parking page: what the leader's loop uses, and notes beside it. Fresh memory is all zero.
struct ParkingPage {
  arch::ParkingData data;
  ParkingNotes notes;
};

/// Null if the image has no such thread. Borrowed.
const wire::Thread* find_thread(const wire::ProcessImage& image, std::uint32_t id);

/// Registers with which a parked thread that is not the leader waits.
arch::GeneralRegisters idle_registers(const arch::GeneralRegisters& own, const ScriptArea& area);

/// Cuts a thread's ties to its memory, so that the kernel does not write there when it ends.
void script_untie(Script& script, const wire::Thread& thread);
/// Ties them again; those that were never cut stay.
void script_tie(Script& script, const wire::Thread& thread);

/// While the process is parked, the signal by which scripts end has its default action (`image`
/// null): a script that loses its tracer shall run no code of the program.
void script_action(Script& script, const wire::ProcessImage* image);

/// Timers would fire in both places: stops them (`armed` false) or starts them again as captured.
void script_timers(Script& script, const wire::ProcessImage& image, bool armed);

/// The pending signals of an image that the parked leader takes: the process's and its own.
std::vector<std::string> captured_signals(const wire::ProcessImage& image);
/// Whether a timer sent `signal` (a siginfo_t).
bool is_of_timer(const std::string& signal);

}  // namespace migrate
