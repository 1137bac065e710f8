#pragma once

namespace migrate {

/// Whether this process had more than one processor to run on when it first asked. Who polls on the
/// only one keeps it from those that it waits for. Thread-safe.
bool has_several_processors();

}  // namespace migrate
